"""What a `purify.toml` that was only found, not named, may do before its user has seen it.

A checkout brings its own. One that sends a secret of the environment to a URL, or writes elsewhere, is
read when the user has allowed that file, as it is: `purify allow`. direnv asks in the same way.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from purify_plugins.errors import ConfigError
from purify_plugins.secret import named


def require_allowed(file: Path, content: bytes, table: Mapping[str, Any]) -> None:
    """Raise ConfigError when a file that nobody named does what its user must have allowed."""
    wanted = list(wishes(table, file.parent))
    if wanted and _remembered().get(str(file.resolve())) != _digest(content):
        raise ConfigError(
            f"{file} {'; '.join(wanted)}; if you trust it, run `purify allow {file}` once, or name it with "
            "--config or PURIFY_CONFIG"
        )


def wishes(table: Mapping[str, Any], folder: Path) -> Iterator[str]:
    """What a configuration does that a stranger's must not, in words that hold no secret."""
    yield from _gifts(table)
    activation = table.get("activation")
    status = activation.get("status") if isinstance(activation, dict) else None
    if isinstance(status, str) and not (folder / status).resolve().is_relative_to(folder.resolve()):
        yield f"[activation] writes into {status!r}, which is outside its own directory"


def _gifts(table: Mapping[str, Any], where: str = "") -> Iterator[str]:
    """The variables that tables give away, those inside others too."""
    for key, variable in named(table).items():
        yield f"[{where}] gives ${variable} ({key}) to {shown_url(table.get('url'))}"
    for name, inner in table.items():
        if isinstance(inner, dict):
            yield from _gifts(inner, f"{where}.{name}".lstrip("."))


def shown_url(url: Any) -> str:
    """A URL without the name and password that may stand in it."""
    return re.sub(r"//[^/\s]*@", "//", str(url)) if url else "its source"


def allow(file: Path, content: bytes) -> None:
    """Remember that the user trusts this file as it is now. Raises ConfigError."""
    import json

    from purify_plugins.files import write_whole

    place = store()
    try:
        place.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    except OSError as error:
        raise ConfigError(f"cannot write {str(place)!r}: {error.strerror}") from error
    found = {**_remembered(), str(file.resolve()): _digest(content)}
    write_whole(place, json.dumps(found, indent=1, sort_keys=True) + "\n")


def store() -> Path:
    """The file that remembers, in the user's own configuration."""
    base = os.environ.get("XDG_CONFIG_HOME", "")
    home = Path(base) if Path(base).is_absolute() else Path.home() / ".config"
    return home / "purify" / "allowed.json"


def _remembered() -> Mapping[str, str]:
    """Absolute path -> SHA-256 of the content that was allowed; a damaged file allows nothing."""
    import json

    try:
        found = json.loads(store().read_text("utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _digest(content: bytes) -> str:
    import hashlib

    return hashlib.sha256(content).hexdigest()
