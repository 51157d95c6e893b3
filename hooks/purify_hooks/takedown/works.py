"""A takedown list as a directory: n-grams of the named works and of common text."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from purify_plugins.errors import ModelError

if TYPE_CHECKING:
    from purify_hooks.ngram.model import NgramModel
    from purify_hooks.ngram.storage import Record
    from purify_plugins.types import Vocabulary

WORKS, NEUTRAL = "works", "neutral"


@dataclass(frozen=True, eq=False)
class TakedownList:
    """The two models; `record` names the works, `vocabulary` is that of both.

    `tables` are digests of what was loaded: the directory may have been changed since.
    """

    works: NgramModel
    neutral: NgramModel
    record: Record
    vocabulary: Vocabulary
    tables: Mapping[str, str | None]

    @classmethod
    def load(cls, place: str | Path) -> Self:
        """Load a directory that `purify takedown build` made, memory-mapped. Raises ModelError."""
        from purify_hooks.ngram.source import NgramSource
        from purify_hooks.ngram.storage import TABLES

        folder = find(place)
        works, neutral = (NgramSource.load(folder / name) for name in (WORKS, NEUTRAL))
        digests = {name: each.files.get(TABLES) for name, each in ((WORKS, works), (NEUTRAL, neutral))}
        if None in digests.values():
            raise ModelError(f"{str(folder)!r} changed while it was read; load it again")
        if works.vocabulary.fingerprint != neutral.vocabulary.fingerprint:
            raise ModelError(
                f"{WORKS}/ and {NEUTRAL}/ in {str(folder)!r} have two tokenizers; build the list again"
            )
        return cls(works.model, neutral.model, works.record, works.vocabulary, digests)

    def public(self) -> Mapping[str, Any]:
        """The list as certificates name it: how many works, and digests of the list and of both models."""
        from purify_plugins.canonical_json import canonical

        listed = canonical({text.name: text.sha256 for text in self.record.texts})
        return {
            "works": len(self.record.texts),
            "list": hashlib.sha256(listed.encode()).hexdigest(),
            "tables": dict(self.tables),
        }


def find(place: str | Path) -> Path:
    """The directory of a takedown list. Raises ModelError."""
    from purify_hooks.ngram.storage import RECORD

    folder = Path(place).expanduser()
    if not all((folder / name / RECORD).is_file() for name in (WORKS, NEUTRAL)):
        raise ModelError(
            f"{str(folder)!r} holds no takedown list (no {WORKS}/ and {NEUTRAL}/); make one with "
            "`purify takedown build`"
        )
    return folder
