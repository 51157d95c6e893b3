"""Linear pools: by hand, and learned from a text that one model knows better."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from purify_hooks.policies.mixtures import LearnedMix, Linear, entropy
from tests.policies.cases import SEEDS, law, rows


@given(seed=SEEDS, weight=st.floats(0.0, 1.0))
def test_a_mixture_is_the_weighted_sum(seed: int, weight: float) -> None:
    llm, slm = rows(seed, holes=0.3), rows(seed + 1, holes=0.3)
    expected = weight * llm.exp() + (1 - weight) * slm.exp()
    torch.testing.assert_close(law(Linear(weight), llm, slm).exp(), expected, atol=1e-6, rtol=1e-5)


def test_the_ends_are_one_model_alone() -> None:
    llm, slm = rows(1, holes=0.3), rows(2, holes=0.3)
    assert torch.equal(Linear(1).fuse(llm, slm, ()), llm)
    assert torch.equal(Linear(0).fuse(llm, slm, ()), slm)


def test_entropy_counts_nats_and_skips_what_cannot_come() -> None:
    row = torch.tensor([[0.5, 0.5, 0.0], [1.0, 0.0, 0.0]]).log()
    torch.testing.assert_close(entropy(row), torch.tensor([math.log(2), 0.0]))


def test_the_surer_model_gets_the_weight() -> None:
    llm, slm = torch.tensor([[1.0, 0.0]]).log(), torch.tensor([[0.5, 0.5]]).log()
    weight = 1 / (1 + math.exp(-(0.3 + 2.0 * math.log(2))))
    fused = law(LearnedMix(bias=0.3, llm_entropy=-1.0, slm_entropy=2.0), llm, slm)
    torch.testing.assert_close(fused.exp(), torch.tensor([[weight + (1 - weight) / 2, (1 - weight) / 2]]))


@pytest.mark.parametrize(("better", "sign"), [("llm", 1), ("slm", -1)])
def test_fitting_finds_the_better_model(better: str, sign: int) -> None:
    good, bad, flat = torch.full((50,), -1.0), torch.full((50,), -3.0), torch.ones(50)
    llm, slm = (good, bad) if better == "llm" else (bad, good)
    fitted = LearnedMix.fit(llm, slm, flat, flat)
    assert sign * (fitted.bias + fitted.llm_entropy + fitted.slm_entropy) > 2


def test_fitting_learns_to_trust_a_sure_llm() -> None:
    sure = torch.tensor([True, False] * 30)
    llm, slm = torch.where(sure, -0.1, -6.0), torch.full((60,), -2.0)
    fitted = LearnedMix.fit(llm, slm, torch.where(sure, 0.2, 5.0), torch.full((60,), 3.0))
    assert fitted.llm_entropy < -0.5


@given(seed=SEEDS)
def test_a_fit_is_at_least_as_likely_as_the_even_mixture(seed: int) -> None:
    llm, slm = rows(seed, 40), rows(seed + 1, 40)
    tokens = torch.randint(7, (40, 1), generator=torch.Generator().manual_seed(seed))
    of_llm, of_slm = (row.gather(-1, tokens)[:, 0] for row in (llm, slm))
    fitted = LearnedMix.fit(of_llm, of_slm, entropy(llm), entropy(slm))
    gained = law(fitted, llm, slm).gather(-1, tokens) - law(LearnedMix(), llm, slm).gather(-1, tokens)
    assert gained.mean() >= -1e-4


def test_fitting_works_inside_inference_mode() -> None:
    with torch.inference_mode():
        values = [torch.full((5,), value) for value in (-1.0, -2.0, 1.0, 1.0)]
        assert LearnedMix.fit(*values).bias > 0
