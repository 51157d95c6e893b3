"""Whatever a server does: a purified answer, or an error; in time, and not one canary."""

from __future__ import annotations

import random
import time
from collections.abc import Iterator
from contextlib import suppress
from functools import partial
from typing import Any

import pytest

from purify_plugins import PurifyError, Sampling
from purify_plugins.plugin.manager import load_plugins
from purify_plugins.testing import ToySource
from purify_plugins.types import Completion
from tests.fake_tgi import FakeTGI, fake_tgi
from tests.remote.faults import ANSWERS, CANARY, EVENTS, WIRES, Event, answering, on_answer
from tests.remote.toy_server import Script, toy_source
from tests.toys import BYTES, Forbidding, pair

READ = 0.4
"""Seconds in which each token must come."""
DEADLINE = 2 * READ + 0.3
LATE = 30.0
"""Seconds that whatever else the machine does may add: an answer without end is longer."""
"""Two tries of the first token and the wait between them; healthy tokens take milliseconds."""
KINDS = [*EVENTS, *ANSWERS, *WIRES]
SILENT = {"silence", "silence after the head", "half a head", "a byte now and then", "comments for ever"}
"""Kinds that take their whole deadline each time; a few seeds of these say as much as many."""
SEEDS, FEW = 20, 4
PLUGINS = load_plugins()


@pytest.fixture(scope="module")
def server() -> Iterator[FakeTGI]:
    with fake_tgi(Script(BYTES, CANARY.encode() * 9), top_n=8, prefill=False) as server:
        with suppress(AssertionError):
            outcome(server.url, 0)  # loads what is loaded late, which takes its time
        yield server


def outcome(url: str, seed: int, read: float = READ) -> str:
    """Which of the four allowed outcomes an answer had; anything else fails."""
    dice = random.Random(seed)
    llm = toy_source(url, BYTES, 8, read, ahead=dice.choice([0, 3, 32]))
    slm = Forbidding(BYTES, 2, forbidden=frozenset(CANARY.encode()))
    failure = dice.choice(["refuse", "slm"])
    policy = dice.choice(["geometric", "windowed", "minimum"])
    purifier = pair(llm, slm, policy, on_llm_failure=failure, plugins=PLUGINS)
    sampling = Sampling(max_tokens=6, temperature=dice.choice([0, 1.0]), seed=seed, ignore_eos=True)
    said, fault, last, start = "", "", None, time.monotonic()
    try:
        for chunk in purifier.stream("abc", sampling):
            said, last = said + chunk.text, chunk
    except PurifyError as error:
        fault = str(error)
        found = "an error before the first token" if last is None else "an error in the stream"
    else:
        assert last is not None
        found = judged(last.completion)
    assert time.monotonic() - start < DEADLINE + LATE
    assert not set(CANARY) & set(said)
    assert CANARY not in fault
    return found


def judged(completion: Completion | None) -> str:
    assert completion is not None
    assert CANARY not in completion.certificate.text
    assert len(completion.steps) == len(completion.tokens) == 6
    return "flagged" if any(step.slm_only for step in completion.steps) else "purified"


def inject(server: FakeTGI, kind: str, seed: int) -> str:
    """The outcome under one fault; of a fault in an event, it is one of the first three that is hit."""
    dice = random.Random(f"{kind} {seed}")
    at = dice.randint(1, 3)
    if kind in WIRES:
        with answering(WIRES[kind]) as url:
            return outcome(url, seed)
    server.tamper = server.respond = None
    if kind in ANSWERS:
        calls = iter(range(99))
        late = dice.choice([0, 1])
        server.respond = lambda *_: ANSWERS[kind]() if next(calls) >= late else None
    else:
        server.tamper = partial(tampered, EVENTS[kind], dice, at)
    return outcome(server.url, seed)


def tampered(tamper: Event, dice: random.Random, at: int, path: str, sent: Any) -> Any:
    """What is sent in place of the stream's events from number `at` on, and of some answers."""
    if path == "/generate_stream":
        return tamper(dice, sent) if sent["index"] >= at else sent
    return on_answer(tamper, dice, sent) if dice.randint(1, 3) < at else sent


def test_there_are_kinds_enough() -> None:
    assert set(KINDS) > SILENT
    assert len(set(KINDS) - SILENT) >= 45


@pytest.mark.parametrize("kind", KINDS)
def test_a_fault_ends_in_one_of_the_allowed_ways(server: FakeTGI, kind: str) -> None:
    assert inject(server, kind, 0)


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_twenty_of_each_fault_end_in_one_of_the_allowed_ways(server: FakeTGI, kind: str) -> None:
    for seed in range(1, (FEW if kind in SILENT else SEEDS) + 1):
        assert inject(server, kind, seed)


def test_a_healthy_server_s_canary_is_purified_away(server: FakeTGI) -> None:
    server.tamper = server.respond = None
    assert {outcome(server.url, seed, LATE) for seed in range(6)} <= {"purified", "flagged"}


@pytest.mark.parametrize(
    "kind", ["an error in the stream", "a log-probability that is NaN", "half of a JSON"]
)
def test_a_fault_that_must_not_pass_does_not(server: FakeTGI, kind: str) -> None:
    """The oracle above accepts a whole answer; here there must not be one."""
    dice = random.Random(0)
    server.tamper, server.respond = (lambda path, event: EVENTS[kind](dice, event)), None
    purifier = pair(toy_source(server.url, BYTES, 8, READ), ToySource(BYTES, 2), "geometric")
    with pytest.raises(PurifyError):
        purifier.generate("abc", Sampling(max_tokens=6))
