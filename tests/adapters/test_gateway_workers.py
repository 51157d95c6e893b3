"""`purify serve --workers`: several processes behind one port, for real."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from purify_adapters.gateway.metrics import Metrics, SharedMetrics
from purify_adapters.sources.http.client import HttpClient
from purify_plugins.testbed import LLM, SLM

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
    return int(re.search(r"^tgi_request_success (\d+)$", text, re.M)[1])  # type: ignore[index]  # it is there


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
    assert said.count("purify serve\n") == 1
    assert re.search(r"workers +2, about \d+ MB each, \d+ MB in all", said)
    assert f"worker {min(pair)} died (exit code -9)" in said
    assert "Traceback" not in said
    for process in map(int, re.findall(r"(\d+) purify.access", said)):
        with pytest.raises(ProcessLookupError):
            os.kill(process, 0)


def test_workers_share_the_slots_of_the_llm_s_server() -> None:
    """All of them together sent as many requests at once as each might."""
    wire = HttpClient("http://a")
    wire.share(4)
    assert wire._permits._value == wire.connections
    wire.limit(8)
    for workers, slots in ((1, 8), (3, 2), (4, 2), (16, 1)):
        wire.share(workers)
        assert wire._permits._value == slots


def test_counters_are_the_sum_of_all_and_gauges_that_of_the_living(tmp_path: Path) -> None:
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    for process in (os.getppid(), gone.pid):
        other = SharedMetrics(Metrics(), str(tmp_path))
        other.metrics.count("tgi_request_count", 3)
        other.metrics.fail("overloaded")
        other.metrics.observe("duration", 0.2)
        other.write({"tgi_queue_size": 2})
        (tmp_path / f"{os.getpid()}.json").rename(tmp_path / f"{process}.json")
    own = SharedMetrics(Metrics(), str(tmp_path))
    own.metrics.count("tgi_request_count")
    total, gauges = own.sum({"tgi_queue_size": 1})
    lines = total.text(gauges).splitlines()
    assert "tgi_request_count 7" in lines
    assert 'tgi_request_failure{err="overloaded"} 2' in lines
    assert "tgi_request_duration_count 2" in lines
    assert "tgi_queue_size 3" in lines
    assert SharedMetrics(own.metrics, None).sum({"tgi_queue_size": 1})[1] == {"tgi_queue_size": 1}
