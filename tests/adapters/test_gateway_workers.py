"""`purify serve --workers`: several processes behind one port, for real."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from multiprocessing import Pipe
from pathlib import Path
from queue import Queue
from typing import Any

import httpx
import pytest
import typer
from prometheus_client.parser import text_string_to_metric_families

from purify_adapters.gateway import gateway
from purify_adapters.gateway.metrics import COUNTERS, GAUGES, HISTOGRAMS, TENANTS, Metrics
from purify_adapters.gateway.server import GatewayServer, serve
from purify_adapters.sources.http.client import HttpClient
from purify_plugins.cli.metrics_folder import metrics_folder
from purify_plugins.cli.reload import refused
from purify_plugins.cli.worker_reload import Offer, Tried
from purify_plugins.cli.workers import WorkerReport
from purify_plugins.errors import ConfigError
from purify_plugins.store.checking import check
from purify_plugins.store.places import records_at
from purify_plugins.testbed import LLM, SLM
from tests.adapters.gateways import stubs

ASKED = {"inputs": "Once", "parameters": {"max_new_tokens": 2}}


@dataclass
class Running:
    """A gateway of two workers, and what it has said."""

    process: subprocess.Popen[bytes]
    log: Path

    @property
    def said(self) -> str:
        return self.log.read_text()

    @property
    def url(self) -> str:
        found = re.search(r"try: curl (http://[\d.:]+)", self.said)
        assert found
        return found[1]

    def served(self) -> set[int]:
        """The workers that have answered so far; one more request on a connection of its own."""
        httpx.post(f"{self.url}/generate", json=ASKED, timeout=60, trust_env=False).raise_for_status()
        return {int(found) for found in re.findall(r"(\d+) purify.access", self.said)}


def until(condition: Callable[[], Any], seconds: float = 240.0) -> Any:
    end = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < end
        time.sleep(0.1)
    return found


@pytest.fixture
def running(tmp_path: Path) -> Iterator[Running]:
    pair = ["--llm", str(LLM), "--slm", str(SLM), "--policy", "geometric", "--port", "0", "--drain", "5"]
    pair += ["--store", "sqlite:answers.db"]
    command = [sys.executable, "-m", "purify_plugins", "serve", *pair, "--workers", "2"]
    log = tmp_path / "log"
    with log.open("w") as said:
        process = subprocess.Popen(command, cwd=tmp_path, stderr=said)
        try:
            found = Running(process, log)
            until(lambda: "try: curl" in found.said or process.poll() is not None)
            yield found
        finally:
            process.kill()
            process.wait()


def counted(url: str) -> int:
    text = httpx.get(f"{url}/metrics", trust_env=False).text
    return int(re.search(r"^tgi_request_success (\d+)\.0$", text, re.M)[1])  # type: ignore[index]  # it is there


@pytest.mark.slow
@pytest.mark.alone
def test_two_workers_serve_one_port_one_that_dies_is_replaced_and_sigterm_ends_all(running: Running) -> None:
    """One summary; the counters are the sum of all workers', of the dead one's too."""
    pair = until(lambda: found if len(found := running.served()) == 2 else None)
    asked = running.said.count('"route": "generate"')
    until(lambda: counted(running.url) == asked)
    os.kill(min(pair), signal.SIGKILL)
    until(lambda: "another takes its place" in running.said)
    assert counted(running.url) == asked
    until(lambda: len(running.served() - {min(pair)}) == 2)
    running.process.send_signal(signal.SIGTERM)
    assert running.process.wait(60) == 0
    said = running.said
    records = records_at("sqlite:answers.db", running.log.parent)
    assert check(records.records()).answers == said.count('"route": "generate"')
    assert said.count("purify serve\n") == 1
    assert re.search(r"workers +2, about \d+ MB each, \d+ MB in all", said)
    assert f"worker {min(pair)} died (exit code -9)" in said
    assert "Traceback" not in said
    for process in map(int, re.findall(r"(\d+) purify.access", said)):
        with pytest.raises(ProcessLookupError):
            os.kill(process, 0)


def test_a_worker_refuses_what_its_plugins_leave_by_and_ends_once_it_can_read_no_more(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The thread that read its parent ended in silence: it took over nothing any more, and outlived it."""
    ours, theirs = Pipe()
    ended: Queue[Any] = Queue()
    monkeypatch.setattr(os, "kill", lambda *how: ended.put(how))
    monkeypatch.setattr(threading, "excepthook", lambda _: None)
    report = WorkerReport(theirs)
    report.attempt = sys.exit
    with ours, theirs:
        ours.send(Offer(1, "a plugin leaves"))
        assert ours.poll(60)
        assert ours.recv() == Tried(1, "SystemExit a plugin leaves")
        assert ended.empty()
        ours.send_bytes(b"what cannot be read")
        assert ended.get(timeout=60) == (os.getpid(), signal.SIGTERM)


def test_a_service_goes_on_where_nothing_reads_what_it_says(monkeypatch: pytest.MonkeyPatch) -> None:
    """The parent ended all its workers, and the thread that reloads ended for good."""

    def broken(*_: object, **__: object) -> None:
        raise BrokenPipeError

    monkeypatch.setattr(typer, "echo", broken)
    refused("a configuration")


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no SIGTERM")
def test_a_sigterm_before_uvicorn_has_taken_over_is_not_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    """The process went on for ever, and so did a worker whose parent had gone."""
    before, run, app = signal.getsignal(signal.SIGTERM), GatewayServer.run, gateway(stubs())
    late: list[int] = []

    def at_once(server: GatewayServer, sockets: Any) -> None:
        signal.raise_signal(signal.SIGTERM)

        def stop() -> None:
            late.append(1)
            server.should_exit = True

        waiting = threading.Timer(60, stop)
        waiting.start()
        run(server, sockets)
        waiting.cancel()

    monkeypatch.setattr(GatewayServer, "run", at_once)
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        try:
            serve(app, app.service, listener, "127.0.0.1", 0)
        finally:
            signal.signal(signal.SIGTERM, before)
    assert not late


def test_workers_share_the_slots_of_the_llm_s_server() -> None:
    """All of them together sent as many requests at once as each might."""
    wire = HttpClient("http://a")
    wire.share(4)
    assert wire._permits._value == wire.connections
    wire.limit(8)
    for workers, slots in ((1, 8), (3, 2), (4, 2), (16, 1)):
        wire.share(workers)
        assert wire._permits._value == slots


COUNTING = """
import os, signal, sys
from purify_adapters.gateway.metrics import Metrics

def work():
    metrics = Metrics()
    metrics.count("tgi_request_count", 3)
    metrics.fail("overloaded")
    metrics.observe("duration", 0.2)
    metrics.set({"tgi_queue_size": 2})

children = []
for ends in (True, False):
    reading, writing = os.pipe()
    if not (child := os.fork()):
        work()
        os.write(writing, b".")
        if not ends:
            signal.pause()
        os._exit(0)
    os.read(reading, 1)
    if ends:
        os.waitpid(child, 0)
own = Metrics()
own.count("tgi_request_count")
print(own.text({"tgi_queue_size": 1}))
os.kill(child, signal.SIGKILL)
"""


def test_counters_are_the_sum_of_all_and_gauges_that_of_the_living(tmp_path: Path) -> None:
    """Of three workers, one of which has died."""
    found = subprocess.run(
        [sys.executable, "-c", COUNTING],
        env={**os.environ, "PROMETHEUS_MULTIPROC_DIR": str(tmp_path)},
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    lines = found.splitlines()
    assert "tgi_request_count 7.0" in lines
    assert 'tgi_request_failure{err="overloaded"} 2.0' in lines
    assert "tgi_request_duration_count 2.0" in lines
    assert "tgi_queue_size 3.0" in lines
    alone = Metrics()
    alone.fail("overloaded")
    assert families(found) == families(alone.text({"tgi_queue_size": 1}))


def families(text: str) -> dict[str, str]:
    """Each metric's type, as prometheus_client's own parser reads an exposition."""
    found = list(text_string_to_metric_families(text))
    assert all(family.type in ("counter", "histogram", "gauge") for family in found)
    return {family.name: family.type for family in found if family.samples}


def test_the_exposition_is_prometheus_s_and_has_the_names_it_had() -> None:
    """Dashboards made for TGI ask for these, without the `_total` of prometheus_client's own counters."""
    metrics = Metrics()
    metrics.fail("overloaded")
    text = metrics.text(dict.fromkeys(GAUGES, 1))
    assert families(text) == {
        **dict.fromkeys((*COUNTERS, "tgi_request_failure"), "counter"),
        **dict.fromkeys(HISTOGRAMS, "histogram"),
        **dict.fromkeys(GAUGES, "gauge"),
    }
    for name in (*COUNTERS, "tgi_request_failure"):
        assert f"# TYPE {name} counter\n" in text
    assert set(re.findall(r"\w+_total", text)) == {f"purify_tenant_{name}_total" for name in TENANTS}
    assert "_created" not in text
    assert 'tgi_request_generated_tokens_bucket{le="16.0"} 0.0' in text


def test_metrics_that_cannot_be_written_are_an_error_before_anything_is_served(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (file := tmp_path / "file").touch()
    monkeypatch.setenv("PROMETHEUS_MULTIPROC_DIR", str(file / "folder"))
    with pytest.raises(ConfigError, match="cannot make the directory"), metrics_folder():
        pass
    monkeypatch.delenv("PROMETHEUS_MULTIPROC_DIR")
    monkeypatch.setattr(tempfile, "tempdir", str(file / "folder"))
    with pytest.raises(ConfigError, match="PROMETHEUS_MULTIPROC_DIR or TMPDIR"), metrics_folder():
        pass


def test_what_an_earlier_run_has_counted_is_not_counted_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "counter_7.db").touch()
    (tmp_path / "notes.db").touch()
    monkeypatch.setenv("PROMETHEUS_MULTIPROC_DIR", str(tmp_path))
    with metrics_folder():
        assert [file.name for file in tmp_path.iterdir()] == ["notes.db"]
