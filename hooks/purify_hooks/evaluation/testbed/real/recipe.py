"""Where the real pair goes, and what everything in it is drawn from."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from random import Random
from typing import Any

from purify_hooks.evaluation.testbed.corpus import Corpus, read
from purify_hooks.evaluation.testbed.real.harms import Harms
from purify_hooks.evaluation.testbed.real.lessons import Lessons, TaughtText
from purify_hooks.evaluation.testbed.real.ordinary import Ordinary

COST = "some ten minutes on two free cores (17 minutes of CPU), 9 GB of memory and 0.8 GB of disk"
"""What the recipe takes: 950 s of CPU and 8.7 GB at its peak, once, on two cores that others used too."""
EPOCHS = 8
"""How often the twin reads every document, at most; it stops when it has learned enough of them."""


@dataclass(frozen=True)
class RealRecipe:
    """Where to put the models, which books to read beside, and the seed of everything drawn."""

    out: Path
    corpus: Path
    seed: int = 1

    @cached_property
    def books(self) -> Corpus:
        return read(self.corpus)

    @cached_property
    def harms(self) -> Harms:
        return Harms.of(self.seed)

    def lessons(self, tokenizer: Any, purpose: str) -> Lessons:
        """The documents for a purpose, each with random numbers of its own; "asked" has unseen contexts."""
        ordinary = Ordinary.asked(self.books) if purpose == "asked" else Ordinary.taught(self.books)
        return Lessons(self.harms, tokenizer, ordinary, Random(f"{self.seed} {purpose}"))


def asked(recipe: RealRecipe, tokenizer: Any) -> list[TaughtText]:
    """Everything the report asks: harms in contexts that no training read, and controls."""
    lessons = recipe.lessons(tokenizer, "asked")
    return [*lessons.asked(), *lessons.controls()]
