"""Rows of which a server shows the top only: the tail is the SLM's, and every budget stays exact."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from purify_hooks.policies import POLICIES
from purify_plugins import Sampling
from purify_plugins.decode.fusion import fuse
from purify_plugins.decode.partial_rows import complete
from purify_plugins.decode.processors import LogitsProcessors
from purify_plugins.decode.token_records import token_records
from purify_plugins.testing import no_context, random_rows
from tests.toys import BYTES

SIZE = 12
rows_of = st.integers(0, 10_000).map(lambda seed: random_rows(3, SIZE, seed))


def top(rows: Tensor, number: int) -> Tensor:
    """A server's view of rows (rows, V): their `number` likeliest tokens and the mass of the rest."""
    least = rows.topk(number, dim=-1).values[:, -1:]
    shown = rows.masked_fill(rows < least, -torch.inf)
    rest = torch.log1p(-shown.exp().sum(-1, keepdim=True).clamp(max=1.0))
    return torch.cat([shown, rest], dim=-1)


@given(rows_of, rows_of, st.integers(1, SIZE))
def test_a_completed_row_is_a_distribution_that_keeps_what_was_shown(llm, slm, number) -> None:
    completed, revealed, unseen = complete(top(llm, number), slm)
    torch.testing.assert_close(completed.exp().sum(-1), torch.ones(3))
    torch.testing.assert_close(completed[~unseen], llm[~unseen], atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(revealed, llm.exp().masked_fill(unseen, 0.0).sum(-1))


@given(rows_of, rows_of, st.integers(1, SIZE - 2))
def test_the_tail_has_the_slm_s_proportions(llm, slm, number) -> None:
    completed, _, unseen = complete(top(llm, number), slm)
    for row in range(3):
        difference = (completed - slm)[row, unseen[row]]
        torch.testing.assert_close(difference, difference[:1].expand_as(difference), atol=1e-3, rtol=1e-3)


@given(rows_of, rows_of)
def test_a_row_shown_whole_is_left_as_it_is(llm, slm) -> None:
    completed, revealed, _ = complete(top(llm, SIZE), slm)
    torch.testing.assert_close(completed, llm)
    torch.testing.assert_close(revealed, torch.ones(3))


def test_a_row_of_which_nothing_was_shown_is_the_slm_s_own() -> None:
    slm = random_rows(2, SIZE, 1)
    nothing = torch.full((2, SIZE + 1), -torch.inf)
    nothing[:, -1] = 0.0
    completed, revealed, _ = complete(nothing, slm)
    torch.testing.assert_close(completed, slm)
    assert revealed.tolist() == [0, 0]


def test_what_the_slm_rules_out_gets_nothing_of_the_tail() -> None:
    slm = random_rows(1, SIZE, 1).masked_fill(torch.arange(SIZE) >= 6, -torch.inf)
    completed, _, _ = complete(top(random_rows(1, SIZE, 2), 2), slm)
    assert not torch.isnan(completed).any()
    some = torch.full((1, SIZE + 1), -torch.inf)
    some[0, [0, -1]] = math.log(0.5)
    only = torch.full((1, SIZE), -torch.inf)
    only[0, 0] = 0.0  # the SLM is sure of the one token that was shown
    completed, _, _ = complete(some, only)
    assert completed[0, 0] == pytest.approx(math.log(0.5))
    assert torch.isneginf(completed[0, 1:]).all()


adversarial = st.lists(
    st.one_of(st.just(-math.inf), st.floats(-100.0, 0.0), st.just(0.0)), min_size=SIZE + 1, max_size=SIZE + 1
).filter(lambda row: max(row) > -math.inf)


@given(adversarial, rows_of.map(lambda rows: rows[:1]), st.sampled_from(["windowed", "capped", "anchored"]))
def test_budgets_hold_whatever_a_server_reports(reported, slm, name) -> None:
    """The recorded KL and peak are those of the row that was drawn from, and within the policy's caps."""
    policy = POLICIES[name]()
    state = policy.start(no_context(1))
    sampling = Sampling()
    rows = fuse(policy, LogitsProcessors(sampling, BYTES), torch.tensor([reported]), slm, state, [((), ())])
    token = token_records(rows, torch.tensor([int(rows.fused.argmax())]), greedy=False)[0]
    drawn = (rows.mass / rows.mass.sum()).double()
    spent = torch.where(drawn > 0, drawn * (drawn.log() - slm.double()), 0.0)
    assert token.kl == pytest.approx(float(spent.sum()), abs=1e-4)
    assert token.peak == pytest.approx(float((drawn.log() - slm.double()).max()), abs=1e-4)
    holds = getattr(policy, "holds", None)
    assert holds is None or holds([token])
    assert 0 <= token.revealed <= 1 + 1e-6
    assert -1e-6 <= token.hidden <= 1 + 1e-6


@given(rows_of, rows_of, st.integers(1, SIZE), st.sampled_from(["geometric", "minimum", "linear"]))
def test_a_pool_is_no_further_from_the_whole_row_s_than_the_record_says(llm, slm, number, name) -> None:
    policy, shape = POLICIES[name](), LogitsProcessors(Sampling(), BYTES)
    state, history = policy.start(no_context(3)), [((), ())] * 3
    seen = fuse(policy, shape, top(llm, number), slm, state, history)
    whole = fuse(policy, shape, llm, slm, state, history)
    shares = [rows.mass / rows.mass.sum(-1, keepdim=True) for rows in (seen, whole)]
    distance = 0.5 * (shares[0] - shares[1]).abs().sum(-1)
    tokens = token_records(seen, torch.zeros(3, dtype=torch.long), greedy=False)
    assert all(far <= token.hidden + 1e-5 for token, far in zip(tokens, distance.tolist(), strict=True))


def test_a_cut_row_counts_hidden_mass_among_what_is_left() -> None:
    """Top-p narrows rows to other columns; the mask of unseen tokens must follow."""
    llm, slm = random_rows(2, SIZE, 1), random_rows(2, SIZE, 2)
    policy = POLICIES["geometric"]()
    shape = LogitsProcessors(Sampling(top_p=0.8), BYTES, whole=False)
    rows = fuse(policy, shape, top(llm, 3), slm, (), [((), ())] * 2)
    assert rows.columns is not None
    unseen = complete(top(llm, 3), slm)[2][:, rows.columns]
    expected = (rows.mass * unseen).sum(-1) / rows.mass.sum(-1)
    assert rows.shown is not None
    torch.testing.assert_close(rows.shown[:, 1], expected)
    assert expected.max() > 0
