"""A provenance card with all that a model's files say of it; the rest is for a person to fill in."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from purify_hooks.local.gguf_header import read_header
from purify_plugins.canonical_json import model_digest
from purify_plugins.errors import ModelError
from purify_plugins.protocols import LogitSource
from purify_plugins.utils.model_files import MEGABYTE, SETTINGS, read_bytes, read_table
from purify_plugins.vouching.card_form import FORMAT

CARDS = ("README.md", "MODEL_CARD.md", "model_card.md")
"""Files whose first lines, between two `---`, say the licence and the data sets as model hubs write them."""
LICENCES = ("LICENSE", "LICENSE.txt", "LICENSE.md", "LICENCE", "LICENCE.txt", "COPYING")


def skeleton(source: LogitSource, place: Path) -> dict[str, Any]:
    """A card of a loaded model whose files are at `place`; "" is to be filled in. Raises ModelError."""
    identity = source.identity()
    if not (files := dict(identity.get("files") or {})):
        raise ModelError(f"the files of {place} changed while it was loaded; load it again")
    front = _front_matter(place)
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
            {"name": name, "origin": "", "licence": ""} for name in _listed(front, "datasets") or [""]
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
    if names := _listed(front, "license"):
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


def _front_matter(place: Path) -> str:
    """The lines between the first two `---` of a model card; "" where there are none."""
    for name in CARDS:
        if place.is_dir() and (place / name).is_file():
            text = read_bytes(place / name, MEGABYTE).decode("utf-8", "replace").replace("\r\n", "\n")
            found = re.match(r"---\n(.*?)\n---(\n|$)", text, re.DOTALL)
            return found[1] if found else ""
    return ""


def _listed(front: str, key: str) -> list[str]:
    """The values of a key, on its own line or as a list below it; what YAML has beyond that is left alone."""
    found = re.search(rf"^{key}:[ \t]*(.*)((?:\n[ \t]*- .*)*)", front, re.MULTILINE)
    if found is None:
        return []
    inline = found[1].strip().removeprefix("[").removesuffix("]").split(",")
    below = [line.strip().removeprefix("- ") for line in found[2].split("\n")]
    values = [each.split(" #")[0].strip().strip("'\"") for each in (*inline, *below)]
    return [each[:200] for each in values if each]
