"""Windowed, capped, anchored: their promises hold on every answer of a small vocabulary."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from purify_hooks.policies.anchored import Anchored
from purify_hooks.policies.budgets import Capped, Windowed
from tests.policies.cases import SEEDS, both, every_answer, kl, law, prompted, rows, unprompted

NATS = st.floats(0.0, 4.0)
EXACT = 1e-6


# Windowed.


@given(seed=SEEDS, cap=NATS, budget=NATS, window=st.integers(1, 4))
def test_every_window_of_every_answer_is_within_the_budget(
    seed: int, cap: float, budget: float, window: int
) -> None:
    ratio = every_answer(Windowed(cap, window, budget), seed).ratio
    for length in range(1, window + 1):
        assert ratio.clamp(min=-100).unfold(1, length, 1).sum(-1).max() <= budget + EXACT
    assert ratio.max() <= cap + EXACT


@given(seed=SEEDS, window=st.integers(1, 4))
def test_no_passage_is_likelier_than_its_windows_allow(seed: int, window: int) -> None:
    policy = Windowed(2.0, window, 2.5)
    answers = every_answer(policy, seed)
    for length in range(1, 6):
        allowed = policy.budget * math.ceil(length / window)
        likelier = answers.fused[:, :length].sum(-1) - answers.slm[:, :length].sum(-1)
        assert likelier.nan_to_num(nan=-torch.inf).max() <= allowed + EXACT


def test_the_window_forgets_what_left_it() -> None:
    policy = Windowed(cap=1.0, window=2, budget=1.0)
    llm, slm = torch.tensor([[0.99, 0.01]]).log(), torch.tensor([[0.1, 0.9]]).log()
    state, spent = policy.start(unprompted(1)), []
    for _ in range(4):
        fused = law(policy, llm, slm, state)
        spent.append(float(fused[0, 0] - slm[0, 0]))
        state = policy.advance(state, torch.tensor([0]), llm, slm, fused)
    assert spent == pytest.approx([1.0, 0.0, 1.0, 0.0], abs=1e-5)


def test_the_window_starts_over_the_prompt() -> None:
    policy = Windowed(cap=3.0, window=4, budget=6.0)
    context = prompted(
        torch.tensor([[-0.1, -9.0, -0.1], [-1.0, -1.0, -1.0]]), torch.tensor([[-5.0, -2.0, -9.0]] * 2)
    )
    spends, _ = policy.start(context)
    torch.testing.assert_close(spends, torch.tensor([[3.0, 0.0, 3.0], [3.0, 1.0, 3.0]]))
    llm, slm = rows(1, 2), rows(2, 2)
    torch.testing.assert_close(law(policy, llm, slm, policy.start(context)), slm)


def test_a_short_prompt_is_padded_with_free_tokens() -> None:
    spends, _ = Windowed(window=4).start(prompted(torch.tensor([[-1.0]]), torch.tensor([[-2.0]])))
    assert spends.tolist() == [[0.0, 0.0, 1.0]]


def test_a_window_of_one_remembers_nothing() -> None:
    policy = Windowed(cap=1.0, window=1, budget=1.0)
    assert policy.lookback == 0
    assert policy.start(unprompted(2))[0].shape == (2, 0)


@pytest.mark.parametrize(("greedy", "spent"), [(False, math.log(2)), (True, math.log(4))])
def test_an_arg_max_spends_all_that_it_exploited(greedy: bool, spent: float) -> None:
    policy = Windowed(cap=math.log(2), window=2, budget=10.0)
    llm, slm = torch.tensor([[0.8, 0.2]]).log(), torch.tensor([[0.2, 0.8]]).log()
    state = policy.start(unprompted(1, greedy))
    state = policy.advance(state, torch.tensor([0]), llm, slm, law(policy, llm, slm, state))
    assert state[0].tolist() == [[pytest.approx(spent)]]


# Capped.


@given(seed=SEEDS, cap=NATS, total=NATS)
def test_no_answer_takes_more_than_the_total(seed: int, cap: float, total: float) -> None:
    answers = every_answer(Capped(cap, total), seed)
    taken = answers.ratio.clamp(min=0.0).sum(-1)
    assert taken.max() <= total + EXACT
    assert answers.ratio.max() <= cap + EXACT


@given(seed=SEEDS, total=NATS, members=SEEDS)
def test_no_event_is_likelier_than_the_total_allows(seed: int, total: float, members: int) -> None:
    answers = every_answer(Capped(2.0, total), seed)
    event = torch.rand(len(answers.fused), generator=torch.Generator().manual_seed(members)) < 0.1
    fused, slm = (path[event].sum(-1).exp().sum() for path in answers)
    assert fused <= math.exp(total) * slm + EXACT


def test_a_spent_answer_is_the_slm_alone() -> None:
    policy, llm, slm = Capped(1.0, 0.5), rows(1, 1), rows(2, 1)
    state = policy.start(unprompted(1))
    fused = law(policy, llm, slm, state)
    state = policy.advance(state, (fused - slm).argmax(-1), llm, slm, fused)
    assert float(state[0]) == pytest.approx(0.0, abs=1e-6)
    torch.testing.assert_close(law(policy, llm, slm, state), slm, atol=1e-5, rtol=1e-5)


def test_what_a_capped_policy_may_claim() -> None:
    assert Capped().guarantee == "path"
    assert Capped(total=math.inf).guarantee == "none"
    assert Windowed().guarantee == "window"
    assert Anchored().guarantee == "mean"


# Anchored.


@given(seed=SEEDS, budget=st.floats(0.0, 1.0))
def test_all_answers_together_stay_within_the_mean(seed: int, budget: float) -> None:
    """KL(answers‖SLM's answers) ≤ budget x tokens, at every length."""
    answers = every_answer(Anchored(budget), seed)
    seen: dict[int, float] = {}
    for length in range(1, 6):
        fused, slm = (path[:: 3 ** (5 - length), :length].sum(-1) for path in answers)
        seen[length] = float(kl(fused, slm))
        assert seen[length] <= budget * length + EXACT
    assert all(less <= more + EXACT for less, more in pairwise(seen.values()))


@given(seed=SEEDS, budget=st.floats(0.01, 3.0))
def test_the_first_step_uses_its_allowance_and_no_more(seed: int, budget: float) -> None:
    llm, slm = both(seed)
    fused = law(Anchored(budget), llm, slm)
    affordable = kl(llm, slm).clamp(max=budget)
    torch.testing.assert_close(kl(fused, slm), affordable, atol=2e-5, rtol=0)
    assert (kl(fused, slm) <= budget + 1e-9).all()


@given(seed=SEEDS, budget=st.floats(0.01, 3.0), temperature=st.floats(1e-6, 1e-2))
def test_the_allowance_holds_however_cold_the_rows_are(seed: int, budget: float, temperature: float) -> None:
    """At temperature 0.0001 rows are a hundred thousand nats apart, and of what was left when they cancelled
    float32 knew a hundredth: twelve tokens took 1.9 nats more than was charged, honest certificates failed.
    """
    llm, slm = ((row / temperature).log_softmax(-1).float() for row in both(seed))
    policy, state = Anchored(budget), Anchored(budget).start(unprompted(3))
    fused = policy.fuse(llm, slm, state).float().log_softmax(-1)
    spent = kl(fused.double().log_softmax(-1), slm.double().log_softmax(-1))
    assert (spent <= budget + EXACT).all()
    [saved] = policy.advance(state, fused.argmax(-1), llm, slm, fused)
    torch.testing.assert_close(budget - saved, spent, atol=EXACT, rtol=EXACT)


@given(seed=SEEDS, budget=st.floats(0.0, 3.0))
def test_the_allowance_holds_where_the_models_rule_tokens_out(seed: int, budget: float) -> None:
    llm, slm = both(seed, holes=0.4)
    fused = law(Anchored(budget), llm, slm)
    assert (kl(fused, slm) <= budget + 1e-9).all()


def test_a_budget_that_does_not_bind_is_the_llm_alone() -> None:
    llm, slm = both(1)
    torch.testing.assert_close(law(Anchored(50.0), llm, slm), llm)


def test_no_budget_is_the_slm_alone() -> None:
    llm, slm = rows(1, holes=0.3), rows(2, holes=0.3)
    assert torch.equal(Anchored(0.0).fuse(llm, slm, Anchored(0.0).start(unprompted(3))), slm)


def test_what_is_saved_can_be_spent_later() -> None:
    policy, llm, slm = Anchored(0.1), rows(1, 1, dtype=torch.float64), rows(2, 1, dtype=torch.float64)
    state = policy.start(unprompted(1))
    for _ in range(3):
        state = policy.advance(state, torch.tensor([0]), slm, slm, slm)
    assert float(kl(law(policy, llm, slm, state), slm)) == pytest.approx(0.4, abs=1e-4)


def test_a_prompt_only_the_llm_knows_is_a_debt() -> None:
    llm = torch.tensor([[0.0, 0.0, -1.0, -1.0, -1.0, -1.0, -9.0]])
    slm = torch.tensor([[0.0, -2.0, -4.0, -6.0, -1.0, -2.0, -1.0]])
    (saved,) = Anchored(debt_tokens=3).start(prompted(llm, slm))
    assert float(saved) == pytest.approx(-(5 + 3 + 2) / 3)
    assert float(Anchored(prefix_debt=False).start(prompted(llm, slm))[0]) == 0
    assert Anchored().lookback > 10**9
    assert Anchored(prefix_debt=False).lookback == 0


def test_an_answer_in_debt_is_the_slm_alone() -> None:
    policy, llm, slm = Anchored(0.15), rows(1, 1), rows(2, 1)
    state = policy.start(prompted(torch.tensor([[-0.1]]), torch.tensor([[-8.0]])))
    assert torch.equal(policy.fuse(llm, slm, state), slm)
