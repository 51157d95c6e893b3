"""The copyist: a distribution over its own text's tokens, the same whichever way the text was reached."""

from __future__ import annotations

import math
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from purify_hooks.copying.copyist import CONFIRMED, LONGEST, MOST, PRIOR, WORTH, Copyist

TEXTS = st.lists(st.integers(0, 4), max_size=40)


def chances(copyist: Copyist) -> dict[int, float]:
    """What it says of each token that it has read."""
    said = copyist.prediction()
    return {token: said.even + said.more.get(token, 0.0) for token in copyist.distinct}


@given(TEXTS)
def test_it_is_a_distribution_over_the_tokens_so_far(text: list[int]) -> None:
    found, said = chances(Copyist(text)), Copyist(text).prediction()
    assert found.keys() == set(text)
    assert math.fsum(found.values()) == pytest.approx(float(bool(text)))
    assert said.more.keys() <= found.keys()
    assert 0 <= said.weight <= MOST


def by_definition(text: Sequence[int], token: int) -> float:
    """p_k(v) = (n_k(v) + d_k p_{k-1}(v)) / (n_k + d_k), from the shortest match to the longest."""
    chance = float(token in text) / len({*text})
    for length in range(1, LONGEST + 1):
        followers = [
            text[at]
            for at in range(length, len(text))
            if tuple(text[at - length : at]) == tuple(text[len(text) - length :])
        ]
        if len(text) < length or not followers:
            break
        chance = (followers.count(token) + len({*followers}) * chance) / (len(followers) + len({*followers}))
    return chance


@given(TEXTS.filter(bool))
def test_longer_matches_come_before_shorter_ones(text: list[int]) -> None:
    for token, chance in chances(Copyist(text)).items():
        assert chance == pytest.approx(by_definition(text, token))


@given(TEXTS, TEXTS, TEXTS)
def test_what_is_forgotten_leaves_no_trace(text: list[int], gone: list[int], then: list[int]) -> None:
    copyist = Copyist([*text, *gone])
    copyist.forget(len(text))
    for token in then:
        copyist.read(token)
    other = Copyist([*text, *then])
    assert copyist.prediction() == other.prediction()
    assert copyist.steps == other.steps


@given(TEXTS.filter(bool))
def test_it_is_trusted_as_often_as_it_was_right(text: list[int]) -> None:
    copyist = Copyist(text)
    said = copyist.prediction()
    came = [step.chance for step in copyist.steps[1:] if step.kind == said.kind]
    right = ((PRIOR + CONFIRMED)[said.kind] * WORTH + math.fsum(came)) / (WORTH + len(came))
    assert said.weight == pytest.approx(min(right, MOST))


def test_a_text_that_repeats_itself_is_copied() -> None:
    said = Copyist([5, 7, 9, 8] * 6).prediction()
    assert said.even + said.more[5] > 0.95
    assert said.weight > 0.8
