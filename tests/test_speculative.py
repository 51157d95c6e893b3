"""Speculation changes how fast an answer is written, and nothing else."""

from __future__ import annotations

import math
from collections import Counter
from functools import cache
from itertools import product

import pytest
import torch
from scipy.stats import chisquare
from torch import Tensor

from purify_hooks.evaluation import testbed
from purify_hooks.policies import POLICIES
from purify_plugins import Purifier, Sampling, SourceError
from purify_plugins.decode import drafts as module
from purify_plugins.decode.draft_length import DraftLength
from purify_plugins.decode.loop import lockstep
from purify_plugins.decode.replay import replay
from purify_plugins.decode.speculative import speculative
from purify_plugins.testing import ToySession, ToySource, letters
from tests.toys import BYTES, Failing

PAIRED = sorted(set(POLICIES) - {"offset", "consistency"})
"""Policies that fuse an LLM with an SLM and need no other part."""
DRAWS = 50_000
CHANCE = 1e-5
"""Draws without a seed are anew each time: so seldom a test that nothing is wrong with may fail."""
LENGTH = 3


@pytest.fixture(scope="session")
def pair() -> Purifier:
    return Purifier.load(testbed.LLM, testbed.SLM, "geometric")


def written(walk, purifier: Purifier, prompts, sampling: Sampling) -> list[list[int]]:
    rows: list[list[int]] = [[] for _ in prompts]
    for step in walk(purifier, prompts, sampling):
        for row, token in zip(rows, step.tokens, strict=True):
            row += [] if token is None else [token.id]
    return rows


def prompts_of(number: int) -> list[str]:
    attacks = testbed.attacks()
    known = [*attacks.clean, *(passage.prefix for passage in attacks.passages), *attacks.backdoor.prompts]
    known += [canary.prompt for canary in (*attacks.canaries, *attacks.canary_controls)]
    whole = [*known, *(text[:at] for text in testbed.heldout() for at in (60, 150, 260, 380))]
    return whole[:: max(len(whole) // number, 1)][:number]


def agree(pair: Purifier, policy: str, prompts: list[str], tokens: int) -> None:
    purifier = Purifier.load(pair.llm, pair.slm, policy)
    sampling = Sampling(max_tokens=tokens, temperature=0)
    for start in range(0, len(prompts), 16):
        some = prompts[start : start + 16]
        assert written(speculative, purifier, some, sampling) == written(lockstep, purifier, some, sampling)


@pytest.mark.parametrize("policy", PAIRED)
def test_greedy_answers_are_lockstep_s_own(pair: Purifier, policy: str) -> None:
    agree(pair, policy, prompts_of(10), 24)


@pytest.mark.slow
@pytest.mark.parametrize("policy", PAIRED)
def test_a_hundred_greedy_answers_are_lockstep_s_own(pair: Purifier, policy: str) -> None:
    prompts = prompts_of(100)
    assert len(prompts) >= 100
    agree(pair, policy, prompts, 32)


def test_penalties_read_the_draft_too(pair: Purifier) -> None:
    sampling = Sampling(max_tokens=24, temperature=0, repetition_penalty=1.3, frequency_penalty=0.4)
    prompts = prompts_of(6)
    assert written(speculative, pair, prompts, sampling) == written(lockstep, pair, prompts, sampling)


@pytest.mark.parametrize("length", [0, 1, 2, 5])
def test_every_draft_length_writes_the_same(
    pair: Purifier, length: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pair.draft_lengths, "of", lambda *_: DraftLength(fixed=length))
    prompts, sampling = prompts_of(4), Sampling(max_tokens=20, temperature=0)
    assert written(speculative, pair, prompts, sampling) == written(lockstep, pair, prompts, sampling)


def test_a_batch_is_its_rows_when_drawn_from_a_seed(pair: Purifier) -> None:
    prompts = prompts_of(4)
    together = written(speculative, pair, prompts, Sampling(max_tokens=16, seed=5))
    alone = [
        written(speculative, pair, [prompt], Sampling(max_tokens=16, seed=5 + row))[0]
        for row, prompt in enumerate(prompts)
    ]
    assert together == alone


@pytest.mark.parametrize("walk", [lockstep, speculative])
def test_nobody_is_asked_about_rows_that_have_ended(walk, monkeypatch: pytest.MonkeyPatch) -> None:
    purifier = toys("capped", cap=0.7, total=1.0)
    monkeypatch.setattr(purifier.draft_lengths, "of", lambda *_: DraftLength(fixed=2))
    live, asked, extend = set(range(40)), [], ToySession.extend

    def asking(self: ToySession, tokens: Tensor) -> Tensor:
        asked.append((len(tokens), len(live)))
        return extend(self, tokens)

    monkeypatch.setattr(ToySession, "extend", asking)
    end = max(purifier.vocabulary.eos)
    for step in walk(purifier, ["ab"] * 40, Sampling(max_tokens=30, seed=1)):
        live -= {row for row, token in enumerate(step.tokens) if token and token.id == end}
    rows = [rows for rows, _ in asked]
    assert rows == sorted(rows, reverse=True)
    assert rows[0] > 20 > rows[-1]
    if walk is lockstep:  # elsewhere rows end in the middle of a cycle
        assert all(rows == live for rows, live in asked)


@cache
def _logits(source: ToySource, context: tuple[int, ...]) -> Tensor:
    return ToySource.logits(source, context)


class Remembering(ToySource):
    """A toy that is asked the same things fifty thousand times."""

    def logits(self, tokens) -> Tensor:
        return _logits(self, tuple(tokens[-self.order :]))


def toys(policy: str, **parameters: object) -> Purifier:
    vocabulary = letters("abc")
    llm, slm = (Remembering(vocabulary, seed, 3, 1.5) for seed in (1, 2))
    return Purifier.load(llm, slm, policy, **parameters)


def law(purifier: Purifier, sampling: Sampling) -> dict[tuple[int, ...], float]:
    """Every answer of up to LENGTH tokens and its probability, by enumeration."""
    end = max(purifier.vocabulary.eos)
    answers = [
        (*body, *([end] if length < LENGTH else []))
        for length in range(LENGTH + 1)
        for body in product(range(end), repeat=length)
    ]
    answers += [(*body, end) for body in product(range(end), repeat=LENGTH - 1)]
    records = replay(purifier, ["ab"] * len(set(answers)), sorted(set(answers)), sampling)
    return {
        tuple(token.id for token in record): math.exp(math.fsum(token.fused for token in record))
        for record in records
    }


def distance(purifier: Purifier, sampling: Sampling, draws: int = DRAWS) -> float:
    """The p-value of a χ² test of speculated answers against the enumerated law."""
    counts: Counter[tuple[int, ...]] = Counter()
    for _ in range(draws // 500):
        counts.update(map(tuple, written(speculative, purifier, ["ab"] * 500, sampling)))
    shares = law(purifier, sampling).items()
    expected = {answer: draws * share for answer, share in shares if share * draws > 5}
    assert abs(sum(expected.values()) / draws - 1) < 0.01
    rare = draws - sum(expected.values()), draws - sum(counts[answer] for answer in expected)
    observed = [counts[answer] for answer in expected] + [rare[1]]
    theory = [*expected.values(), max(rare[0], 1e-9)]
    if theory[-1] < 5:
        observed, theory = observed[:-1], theory[:-1]
    scale = sum(observed) / sum(theory)
    return float(chisquare(observed, [share * scale for share in theory]).pvalue)


SMALL = [
    ("geometric", {}),
    ("windowed", {"cap": 1.0, "window": 2, "budget": 1.2}),
    ("balanced", {"budget": 0.7}),
    ("balanced", {"budget": 0.7, "gap": 0.3, "gap_limit": 1.0, "memory": 2.0, "hedge": 0.2, "opening": 0.4}),
    ("anchored", {}),
    ("cp_fuse", {}),
    ("capped", {"cap": 0.7, "total": 1.0}),
]


@pytest.mark.slow
@pytest.mark.parametrize(("policy", "parameters"), SMALL)
def test_drawn_answers_follow_the_enumerated_law(policy: str, parameters: dict[str, float]) -> None:
    purifier = toys(policy, **parameters)
    purifier.draft_lengths.of = lambda *_: DraftLength(fixed=2)  # type: ignore[method-assign]  # the machine must not choose
    assert distance(purifier, Sampling(max_tokens=LENGTH)) > CHANCE


@pytest.mark.slow
def test_drawn_answers_follow_the_law_while_the_pace_adapts() -> None:
    assert distance(toys("capped", cap=0.7, total=1.0), Sampling(max_tokens=LENGTH, top_p=0.9)) > CHANCE


@pytest.mark.slow
def test_a_bonus_token_from_the_llm_s_row_is_detected(monkeypatch: pytest.MonkeyPatch) -> None:
    """The first of two mistakes that look right: the token after a kept draft drawn from the LLM alone."""
    decide = module.SlmDrafts.decide

    def wrong(self, rows, guess, going, luck):
        alone = rows._replace(fused=rows.llm, mass=torch.exp(rows.llm))
        return decide(self, alone if guess is None else rows, guess, going, luck)

    monkeypatch.setattr(module.SlmDrafts, "decide", wrong)
    purifier = toys("geometric")
    purifier.draft_lengths.of = lambda *_: DraftLength(fixed=1)  # type: ignore[method-assign]  # the machine must not choose
    assert distance(purifier, Sampling(max_tokens=LENGTH)) < 1e-6


@pytest.mark.slow
def test_dropping_an_unlikely_draft_is_detected(monkeypatch: pytest.MonkeyPatch) -> None:
    """The second: a drafted token thrown away, and drawn anew, because the SLM was not sure of it."""
    accept = module.accept

    def wrong(rows, guess, going, luck):
        unsure = rows.logprobs(guess)[:, 1] < -1.0
        tokens, kept = accept(rows, guess, going, luck)
        return torch.where(unsure, rows.draw(luck[:, 1]), tokens), kept & ~unsure

    monkeypatch.setattr(module, "accept", wrong)
    purifier = toys("geometric")
    purifier.draft_lengths.of = lambda *_: DraftLength(fixed=1)  # type: ignore[method-assign]  # the machine must not choose
    assert distance(purifier, Sampling(max_tokens=LENGTH)) < 1e-6


@pytest.mark.parametrize("at", [0, 1, 3, 6])
def test_an_llm_that_fails_while_it_reads_a_draft_never_comes_back(at: int) -> None:
    """The draft it failed on is the SLM's own, and says so; what was kept before it stays fused."""
    llm, slm = Failing(BYTES, 1, at=at), ToySource(BYTES, 2)
    purifier = Purifier.load(llm, slm, "windowed")
    with pytest.raises(SourceError, match="the server hung up"):
        purifier.generate("x", Sampling(max_tokens=12, temperature=0))
    alone = Purifier(llm, slm, purifier.policy, on_llm_failure="slm")
    answer = alone.generate("x", Sampling(max_tokens=12, temperature=0))[0]
    flags = [token.slm_only for token in answer.steps]
    assert flags == sorted(flags)
    assert sum(not flag for flag in flags) <= at
    assert all(token.fused == token.slm for token in answer.steps if token.slm_only)
