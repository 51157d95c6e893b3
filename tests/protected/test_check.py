"""`CopyCheck`: passages that are mostly a protected work's are blocked, however they are written."""

from __future__ import annotations

import random
from typing import Any

import pytest

from purify_hooks.protected.check import CopyCheck
from purify_hooks.protected.index import PrintIndex
from purify_plugins.stages import Blocked
from purify_plugins.testing import CheckConformance
from purify_plugins.testing.stages import verdict
from tests.protected.test_mask import SPELLINGS
from tests.protected.works import HERON, TIDE, index_of


@pytest.fixture(scope="module")
def index(tmp_path_factory: pytest.TempPathFactory) -> PrintIndex:
    return index_of(
        tmp_path_factory.mktemp("works"), common="only seemed to be written in a hand of the morning"
    )


def blocked(check: CopyCheck, text: str) -> int | None:
    """Where a text is blocked; None: it is not."""
    found = verdict(check.fresh(), text, last=True)
    assert found.key in ("", "copied")
    return found.clear if found.blocked else None


def changed(text: str, each: int, seed: int = 0) -> str:
    """The text with one word in so many replaced."""
    words, rng = text.split(), random.Random(seed)
    for at in range(rng.randrange(each), len(words), each):
        words[at] = rng.choice(["lantern", "of", "sideways", "however", "grew"])
    return " ".join(words)


@pytest.mark.parametrize("spelling", SPELLINGS.values(), ids=list(SPELLINGS))
@pytest.mark.parametrize("work", [TIDE, HERON], ids=["tide", "heron"])
def test_a_copy_is_found_in_any_spelling(index: PrintIndex, spelling: Any, work: str) -> None:
    assert blocked(CopyCheck(index), spelling(work)) is not None
    assert blocked(CopyCheck(index), spelling(" ".join(reversed(work.split())))) is None


@pytest.mark.parametrize("seed", range(6))
def test_a_copy_with_a_word_in_six_changed_is_found(index: PrintIndex, seed: int) -> None:
    assert blocked(CopyCheck(index), changed(TIDE, 6, seed)) is not None


def test_a_copy_starts_where_it_is_blocked_behind_other_text(index: PrintIndex) -> None:
    before = "Once there was a shoemaker who had nothing left but leather for one pair of shoes. " * 5
    found = blocked(CopyCheck(index), before + TIDE)
    assert found is not None
    assert len(before) - 5 <= found <= len(before) + 5


def test_a_few_words_are_no_copy(index: PrintIndex) -> None:
    text = (
        "he opened the second book and found his own name and he wept for a week in the dark of the cellar. "
    )
    assert blocked(CopyCheck(index), text) is None
    assert blocked(CopyCheck(index, share=0.1), text) is not None


def test_words_of_one_place_count_together_and_others_do_not(index: PrintIndex) -> None:
    """Chance finds lie all over the works; a copy's lie side by side."""
    one, other = TIDE.split()[:8], HERON.split()[48:56]
    assert blocked(CopyCheck(index), " ".join([*one, *other])) is None
    assert blocked(CopyCheck(index), " ".join(TIDE.split()[:16])) is not None


def test_what_is_said_again_and_again_counts_once(index: PrintIndex) -> None:
    assert blocked(CopyCheck(index), "the boats that came home " * 12) is None


def test_a_work_that_may_be_quoted_passes_and_is_named(index: PrintIndex) -> None:
    check = CopyCheck(index, quotable=frozenset({"work-1.txt"})).fresh()
    assert check.clear(HERON, last=True) == len(HERON)
    assert check.judged()["quoted"] == ["work-1.txt"]
    with pytest.raises(Blocked):
        check.fresh().clear(TIDE, last=True)
    assert check.fresh().judged()["quoted"] == []


def test_little_is_held_back_where_nothing_is_found(index: PrintIndex) -> None:
    check = CopyCheck(index).fresh()
    text = "A fox went up the hill to see what he could see, and the hill was bare."
    assert len(text) - check.clear(text, last=False) < 24


class TestCopyCheck(CheckConformance):
    parts = (
        *(f"{word} " for word in TIDE.split()[:14]),
        " ".join(TIDE.split()[:6]),
        "THE",
        "\u200b",
        "é",
        " " * 9,
    )
    most = 20

    @pytest.fixture(autouse=True)
    def made(self, index: PrintIndex) -> None:
        self.index = index

    def check(self) -> CopyCheck:
        return CopyCheck(self.index, share=0.2, words=20)
