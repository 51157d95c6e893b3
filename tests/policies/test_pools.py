"""Geometric and minimum: the paper's rule, its closed forms and its two ends."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from purify_hooks.policies.pools import Geometric, Minimum
from tests.policies.cases import SEEDS, kl, law, rows

WEIGHTS = st.floats(0.01, 0.99)


@given(seed=SEEDS)
def test_weight_zero_is_the_slm_alone(seed: int) -> None:
    llm, slm = rows(seed, holes=0.3), rows(seed + 1, holes=0.3)
    assert torch.equal(Geometric(0.0).fuse(llm, slm, ()), slm)


@given(seed=SEEDS)
def test_weight_one_is_the_llm_alone(seed: int) -> None:
    llm, slm = rows(seed, holes=0.3), rows(seed + 1, holes=0.3)
    assert torch.equal(Geometric(1.0).fuse(llm, slm, ()), llm)


@given(seed=SEEDS, alpha=WEIGHTS)
def test_between_the_ends_a_token_needs_both_models(seed: int, alpha: float) -> None:
    llm, slm = rows(seed, holes=0.3), rows(seed + 1, holes=0.3)
    ruled_out = llm.isneginf() | slm.isneginf()
    assert torch.equal(Geometric(alpha).fuse(llm, slm, ()).isneginf(), ruled_out)


def test_a_fixed_weight_by_hand() -> None:
    llm, slm = torch.tensor([[0.9, 0.1]]).log(), torch.tensor([[0.1, 0.9]]).log()
    torch.testing.assert_close(law(Geometric(0.5), llm, slm).exp(), torch.tensor([[0.5, 0.5]]))
    torch.testing.assert_close(law(Geometric(0.75), llm, slm).exp(), torch.tensor([[0.75, 0.25]]))


@given(seed=SEEDS)
def test_the_even_weight_shares_its_cost_between_the_models(seed: int) -> None:
    """KL(r‖p) + KL(r‖q) = -2 ln Σ √(p q): the CP-Δ identity for KL."""
    llm, slm = rows(seed, dtype=torch.float64), rows(seed + 1, dtype=torch.float64)
    fused = law(Geometric(0.5), llm, slm)
    overlap = ((llm + slm) / 2).logsumexp(-1)
    torch.testing.assert_close(kl(fused, llm) + kl(fused, slm), -2 * overlap)


@given(seed=SEEDS, alpha=WEIGHTS)
def test_a_step_costs_at_most_the_renyi_divergence(seed: int, alpha: float) -> None:
    llm, slm = rows(seed, dtype=torch.float64), rows(seed + 1, dtype=torch.float64)
    renyi = (alpha * llm + (1 - alpha) * slm).logsumexp(-1) / (alpha - 1)
    assert (kl(law(Geometric(alpha), llm, slm), slm) <= renyi + 1e-9).all()


@given(seed=SEEDS, alphas=st.tuples(WEIGHTS, WEIGHTS))
def test_more_weight_never_costs_less(seed: int, alphas: tuple[float, float]) -> None:
    llm, slm = rows(seed, dtype=torch.float64), rows(seed + 1, dtype=torch.float64)
    less, more = (kl(law(Geometric(alpha), llm, slm), slm) for alpha in sorted(alphas))
    assert (less <= more + 1e-9).all()


def test_the_smaller_probability_by_hand() -> None:
    llm, slm = torch.tensor([[0.8, 0.2, 0.0]]).log(), torch.tensor([[0.2, 0.6, 0.2]]).log()
    torch.testing.assert_close(law(Minimum(), llm, slm).exp(), torch.tensor([[0.5, 0.5, 0.0]]))


@given(seed=SEEDS)
def test_the_minimum_is_within_a_constant_of_both_models(seed: int) -> None:
    """log r/p ≤ -log(1 - TV) for both: the CP-Δ bound for the max-divergence."""
    llm, slm = rows(seed, dtype=torch.float64), rows(seed + 1, dtype=torch.float64)
    fused = law(Minimum(), llm, slm)
    shared = 1 - (llm.exp() - slm.exp()).abs().sum(-1) / 2
    rounding = 1e-9 + 1e-14 / shared  # of rows that share almost nothing, little but rounding is left
    for model in (llm, slm):
        assert ((fused - model).amax(-1) <= rounding - shared.log()).all()


@pytest.mark.parametrize("policy", [Geometric(), Minimum()])
def test_a_fixed_rule_promises_nothing(policy: Geometric | Minimum) -> None:
    assert policy.guarantee == "none"
