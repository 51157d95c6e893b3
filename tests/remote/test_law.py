"""What is drawn through a server is what lockstep draws, on a vocabulary small enough to write out."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator
from itertools import product

import pytest
from scipy.stats import chisquare

from purify_plugins import Purifier, Sampling
from purify_plugins.decode.replay import replay
from purify_plugins.testing import ToySource, letters
from tests.fake_tgi import FakeTGI, fake_tgi
from tests.remote.toy_server import toy_source
from tests.toys import pair

ABC = letters("abc")
LLM, SLM = (ToySource(ABC, seed, 3, 1.5) for seed in (1, 2))
LENGTH = 3
POLICIES = ["geometric", {"name": "windowed", "cap": 1.0, "window": 2, "budget": 1.2}, "minimum"]


@pytest.fixture(scope="module")
def server() -> Iterator[FakeTGI]:
    with fake_tgi(LLM, top_n=4, prefill=True) as server:
        yield server


def law(local: Purifier, sampling: Sampling) -> dict[tuple[int, ...], float]:
    """Every answer of up to LENGTH tokens and its probability, from the pair without a server."""
    end = len(ABC) - 1
    answers = {(*body, end) for length in range(LENGTH) for body in product(range(end), repeat=length)}
    answers |= set(product(range(end), repeat=LENGTH))
    records = replay(local, ["ab"] * len(answers), sorted(answers), sampling)
    return {
        tuple(token.id for token in record): math.exp(math.fsum(token.fused for token in record))
        for record in records
    }


def p_value(remote: Purifier, local: Purifier, draws: int) -> float:
    """Of a χ² test of answers through the server against the enumerated law; rare ones are put together."""
    sampling = Sampling(max_tokens=LENGTH)
    counts = Counter(
        answer.tokens for start in range(0, draws, 32) for answer in remote.generate(["ab"] * 32, sampling)
    )
    total = counts.total()
    shares = law(local, sampling)
    assert sum(shares.values()) == pytest.approx(1.0)
    common = [answer for answer, share in shares.items() if total * share > 5]
    seen = [counts[answer] for answer in common]
    theory = [total * shares[answer] for answer in common]
    if total - sum(theory) > 1e-6 * total:
        seen, theory = [*seen, total - sum(seen)], [*theory, total - sum(theory)]
    return float(chisquare(seen, theory).pvalue)


@pytest.mark.slow
@pytest.mark.parametrize("policy", POLICIES, ids=str)
def test_drawn_answers_follow_the_enumerated_law(server: FakeTGI, policy: object) -> None:
    remote, local = pair(toy_source(server.url, ABC, 4), SLM, policy), pair(LLM, SLM, policy)
    assert remote.walk == "readahead"
    assert p_value(remote, local, 1280) > 1e-5  # drawn anew each time


@pytest.mark.slow
def test_the_test_can_tell(server: FakeTGI) -> None:
    """Against the law of another policy it fails."""
    remote, local = pair(toy_source(server.url, ABC, 4), SLM, "geometric"), pair(LLM, SLM, "minimum")
    assert p_value(remote, local, 640) < 1e-6


def test_every_seed_draws_what_lockstep_draws_without_a_server(server: FakeTGI) -> None:
    remote = pair(toy_source(server.url, ABC, 4), SLM, "windowed")
    local = pair(LLM, SLM, "windowed", walk="lockstep")
    for seed in range(10):
        sampling = Sampling(max_tokens=8, seed=seed, ignore_eos=True)
        answers = [each.generate(["ab", "cab"], sampling) for each in (remote, local)]
        assert [a.tokens for a in answers[0]] == [a.tokens for a in answers[1]]


def test_a_server_that_shows_one_token_still_leaves_every_answer_possible(server: FakeTGI) -> None:
    """The tail is the SLM's: what the server does not show can be drawn all the same, and is recorded."""
    remote = pair(toy_source(server.url, ABC, 1), SLM, "geometric")
    answers = remote.generate(["ab"] * 32, Sampling(max_tokens=4, seed=0, ignore_eos=True))
    steps = [step for answer in answers for step in answer.steps]
    assert {step.id for step in steps} == {0, 1, 2}
    assert all(0 < step.revealed < 1 for step in steps)
    assert all(0 < step.hidden <= 1 + 1e-6 for step in steps)  # all, where the one token is the end
    body = answers[0].certificate.body
    assert float(body["totals"]["least_revealed"]) < 1
    assert float(body["totals"]["most_hidden"]) > 0
