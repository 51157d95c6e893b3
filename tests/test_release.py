"""An answer's exit: what is released depends on its text alone, and nothing of a blocked span is released."""

from __future__ import annotations

import math
import random
import re
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from purify_plugins.errors import RefusedError, SourceError
from purify_plugins.stages.checks import Blocked, Check
from purify_plugins.stages.matches import PatternCheck, WordCheck, WordPattern
from purify_plugins.stages.release import Release
from purify_plugins.stages.vault import Vault
from purify_plugins.stages.windows import Windows
from purify_plugins.types import Piece, Token


@dataclass
class Forbidden(Check):
    """Blocks the first of these texts; holds what may become one."""

    texts: tuple[str, ...]
    redo: int = 0
    name: str = "forbidden"

    @property
    def window(self) -> float:  # type: ignore[override]  # a toy
        return max(map(len, self.texts)) - 1

    def clear(self, text: str, last: bool) -> int:
        for at in range(len(text)):
            if any(text.startswith(each, at) for each in self.texts):
                raise Blocked(at, "said")
            if not last and any(each.startswith(text[at:]) for each in self.texts):
                return at
        return len(text)


@dataclass
class Names:
    """A vault of these surrogates, found by the longest at each place."""

    values: dict[str, str]

    @property
    def longest(self) -> int:
        return max(map(len, self.values))

    @cached_property
    def pattern(self) -> re.Pattern[str]:
        return re.compile("|".join(map(re.escape, sorted(self.values, key=len, reverse=True))))

    def find(self, text: str, start: int) -> tuple[int, int, str, str] | None:
        found = self.pattern.search(text, start)
        return (*found.span(), f"id of {found[0]}", self.values[found[0]]) if found else None

    def restored(self, text: str) -> str:
        return self.pattern.sub(lambda found: self.values[found[0]], text)


class Nothing:
    """A classifier that finds all texts harmless."""

    def scores(self, texts: Sequence[str]) -> list[float]:
        return [0.0 for _ in texts]


def token(number: int) -> Token:
    return Token(number, 0.0, 0.0, 0.0, 0.0, 0.0)


def cut(text: str, places: Sequence[int]) -> list[Piece]:
    edges = [0, *sorted(places), len(text)]
    return [Piece(token(at), text[a:b]) for at, (a, b) in enumerate(pairwise(edges))]


def released(release: Release, pieces: Sequence[Piece], chunk: int = 1) -> list[Piece]:
    found: list[Piece] = []
    for at in range(0, len(pieces), chunk):
        found += release.feed(pieces[at : at + chunk])
        if release.block:
            return found
    return [*found, *release.feed((), last=True)]


def text_of(pieces: Sequence[Piece]) -> str:
    return "".join(text for _, text in pieces)


TEXTS = st.text("abc ", max_size=40)
CUTS = st.lists(st.integers(0, 40), max_size=12)
WORDS = st.lists(st.text("abc ", min_size=1, max_size=6), min_size=1, max_size=3).map(tuple)


@given(TEXTS, CUTS, WORDS, st.integers(1, 4))
def test_an_answer_is_released_up_to_its_first_blocked_span_however_it_was_cut(
    text: str, places: list[int], words: tuple[str, ...], chunk: int
) -> None:
    places = [min(each, len(text)) for each in places]
    starts = [at for word in words if (at := text.find(word)) >= 0]
    release = Release([Forbidden(words)])
    pieces = released(release, cut(text, places), chunk)
    assert text_of(pieces) == release.text == text[: min(starts, default=len(text))]
    assert (release.block is not None) == bool(starts)
    if release.block:
        assert (release.block.start, release.block.key) == (min(starts), "said")


@given(
    TEXTS,
    CUTS,
    st.dictionaries(st.text("abc", min_size=1, max_size=5), st.text("XYZ", max_size=5), min_size=1),
)
def test_surrogates_are_restored_longest_first_over_any_cutting(
    text: str, places: list[int], names: dict[str, str]
) -> None:
    places, vault = [min(each, len(text)) for each in places], Names(names)
    release, drawn = Release(vault=vault), cut(text, places)
    pieces = released(release, drawn)
    assert text_of(pieces) == release.text == vault.restored(text)
    order = [piece.token.id for piece in pieces if piece.token]
    assert order == sorted(order)
    assert set(order) == {piece.token.id for piece in drawn if piece.token}
    spelled = [
        text[each.start : each.end] if each.kind == "drawn" else names[each.key.removeprefix("id of ")]
        for each in release.segments
    ]
    assert "".join(spelled) == release.text
    assert [each.start for each in release.segments[1:]] == [each.end for each in release.segments[:-1]]


def hold_back(checks: Sequence[Check], vault: Vault | None = None) -> float:
    """The most characters of an answer that are held: its checks' largest window, and the longest surrogate.

    Checks judge side by side; a surrogate that begins before the held text is held as well. Where a
    span may be written again, tokens are released whole: then up to two tokens more are held.
    """
    return max((check.window for check in checks), default=0) + (vault.longest if vault else 0)


@given(TEXTS, CUTS, WORDS)
def test_no_more_is_held_than_the_largest_window_and_the_longest_surrogate(
    text: str, places: list[int], words: tuple[str, ...]
) -> None:
    checks, vault = [Forbidden(words), Forbidden(("ccccc",))], Names({"ab": "Ada", "abc": "Adam"})
    release = Release(checks, vault)
    for piece in cut(text, [min(each, len(text)) for each in places]):
        release.feed([piece])
        if release.block:
            return
        at = release.segments[-1].end if release.segments else 0
        assert len(release.drawn) - at <= hold_back(checks, vault)


def test_a_true_value_belongs_to_the_token_that_completes_its_surrogate() -> None:
    drawn = [Piece(token(at), text) for at, text in enumerate(["to E", "va", " St", "one!", "", "x"])]
    found = released(Release(vault=Names({"Eva Stone": "Ada Quill"})), drawn)
    joined = {at: text_of([each for each in found if each.token == token(at)]) for at in range(6)}
    assert joined == {0: "to ", 1: "", 2: "", 3: "Ada Quill!", 4: "", 5: "x"}


def test_a_block_says_how_many_whole_tokens_stand_before_it() -> None:
    release = Release([Forbidden(("bad",))])
    drawn = [Piece(token(at), text) for at, text in enumerate(["so ", "ver", "", "y ba", "d"])]
    assert text_of(released(release, drawn)) == "so very "
    assert release.block is not None
    assert (release.block.start, release.block.before, release.block.tokens) == (8, 2, 3)
    with pytest.raises(RefusedError, match="after a check had blocked"):
        release.feed([Piece(token(9), "d")])


def test_a_token_that_may_be_drawn_again_is_released_whole_or_not_at_all() -> None:
    release = Release([Forbidden(("bad",), redo=1)], Names({"Eva": "Ada"}))
    drawn = [Piece(token(at), text) for at, text in enumerate(["Eva is ", "ver", "y ba", "d"])]
    # "er" waits: what replaces the span decides whether a surrogate begins in it.
    assert text_of(released(release, drawn)) == "Ada is v"
    assert release.block is not None
    release.rewind(release.block.before)
    assert text_of(released(release, [Piece(token(7), "y good"), Piece(token(8), " Eva")])) == "ery good Ada"
    assert release.text == "Ada is very good Ada"
    assert release.drawn == "Eva is very good Eva"


@given(TEXTS, TEXTS, CUTS, WORDS)
@example("aaaaaabac", "c", [7], ("c",))  # the blocked token told "ab" from "abc", and "Ada" was out
def test_a_span_that_is_written_again_is_released_as_if_it_had_been_drawn_first(
    text: str, again: str, places: list[int], words: tuple[str, ...]
) -> None:
    vault = Names({"ab": "Ada", "abc": "Adam"})
    release, drawn = (
        Release([Forbidden(words, redo=1)], vault),
        cut(text, [min(p, len(text)) for p in places]),
    )
    released(release, drawn)
    if not release.block:
        return
    before = release.block.before
    release.rewind(before)
    rest = [Piece(token(100 + at), each) for at, each in enumerate(again)]
    plain = Release([Forbidden(words, redo=1)], vault)
    for each, pieces in ((release, rest), (plain, [*drawn[:before], *rest])):
        released(each, pieces)
        if each.block:
            each.refuse("said", "no")
    assert (release.text, release.segments) == (plain.text, plain.segments)


def test_a_refusal_ends_the_answer_with_the_operator_s_text() -> None:
    release = Release([Forbidden(("bad",))])
    released(release, [Piece(token(0), "so bad")])
    assert release.refuse("said", "I can't say that.") == (Piece(None, "I can't say that."),)
    assert release.text == "so I can't say that."
    assert [each.kind for each in release.segments] == ["drawn", "operator"]
    assert release.segments[-1].key == "said"


def test_a_refusal_releases_what_is_before_the_span_and_was_held_for_a_surrogate() -> None:
    release = Release([Forbidden(("bad",))], Names({"Eva": "Ada", "Eva and all others": "everybody"}))
    assert text_of(released(release, [Piece(token(0), "Eva is"), Piece(token(1), " bad")])) == ""
    assert text_of(release.refuse("said", "No.")) == "Ada is No."


@dataclass
class Says(Check):
    """Says what it is given."""

    word: Any
    name: str = "odd"
    window: float = math.inf

    def clear(self, text: str, last: bool) -> int:
        if isinstance(self.word, Exception):
            raise self.word
        return self.word  # type: ignore[no-any-return]  # whatever it is


@pytest.mark.parametrize(
    ("word", "message"),
    [
        (math.nan, "check 'odd' failed with TypeError in release.py"),
        (3.0, "check 'odd' failed with TypeError"),
        (None, "check 'odd' failed with TypeError"),
        (-1, "check 'odd' cleared -1 of 6 characters"),
        (7, "check 'odd' cleared 7 of 6 characters"),
        (ValueError("a secret"), "check 'odd' failed with ValueError in test_release.py, line [0-9]+$"),
        (SourceError("the model is gone"), "check 'odd' failed: the model is gone"),
        (RefusedError("as I please"), "^as I please"),
        (Blocked(9), "check 'odd' blocked from character 9 on"),
        (Blocked(-1), "check 'odd' blocked from character -1 on"),
        (Blocked(math.nan), "check 'odd' failed with TypeError"),  # type: ignore[arg-type]  # a wrong one
    ],
)
def test_a_check_that_fails_or_says_what_cannot_be_refuses_the_answer(word: Any, message: str) -> None:
    release = Release([Says(word)])
    with pytest.raises(RefusedError, match=message):
        release.feed([Piece(token(0), "secret")])
    assert not release.text


def test_a_check_must_clear_a_whole_answer_and_not_block_what_it_cleared() -> None:
    with pytest.raises(RefusedError, match="'odd' held back 2 characters of a whole answer"):
        Release([Says(1)]).feed([Piece(token(0), "abc")], last=True)
    check = Says(3)
    release = Release([check])
    release.feed([Piece(token(0), "abcd")])
    release.checks[0].word = Blocked(2)  # type: ignore[attr-defined]  # its copy
    with pytest.raises(RefusedError, match="blocked from character 2 on, with 3 released of 5"):
        release.feed([Piece(token(1), "e")])


@dataclass
class Odd:
    """A vault that returns what it is given."""

    found: Any
    longest: int = 3

    def find(self, text: str, start: int) -> Any:
        if isinstance(self.found, Exception):
            raise self.found
        return self.found


@pytest.mark.parametrize(
    "found", [(0, 4, "1", "x"), (2, 2, "1", "x"), (9, 10, "1", "x"), (0,), OSError("gone")]
)
def test_a_vault_that_fails_refuses_the_answer(found: Any) -> None:
    release = Release(vault=Odd(found))
    with pytest.raises(RefusedError, match="the vault"):
        release.feed([Piece(token(0), "abcdef")])
    assert not release.text


@pytest.mark.slow
def test_a_hundred_thousand_texts_and_cuttings() -> None:
    """Every law above at once, without Hypothesis' overhead: 100,000 random texts, words and cuttings."""
    drawn, violations = random.Random(0), 0
    for _ in range(100_000):
        text = "".join(drawn.choices("abc ", k=drawn.randrange(40)))
        words = tuple("".join(drawn.choices("abc ", k=drawn.randint(1, 6))) for _ in range(2))
        vault = Names({"ab": "Ada", "abc": "Adam", "ca": ""})
        start = min((at for word in words if (at := text.find(word)) >= 0), default=len(text))
        checks = [Forbidden(words)]
        release = Release(checks, vault)
        for piece in cut(text, [drawn.randint(0, len(text)) for _ in range(drawn.randrange(12))]):
            release.feed([piece])
            if release.block:
                break
            at = release.segments[-1].end if release.segments else 0
            violations += len(release.drawn) - at > hold_back(checks, vault)
        else:
            release.feed((), last=True)
        at = release.segments[-1].end if release.segments else 0
        violations += at > start or release.text != vault.restored(text[:at])
        violations += release.block is None and at < len(text)
    assert violations == 0


@pytest.mark.slow
@pytest.mark.alone
def test_a_token_costs_at_most_fifty_microseconds_of_one_core() -> None:
    """Of 2,000 tokens, with three checks and a vault: the least of five runs' processor time."""
    words = ["".join(random.Random(at).choices("etaoinshrdlu", k=6)) for at in range(2000)]
    listed, pattern = WordPattern(f"{word}q" for word in words), re.compile(r"\b\d{4}-\d{4}\b")
    vault, costs = Names({f"{word}q": "x" for word in words[:100]}), []
    for _ in range(5):
        release = Release([WordCheck(listed), PatternCheck(pattern), Windows(Nothing())], vault)
        pieces = [Piece(token(at), f"{word} ") for at, word in enumerate(words)]
        started = time.process_time()
        released(release, pieces)
        costs.append((time.process_time() - started) / len(words))
        assert release.text == "".join(f"{word} " for word in words)
    assert min(costs) <= 50e-6
