"""One server's connection: four timeouts, a budget of retries, and a key that its host alone is told."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from itertools import cycle
from typing import Any

import pytest
from starlette.responses import JSONResponse

from purify_adapters.sources.http.circuit_breaker import Queued, Unavailable
from purify_adapters.sources.http.client import HttpClient
from purify_adapters.sources.http.event_loop import wait
from purify_adapters.sources.http.options import Timeouts
from purify_plugins import ConfigError, SourceError
from tests.fake_tgi import FakeTGI, fake_tgi
from tests.remote.toy_server import Script
from tests.toys import BYTES


@pytest.fixture
def server() -> Iterator[FakeTGI]:
    with fake_tgi(Script(BYTES, b"abc"), top_n=8, api_key="s3cret") as server:
        yield server


@pytest.mark.parametrize("name", ["connect", "read", "write", "pool"])
def test_each_of_the_four_timeouts_is_some_seconds(name: str) -> None:
    with pytest.raises(ConfigError, match=f"{name} must be"):
        Timeouts(**{name: 0})
    assert getattr(HttpClient("http://a", timeouts=Timeouts(**{name: 2.5}))._client.timeout, name) == 2.5


def test_a_request_that_waits_for_a_connection_gives_up(server: FakeTGI) -> None:
    """Two at once, one connection: the second may wait for `pool` seconds, and is refused."""
    server.seconds = 1.0
    wire = HttpClient(server.url, "s3cret", Timeouts(pool=0.1), connections=1)
    asked = {"inputs": "a", "parameters": {"max_new_tokens": 1}}

    async def two() -> list[Any]:
        both = (wire.post("/generate", asked) for _ in range(2))
        return await asyncio.gather(*both, return_exceptions=True)

    found = wait(two())
    assert [type(each) for each in found].count(Queued) == 1
    assert "raise connections or pool" in str(found)
    assert list(wire.breaker._fates) == [True]  # nobody has asked the server what it then failed to answer


def test_retries_are_one_request_in_ten_once_the_purse_is_empty(server: FakeTGI) -> None:
    """Every other answer needs a second try; that many are not paid for."""
    wire = HttpClient(server.url, "s3cret", retries=2)
    wire._retry_budget = 2.0
    fates = cycle([True, False, False])
    server.respond = lambda *_: JSONResponse({}, 503) if next(fates) else None

    def told() -> Any:
        try:
            return wait(wire.with_retries(lambda: wire.post("/tokenize", {"inputs": "a"})))
        except Unavailable:
            return None

    found = [told() for _ in range(24)]
    assert None in found
    assert 2 <= wire.counts.retries <= 2 + wire.counts.requests / 10
    assert wire.counts.requests == len(server.requests)


def test_the_key_is_sent_to_its_own_host_and_no_redirect_is_followed(server: FakeTGI) -> None:
    with fake_tgi(Script(BYTES, b"abc")) as other:
        elsewhere = JSONResponse({}, 307, {"location": f"{other.url}/tokenize"})
        server.respond = lambda *_: elsewhere
        with pytest.raises(SourceError, match="redirects elsewhere"):
            wait(HttpClient(server.url, "s3cret").post("/tokenize", {"inputs": "a"}))
        assert (server.authorized, other.requests) == (["Bearer s3cret"], [])


def test_an_error_names_the_server_and_not_its_secrets(server: FakeTGI) -> None:
    """ "answered 404: its url or its kind is wrong" did not say which url."""
    port = server.url.rsplit(":", 1)[1]
    wire = HttpClient(f"http://user:pass@127.0.0.1:{port}/v1/", "s3cret")
    with pytest.raises(SourceError, match=f"at http://127.0.0.1:{port} answered 404 to /nowhere") as refused:
        wait(wire.get("/nowhere"))
    assert "pass" not in str(refused.value)
    assert wire.url.endswith(port)
