"""Which models a report is about: digests, kind, engine, licence, and the SLM's provenance card."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from purify_hooks.cards.stated import LICENCES, front_matter, listed
from purify_hooks.evaluation.pair_report.cards import card
from purify_plugins.certificates.calibration_record import digest_of
from purify_plugins.certificates.explain import model
from purify_plugins.errors import ModelError

if TYPE_CHECKING:
    from purify_plugins.configuration.build import Prepared
    from purify_plugins.plugin.preview import Preview
    from purify_plugins.protocols import LogitSource
    from purify_plugins.purifier import Purifier

UNKNOWN = "not stated in its directory"


def provenance(ready: Prepared, purifier: Purifier) -> dict[str, Any]:
    """Both models, by side: what certificates name of them, what their directories state, and their cards.

    Raises ConfigError for a card that changed since its model was loaded.
    """
    config = ready.config
    return {
        "llm": _model("llm", purifier.llm, ready.previews["llm"], config.llm),
        "slm": _model("slm", purifier.slm, ready.previews["slm"], config.slm),
    }


def _model(side: str, source: LogitSource, preview: Preview, table: Mapping[str, Any]) -> dict[str, Any]:
    identity = {"kind": "", "engine": source.engine, **source.identity()}
    vouched, inner = card(side, table, identity), _wrapped(preview)
    stated = f"{vouched['licence']['name']} ({vouched['licence']['source']})" if vouched else ""
    return {
        "name": identity.get("name"),
        "digest": digest_of(identity) or None,
        "files": identity.get("files") or {},
        "parameters": inner.numbers,
        "licence": stated or licence(inner.place),
        "card": vouched,
        "signature": identity.get("signature"),
        "sentence": model(side, identity),
    }


def _wrapped(preview: Preview) -> Preview:
    """The model inside one that has no files of its own, such as an LLM inside a takedown list."""
    while preview.place is None and len(preview.inside) == 1:
        [preview] = preview.inside
    return preview


def licence(folder: Path | None) -> str:
    """The licence that a model's directory states: its card's, or the name of its licence file."""
    if folder is None or not folder.is_dir():
        return "not known: its files are not here"
    try:
        front = front_matter(folder)
    except ModelError:  # a card that cannot be read states nothing
        front = ""
    stated = [*listed(front, "license"), *listed(front, "license_name")]
    file = next((name for name in LICENCES if (folder / name).is_file()), None)
    return stated[0] if stated else f"the text in its file {file}" if file else UNKNOWN
