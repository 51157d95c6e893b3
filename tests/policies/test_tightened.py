"""A policy that is tightened: never further from the SLM, and at 0 the SLM alone."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from itertools import product
from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor

from purify_hooks.policies import POLICIES
from purify_plugins import ConfigError
from purify_plugins.decode.loop import lockstep
from purify_plugins.decode.provenance import StepReader
from purify_plugins.decode.replay import replay
from purify_plugins.foreign import adapted_policy
from purify_plugins.plugin.manager import load_plugins
from purify_plugins.policy import Context, FusionPolicy, State
from purify_plugins.sampling import Sampling
from purify_plugins.testing import letters, no_context
from tests.toys import AB, few, toys

TIGHTENED: dict[str, dict[str, Any]] = {
    "balanced": {
        "budget": 1.2,
        "gap": 0.2,
        "gap_limit": 1.0,
        "memory": 3.0,
        "hedge": 0.1,
        "opening": 0.9,
        "gap_from": 0.5,
        "opening_in_code": 0.5,
    },
    "windowed": {"window": 3, "budget": 1.5, "cap": 1.0},
    "capped": {"cap": 0.8, "total": 2.0},
    "anchored": {"budget": 0.4},
    "geometric": {"alpha": 0.8},
    "linear": {"weight": 0.7},
    "consistency": {"policy": {"name": "windowed"}},
}
CANNOT = POLICIES.keys() - TIGHTENED.keys()
FACTORS = (0.0, 0.1, 0.35, 0.6, 0.9, 1.0)
SIXTHS = [
    torch.tensor([one, two, 6 - one - two]).float().div(6).log()
    for one, two in product(range(7), repeat=2)
    if one + two <= 6
]
"""Every distribution of three tokens in sixths, as log-probabilities."""


def policy(name: str, **options: Any) -> FusionPolicy:
    return load_plugins([]).policy({"name": name, **TIGHTENED.get(name, {}), **options})  # type: ignore[no-any-return]


def tightened(name: str, factor: float) -> FusionPolicy:
    found = policy(name).tightened(factor)
    assert found is not None
    return found


def fused(rule: FusionPolicy, llm: Tensor, slm: Tensor, state: State | None = None) -> Tensor:
    """The fused rows, normalised; the SLM's where nothing could be fused."""
    state = rule.start(no_context(len(llm))) if state is None else state
    rows = rule.fuse(llm, slm, state).float()
    empty = torch.isneginf(rows.amax(-1, keepdim=True))
    return torch.where(empty, slm, rows).log_softmax(-1)


def enumerated() -> tuple[Tensor, Tensor]:
    """Every pair of such distributions, as the LLM's rows and the SLM's."""
    pairs = [*product(SIXTHS, repeat=2)]
    return torch.stack([llm for llm, _ in pairs]), torch.stack([slm for _, slm in pairs])


def distances(rows: Tensor, slm: Tensor) -> tuple[Tensor, Tensor]:
    """The largest log fused/slm of any token, and KL(fused || slm), of each row (rows,)."""
    ratio = torch.where(rows > -torch.inf, rows - slm, -torch.inf)
    taken = torch.where(rows > -torch.inf, rows.exp() * ratio, 0.0)
    return ratio.amax(-1), taken.sum(-1)


@pytest.mark.parametrize("name", sorted(CANNOT))
def test_what_cannot_be_tightened_says_so(name: str) -> None:
    assert policy(name).tightened(0.5) is None


@pytest.mark.parametrize("name", TIGHTENED)
def test_at_one_it_is_the_policy_and_other_factors_are_refused(name: str) -> None:
    assert tightened(name, 1.0) == policy(name)
    for factor in (-0.1, 1.1, math.nan):
        with pytest.raises(ConfigError, match="factor from 0 to 1"):
            policy(name).tightened(factor)


@pytest.mark.parametrize("name", TIGHTENED)
def test_at_zero_every_row_is_the_slm_s(name: str) -> None:
    llm, slm = enumerated()
    torch.testing.assert_close(fused(tightened(name, 0.0), llm, slm).exp(), slm.exp(), atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize("name", TIGHTENED)
def test_the_less_strength_the_nearer_each_row_is_to_the_slm(name: str) -> None:
    """Over all pairs of rows: neither the largest excess of a token nor KL ever grows as the factor falls."""
    llm, slm = enumerated()
    last = None
    for factor in FACTORS:
        now = distances(fused(tightened(name, factor), llm, slm), slm)
        if last is not None:
            for before, after in zip(last, now, strict=True):
                assert bool((before <= after + 2e-5 + 2e-5 * after.abs()).all()), factor
        last = now


def test_a_mixture_gives_no_single_token_more() -> None:
    llm, slm = enumerated()
    whole = fused(policy("linear"), llm, slm).exp() - slm.exp()
    for factor in FACTORS:
        excess = fused(tightened("linear", factor), llm, slm).exp() - slm.exp()
        torch.testing.assert_close(excess, factor * whole, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("name", ["balanced", "windowed", "capped", "anchored"])
@pytest.mark.parametrize("factor", FACTORS)
def test_a_budget_s_promise_is_tightened_with_it(name: str, factor: float) -> None:
    """Over every answer of five letters: what it took is within the tightened policy's own bound."""
    rule = tightened(name, factor)
    decoder = toys("geometric", AB).for_request(policy=rule)
    answers = [[*each] for each in product((0, 1), repeat=5)]
    records = replay(decoder, ["ab"] * len(answers), answers, Sampling(max_tokens=5))
    for steps in records:
        assert rule.holds(steps)
    whole = policy(name)
    for tokens, surprisal in product((1, 4, 9, 40), (0.0, 3.0, 30.0)):
        least, most = rule.allowance(tokens, surprisal), whole.allowance(tokens, surprisal)
        assert least is not None
        assert most is not None
        assert least <= most


@pytest.mark.parametrize("name", TIGHTENED)
@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_at_zero_answers_are_the_slm_s_over_a_whole_answer(name: str, temperature: float) -> None:
    purifier = toys("geometric", letters("abcd"))
    decoder = purifier.for_request(policy=tightened(name, 0.0))
    answers = [[*each] for each in product(range(4), repeat=3)]
    for steps in replay(decoder, ["ab"] * len(answers), answers, Sampling(temperature=temperature or 1.0)):
        for step in steps:
            assert step.fused == pytest.approx(step.slm, abs=1e-5)
            assert step.kl == pytest.approx(0, abs=1e-5)


def test_a_bound_policy_keeps_its_tokens_and_one_in_symbols_its_share() -> None:
    rule = policy("balanced", numbers=4.0).bind(letters("a1b2")).in_symbols(2.0)
    half: Any = rule.tightened(0.5)
    whole: Any = rule
    assert half.digits == whole.digits == (1, 3)
    assert (half.numbers, half.budget, half.drain) == (2.0, whole.budget / 2, whole.drain / 2)
    assert (half.memory, half.doubt) == (whole.memory, whole.doubt)
    endless: Any = policy("capped", total=math.inf).tightened(0.0)
    assert (endless.cap, endless.total) == (0.0, math.inf)


@dataclass(frozen=True)
class Stiff:
    """A policy of another class, which cannot be tightened."""

    guarantee: ClassVar[str] = "none"
    lookback: ClassVar[int] = 0
    alpha: float = 0.5

    def start(self, context: Context) -> State:
        return ()

    def fuse(self, llm: Tensor, slm: Tensor, state: State) -> Tensor:
        return slm + self.alpha * (llm - slm)

    def advance(self, state: State, *_: Tensor) -> State:
        return state


@dataclass(frozen=True)
class Theirs(Stiff):
    """One that can."""

    def tightened(self, factor: float) -> Theirs:
        return replace(self, alpha=self.alpha * factor)


def test_a_policy_of_another_class_passes_it_on() -> None:
    rule = adapted_policy(Theirs())
    half = rule.tightened(0.5)
    assert half == Theirs(0.25)
    assert isinstance(half, FusionPolicy)
    inside: Any = load_plugins([]).policy({"name": "consistency", "policy": rule}).tightened(0.5)
    assert inside.policy == Theirs(0.25)
    assert adapted_policy(Stiff()).tightened(0.5) is None


def test_answers_of_a_tightened_policy_are_drawn_and_certified_by_it() -> None:
    purifier = toys("balanced")
    decoder = purifier.for_request(policy=purifier.policy.tightened(0.5))
    steps = [step.tokens[0] for step in lockstep(decoder, ["a"], few(6))]
    again = replay(decoder, ["a"], [[token.id for token in steps if token]], few(6))[0]
    assert [each.fused for each in again] == pytest.approx([each.fused for each in steps if each], abs=1e-4)
    reader = StepReader(decoder, 1)
    for step in lockstep(decoder, ["a"], few(6)):
        reader.take(step)
    drawn = reader.drawn(0, 6, False, ())
    assert (drawn.parameters["budget"], drawn.parameters["drain"]) == (2.5, 1.5)
    assert drawn.policy_name == "balanced"
