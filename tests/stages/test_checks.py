"""The bundled checks, by the suite that plugin authors subclass; and checks that fail it."""

from __future__ import annotations

import math
import random
import re
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import pytest

from purify_plugins.errors import ConfigError, RefusedError
from purify_plugins.stages.checks import Blocked, Check
from purify_plugins.stages.matches import PatternCheck, WordCheck, WordPattern
from purify_plugins.stages.release import Release
from purify_plugins.stages.windows import Windows, scored
from purify_plugins.testing import CheckConformance
from purify_plugins.types import Piece, Token


@dataclass
class Says:
    """Scores a text by whether this is written in it; keeps the texts."""

    word: str = "bad"

    def __post_init__(self) -> None:
        self.texts: list[str] = []

    def scores(self, texts: Sequence[str]) -> list[float]:
        self.texts += texts
        return [float(self.word in text) for text in texts]


PARTS = ("a", "b", "bad", "ba", "d", " ", "good ", "\n", "é")


class TestWindows(CheckConformance):
    parts = PARTS

    def check(self) -> Check:
        return Windows(Says(), 8, 4)


class TestWindowsThatDoNotOverlap(CheckConformance):
    parts = PARTS

    def check(self) -> Check:
        return Windows(Says(), 5, 5)


class TestAWindowOfTheWholeAnswer(CheckConformance):
    parts = PARTS

    def check(self) -> Check:
        return Windows(Says(), math.inf)


class TestWords(CheckConformance):
    parts = ("bad", "ba", "d", " ", "\n", "x", "Bad", "bad idea", "idea", "c++", "+", "É", "e\u0301")

    def check(self) -> Check:
        return WordCheck(WordPattern(["bad idea", "idea", "bade", "c++", "é"]))


class TestPattern(CheckConformance):
    parts = PARTS

    def check(self) -> Check:
        return PatternCheck(re.compile(r"\bbad+\b|(?<=b)a{2,4}$"), 8, 4)


# What fails the suite


@dataclass
class Cutting(Check):
    """Looks at the cutting: a word that two pieces share is not found, as in a filter of chunks."""

    name: str = "cutting"
    window: float = 0
    seen: int = 0

    def clear(self, text: str, last: bool) -> int:
        piece, before = text[self.seen :], self.seen
        self.seen = len(text)
        if "bad" in piece:
            raise Blocked(before + piece.index("bad"))
        return len(text)


@dataclass
class Beginning(Check):
    """Clears the beginning of what it then blocks."""

    name: str = "beginning"
    window: float = 3

    def clear(self, text: str, last: bool) -> int:
        if "bad" in text:
            raise Blocked(text.index("bad"))
        return len(text)


@dataclass
class Slow(Check):
    """Holds more than its window."""

    name: str = "slow"
    window: float = 2

    def clear(self, text: str, last: bool) -> int:
        if "bad" in text:
            raise Blocked(text.index("bad"))
        return len(text) if last else max(0, len(text) - 3)


@dataclass
class Forgetful(Check):
    """Lets a blocked text go on where more is written."""

    name: str = "forgetful"
    window: float = 9

    def clear(self, text: str, last: bool) -> int:
        if text.endswith("bad"):
            raise Blocked(len(text) - 3)
        return len(text) if last else max(0, len(text) - 9)


@dataclass
class Sharing(Check):
    """Remembers for all answers."""

    name: str = "sharing"
    window: float = math.inf

    def __post_init__(self) -> None:
        self.seen: list[str] = []

    def fresh(self) -> Sharing:
        return self

    def clear(self, text: str, last: bool) -> int:
        self.seen.append(text)
        if any("bad" in each for each in self.seen):
            raise Blocked(0)
        return len(text) if last else 0


def failing(made: Callable[[], Check], tests: set[str]) -> set[str]:
    """Those of the suite's tests that a check fails."""

    class Suite(CheckConformance):
        parts = PARTS

        def check(self) -> Check:
            return made()

    found = set()
    for name in tests:
        try:
            getattr(Suite(), name)()
        except AssertionError:
            found.add(name)
    return found


CUTTING = "test_it_depends_on_the_text_and_not_on_its_cutting"
SPAN = "test_nothing_of_a_blocked_span_was_clear_in_any_beginning"
HELD = "test_no_more_than_its_window_is_held"
STAYS = "test_what_is_clear_stays_clear_and_what_is_blocked_stays_blocked"
SAME = "test_what_is_released_is_the_same_however_the_answer_was_cut"
GOES_ON = "test_a_text_may_go_on_from_an_earlier_beginning"
SHARED = "test_answers_do_not_share_what_it_remembers"


@pytest.mark.parametrize(
    ("made", "fails"),
    [
        (Cutting, {CUTTING, SAME}),
        (Beginning, {SPAN, SAME}),
        (Slow, {HELD}),
        (Forgetful, {STAYS}),
        (Sharing, {GOES_ON, SHARED}),
    ],
)
def test_a_check_that_breaks_its_contract_fails_the_suite(made: Callable[[], Check], fails: set[str]) -> None:
    assert failing(made, fails) == fails


def test_a_check_that_keeps_its_contract_passes_the_suite() -> None:
    assert not failing(lambda: Windows(Says(), 8, 4), {CUTTING, SPAN, HELD, STAYS, SAME, SHARED})


# Windows


def clear(check: Check, text: str, last: bool = False) -> int | str:
    try:
        return check.clear(text, last)
    except Blocked as found:
        return f"blocked at {found.start}, {found.key}"


def test_windows_stand_on_a_grid_and_are_judged_once() -> None:
    says = Says("bad")
    check = Windows(says, 4, 2)
    assert [clear(check, "abcdefgh"[:end]) for end in range(9)] == [0, 0, 0, 0, 2, 2, 4, 4, 6]
    assert says.texts == ["abcd", "cdef", "efgh"]
    assert clear(check, "abcdefghi", last=True) == 9
    assert says.texts[3:] == ["fghi"]
    assert check.judged() == {"windows": 4}


def test_a_block_starts_with_the_part_of_its_window_that_was_not_clear() -> None:
    check = Windows(Says("bad"), 4, 2, key="rude")
    assert clear(check, "abcdefbadghi") == "blocked at 6, rude"
    last = Windows(Says("bad"), 8, 4, key="rude")
    assert clear(last, "abcdefghijbad", last=True) == "blocked at 8, rude"


def test_windows_after_the_place_from_which_a_text_goes_on_are_judged_again() -> None:
    says = Says("bad")
    check = Windows(says, 4, 2)
    clear(check, "abcdefgh")
    assert clear(check, "abcdeBADf") == 6
    assert says.texts == ["abcd", "cdef", "efgh", "cdeB", "eBAD"]


@dataclass
class Odd:
    """A classifier that returns, or raises, what it is given."""

    found: Any
    seconds: float = 0

    def scores(self, texts: Sequence[str]) -> Any:
        time.sleep(self.seconds)
        if isinstance(self.found, Exception):
            raise self.found
        return self.found


@pytest.mark.parametrize(
    ("found", "message"),
    [
        ([math.nan], "gave nan for a score; it must be a number from 0 to 1"),
        ([1.5], "gave 1.5 for a score"),
        ([-0.1], "gave -0.1 for a score"),
        ([True], "gave True for a score"),
        (["abcd"], "gave a value of type str for a score"),
        ([], "gave 0 scores for 1 texts"),
        ([0.1, 0.2], "gave 2 scores for 1 texts"),
        (None, "'odd' failed with TypeError"),
        (OSError("abcd"), "'odd' failed with OSError in test_checks.py, line [0-9]+$"),
    ],
)
def test_a_classifier_that_fails_refuses_the_answer(found: Any, message: str) -> None:
    for deadline in (None, 60.0):
        release = Release([Windows(Odd(found), 4, 2, deadline=deadline)])
        with pytest.raises(RefusedError, match=message) as refused:
            release.feed([Piece(Token(0, 0.0, 0.0, 0.0, 0.0, 0.0), "abcd")])
        assert not release.text
        assert "abcd" not in str(refused.value)


def test_a_classifier_that_is_late_refuses_the_answer() -> None:
    started = time.perf_counter()
    with pytest.raises(RefusedError, match=r"'slow one' gave no scores in 0\.05 s"):
        scored(Odd([0.0], seconds=60), ["abcd"], 0.05, "slow one")
    assert time.perf_counter() - started < 50
    assert scored(Odd([0.25]), ["abcd"], 60.0) == [0.25]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((4, 8), "windows of 4 characters, one every 8"),
        ((4, 0), "windows of 4 characters, one every 0"),
        ((4.5, 2), "give whole numbers"),
        ((8, 4, 1.0), "above must be a number from 0 to 1"),
        ((8, 4, math.nan), "above must be a number from 0 to 1"),
    ],
)
def test_windows_that_cannot_be_are_refused(arguments: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Windows(Says(), *arguments)


# Words and patterns


@pytest.mark.parametrize(
    ("text", "start"),
    [
        ("a bomb!", 2),
        ("BOMB", 0),
        ("bombast", None),
        ("aerobomb", None),
        ("how to  make\na bomb", 4),
        ("I use C++.", 6),
        ("C+", None),
        ("un cafe\u0301 noir", 3),
        ("cafés", None),
    ],
)
def test_words_are_found_whole_in_any_case_and_spacing(text: str, start: int | None) -> None:
    words = WordPattern(["bomb", "to make a bomb", "c++", "café"])
    expected = len(text) if start is None else f"blocked at {start}, default"
    assert clear(WordCheck(words), text, last=True) == expected


def test_a_long_list_of_words_is_found_as_each_alone() -> None:
    letters = random.Random(0)
    words = ["".join(letters.choices("abcde-+ ", k=letters.randint(1, 9))).strip() for _ in range(300)]
    words = [each for each in words if each]
    whole = WordPattern(words)
    alone = [WordPattern([each]).pattern for each in words]
    for _ in range(300):
        text = "".join(letters.choices("abcde-+ ", k=20))
        starts = [found.start() for each in alone if (found := each.search(text))]
        found = whole.pattern.search(text)
        assert (found.start() if found else None) == min(starts, default=None)


def test_a_pattern_sees_what_stands_before_its_window_and_not_a_word_that_its_end_cuts() -> None:
    check = PatternCheck(re.compile(r"\bass\b"), 8, 4)
    assert clear(check, "it is assisting me", last=True) == 18
    assert clear(check, "a class of it", last=True) == 13
    assert clear(check, "a class, an ass, it", last=True) == "blocked at 8, default"
    assert clear(PatternCheck(re.compile(r"\bass\b"), 8, 4), "an ass", last=True) == "blocked at 0, default"
    assert (
        clear(PatternCheck(re.compile(r"\bass\b"), 8, 4), "and the ass", last=True) == "blocked at 4, default"
    )


def test_words_and_patterns_that_cannot_be_are_refused() -> None:
    with pytest.raises(ConfigError, match="a word list needs a word"):
        WordPattern([" "])
    with pytest.raises(ConfigError, match=r"'a\*' is found in every text"):
        PatternCheck(re.compile("a*"))


@pytest.mark.slow
def test_a_hundred_thousand_texts_and_cuttings_of_the_bundled_checks() -> None:
    """The contract of section 3 of the design, counted: 100,000 random texts and cuttings, 0 violations."""
    drawn, violations = random.Random(1), 0
    words, parts = WordPattern(["bad idea", "idea", "bade", "c++"]), (*PARTS, "idea", "c++", "bad idea")
    kinds = (
        lambda: Windows(Says(), 8, 4),
        lambda: PatternCheck(re.compile(r"\bbad+\b"), 9, 4),
        lambda: WordCheck(words),
    )
    for number in range(100_000):
        text, make = "".join(drawn.choices(parts, k=drawn.randrange(9))), kinds[number % 3]
        whole, check, most = clear(make(), text, last=True), make(), 0
        start = int(whole.split()[2].strip(",")) if isinstance(whole, str) else len(text)
        for end in sorted(drawn.randint(0, len(text)) for _ in range(drawn.randrange(6))):
            found = clear(check, text[:end])
            violations += found != clear(make(), text[:end])
            if isinstance(found, str):
                violations += found != whole
                break
            violations += end - found > check.window or found < most
            most = found
        violations += most > start
    assert violations == 0
