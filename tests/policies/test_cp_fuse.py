"""CP-Fuse: our exact solution against the paper's grid of 324 pairs of weights."""

from __future__ import annotations

import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from purify_hooks.policies.cp_fuse import CPFuse
from tests.policies.cases import SEEDS, kl, law, rows, unprompted

LIKELIHOODS = st.tuples(st.floats(-20, 0), st.floats(-20, 0))


def objective(fused: Tensor, llm: Tensor, slm: Tensor, likelihoods: tuple[float, float]) -> Tensor:
    return torch.maximum(kl(fused, llm) - likelihoods[0], kl(fused, slm) - likelihoods[1])


def best_of_the_grid(llm: Tensor, slm: Tensor, likelihoods: tuple[float, float]) -> tuple[Tensor, Tensor]:
    weights = torch.cat((torch.linspace(0, 2, 10)[:-1], torch.linspace(2, 10, 9))).double()
    pairs = torch.cartesian_prod(weights, weights)
    laws = (pairs[:, :1] * llm + pairs[:, 1:] * slm).log_softmax(-1)
    worth = objective(laws, llm, slm, likelihoods)
    return worth.min(), laws[worth.argmin()]


def told(likelihoods: tuple[float, float]) -> tuple[Tensor, Tensor]:
    """The state of an answer with these log-likelihoods."""
    llm, slm = (torch.tensor([value], dtype=torch.float64) for value in likelihoods)
    return llm, slm


@given(seed=SEEDS, likelihoods=LIKELIHOODS)
def test_no_pair_of_the_grid_does_better(seed: int, likelihoods: tuple[float, float]) -> None:
    llm, slm = rows(seed, 1, dtype=torch.float64), rows(seed + 1, 1, dtype=torch.float64)
    fused = law(CPFuse(), llm, slm, told(likelihoods))
    assert objective(fused, llm, slm, likelihoods) <= best_of_the_grid(llm, slm, likelihoods)[0] + 1e-6


@given(seed=SEEDS, likelihoods=LIKELIHOODS)
def test_any_other_law_is_worse_by_its_divergence_from_ours(
    seed: int, likelihoods: tuple[float, float]
) -> None:
    """objective(q) ≥ objective(r) + KL(q‖r): r is the only optimum, and where q comes near, it is r."""
    llm, slm = rows(seed, 1, dtype=torch.float64), rows(seed + 1, 1, dtype=torch.float64)
    fused = law(CPFuse(), llm, slm, told(likelihoods))
    least = objective(fused, llm, slm, likelihoods)
    worth, grid = best_of_the_grid(llm, slm, likelihoods)
    assert worth >= least + kl(grid[None], fused) - 1e-5
    for other in rows(seed + 2, 20, dtype=torch.float64):
        assert objective(other[None], llm, slm, likelihoods) >= least + kl(other[None], fused) - 1e-5


def test_mirror_images_meet_half_way() -> None:
    llm = torch.tensor([[0.7, 0.2, 0.1]], dtype=torch.float64).log()
    fused = law(CPFuse(), llm, llm.flip(-1), told((0.0, 0.0)))
    expected = ((llm + llm.flip(-1)) / 2).log_softmax(-1)
    torch.testing.assert_close(fused, expected, atol=1e-5, rtol=1e-5)


@given(seed=SEEDS)
def test_a_model_behind_has_its_way(seed: int) -> None:
    """The model that finds the answer unlikely by more than KL can make up for writes alone."""
    llm, slm = rows(seed, 1, dtype=torch.float64), rows(seed + 1, 1, dtype=torch.float64)
    torch.testing.assert_close(law(CPFuse(), llm, slm, told((0.0, -200.0))), slm, atol=1e-6, rtol=0)
    torch.testing.assert_close(law(CPFuse(), llm, slm, told((-200.0, 0.0))), llm, atol=1e-6, rtol=0)


def test_the_likelihoods_run() -> None:
    llm, slm = torch.tensor([[0.9, 0.1]]).log(), torch.tensor([[0.4, 0.6]]).log()
    state = CPFuse().start(unprompted(1))
    for token in (0, 1):
        state = CPFuse().advance(state, torch.tensor([token]), llm, slm, llm)
    torch.testing.assert_close(torch.cat(state).exp().float(), torch.tensor([0.09, 0.24]))
