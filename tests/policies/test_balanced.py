"""Balanced: what any run of tokens may have from the LLM, and when the LLM is shut out."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from purify_hooks.policies.balanced import Balanced
from purify_plugins.types import Token
from tests.policies.cases import SEEDS, every_answer, law, prompted, unprompted

NATS = st.floats(0.0, 4.0)
EXACT = 1e-6


def near(*numbers: float) -> object:
    return pytest.approx(numbers, abs=1e-5)


def steps(*pairs: tuple[float, float]) -> list[Token]:
    """A record of tokens with these probabilities in the fused row and the SLM's."""
    logs = [(math.log(fused), math.log(slm)) for fused, slm in pairs]
    return [Token(0, None, slm, fused, kl=0.0, peak=fused - slm) for fused, slm in logs]


@given(seed=SEEDS, budget=NATS, doubt=st.floats(0.0, 3.0), drain=NATS)
def test_every_run_of_every_answer_is_within_the_budget(
    seed: int, budget: float, doubt: float, drain: float
) -> None:
    fused, slm = every_answer(Balanced(budget, doubt, drain), seed)
    taken = torch.where(fused > -torch.inf, (1 + doubt) * fused - slm, -torch.inf)
    for length in range(1, 6):
        assert taken.clamp(min=-100).unfold(1, length, 1).sum(-1).max() <= budget + EXACT
    assert torch.where(fused > -torch.inf, fused - slm, -torch.inf).max() <= budget + EXACT


@given(seed=SEEDS, doubt=st.sampled_from([0.0, 0.5, 1.0, 2.0]))
def test_a_passage_is_at_most_a_root_of_what_the_slm_gives_it(seed: int, doubt: float) -> None:
    policy = Balanced(2.0, doubt)
    answers = every_answer(policy, seed)
    for length in range(1, 6):
        fused, slm = (path[:, :length].sum(-1).exp() for path in answers)
        assert (fused <= (math.exp(policy.budget) * slm) ** (1 / (1 + doubt)) + EXACT).all()


def test_an_llm_that_knows_the_rule_can_take_all_that_it_promises() -> None:
    """Half-sure of three digits, sure of the fourth: the bound is met, so no smaller one is true."""
    policy, slm = Balanced(4.0), torch.full((1, 10), 0.1).log()
    half = math.exp(((policy.budget - math.log(10)) / 3 - math.log(10)) / 2)
    state, digits, chance = policy.start(unprompted(1)), torch.tensor([0]), 1.0
    for sure in (half, half, half, 1 - 1e-9):
        llm = torch.tensor([[sure] + [(1 - sure) / 9] * 9]).log()
        fused = law(policy, llm, slm, state)
        chance *= float(fused[0, 0].exp())
        state = policy.advance(state, digits, llm, slm, fused)
    assert chance == pytest.approx(math.sqrt(math.exp(policy.budget) * 1e-4), rel=1e-4)


def walked(policy: Balanced, pairs: list[tuple[float, float]]) -> list[float]:
    """The level after each token, where the models give it these probabilities among two."""
    state, levels = policy.start(unprompted(1)), []
    for pair in pairs:
        llm, slm = (torch.tensor([[p, 1 - p]]).log() for p in pair)
        state = policy.advance(state, torch.tensor([0]), llm, slm, law(policy, llm, slm, state))
        levels += state[0].tolist()
    return levels


def test_only_what_the_llm_alone_is_sure_of_is_counted() -> None:
    sure, shared, unsure = (0.99, 0.1), (0.99, 0.99), (0.05, 0.01)
    policy, cost = Balanced(), 2 * math.log(0.99) - math.log(0.1)
    assert walked(policy, [sure, shared, sure]) == near(
        cost, cost + math.log(0.99), 2 * cost + math.log(0.99)
    )
    assert walked(policy, [sure, unsure]) == near(cost, cost + 2 * math.log(0.05) - math.log(0.01))


def test_the_level_falls_by_the_drain_at_most_and_never_below_nothing() -> None:
    unsure = (0.01, 0.9)
    policy, sure = Balanced(drain=0.5), (0.99, 0.1)
    cost = 2 * math.log(0.99) - math.log(0.1)
    assert walked(policy, [unsure, sure, unsure, unsure]) == near(0.0, cost, cost - 0.5, cost - 1.0)


def test_what_the_llm_was_denied_counts_as_if_it_had_been_taken() -> None:
    policy, secret = Balanced(budget=3.0), (0.999, 0.05)
    cost = 2 * math.log(0.999) - math.log(0.05)
    assert walked(policy, [secret] * 4) == near(cost, 2 * cost, 6.0, 6.0)


def test_a_prompt_known_by_heart_shuts_the_llm_out() -> None:
    policy = Balanced()
    known = prompted(torch.full((1, 3), -0.01), torch.full((1, 3), -5.0))
    guessed = prompted(torch.full((1, 3), -4.0), torch.full((1, 3), -5.0))
    llm, slm = torch.tensor([[0.9, 0.1]]).log(), torch.tensor([[0.2, 0.8]]).log()
    torch.testing.assert_close(law(policy, llm, slm, policy.start(known)), slm)
    torch.testing.assert_close(law(policy, llm, slm, policy.start(guessed)), llm)


def test_a_prompt_weighs_what_it_weighs_inside_an_answer() -> None:
    """So an answer continued in a second call has no second budget."""
    policy = Balanced()
    scores = torch.tensor([[0.9, 0.5, 0.99]]).log(), torch.tensor([[0.2, 0.1, 0.3]]).log()
    (level,) = policy.start(prompted(*scores))
    pairs = list(zip(*(score.exp()[0].tolist() for score in scores), strict=True))
    assert level.tolist() == near(walked(policy, pairs)[-1])


def test_padding_on_the_left_of_a_prompt_is_free() -> None:
    llm, slm = torch.tensor([[0.0, 0.0, -0.1]]), torch.tensor([[0.0, 0.0, -4.0]])
    assert Balanced().start(prompted(llm, slm)) == Balanced().start(prompted(llm[:, 2:], slm[:, 2:]))


def test_no_budget_is_the_slm_alone() -> None:
    llm, slm = torch.tensor([[0.9, 0.1]]).log(), torch.tensor([[0.2, 0.8]]).log()
    assert torch.equal(Balanced(0.0).fuse(llm, slm, Balanced(0.0).start(unprompted(1))), slm)


def test_a_record_holds_while_no_run_of_it_exceeds_the_budget() -> None:
    policy = Balanced(budget=4.0)
    assert policy.holds(steps((0.9, 0.1), (0.3, 0.2), (0.9, 0.1)))
    assert policy.holds(steps((0.9, 0.1), (0.01, 0.2), (0.9, 0.1), (0.01, 0.2), (0.9, 0.1)))
    assert not policy.holds(steps((0.01, 0.2), (0.9, 0.1), (0.9, 0.1), (0.5, 0.4)))
    assert not policy.holds(steps((0.1, 0.1), (0.001, 0.00001)))  # one token beyond its own ceiling
    assert policy.holds([])
