"""User consent for a `purify.toml` that was found rather than named, as in a fresh checkout.

One that sends a secret of the environment to a URL, signs with a key of the user's, or writes outside its
directory, is used only after `purify allow`, and only unchanged, as with direnv.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from purify_plugins.configuration.secrets import named
from purify_plugins.errors import ConfigError
from purify_plugins.utils.printable import shown
from purify_plugins.vouching.options import NAMES as VOUCHING

MODELS = ("model", "expert", "anti", "tokenizer")
"""Keys of a source that may name a directory."""
MEMBERS = "members"
"""The key of a source whose value is a list of models."""
NAMING = ("source", *MODELS, *VOUCHING)
"""The keys of a model's table that name what is read; its url has a password to leave out."""


def require_allowed(file: Path, content: bytes, table: Mapping[str, Any]) -> None:
    """Raise ConfigError if a file that was found does what its user must allow first."""
    wanted = list(wishes(table, file.parent))
    if wanted and _remembered().get(str(file.resolve())) != _digest(content, wanted):
        raise ConfigError(
            f"{file} {'; '.join(wanted)}; if you trust it, run `purify allow {file}` once, or name it with "
            "--config or PURIFY_CONFIG"
        )


def wishes(table: Mapping[str, Any], folder: Path) -> Iterator[str]:
    """The actions of a configuration that need consent, in words without secrets.

    They do not depend on the environment: a variable that is unset now may be set later.
    """
    yield from _gifts({name: inner for name, inner in table.items() if name != "watermark"})
    mark = table.get("watermark")
    if isinstance(mark, dict) and any(isinstance(mark.get(key), str) for key in ("key_env", "key_file")):
        place = mark.get("key_file") or f"${mark.get('key_env')}"
        yield f"[watermark] marks answers by the key in {shown(str(place))}"
    for key in _signing(table):
        if key.startswith(("env:", "pkcs11:")) or not _beside(folder, key):
            yield f"[certificate] signs answers by the key in {shown(key)}"
    for where, place in _written(table):
        if not _beside(folder, place):
            place = shown(str((folder / place).resolve()))
            yield f"{where} writes into {place}, which is outside its own directory"


def _signing(table: Mapping[str, Any]) -> Iterator[str]:
    """The private keys that certificates would be signed by."""
    signed = table.get("certificate")
    keys = signed.get("key") if isinstance(signed, dict) else None
    yield from (each for each in (keys if isinstance(keys, list) else [keys]) if isinstance(each, str))


def _written(table: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """The tables that name a place to write to, and the place."""
    kept, watched = table.get("certificate"), table.get("activation")
    told = [
        ("[activation]", watched.get("status") if isinstance(watched, dict) else None),
        ("[certificate]", kept.get("store") if isinstance(kept, dict) else None),
        *(("[[stage]]", stage.get("store")) for stage in stages_of(table)),
    ]
    yield from ((where, place.removeprefix("sqlite:")) for where, place in told if isinstance(place, str))


def _beside(folder: Path, place: str) -> bool:
    """Whether a place, as named by a file in this directory, is inside it."""
    return (folder / place).resolve().is_relative_to(folder.resolve())


def stages_of(table: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """The tables of `[[stage]]`."""
    found = table.get("stage")
    return [each for each in found if isinstance(each, dict)] if isinstance(found, list) else []


def _gifts(table: Mapping[str, Any], where: str = "") -> Iterator[str]:
    """The environment variables that tables, nested ones included, send to servers."""
    for key, variable in named(table).items():
        yield f"[{shown(where)}] gives ${shown(variable)} ({shown(key)}) to {shown_url(table.get('url'))}"
    for name, inner in table.items():
        if not where and name == "tenant":
            continue  # a gateway's own keys: compared with what clients send, and sent to no server
        for each in inner if isinstance(inner, list) else [inner]:
            if isinstance(each, dict):
                yield from _gifts(each, f"{where}.{name}".lstrip("."))


def named_by(table: Mapping[str, Any]) -> Iterator[str]:
    """The models, servers and plugins that a configuration names, a line each."""
    for side in ("llm", "slm"):
        yield from _models(table.get(side), side)
    for stage in stages_of(table):
        url = f", url {shown_url(stage['url'])}" if stage.get("url") else ""
        yield f"[[stage]] {shown(str(stage.get('name')))}{url}"
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
        for each in inner if isinstance(inner, list) else [inner]:
            plain = name == MEMBERS and isinstance(each, str)
            yield from _models({"model": each} if plain else each, f"{where}.{name}")


def shown_url(url: Any) -> str:
    """A URL without the name and password that may stand in it."""
    return shown(re.sub(r"//[^/\s]*@", "//", str(url))) if url else "its source"


def allow(file: Path, content: bytes, wanted: Sequence[str]) -> None:
    """Store that the user allows this file as it is now to do what was listed. Raises ConfigError."""
    import json

    from purify_plugins.utils.files import write_whole
    from purify_plugins.utils.locks import alone_in

    place = store()
    try:
        place.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    except OSError as error:
        raise ConfigError(f"cannot write {str(place)!r}: {error.strerror}") from error
    with alone_in(place.parent):  # else one of two at once is forgotten
        found = {**_remembered(), str(file.resolve()): _digest(content, wanted)}
        write_whole(place, json.dumps(found, indent=1, sort_keys=True) + "\n")


def store() -> Path:
    """The file where consent is stored, in the user's own configuration directory."""
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
    """SHA-256 of a file and of the words shown to its user: consent covers no more than that."""
    import hashlib

    return hashlib.sha256(content + "\n".join(["", *wanted]).encode()).hexdigest()
