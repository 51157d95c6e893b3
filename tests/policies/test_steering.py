"""Offset, contrastive and safe decoding, by hand."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from torch import Tensor

from purify_hooks.policies.steering import Contrastive, Offset, SafeDecoding, _shared
from tests.policies.cases import SEEDS, law, rows, unprompted


def test_an_offset_is_added_to_the_logits() -> None:
    fused = Offset(2.0).fuse(torch.tensor([[1.0, 2.0]]), torch.tensor([[0.5, -1.0]]), ())
    assert fused.tolist() == [[2.0, 0.0]]


def test_no_offset_is_the_llm_alone() -> None:
    llm = rows(1, holes=0.5)
    assert torch.equal(Offset(0).fuse(llm, rows(2, holes=0.5), ()), llm)


def test_contrast_by_hand() -> None:
    llm, slm = torch.tensor([[0.6, 0.38, 0.02]]).log(), torch.tensor([[0.6, 0.19, 0.21]]).log()
    torch.testing.assert_close(law(Contrastive(0.1), llm, slm).exp(), torch.tensor([[1 / 3, 2 / 3, 0.0]]))


def test_contrast_needs_a_plausible_token() -> None:
    llm, slm = torch.tensor([[0.95, 0.05]]).log(), torch.tensor([[1.0, 0.0]]).log()
    assert law(Contrastive(0.1), llm, slm).exp().tolist() == [[1.0, 0.0]]


def test_a_plausible_token_the_slm_rules_out_is_as_rare_as_can_be() -> None:
    llm, slm = torch.tensor([[0.5, 0.5]]).log(), torch.tensor([[1.0, 0.0]]).log()
    fused = Contrastive().fuse(llm, slm, ())
    assert float(fused[0, 1] - fused[0, 0]) == pytest.approx(100.0)


def steps(count: int, step: int) -> tuple[Tensor]:
    return (torch.full((count,), step),)


def test_the_expert_leads_the_first_tokens_only() -> None:
    policy, llm, slm = SafeDecoding(first=2), rows(1), rows(2)
    state = policy.start(unprompted(3))
    followed = []
    for _ in range(3):
        fused = policy.fuse(llm, slm, state)
        followed.append(torch.equal(fused, llm))
        state = policy.advance(state, fused.argmax(-1), llm, slm, fused)
    assert followed == [False, False, True]


def test_rows_may_be_at_different_steps() -> None:
    llm, slm = rows(1), rows(2)
    fused = SafeDecoding(first=2).fuse(llm, slm, (torch.tensor([0, 2, 9]),))
    assert torch.equal(fused[1:], llm[1:])
    assert not torch.equal(fused[0], llm[0])


def test_safe_decoding_by_hand() -> None:
    llm, slm = torch.tensor([[0.6, 0.3, 0.08, 0.02]]).log(), torch.tensor([[0.5, 0.4, 0.02, 0.08]]).log()
    fused = SafeDecoding(alpha=2.0, top=2).fuse(llm, slm, steps(1, 0)).exp()
    torch.testing.assert_close(fused, torch.tensor([[0.4, 0.5, 0.0, 0.0]]))


def test_a_token_the_expert_would_drive_below_zero_keeps_a_trace() -> None:
    llm, slm = torch.tensor([[0.9, 0.1]]).log(), torch.tensor([[0.1, 0.9]]).log()
    fused = SafeDecoding(alpha=3.0, top=2).fuse(llm, slm, steps(1, 0)).exp()
    torch.testing.assert_close(fused, torch.tensor([[1e-8, 2.5]]))


def intersection(llm: list[float], slm: list[float], least: int) -> set[int]:
    """The definition: longer and longer top lists until they share enough."""
    tops = [sorted(range(len(row)), key=lambda token: -row[token]) for row in (llm, slm)]
    for length in range(1, len(llm) + 1):
        shared = set(tops[0][:length]) & set(tops[1][:length])
        if len(shared) >= least:
            return shared
    return set(range(len(llm)))


@given(seed=SEEDS)
def test_the_short_list_is_the_smallest_intersection(seed: int) -> None:
    llm, slm = rows(seed, 1, 200, dtype=torch.float64), rows(seed + 1, 1, 200, dtype=torch.float64)
    for least in (1, 5, 60):
        found = _shared(llm, slm, least)[0].nonzero()[:, 0].tolist()
        assert set(found) == intersection(llm[0].tolist(), slm[0].tolist(), least)


def test_opposite_models_need_long_lists() -> None:
    """Where the tops disagree the lists grow past the first look."""
    llm = torch.linspace(0, -9, 500)[None]
    assert int(_shared(llm, llm.flip(-1), 1).sum()) == 2  # the two middle tokens enter together


def test_a_list_longer_than_the_vocabulary_is_the_vocabulary() -> None:
    fused = SafeDecoding(top=50).fuse(rows(1), rows(2), steps(3, 0))
    assert (fused > -math.inf).all()
