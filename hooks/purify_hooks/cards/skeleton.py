"""A provenance card with all that a model's files say of it; the rest is for a person to fill in."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from purify_hooks.cards.stated import CARDS, LICENCES, front_matter, listed
from purify_hooks.local.gguf_header import read_header
from purify_plugins.canonical_json import model_digest
from purify_plugins.errors import ModelError
from purify_plugins.protocols import LogitSource
from purify_plugins.utils.model_files import MEGABYTE, SETTINGS, read_bytes, read_table
from purify_plugins.vouching.card_form import FORMAT


def skeleton(source: LogitSource, place: Path) -> dict[str, Any]:
    """A card of a loaded model whose files are at `place`; "" is to be filled in. Raises ModelError."""
    identity = source.identity()
    if not (files := dict(identity.get("files") or {})):
        raise ModelError(f"the files of {place} changed while it was loaded; load it again")
    front = front_matter(place)
    licence, where = _licence(place, front)
    return {
        "format": FORMAT,
        "model": {
            "name": str(identity.get("name") or place.name),
            "sha256": model_digest(files),
            "files": files,
            "vocabulary": source.vocabulary.fingerprint,
            "parameters": source.parameters,
        },
        "licence": {"name": licence, "source": where},
        "training_data": [
            {"name": name, "origin": "", "licence": ""} for name in listed(front, "datasets") or [""]
        ],
        "checks": [{"what": "", "found": "", "by": "", "on": ""}],
        "vouched_by": {"name": "", "contact": "", "on": ""},
        "notes": "",
    }


def _licence(place: Path, front: str) -> tuple[str, str]:
    """The licence that a model's files name, and the file; "" where none does."""
    if place.is_file():
        said = read_header(place).settings.get("general.license") if place.suffix == ".gguf" else None
        return (said, place.name) if isinstance(said, str) else ("", "")
    if names := listed(front, "license"):
        return names[0], next(name for name in CARDS if (place / name).is_file())
    if (place / "config.json").is_file():
        settings: Mapping[str, Any] = read_table(place / "config.json", SETTINGS)
        for key in ("license", "licence"):
            if isinstance(settings.get(key), str) and settings[key].strip():
                return settings[key].strip()[:200], "config.json"
    for name in LICENCES:
        if (place / name).is_file():
            lines = read_bytes(place / name, MEGABYTE).decode("utf-8", "replace").split("\n")
            return next((line.strip()[:200] for line in lines if line.strip()), ""), name
    return "", ""
