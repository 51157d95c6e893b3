"""Small takedown lists for tests, in the letters of a toy or in the test bed's tokens."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np

from purify_hooks.ngram import counting, smoothing
from purify_hooks.ngram.model import NgramModel
from purify_hooks.takedown.anchor import Anchor, TakedownRule
from purify_hooks.takedown.build import ListOptions, build_list
from purify_hooks.takedown.source import TakedownSource
from purify_plugins.testbed import LLM
from purify_plugins.testing import ToySource, letters

LOOSE = TakedownRule(sure=2)
"""Two letters in a row are a sign of a work of six letters."""
CORPUS = Path(__file__).parents[2] / "corpus"


def quiet(stage: str, done: int, total: int) -> None:
    """No progress."""


def ngrams(texts: Sequence[Sequence[int]], size: int, order: int) -> NgramModel:
    """A model of n-grams of texts in token ids."""
    ids = [np.array(text, dtype=np.int32) for text in texts]
    stream, _ = counting.stream_of(ids, size, order, ())
    counts = counting.count(stream, size, order)
    levels = (level.counts[:-1] if n == 0 else level.counts for n, level in enumerate(counts.levels))
    return NgramModel(counts, [smoothing.discounts(each) for each in levels], size)


def anchor(works: Sequence[Sequence[int]], size: int, rule: TakedownRule = LOOSE) -> Anchor:
    """TakedownList of a toy's letters against common text without any order: each pair of letters once."""
    common = [[one, other] for one in range(size) for other in range(size)]
    return Anchor(ngrams(works, size, 8), ngrams(common, size, 3), rule)


@dataclass(frozen=True, eq=False)
class ToyTakedown(TakedownSource):
    """A toy whose list is given as an anchor."""

    given: Anchor | None = None

    def __post_init__(self) -> None:
        """Nothing is read."""

    @property
    def anchor(self) -> Anchor:  # type: ignore[override]  # not read from a directory
        assert self.given is not None
        return self.given

    def identity(self) -> dict[str, object]:
        return {**self.model.identity(), "takedown": {"works": 1}}


def taken(
    works: Sequence[Sequence[int]],
    seed: int = 1,
    rule: TakedownRule = LOOSE,
    alphabet: str = "abcdef",
) -> ToyTakedown:
    """A toy LLM with these works taken out."""
    model = ToySource(letters(alphabet), seed=seed)
    return ToyTakedown(model, "toy", given=anchor(works, len(model.vocabulary), rule))


@cache
def first_half(folder: Path) -> Path:
    """The book of the test bed's passages up to before its eleventh one, as a file."""
    from purify_plugins.testbed import attacks

    book = (CORPUS / "protected" / "alice-in-wonderland.txt").read_text("utf-8")
    eleventh = book.index(attacks().passages[10].prefix)
    work = folder / "alice-1.txt"
    work.write_text(book[: book.rindex("\n", 0, eleventh)], "utf-8")
    return work


def built(folder: Path, works: Sequence[Path], neutral: Sequence[Path]) -> Path:
    """A list in the test bed's tokens."""
    build_list(ListOptions(works, neutral, str(LLM), folder / "list"), quiet)
    return folder / "list"
