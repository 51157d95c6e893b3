"""Which models a report is about: digests, kind, engine, licence, and the SLM's provenance card."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from purify_hooks.evaluation.eval.record import digest_of
from purify_hooks.evaluation.pair_report.cards import card
from purify_plugins.certificates.explain import model
from purify_plugins.errors import ConfigError
from purify_plugins.utils.files import read_text

if TYPE_CHECKING:
    from purify_plugins.configuration.build import Prepared
    from purify_plugins.plugin.preview import Preview
    from purify_plugins.purifier import Purifier

LICENCES = ("LICENSE", "LICENSE.txt", "LICENSE.md", "LICENCE", "COPYING")
UNKNOWN = "not stated in its directory"


def provenance(ready: Prepared, purifier: Purifier) -> dict[str, Any]:
    """Both models, by side: what certificates name of them, what their directories state, and their cards.

    Raises ConfigError for a card that changed since its model was loaded.
    """
    sources = {"llm": purifier.llm, "slm": purifier.slm}
    tables = {"llm": ready.config.llm, "slm": ready.config.slm}
    return {
        side: _model(side, ready.previews[side], tables[side], dict(source.identity()))
        for side, source in sources.items()
    }


def _model(side: str, preview: Preview, table: Mapping[str, Any], identity: dict[str, Any]) -> dict[str, Any]:
    vouched = card(side, table, identity)
    stated = f"{vouched['licence']['name']} ({vouched['licence']['source']})" if vouched else ""
    return {
        "name": identity.get("name"),
        "digest": digest_of(identity),
        "files": identity.get("files") or {},
        "parameters": preview.numbers,
        "licence": stated or licence(preview.place),
        "card": vouched,
        "signature": identity.get("signature"),
        "sentence": model(side, {"kind": "", "engine": "", **identity}),
    }


def licence(folder: Path | None) -> str:
    """The licence that a model's directory states: its card's, or the name of its licence file."""
    if folder is None or not folder.is_dir():
        return "not known: its files are not here"
    stated = _front_matter(folder / "README.md")
    file = next((name for name in LICENCES if (folder / name).is_file()), None)
    return stated or (f"the text in its file {file}" if file else UNKNOWN)


def _front_matter(file: Path) -> str:
    """`license:` of a model card's front matter; "" without one."""
    try:
        head = re.match(r"---\n(.*?)\n---", read_text(file), re.DOTALL) if file.is_file() else None
    except ConfigError:  # a card that is no text states nothing
        return ""
    found = head and re.search(r"^license(?:_name)?:\s*[\"']?([^\"'\n#]+)", head[1], re.MULTILINE)
    return found[1].strip() if found else ""
