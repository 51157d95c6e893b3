"""A recital that was broken off is found again: behind another word, or some words further on."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from purify_hooks.takedown.alignment import Alignment
from purify_hooks.takedown.anchor import LIKELY, TakedownRule
from purify_hooks.takedown.trail import Trail
from tests.takedown.lists import anchor

STREAM = np.arange(40, dtype=np.int32)
WORK = [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 1, 3, 5, 7, 9, 0, 2, 4, 6, 8, 0, 3, 6, 9, 2, 5, 8, 1, 4, 7]
OTHER = 10
"""A letter that the work does not have."""


def read(tokens: list[int], start: int = 0, width: int = 16) -> Alignment:
    alignment = Alignment.at(STREAM, np.array([start]), width)
    for token in tokens:
        alignment = alignment.after(token, common=0.01)
    return alignment


def likeliest(alignment: Alignment) -> int:
    return int(alignment.window.ravel()[alignment.expected.argmax()])


@given(st.lists(st.integers(0, 45), max_size=30), st.sampled_from([0, 5, 39]), st.sampled_from([1, 2, 16]))
def test_what_is_copied_next_is_a_distribution(tokens: list[int], start: int, width: int) -> None:
    alignment = read(tokens, start, width)
    assert np.isclose(alignment.belief.sum(), 1)
    assert np.isclose(alignment.expected.sum(), 1)
    assert (alignment.belief >= 0).all()
    known = np.unique(alignment.window)
    assert np.isclose(alignment.shares(known).sum(), 1)


def test_a_copy_goes_on_behind_another_word_and_further_on() -> None:
    assert likeliest(read([0, 1, 2])) == 3
    assert likeliest(read([0, 1, 99, 3])) == 4  # one word was another
    assert likeliest(read([0, 1, 99, 2])) == 3  # one more was written
    assert likeliest(read([0, 1, 6, 7])) == 8  # some were left out


def changed(text: list[int], rule: TakedownRule) -> dict[int, float]:
    """The nats that are taken off each token after a text."""
    change = Trail(anchor([WORK], 11, rule), text).change(-1)
    return {} if change is None else dict(zip(change.tokens.tolist(), change.nats.tolist(), strict=True))


def test_the_next_words_are_taken_off_behind_another_one_as_well() -> None:
    """The LLM wrote "I will have nothing more to do with you" where the work has "I'll"."""
    told = WORK[:17]
    assert changed([*told, OTHER], TakedownRule(sure=3, ahead=1)).get(WORK[18], 0) < 0.1
    assert changed([*told, OTHER], TakedownRule(sure=3, ahead=8))[WORK[18]] > 1
    again = changed([*told, OTHER, WORK[18]], TakedownRule(sure=3, ahead=8))
    assert again[WORK[19]] == max(again.values())


def test_a_word_that_the_change_was_to_bring_about_is_no_sign_of_the_end() -> None:
    told = Trail(anchor([WORK], 11, TakedownRule(sure=3)), WORK[:17])
    before = told.recital(-1).chance
    told.read(OTHER)
    assert LIKELY < told.recital(0).chance < before
    for _ in range(60):
        told.read(OTHER)
    assert told.recital(60).chance < LIKELY
    assert told.change(60) is None
