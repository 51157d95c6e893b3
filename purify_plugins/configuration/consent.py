"""What a `purify.toml` that was only found, not named, may do before its user has seen it.

A checkout brings its own. One that sends a secret of the environment to a URL, or writes elsewhere, is
read when the user has allowed that file, as it is: `purify allow`. direnv asks in the same way.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from purify_plugins.configuration.secrets import named
from purify_plugins.errors import ConfigError

MODELS = ("model", "expert", "anti", "tokenizer")
"""Keys of a source that may name a directory."""
NAMING = ("source", *MODELS)
"""The keys of a model's table that name what is read; its url has a password to leave out."""


def require_allowed(file: Path, content: bytes, table: Mapping[str, Any]) -> None:
    """Raise ConfigError when a file that nobody named does what its user must have allowed."""
    wanted = list(wishes(table, file.parent))
    if wanted and _remembered().get(str(file.resolve())) != _digest(content, wanted):
        raise ConfigError(
            f"{file} {'; '.join(wanted)}; if you trust it, run `purify allow {file}` once, or name it with "
            "--config or PURIFY_CONFIG"
        )


def wishes(table: Mapping[str, Any], folder: Path) -> Iterator[str]:
    """What a configuration does that a stranger's must not, in words that hold no secret.

    They are the same whatever the environment holds: a variable that is not set yet may be set tomorrow.
    """
    yield from _gifts(table)
    activation = table.get("activation")
    status = activation.get("status") if isinstance(activation, dict) else None
    if isinstance(status, str) and not (folder / status).resolve().is_relative_to(folder.resolve()):
        place = shown(str((folder / status).resolve()))
        yield f"[activation] writes into {place}, which is outside its own directory"


def _gifts(table: Mapping[str, Any], where: str = "") -> Iterator[str]:
    """The variables that tables give away, those inside others too."""
    for key, variable in named(table).items():
        yield f"[{shown(where)}] gives ${shown(variable)} ({shown(key)}) to {shown_url(table.get('url'))}"
    for name, inner in table.items():
        for each in inner if isinstance(inner, list) else [inner]:
            if isinstance(each, dict):
                yield from _gifts(each, f"{where}.{name}".lstrip("."))


def named_by(table: Mapping[str, Any]) -> Iterator[str]:
    """The models, servers and plugins that a configuration names, a line each."""
    for side in ("llm", "slm"):
        yield from _models(table.get(side), side)
    plugins = table.get("plugins")
    listed = ", ".join(shown(str(each)) for each in plugins) if isinstance(plugins, list) else ""
    yield f"plugins: {listed or 'none'}"


def _models(table: Any, where: str) -> Iterator[str]:
    """A model's source, directories and server, and those of the models inside its table."""
    if not isinstance(table, dict):
        return
    told = [f"{key} {shown(table[key])}" for key in NAMING if isinstance(table.get(key), str)]
    if table.get("url"):
        told.append(f"url {shown_url(table['url'])}")
    if told:
        yield f"[{shown(where)}] {', '.join(told)}"
    for name, inner in table.items():
        yield from _models(inner, f"{where}.{name}")


def shown(text: str) -> str:
    """Text of a stranger's file, which may not move the cursor over what stands above it."""
    return "".join(each if each.isprintable() else ascii(each)[1:-1] for each in text)


def shown_url(url: Any) -> str:
    """A URL without the name and password that may stand in it."""
    return shown(re.sub(r"//[^/\s]*@", "//", str(url))) if url else "its source"


def allow(file: Path, content: bytes, wanted: Sequence[str]) -> None:
    """Remember that the user trusts this file as it is now, to do what was listed. Raises ConfigError."""
    import json

    from purify_plugins.utils.files import write_whole

    place = store()
    try:
        place.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    except OSError as error:
        raise ConfigError(f"cannot write {str(place)!r}: {error.strerror}") from error
    found = {**_remembered(), str(file.resolve()): _digest(content, wanted)}
    write_whole(place, json.dumps(found, indent=1, sort_keys=True) + "\n")


def store() -> Path:
    """The file that remembers, in the user's own configuration."""
    base = os.environ.get("XDG_CONFIG_HOME", "")
    home = Path(base) if Path(base).is_absolute() else Path.home() / ".config"
    return home / "purify" / "allowed.json"


def _remembered() -> Mapping[str, str]:
    """Absolute path -> SHA-256 of what was allowed; a damaged file allows nothing."""
    import json

    try:
        found = json.loads(store().read_text("utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _digest(content: bytes, wanted: Sequence[str]) -> str:
    """SHA-256 of a file and of what its user was told of it: consent covers what was shown, and no more."""
    import hashlib

    return hashlib.sha256(content + "\n".join(["", *wanted]).encode()).hexdigest()
