"""The capped rule, where looking at a tensor costs nothing and where it does."""

from __future__ import annotations

import math
from collections.abc import Iterator

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from purify_hooks.policies._capping import fuse_capped
from purify_plugins.decode import logits as weights
from tests.policies.cases import SEEDS, both, kl, rows

NATS = st.floats(0.0, 4.0)
EXACT = 1e-6


@pytest.fixture(scope="module", params=["here", "there"], autouse=True)
def where(request: pytest.FixtureRequest) -> Iterator[None]:
    """Every law twice: Newton's way on the host, and by sorting as if the rows were on an accelerator."""
    with pytest.MonkeyPatch.context() as patch:
        if request.param == "there":
            patch.setattr(weights, "HOST", frozenset())
        yield


@given(seed=SEEDS, cap=NATS)
def test_no_token_exceeds_its_ceiling(seed: int, cap: float) -> None:
    llm, slm = both(seed, holes=0.3)
    fused = fuse_capped(llm, slm, torch.full((3,), cap, dtype=torch.float64))
    assert (fused <= slm + cap).all()
    torch.testing.assert_close(fused.exp().sum(-1), torch.ones(3, dtype=torch.float64), atol=EXACT, rtol=0)


@given(seed=SEEDS)
def test_a_cap_of_nothing_is_the_slm_alone(seed: int) -> None:
    llm, slm = rows(seed, holes=0.5), rows(seed + 1, holes=0.5)
    assert torch.equal(fuse_capped(llm, slm, torch.zeros(3)), slm)


@given(seed=SEEDS)
def test_a_cap_that_does_not_bind_is_the_llm_alone(seed: int) -> None:
    llm, slm = both(seed)
    cap = (llm - slm).amax(-1) + 0.1
    torch.testing.assert_close(fuse_capped(llm, slm, cap), llm)


@given(seed=SEEDS, cap=NATS)
def test_nothing_under_the_ceiling_is_nearer_the_llm(seed: int, cap: float) -> None:
    llm, slm = both(seed)
    caps = torch.full((3,), cap)
    best = fuse_capped(llm, slm, caps).log_softmax(-1)
    for other in range(10):
        feasible = fuse_capped(rows(seed + other + 2, dtype=torch.float64), slm, caps)
        for share in (1.0, 0.3, 0.01):
            rival = torch.logaddexp(best + math.log1p(-share * 0.999), feasible + math.log(share * 0.999))
            assert (kl(best, llm) <= kl(rival.log_softmax(-1), llm) + EXACT).all()


def test_the_capped_rule_by_hand() -> None:
    llm, slm = torch.tensor([[0.9, 0.06, 0.04]]).log(), torch.tensor([[0.2, 0.4, 0.4]]).log()
    fused = fuse_capped(llm, slm, torch.tensor([math.log(2)]))
    torch.testing.assert_close(fused.exp(), torch.tensor([[0.4, 0.36, 0.24]]))


def test_what_the_llm_cannot_hold_goes_to_the_other_tokens_as_the_slm_would_have_it() -> None:
    llm, slm = torch.tensor([[1.0, 0.0, 0.0]]).log(), torch.tensor([[0.2, 0.6, 0.2]]).log()
    fused = fuse_capped(llm, slm, torch.tensor([math.log(2)]))
    torch.testing.assert_close(fused.exp(), torch.tensor([[0.4, 0.45, 0.15]]))


@pytest.mark.parametrize("llm", [[[0.0, -torch.inf, -torch.inf]], [[-torch.inf] * 3]])
def test_an_llm_with_nothing_to_add_leaves_the_slm(llm: list[list[float]]) -> None:
    slm = torch.tensor([[-torch.inf, -0.5, math.log1p(-math.exp(-0.5))]])
    fused = fuse_capped(torch.tensor(llm), slm, torch.tensor([1.0])).log_softmax(-1)
    torch.testing.assert_close(fused, slm)


@pytest.mark.parametrize("cap", [1e-6, 0.01, 1.0, 10.0, 80.0, 1000.0])
def test_a_hostile_row_still_sums_to_one(cap: float) -> None:
    """Ratios spread over hundreds of nats, where Newton has the most corners to turn."""
    slm = rows(3, 2, 4000)
    llm = (slm + torch.linspace(-150, 150, 4000)).log_softmax(-1)
    fused = fuse_capped(llm, slm, torch.full((2,), cap))
    torch.testing.assert_close(fused.exp().sum(-1), torch.ones(2), atol=1e-5, rtol=0)
    assert (fused <= slm + cap).all()
