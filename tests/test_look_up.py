"""Prompt look-up: what is copied is what followed the same text before."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from itertools import product
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import chisquare

from purify_plugins import Chat
from purify_plugins.decode import look_up
from purify_plugins.decode.draft_length import DraftLength
from purify_plugins.decode.look_up import FIRST, LONGEST, MATCH, LookUp, symbols_before
from purify_plugins.decode.replay import replay
from purify_plugins.decode.row import Row
from purify_plugins.decode.speculative import VerifyLoop
from purify_plugins.testing import ToySource, letters
from purify_plugins.tokenizers.cross.symbols import byte_symbols
from tests.toys import few, pair

AB = letters("ab")
MODELS = ToySource(AB, 1), ToySource(AB, 2)
LENGTH, DRAWS = 5, 250
SYMBOLS = st.lists(st.sampled_from([0, 1, 256, 65536]), max_size=40)


def followed(text: Sequence[int], match: int) -> int:
    """Where the text goes on after the latest earlier place that has its last symbols; 0: nowhere."""
    last = text[-match:]
    starts = range(len(text) - match - 1, -1, -1)
    return next((at + match for at in starts if text[at : at + match] == last), 0)


@given(SYMBOLS, SYMBOLS, st.integers(1, 4), st.integers(0, 9))
def test_a_draft_is_what_followed_the_latest_repetition(
    prompt: list[int], answer: list[int], match: int, most: int
) -> None:
    """Symbols share bytes: a match that begins inside a symbol is none."""
    look_up = LookUp(prompt, 1)
    look_up.draft(answer[: len(answer) // 2], most)  # the answer grows
    look_up.match = match
    text = [*prompt, *answer]
    at = followed(text, match)
    expected = text[at : at + min(look_up.length, most)] if at else []
    assert look_up.draft(answer, most) == expected


def test_an_accepted_draft_is_followed_by_a_longer_one_and_a_rejected_one_is_harder_to_get() -> None:
    look_up = LookUp(list(range(10)) * 9, 1)
    lengths = []
    for _ in range(5):
        lengths.append(len(look_up.draft([], 100)))
        look_up.observe(lengths[-1] - 1, 1.0)
    assert lengths == [FIRST, 2 * FIRST, 4 * FIRST, 10, 10]  # no more than what followed
    assert look_up.length == LONGEST
    look_up.observe(0, 0.0)
    assert (look_up.length, look_up.match) == (FIRST, 2 * MATCH)
    look_up.observe(99, 0.0)  # what came after the draft says nothing of it
    assert look_up.match == 2 * MATCH


@pytest.mark.parametrize(
    ("prompt", "read", "expected"),
    [
        ("né", (3, 5), [3, 5]),
        ("né", (-7, 0xA9), [*"né".encode()]),
        ((-7, 0xA9), (-7, 0xA9), [0xA9]),
        (Chat(({"role": "user", "content": "a"}, {"role": "user", "content": "b"})), (-7,), [*b"a\nb"]),
        (Chat(({"role": "assistant", "tool_calls": []},)), (-7,), []),
    ],
)
def test_a_prompt_is_looked_up_in_the_symbols_of_the_answer(
    prompt: str | Chat | tuple[int, ...], read: tuple[int, ...], expected: list[int]
) -> None:
    """Its beginning was read in tokens of the SLM's own: then it is looked up as text."""
    assert symbols_before(Row(prompt), read, byte_symbols().vocabulary) == expected


def test_text_that_repeats_itself_takes_fewer_cycles_and_is_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    """Greedy, of an LLM whose text is periodic, beside an SLM that drafts other tokens."""
    eight = letters("abcdefgh")
    models = ToySource(eight, 1, order=1, sharpness=9.0), ToySource(eight, 2, order=1, sharpness=0.5)
    cycles: dict[bool, int] = {}
    texts: dict[bool, str] = {}
    verify = VerifyLoop.draft_and_verify
    for copying in (True, False):
        counted: list[None] = []

        def noted(self: VerifyLoop, counted: list[None] = counted) -> Any:
            counted.append(None)
            return verify(self)

        monkeypatch.setattr(VerifyLoop, "draft_and_verify", noted)
        if not copying:
            monkeypatch.setattr(LookUp, "draft", lambda *_: [])
        purifier = pair(*models, "geometric", walk="speculative")
        [answer] = purifier.generate((0,), few(80, temperature=0))
        texts[copying], cycles[copying] = answer.text, len(counted)
    assert texts[True] == texts[False]
    assert cycles[True] < cycles[False] / 2


def test_copies_have_the_enumerated_law(monkeypatch: pytest.MonkeyPatch) -> None:
    """What came before is followed by what followed it then, or by what is drawn in its place."""
    monkeypatch.setattr(look_up, "MATCH", 1)
    drafted: list[int] = []
    found = LookUp.draft

    def noted(self: LookUp, answer: Sequence[int], most: int) -> list[int]:
        self.match = 1  # however much was rejected before
        drafted.append(len(symbols := found(self, answer, most)))
        return symbols

    monkeypatch.setattr(LookUp, "draft", noted)
    purifier = pair(*MODELS, "windowed", walk="speculative", batch_size=1)
    learned = DraftLength()
    purifier.draft_lengths.of = lambda *_: learned  # type: ignore[method-assign]  # a seed allows no copies
    drawn = Counter(each.tokens for each in purifier.generate([(0,)] * DRAWS, few(LENGTH, ignore_eos=False)))
    texts = [text for n in range(LENGTH + 1) for text in product((0, 1), repeat=n)]
    answers = [(*text, *AB.eos) if len(text) < LENGTH else text for text in texts]
    rows = replay(purifier, [(0,)] * len(answers), answers)
    law = [math.exp(math.fsum(token.fused for token in row)) for row in rows]
    assert sum(law) == pytest.approx(1.0, abs=1e-4)
    counts = [drawn[answer] for answer in answers]
    assert sum(counts) == DRAWS
    assert chisquare(counts, [DRAWS * mass / sum(law) for mass in law]).pvalue > 1e-5  # drawn anew
    assert sum(map(bool, drafted)) > DRAWS / 2
