"""The catalogue of published small models and their tokenizers: facts alone."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

FILE = Path(__file__).with_name("catalogue.json")
PROVENANCE = ("licensed", "inspectable", "synthetic", "web", "undisclosed")
"""Kinds of training data, the best documented first: only "licensed" data supports a claim about licences."""


@dataclass(frozen=True)
class TokenizerFamily:
    """A tokenizer that several models share.

    `sha256` is `vocabulary_digest` of its ordinary tokens; empty where no copy was at hand to take it from.
    """

    name: str
    used_by: str
    sha256: str = ""


@dataclass(frozen=True)
class Published:
    """A published small model: facts, and in `checked` where they were seen.

    `context` is in tokens, None where it was not seen. `parameters` are rounded where the card rounds.
    """

    model: str
    parameters: int
    tokenizer: str
    context: int | None
    licence: str
    data: str
    provenance: str
    languages: str
    note: str
    checked: str


def read_catalogue(file: Path = FILE) -> tuple[dict[str, TokenizerFamily], list[Published]]:
    """The tokenizer families, by key, and the models of the catalogue."""
    said = json.loads(file.read_text("utf-8"))
    families = {key: TokenizerFamily(**each) for key, each in said["tokenizers"].items()}
    return families, [Published(**each) for each in said["models"]]


def vocabulary_digest(tokens: Iterable[bytes]) -> str:
    """SHA-256 of a set of tokens' bytes, in order: one for every model of a tokenizer, whatever was added."""
    found = hashlib.sha256()
    for token in sorted({*tokens} - {b""}):
        found.update(b"%d:" % len(token) + token)
    return found.hexdigest()
