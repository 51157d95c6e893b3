"""CoRE: disagreement costs the LLM, and the inner policy keeps its promise."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given

from purify_hooks.policies import POLICIES
from purify_hooks.policies.anchored import Anchored
from purify_hooks.policies.budgets import Capped, Windowed
from purify_hooks.policies.consistency import Consistency, Kernel
from purify_hooks.policies.mixtures import Linear
from purify_hooks.policies.replacing import TokenSwap
from tests.policies.cases import EACH, SEEDS, WORDS, every_answer, kl, law, rows, unprompted

ALONE = Linear(1)  # shows the damped LLM as it is


@pytest.mark.parametrize(
    ("kernel", "agreement"), [("rbf", math.exp(-0.8)), ("linear", 0.6), ("reciprocal", 1 / 1.8)]
)
def test_agreement_by_hand(kernel: Kernel, agreement: float) -> None:
    llm, slm = torch.tensor([[0.9, 0.1]]).log(), torch.tensor([[0.1, 0.9]]).log()
    other = torch.tensor([[0.8, 0.1, 0.1]]).log(), torch.tensor([[0.0, 0.1, 0.9]]).log()
    torch.testing.assert_close(law(Consistency(ALONE, kernel), llm, slm), llm)  # both off by as much
    fused = law(Consistency(ALONE, kernel), *other).exp()
    assert float(fused[0, 0]) == pytest.approx(0.8 * agreement / (0.9 * agreement + 0.1), abs=0.2)
    assert fused[0, 1] / fused[0, 0] == pytest.approx(0.1 / (0.8 * agreement), rel=1e-5)


@given(seed=SEEDS)
def test_without_a_kernel_the_inner_policy_is_itself(seed: int) -> None:
    llm, slm = rows(seed), rows(seed + 1)
    fused = law(Consistency(Capped(), beta=0.0), llm, slm)
    torch.testing.assert_close(fused, law(Capped(), llm, slm), atol=1e-5, rtol=1e-5)


@given(seed=SEEDS)
def test_the_damped_llm_is_no_further_from_the_slm(seed: int) -> None:
    llm, slm = rows(seed, dtype=torch.float64), rows(seed + 1, dtype=torch.float64)
    damped = law(Consistency(ALONE), llm, slm)
    agreed = (llm.exp() - slm.exp()).abs().argmax(-1, keepdim=True)
    assert (damped.gather(-1, agreed) <= llm.gather(-1, agreed) + 1e-9).all()


@pytest.mark.parametrize("name", sorted(POLICIES.keys() - {"consistency"}))
def test_it_promises_what_the_inner_policy_does(name: str) -> None:
    inner = EACH[name]
    assert Consistency(inner).guarantee == inner.guarantee
    assert Consistency(inner).lookback == inner.lookback


@given(seed=SEEDS)
def test_the_inner_window_holds(seed: int) -> None:
    ratio = every_answer(Consistency(Windowed(1.0, 3, 1.5)), seed).ratio
    assert ratio.clamp(min=-100).unfold(1, 3, 1).sum(-1).max() <= 1.5 + 1e-6


@given(seed=SEEDS)
def test_the_inner_mean_holds(seed: int) -> None:
    answers = every_answer(Consistency(Anchored(0.2)), seed)
    assert kl(answers.fused.sum(-1), answers.slm.sum(-1)) <= 0.2 * 5 + 1e-6


def test_an_inner_policy_is_bound_through_it() -> None:
    bound = Consistency(TokenSwap()).bind(WORDS)
    assert isinstance(bound.policy, TokenSwap)
    assert bound.policy.ids == (0, 1)
    assert Consistency(Linear()).bind(WORDS) == Consistency(Linear())


def test_memory_is_the_inner_policy_s() -> None:
    policy, llm, slm = Consistency(Capped(1.0, 5.0)), rows(1), rows(2)
    state = policy.start(unprompted(3))
    fused = law(policy, llm, slm, state)
    left, _ = policy.advance(state, (fused - slm).argmax(-1), llm, slm, fused)
    assert (left < 5).all()
