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
    """The two models; `record` names the works, `vocabulary` is that of both."""

    folder: Path
    works: NgramModel
    neutral: NgramModel
    record: Record
    vocabulary: Vocabulary

    @classmethod
    def load(cls, place: str | Path) -> Self:
        """Load a directory that `purify takedown build` made, memory-mapped. Raises ModelError."""
        from purify_hooks.ngram.source import NgramSource

        folder = find(place)
        works, neutral = (NgramSource.load(folder / name) for name in (WORKS, NEUTRAL))
        if works.vocabulary.fingerprint != neutral.vocabulary.fingerprint:
            raise ModelError(
                f"{WORKS}/ and {NEUTRAL}/ in {str(folder)!r} have two tokenizers; build the list again"
            )
        return cls(folder, works.model, neutral.model, works.record, works.vocabulary)

    def public(self) -> Mapping[str, Any]:
        """The list as certificates name it: how many works, and digests of the list and of both models."""
        from purify_hooks.ngram.storage import TABLES
        from purify_plugins.canonical_json import canonical

        listed = canonical({text.name: text.sha256 for text in self.record.texts})
        return {
            "works": len(self.record.texts),
            "list": hashlib.sha256(listed.encode()).hexdigest(),
            "tables": {name: _digest(self.folder / name / TABLES) for name in (WORKS, NEUTRAL)},
        }


def _digest(file: Path) -> str:
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()


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
