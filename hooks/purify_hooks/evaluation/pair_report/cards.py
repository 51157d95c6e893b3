"""The provenance cards of a pair, as they were when it was loaded."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from purify_plugins.errors import ConfigError
from purify_plugins.vouching.card import ProvenanceCard
from purify_plugins.vouching.options import VouchingOptions


def card(side: str, table: Mapping[str, Any], identity: Mapping[str, Any]) -> dict[str, Any] | None:
    """The content of the card that a loaded model names, with its SHA-256; None: it names none.

    Raises ConfigError for a card that changed since the model was loaded.
    """
    named = identity.get("card")
    if named is None:
        return None
    found = next((each for each in _cards(side, table) if each.sha256 == named["sha256"]), None)
    if found is None:
        raise ConfigError(f"the {side.upper()}'s card changed while this report was made; make it again")
    said = found.form.model_dump(include={"licence", "training_data", "checks", "vouched_by", "notes"})
    return {"sha256": found.sha256, **said}


def _cards(side: str, table: Mapping[str, Any]) -> Iterator[ProvenanceCard]:
    """The cards of a model's table and of the tables in it."""
    options = VouchingOptions.of(table)
    if options is not None and (read := options.read(f"[{side}]").card):
        yield read
    for value in table.values():
        for each in value if isinstance(value, list) else [value]:
            if isinstance(each, Mapping):
                yield from _cards(side, each)
