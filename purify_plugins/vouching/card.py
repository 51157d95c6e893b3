"""A provenance card: what a model was trained on, under which licence, what was checked, and by whom."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from purify_plugins.errors import ConfigError, ModelError
from purify_plugins.utils.strict_json import loads

if TYPE_CHECKING:
    from purify_plugins.protocols import LogitSource
    from purify_plugins.vouching.card_form import CardForm

MAKE = "make one with `purify slm card MODEL --out FILE`"
CHECK = "`purify slm card --check FILE` lists all that is missing"


@dataclass(frozen=True)
class ProvenanceCard:
    """A card that is filled, and the SHA-256 of its file."""

    sha256: str
    form: CardForm

    def require_model(self, source: LogitSource, name: str) -> None:
        """Raise ModelError unless the card is of this loaded model."""
        files = source.identity().get("files") or {}
        if not files:
            raise ModelError(
                f"card: {name} has no digests of its files, so no card can be compared with it: they changed "
                "while it was loaded, or it is not loaded from files here"
            )
        if differing := self.form.model.differing(files):
            raise ModelError(
                f"the card is of another model: {differing[0]} differs ({len(differing)} of "
                f"{len(files)} files); name the card of {name}, or {MAKE}"
            )
        if (found := source.vocabulary.fingerprint) != self.form.model.vocabulary:
            raise ModelError(f"the card's vocabulary is not that of {name}, {found}; {MAKE}")


def read_card(content: bytes, file: str) -> ProvenanceCard:
    """Read a card's file. Raises ConfigError, naming the first field that is not filled."""
    form, wrong = examine_card(content, file)
    if form is None:
        raise ConfigError(f"the card {file!r} is not filled: {wrong[0]} ({len(wrong)} in all); {CHECK}")
    return ProvenanceCard(hashlib.sha256(content).hexdigest(), form)


def examine_card(content: bytes, file: str) -> tuple[CardForm | None, list[str]]:
    """A card's content, and in words all that is wrong in it. Raises ConfigError for what is no card."""
    from pydantic import ValidationError

    from purify_plugins.vouching.card_form import FORMAT, CardForm

    try:
        table: Any = loads(content.decode())
    except ValueError as error:
        raise ConfigError(f"the card {file!r} is no JSON ({error}); {MAKE}") from error
    if not isinstance(table, dict) or table.get("format") != FORMAT:
        raise ConfigError(f"{file!r} is no provenance card ({FORMAT!r}); {MAKE}")
    try:
        return CardForm.model_validate(table), []
    except ValidationError as error:
        return None, [_in_words(dict(each)) for each in error.errors()]


def _in_words(wrong: Mapping[str, Any]) -> str:
    """A field that is wrong, and what it must be."""
    where = ".".join(map(str, wrong["loc"])) or "the whole"
    kind = str(wrong["type"])
    if kind == "missing":
        return f"{where} is missing"
    if kind == "extra_forbidden":
        return f"{where} is no field of a card; write it under notes"
    if kind in ("string_too_short", "too_short"):
        return f"{where} is empty"
    said = str(wrong["msg"]).removeprefix("Value error, ").removeprefix("Input ")
    return f"{where}: {said[:1].lower()}{said[1:]}"
