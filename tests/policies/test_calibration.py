"""Calibration: the rule's settings from clean text alone, within bounds that no sample can move."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from purify_hooks.calibration.words import meaning
from purify_hooks.policies import calibration
from purify_hooks.policies._gap import SLOWER
from purify_hooks.policies.balanced import Balanced
from purify_hooks.policies.calibration import (
    BASE,
    BUDGETS,
    CODE_COST,
    LIMITED,
    SMALLEST_OPENING,
    SUDDEN,
    Calibration,
    ScoredText,
    calibrate,
)
from purify_plugins.errors import ConfigError
from purify_plugins.policy import FusionPolicy
from purify_plugins.testing import PolicyConformance, letters


def text(llm: float, slm: float, seed: int = 0, tokens: int = 300) -> ScoredText:
    """Tokens whose surprisal is exponential, `llm` and `slm` nats on average."""
    generator = torch.Generator().manual_seed(seed)
    unit = -torch.rand(2, tokens, generator=generator).clamp(min=1e-6).log()
    return ScoredText(-llm * unit[0], -slm * unit[1])


def corpus(llm: float, slm: float) -> list[ScoredText]:
    return [text(llm, slm, seed) for seed in range(6)]


def share_at_the_limit(found: Calibration, texts: list[ScoredText]) -> float:
    """Counted token by token, with the policy's own state."""
    met = count = 0
    for each in texts:
        level, gap, usual = 0.0, found.policy.gap, 0.0
        for llm, slm in zip(each.llm.tolist(), each.slm.tolist(), strict=True):
            met += llm > slm and level + llm - slm > min(found.policy.budget, found.policy.opening + usual)
            count += 1
            rise = max((1 + found.policy.doubt) * llm - slm - gap, -found.policy.drain)
            level = min(max(level + rise, 0.0), 2 * found.policy.budget)
            ratio = min(max(llm - slm, -3.0), 5.0)
            gap = min(max(gap + (ratio - gap) / found.policy.memory, 0.0), found.policy.gap_limit)
            usual += (level - usual) / (SLOWER * found.policy.memory)
    return met / count


def surer_all_along() -> list[ScoredText]:
    """Texts of which the LLM is sure throughout, and the SLM is not: code, to a weak SLM."""
    return [ScoredText(each.llm, each.llm + each.slm) for each in corpus(1.0, 2.0)]


def test_the_gap_is_what_the_slm_is_worse_by_on_clean_text() -> None:
    texts = corpus(2.0, 3.0)
    found = calibrate(texts)
    both = [float((each.llm - each.slm).sum()) for each in texts]
    assert found.policy.gap == pytest.approx(sum(both) / 1800, abs=1e-3)
    assert found.slm - found.llm == pytest.approx(found.ratio)


def test_a_better_slm_has_no_gap_and_a_hopeless_one_no_more_than_the_limit() -> None:
    assert calibrate(corpus(3.0, 2.0)).policy.gap == 0.0
    assert calibrate(corpus(1.0, 9.0)).policy.gap == BASE.gap_limit


def test_one_token_in_a_hundred_meets_the_limit_at_most_and_no_smaller_budget_does_it() -> None:
    texts = surer_all_along()
    found = calibrate(texts)
    alone = replace(found, policy=replace(found.policy, opening=math.inf))
    assert BUDGETS[0] < found.policy.budget < BUDGETS[1]
    assert found.enough
    assert share_at_the_limit(alone, texts) == pytest.approx(found.over_budget)
    assert found.over_budget == pytest.approx(LIMITED, rel=0.5)


def test_one_token_in_forty_meets_the_limit_at_most_and_no_smaller_opening_does_it() -> None:
    texts = surer_all_along()
    found = calibrate(texts)
    assert SMALLEST_OPENING < found.policy.opening < found.policy.budget
    assert share_at_the_limit(found, texts) == pytest.approx(found.limited)
    assert LIMITED < found.limited <= SUDDEN
    smaller = replace(found.policy, opening=found.policy.opening - 0.2)
    assert share_at_the_limit(replace(found, policy=smaller), texts) > SUDDEN
    told = " ".join(meaning(found, "letters", copying=False))
    assert f"{1 - found.limited:.1%} of these tokens never met the limit" in told
    assert f"{1 - found.over_budget:.1%} never would without an opening" in told


def code() -> list[ScoredText]:
    """The same texts, half of whose tokens have signs of code."""
    generator = torch.Generator().manual_seed(0)
    return [replace(each, signs=torch.rand(300, generator=generator) < 0.5) for each in surer_all_along()]


def cost_of_code(policy: Balanced, texts: list[ScoredText]) -> float:
    """Nats that the limit takes from a token of code, counted token by token."""
    lost = count = 0.0
    for each in texts:
        assert each.signs is not None
        level, gap, usual, share = 0.0, policy.gap, 0.0, 0.2
        for llm, slm, sign in zip(each.llm.tolist(), each.slm.tolist(), each.signs.tolist(), strict=True):
            limit = min(policy.budget, usual + policy.opening, usual + policy.opening_in_code)
            if share > 0.2:
                lost += max(llm - slm - max(limit - level, 0.0), 0.0)
                count += 1
            level = min(max(level + max(2 * llm - slm - gap, -policy.drain), 0.0), 2 * policy.budget)
            gap += (min(max(llm - slm, -3.0), 5.0) - gap) / policy.memory
            gap = min(max(gap, 0.0), policy.gap_limit)
            usual += (level - usual) / (SLOWER * policy.memory)
            share += (sign - share) / 24
    return lost / count


def test_the_opening_in_code_is_the_smallest_that_costs_no_more_than_is_allowed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(calibration, "CODE_COST", 0.1)
    found = calibrate(code())
    assert SMALLEST_OPENING < found.policy.opening_in_code < found.policy.opening
    assert found.policy.opening == calibrate(surer_all_along()).policy.opening
    assert found.code_cost == pytest.approx(cost_of_code(found.policy, code()))
    assert found.code_cost <= 0.1
    smaller = replace(found.policy, opening_in_code=found.policy.opening_in_code - 0.1)
    assert cost_of_code(smaller, code()) > 0.1
    assert found.policy.signs == ()  # they are the vocabulary's, and found when the policy is bound
    told = " ".join(meaning(found, "letters", copying=False))
    assert f"it makes the {found.code:,} tokens of code at most" in told
    assert f"by {found.code_cost:.2g} nats each on average" in told


def test_the_opening_in_code_leaves_room_for_a_word_of_a_fact_however_good_the_slm_is_at_code() -> None:
    """An SLM that writes code as the LLM does, and little else: 0 would cost nothing, and leave nothing."""
    able = [ScoredText(each.llm, each.llm, torch.ones(300)) for each in corpus(1.0, 1.0)]
    found = calibrate([*surer_all_along(), *able])
    assert found.policy.opening_in_code == SMALLEST_OPENING < found.policy.opening
    assert found.code_cost < CODE_COST


def test_what_has_no_code_or_no_opening_has_none_in_code() -> None:
    prose = [replace(each, signs=torch.zeros(300)) for each in surer_all_along()]
    equals = [replace(each, slm=each.llm) for each in code()]
    for texts in (prose, equals, surer_all_along()):
        found = calibrate(texts)
        assert found.policy.opening_in_code == math.inf
        assert "code" not in " ".join(meaning(found, "letters", copying=False))


def test_a_pair_whose_budget_is_small_needs_no_opening() -> None:
    found = calibrate([ScoredText(each.llm, each.llm) for each in corpus(3.0, 3.0)])
    assert found.policy.budget == pytest.approx(BUDGETS[0], abs=0.25)
    assert found.policy.opening == math.inf
    assert found.limited == found.over_budget


def test_the_gap_of_two_equals_can_hardly_be_raised() -> None:
    equals = [ScoredText(each.llm, each.llm + 0.05 * (each.slm + 3.0)) for each in corpus(3.0, 3.0)]
    apart = corpus(2.0, 3.0)
    assert calibrate(equals).policy.largest_gap < 0.3 < 1.0 < calibrate(apart).policy.largest_gap


@settings(max_examples=10)
@given(llm=st.floats(0.01, 20.0), slm=st.floats(0.01, 20.0))
def test_no_sample_makes_the_rule_unsafe(llm: float, slm: float) -> None:
    found = calibrate(corpus(llm, slm))
    assert BUDGETS[0] <= found.policy.budget <= BUDGETS[1] + 0.1
    assert found.policy.opening >= SMALLEST_OPENING
    assert 0 <= found.over_budget <= found.limited
    assert 0 <= found.policy.largest_gap <= math.log(10)
    assert found.policy.numbers == BASE.numbers
    assert 0 <= found.limited <= 1


def test_a_text_known_by_heart_is_told_and_moves_no_bound() -> None:
    found = calibrate(corpus(0.001, 6.0))
    assert not found.enough
    assert found.policy.budget == pytest.approx(BUDGETS[1], abs=0.2)


def test_texts_of_any_length_count_by_their_tokens() -> None:
    texts = [text(1.0, 3.0, 1, 250), text(1.0, 3.0, 2, 40), ScoredText(torch.zeros(0), torch.zeros(0))]
    found = calibrate(texts)
    assert found.tokens == 290
    assert found.llm == pytest.approx(-float(sum(each.llm.sum() for each in texts)) / 290, rel=1e-6)


@pytest.mark.parametrize(
    ("texts", "advice"),
    [
        ([text(1.0, 2.0, tokens=20)], "needs 200 scored tokens or more, not 20"),
        ([ScoredText(torch.full((300,), -1.0), torch.full((300,), -torch.inf))], "gives a token of the text"),
    ],
)
def test_what_cannot_be_calibrated_on_is_told(texts: list[ScoredText], advice: str) -> None:
    with pytest.raises(ConfigError, match=advice):
        calibrate(texts)


def test_the_two_rows_of_a_text_belong_together() -> None:
    scores: Tensor = torch.full((300,), -1.0)
    with pytest.raises(ConfigError, match="as many"):
        calibrate([ScoredText(scores, scores[1:])])


class TestTheCalibratedRule(PolicyConformance):
    """The contract of a policy, with everything that follows the text; token 0 of 17 writes numbers."""

    def policy(self) -> FusionPolicy:
        return replace(BASE, gap=0.5).bind(letters("1abcdefghijklmno"))

    def test_permuting_the_vocabulary_permutes_the_result(self) -> None:
        """Not of a rule that knows which tokens write numbers."""
