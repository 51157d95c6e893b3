"""A server that is down is left alone, and found again."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from starlette.responses import JSONResponse

from purify_adapters.sources.http.circuit_breaker import (
    FIRST,
    LONGEST,
    MOST,
    OF,
    CircuitBreaker,
    CircuitOpen,
    Unavailable,
)
from purify_plugins import Sampling, SourceError
from purify_plugins.testing import ToySource
from tests.fake_tgi import FakeTGI, fake_tgi
from tests.remote.toy_server import Script, toy_source
from tests.toys import BYTES, pair


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def ask(breaker: CircuitBreaker, fault: Exception | None = None) -> None:
    with breaker.asking() as answered:
        if fault:
            raise fault
        answered()


def fail(breaker: CircuitBreaker, times: int = 1) -> None:
    for _ in range(times):
        with pytest.raises(Unavailable):
            ask(breaker, Unavailable("no"))


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def broken(clock: Clock) -> CircuitBreaker:
    breaker = CircuitBreaker(clock)
    fail(breaker, MOST)
    return breaker


def test_a_few_failures_among_many_answers_are_none_of_its_business(clock: Clock) -> None:
    breaker = CircuitBreaker(clock)
    for _ in range(20):
        fail(breaker, MOST - 1)
        for _ in range(OF):
            ask(breaker)
    assert not breaker.open


def test_refusals_of_the_server_s_are_answers(clock: Clock) -> None:
    breaker = CircuitBreaker(clock)
    for _ in range(20):
        with pytest.raises(SourceError):
            ask(breaker, SourceError("the LLM's server answered 422"))
    assert not breaker.open


def test_one_probe_at_a_time_and_a_good_one_opens_the_way(broken: CircuitBreaker, clock: Clock) -> None:
    with pytest.raises(CircuitOpen) as refused:
        ask(broken)
    assert refused.value.after == FIRST
    clock.now += FIRST
    with broken.asking() as answered:
        with pytest.raises(CircuitOpen):
            ask(broken)
        answered()
        ask(broken)
    fail(broken, MOST - 1)  # what was before is forgotten
    ask(broken)


def test_each_probe_that_fails_doubles_the_rest_up_to_a_limit(broken: CircuitBreaker, clock: Clock) -> None:
    rests = []
    for _ in range(8):
        with pytest.raises(CircuitOpen) as refused:
            ask(broken)
        rests.append(refused.value.after)
        clock.now += rests[-1]
        fail(broken)
    assert rests == [min(FIRST * 2**n, LONGEST) for n in range(8)]


def test_a_probe_that_nobody_waits_for_leaves_its_place_to_the_next(
    broken: CircuitBreaker, clock: Clock
) -> None:
    clock.now += FIRST
    with pytest.raises(KeyboardInterrupt), broken.asking():
        raise KeyboardInterrupt
    ask(broken)
    assert not broken.open


def test_requests_that_fail_together_are_one_fault(clock: Clock) -> None:
    """One chat asks for thirty rows at once: alone, on a busy machine, it opened the breaker."""
    breaker = CircuitBreaker(clock)
    for burst in range(MOST):
        assert not breaker.open
        under_way = [breaker.asking() for _ in range(30)]
        for request in under_way:
            request.__enter__()
        for request in under_way:
            assert not request.__exit__(Unavailable, Unavailable("late"), None)
        assert breaker.open == (burst == MOST - 1)


# On the wire


@pytest.fixture
def server() -> Iterator[FakeTGI]:
    with fake_tgi(Script(BYTES, b"abc" * 30), top_n=8, prefill=False) as server:
        yield server


def test_a_server_that_is_down_is_asked_no_more_and_then_found_again(server: FakeTGI) -> None:
    clock, source = Clock(), toy_source(server.url, BYTES, 8)
    source.http.breaker.clock = clock
    purifier, sampling = pair(source, ToySource(BYTES, 2), "geometric"), Sampling(max_tokens=3)
    server.respond = lambda *_: JSONResponse({}, 503)
    for _ in range(3):  # each is tried twice
        with pytest.raises(SourceError):
            purifier.generate("abc", sampling)
    assert len(server.requests) == MOST
    with pytest.raises(CircuitOpen, match="left alone"):
        purifier.generate("abc", sampling)
    assert len(server.requests) == MOST
    server.respond = None
    clock.now += FIRST
    assert purifier.generate("abc", sampling)[0].tokens


def test_the_gateway_says_when_to_come_again_or_lets_the_slm_answer(server: FakeTGI) -> None:
    from tests.adapters.gateways import serving

    source: Any = toy_source(server.url, BYTES, 8)
    source.http.breaker.clock = Clock()
    server.respond = lambda *_: JSONResponse({}, 503)
    asked = {"inputs": "hello", "parameters": {"max_new_tokens": 2}}
    with serving(pair(source, ToySource(BYTES, 2), "geometric")) as refusing:
        for _ in range(3):
            assert refusing.post("/generate", asked).status_code in (424, 503)
        for path in ("/generate", "/generate_stream"):
            refused = refusing.post(path, asked)
            assert (refused.status_code, refused.json()["error_type"]) == (503, "overloaded")
            assert refused.headers["retry-after"] == "1"
        assert "\npurify_upstream_resting 1.0\n" in refusing.client.get("/metrics").text
    alone = pair(source, ToySource(BYTES, 2), "geometric", on_llm_failure="slm")
    with serving(alone) as answering, ThreadPoolExecutor(3) as pool:
        found = list(pool.map(lambda _: answering.post("/generate", asked), range(3)))
        assert {answer.headers["x-purify-slm-only"] for answer in found} == {"2"}


@pytest.fixture
def afresh(monkeypatch: pytest.MonkeyPatch) -> None:
    """Readiness is asked anew each time."""
    monkeypatch.setattr("purify_adapters.gateway.readiness.FRESH", 0.0)


@pytest.mark.usefixtures("afresh")
def test_a_gateway_is_ready_again_when_its_server_may_be_tried(server: FakeTGI) -> None:
    """A balancer sends nothing to a gateway that is not ready, so none tried the server: 503 for ever.

    Asking after readiness asks the server for no token, and nothing at all while it is left alone.
    """
    from tests.adapters.gateways import serving

    source: Any = toy_source(server.url, BYTES, 8)
    source.http.breaker.clock = clock = Clock()
    server.respond = lambda *_: JSONResponse({}, 503)
    asked = {"inputs": "hello", "parameters": {"max_new_tokens": 2}}

    def ready() -> int:
        status: int = served.client.get("/ready").status_code
        return status

    with serving(pair(source, ToySource(BYTES, 2), "geometric")) as served:
        for _ in range(3):
            served.post("/generate", asked)
        sent = len(server.requests)
        assert ready() == 503
        clock.now += FIRST
        assert [ready(), ready(), len(server.requests)] == [200, 200, sent]
        served.post("/generate", asked)  # the one request that tries it, in vain
        clock.now += FIRST
        assert (ready(), len(server.requests)) == (503, sent + 1)
        server.respond, clock.now = None, clock.now + FIRST
        assert served.post("/generate", asked).status_code == 200
        assert ready() == 200


def test_a_gateway_whose_slm_answers_alone_is_ready_and_says_so(server: FakeTGI) -> None:
    from tests.adapters.gateways import serving

    source: Any = toy_source(server.url, BYTES, 8)
    source.http.breaker.clock = Clock()
    fail(source.http.breaker, MOST)
    with serving(pair(source, ToySource(BYTES, 2), "geometric", on_llm_failure="slm")) as served:
        answer = served.client.get("/ready")
        assert (answer.status_code, answer.json()["llm"], answer.json()["ready"]) == (200, "resting", True)
