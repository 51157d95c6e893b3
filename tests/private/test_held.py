"""A long text holds what a search finds in it, and thousands of forms are looked up at once."""

from __future__ import annotations

import time
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from purify_hooks.private.forms import Form, Lookup
from purify_hooks.private.gatekeeper import Gatekeeper
from purify_hooks.private.held import LONG, HeldText, _each, _hashes
from purify_hooks.private.samples import value
from purify_plugins.stages.request import Request

LETTERS = "ab1. \u200b\u5bc6\U0001d400\ud800"
TEXT = "".join(Random(1).choices(LETTERS, k=LONG))
HELD = HeldText(TEXT)


@given(st.integers(0, LONG - 1), st.integers(0, 20), st.text(LETTERS, max_size=12))
def test_a_long_text_holds_its_parts_and_what_a_search_finds(at: int, size: int, other: str) -> None:
    assert HELD.holds(TEXT[at : at + size])
    for each in (other, TEXT[at : at + size] + other):
        assert HELD.holds(each) == (each in TEXT)


def test_hashes_of_all_runs_are_those_of_each() -> None:
    assert _hashes(TEXT[:100]).tolist() == [*_each(TEXT[:100])]


def naive(forms: list[Form], text: str) -> list[tuple[int, int, Form]]:
    """Every form alone at every place, the longest of the first that stand there."""
    found, at = [], 0
    hits = [(each.start, each.end, each.form) for form in forms for each in Lookup([form]).find(text)]
    for start, end, form in sorted(hits, key=lambda hit: (hit[0], -hit[1])):
        if start >= at:
            found.append((start, end, form))
            at = end
    return found


WORDS = st.lists(
    st.sampled_from(["ada", "Ada Quill", "ada quill x", "12-34 5", "1234", "(12) 345"]), max_size=6
)


@given(WORDS, st.text("adquilx1234 ()-5Q", max_size=60))
def test_forms_looked_up_together_are_those_found_one_by_one(words: list[str], text: str) -> None:
    ways = {True: "number", False: "words"}
    forms = [Form(each, "z", each, ways[each[0] in "(1"]) for each in dict.fromkeys(words)]
    text += " " + " ".join(words)
    assert [(a, b) for a, b, _ in naive(forms, text)] == [(a, b) for a, b, _ in Lookup(forms).find(text)]


def crowded(kind: str, size: int) -> str:
    """A text of so many characters, of one private value after another."""
    random = Random(kind)
    return "".join(f"{value(kind, random)};\n" for _ in range(size // 10))[:size]


@pytest.mark.slow
@pytest.mark.alone
@pytest.mark.parametrize("kind", ["email", "card", "url_credentials", "iban"])
def test_time_grows_with_the_text_and_no_faster(kind: str) -> None:
    """Once each value was looked for in the whole text, and each form at each place: 14 s for a megabyte."""
    keeper, spent = Gatekeeper(), list[float]()
    for size in (25_000, 200_000):
        text = crowded(kind, size)
        begun = time.thread_time()
        keeper.answer(Request(text))
        spent.append(time.thread_time() - begun)
    print(f"{kind}: {spent[1]:.2f} s for 200,000 characters, {spent[1] / spent[0]:.1f} x an eighth's")
    assert spent[1] < 16 * spent[0]  # 8 is linear


def test_a_number_of_too_many_digits_is_found_whole() -> None:
    """Of one group of digits nothing was left, and the request ended with an IndexError."""
    prompt = str(Gatekeeper().answer(Request("call +174155501361 now")).prompt)
    assert "74155501361" not in prompt


def test_a_surrogate_that_holds_another_value_s_beginning_is_left_whole() -> None:
    """The number cut by a letter was replaced inside the surrogate of the whole one, and never restored."""
    text = "call +44 20 7946 0065 or +44 20 7946 0065x"
    asked = Gatekeeper().answer(Request(text))
    prompt, vault, back, at = str(asked.prompt), asked.vault, "", 0
    assert "0065 or" not in prompt
    assert vault is not None
    while found := vault.find(prompt, at):
        back, at = back + prompt[at : found[0]] + found[3], found[1]
    assert back + prompt[at:] == text
