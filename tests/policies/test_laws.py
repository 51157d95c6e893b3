"""What holds for every bundled policy, checked on random rows."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace

import pytest
import torch
from hypothesis import given
from torch import Tensor

from purify_hooks.policies import POLICIES
from purify_plugins.decode.fusion import where_rows
from purify_plugins.policy import FusionPolicy
from purify_plugins.testing import PolicyConformance
from tests.policies.cases import EACH, SEEDS, kl, law, rows, unprompted

NOT_AVERAGES = {"offset", "contrastive", "safe_decoding"}  # of two equal rows they make a third
AVERAGES = sorted(set(EACH) - NOT_AVERAGES)
SHIFTABLE = sorted(name for name, policy in EACH.items() if policy.shift_invariant)

every_policy = pytest.mark.parametrize("name", EACH)


def overlapping(seed: int) -> Tensor:
    """Rows with holes, but never at token 0, so that two of them share something."""
    row = rows(seed, holes=0.3)
    row[:, 0] = row[:, 0].clamp(min=-3.0)
    return row.log_softmax(-1)


@every_policy
class TestTheContract(PolicyConformance):
    """The suite that plugin authors run, on our own policies."""

    @pytest.fixture(autouse=True)
    def _named(self, name: str) -> None:
        self.name = name

    def policy(self) -> FusionPolicy:
        policy: FusionPolicy = EACH[self.name]
        return policy

    def test_permuting_the_vocabulary_permutes_the_result(self) -> None:
        """Below, with TokenSwap's words permuted too."""


def test_names_are_those_of_the_configuration() -> None:
    assert set(POLICIES) == {
        "geometric", "windowed", "balanced", "minimum", "anchored", "capped", "cp_fuse", "token_swap",
        "clean_gen", "safe_decoding", "linear", "learned_mix", "offset", "contrastive", "consistency",
        "top_k_union",
    }  # fmt: skip
    assert all(make.name == name for name, make in POLICIES.items())


def test_importing_the_policies_does_not_import_torch() -> None:
    code = "import sys, purify_hooks.policies; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@every_policy
@given(seed=SEEDS)
def test_the_law_sums_to_one(name: str, seed: int) -> None:
    fused = law(EACH[name], rows(seed), rows(seed + 1))
    torch.testing.assert_close(fused.exp().sum(-1), torch.ones(3))


@every_policy
@given(seed=SEEDS)
def test_minus_infinity_in_either_row_is_an_ordinary_value(name: str, seed: int) -> None:
    llm, slm = rows(seed, holes=0.5), rows(seed + 1, holes=0.5)
    weights = EACH[name].fuse(llm, slm, EACH[name].start(unprompted(3)))
    assert not weights.isnan().any()
    assert not weights.isposinf().any()
    assert weights[llm.isneginf() & slm.isneginf()].isneginf().all()


@every_policy
@given(seed=SEEDS)
def test_memory_survives_minus_infinity(name: str, seed: int) -> None:
    policy, state = EACH[name], EACH[name].start(unprompted(3))
    for step in range(4):
        llm, slm = rows(seed + step, holes=0.5), rows(seed - step - 1, holes=0.5)
        fused = law(policy, llm, slm, state)
        fused = torch.where(fused.isnan(), slm, fused)
        state = policy.advance(state, fused.argmax(-1), llm, slm, fused)
    assert not any(tensor.isnan().any() for tensor in state)
    assert not policy.fuse(rows(seed), rows(seed + 1), state).isnan().any()


@pytest.mark.parametrize(
    "name", ["geometric", "minimum", "cp_fuse", "windowed", "balanced", "capped", "anchored", "offset"]
)
def test_what_only_the_llm_offers_is_not_taken(name: str) -> None:
    """Disjoint models: an empty row, for which the loop takes the SLM's, or the SLM's at once."""
    llm, slm = torch.tensor([[0.0, -torch.inf]]), torch.tensor([[-torch.inf, 0.0]])
    weights = EACH[name].fuse(llm, slm, EACH[name].start(unprompted(1)))
    assert weights[0, 0] == -torch.inf
    assert weights[0, 1] in (-torch.inf, 0.0)


@pytest.mark.parametrize("name", AVERAGES)
@given(seed=SEEDS)
def test_two_equal_rows_give_the_row_back(name: str, seed: int) -> None:
    row = rows(seed, holes=0.2)
    torch.testing.assert_close(law(EACH[name], row, row), row, atol=1e-5, rtol=1e-5)


@every_policy
@given(seed=SEEDS)
def test_permuting_the_vocabulary_permutes_the_law(name: str, seed: int) -> None:
    llm, slm, policy = rows(seed), rows(seed + 1), EACH[name]
    order = torch.randperm(llm.shape[1], generator=torch.Generator().manual_seed(seed))
    moved = policy
    if name == "token_swap":
        moved = replace(
            policy, ids=tuple(at for at, token in enumerate(order.tolist()) if token in policy.ids)
        )
    expected = law(policy, llm, slm)[:, order]
    torch.testing.assert_close(law(moved, llm[:, order], slm[:, order]), expected, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("name", SHIFTABLE)
@given(seed=SEEDS)
def test_a_constant_added_to_a_row_changes_nothing_where_a_policy_says_so(name: str, seed: int) -> None:
    llm, slm = overlapping(seed), overlapping(seed + 1)
    shifted = law(EACH[name], llm + 17.0, slm - 5.0)
    torch.testing.assert_close(shifted, law(EACH[name], llm, slm), atol=1e-4, rtol=1e-4)


def test_raw_logits_are_for_geometric_offset_and_contrastive() -> None:
    assert SHIFTABLE == ["contrastive", "geometric", "offset"]


@every_policy
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_widened_before_anything_else(name: str, dtype: torch.dtype) -> None:
    llm, slm = rows(1).to(dtype), rows(2).to(dtype)
    policy = EACH[name]
    fused = policy.fuse(llm, slm, policy.start(unprompted(3)))
    assert fused.dtype == torch.float32
    assert torch.equal(fused, policy.fuse(llm.float(), slm.float(), policy.start(unprompted(3))))


@every_policy
@given(seed=SEEDS)
def test_a_batch_is_its_rows_at_every_step(name: str, seed: int) -> None:
    policy = EACH[name]
    together, apart = policy.start(unprompted(3)), [policy.start(unprompted(1)) for _ in range(3)]
    for step in range(4):
        llm, slm = overlapping(seed + step), overlapping(seed - step - 1)
        fused = law(policy, llm, slm, together)
        alone = [law(policy, llm[row][None], slm[row][None], apart[row]) for row in range(3)]
        torch.testing.assert_close(fused, torch.cat(alone), atol=1e-4, rtol=1e-4)
        tokens = fused.argmax(-1)
        together = policy.advance(together, tokens, llm, slm, fused)
        apart = [
            policy.advance(apart[row], tokens[[row]], llm[[row]], slm[[row]], fused[[row]])
            for row in range(3)
        ]


@every_policy
def test_nothing_it_is_given_is_changed(name: str) -> None:
    policy, llm, slm = EACH[name], rows(1), rows(2)
    state = policy.start(unprompted(3))
    kept = [tensor.clone() for tensor in (llm, slm, *state)]
    fused = law(policy, llm, slm, state)
    policy.advance(state, fused.argmax(-1), llm, slm, fused)
    assert all(torch.equal(now, before) for now, before in zip((llm, slm, *state), kept, strict=True))


@every_policy
def test_a_row_that_waits_can_keep_its_old_state(name: str) -> None:
    policy, llm, slm = EACH[name], rows(1), rows(2)
    old = policy.start(unprompted(3))
    fused = law(policy, llm, slm, old)
    new = policy.advance(old, fused.argmax(-1), llm, slm, fused)
    mixed = where_rows(torch.tensor([True, False, True]), new, old)
    assert all(torch.equal(a[1], b[1]) for a, b in zip(mixed, old, strict=True))
    assert all(torch.equal(a[0], b[0]) for a, b in zip(mixed, new, strict=True))


@given(seed=SEEDS)
def test_the_slm_alone_is_free(seed: int) -> None:
    """The measure the tests use: no divergence from itself."""
    assert kl(rows(seed), rows(seed)).abs().max() == 0
