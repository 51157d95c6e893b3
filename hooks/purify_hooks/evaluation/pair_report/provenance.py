"""Which models a report is about: digests, kind, engine, licence, and the SLM's provenance card."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from purify_hooks.evaluation.eval.record import digest_of
from purify_plugins.certificates.explain import model
from purify_plugins.errors import ConfigError
from purify_plugins.utils.files import read_text

if TYPE_CHECKING:
    from purify_plugins.configuration.build import Prepared
    from purify_plugins.purifier import Purifier

LICENCES = ("LICENSE", "LICENSE.txt", "LICENSE.md", "LICENCE", "COPYING")
UNKNOWN = "not stated in its directory"


def provenance(ready: Prepared, purifier: Purifier) -> dict[str, Any]:
    """Both models, by side: what certificates name of them, and what their directories state."""
    sources = {"llm": purifier.llm, "slm": purifier.slm}
    return {side: _model(side, ready, dict(source.identity())) for side, source in sources.items()}


def _model(side: str, ready: Prepared, identity: dict[str, Any]) -> dict[str, Any]:
    preview, engine = ready.previews[side], identity.get("engine", "")
    told = {"kind": "", "engine": engine, **identity}
    return {
        "name": identity.get("name"),
        "digest": digest_of(identity),
        "files": identity.get("files") or {},
        "parameters": preview.numbers,
        "licence": licence(preview.place),
        "sentence": model(side, told),
    }


def licence(folder: Path | None) -> str:
    """The licence that a model's directory states: its card's, or the name of its licence file."""
    if folder is None or not folder.is_dir():
        return "not known: its files are not here"
    stated = _front_matter(folder / "README.md")
    file = next((name for name in LICENCES if (folder / name).is_file()), None)
    return stated or (f"the text in its file {file}" if file else UNKNOWN)


def _front_matter(card: Path) -> str:
    """`license:` of a model card's front matter; "" without one."""
    try:
        head = re.match(r"---\n(.*?)\n---", read_text(card), re.DOTALL) if card.is_file() else None
    except ConfigError:  # a card that is no text states nothing
        return ""
    found = head and re.search(r"^license(?:_name)?:\s*[\"']?([^\"'\n#]+)", head[1], re.MULTILINE)
    return found[1].strip() if found else ""
