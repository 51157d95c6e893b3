"""Find `purify.toml`, or `[tool.purify]`, and parse it."""

from __future__ import annotations

import os
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from purify_plugins.configuration.consent import MEMBERS, MODELS, allow, named_by, require_allowed, wishes
from purify_plugins.errors import ConfigError
from purify_plugins.utils.files import read_bytes
from purify_plugins.vouching.options import NAMES

Table = dict[str, Any]


def read_table(file: Path) -> Table:
    """A configuration file's table, with models relative to the file resolved. Raises ConfigError."""
    return _rooted(_table(file), file.parent)


def _table(file: Path) -> Table:
    table = _parse(file)
    if file.name == "pyproject.toml":
        tools = table.get("tool", {})
        table = tools.get("purify", {}) if isinstance(tools, dict) else {}
    if not isinstance(table, dict):
        raise ConfigError(f"{file}: [tool.purify] must be a table")
    return table


def find_config(path: str | Path | None = None) -> Path:
    """The path of the configuration. Raises ConfigError when there is none.

    A file that was found rather than named may use no secret and write nowhere outside its directory until
    its user allows it; see `purify allow`.
    """
    if path is not None and not isinstance(path, str | Path):
        raise ConfigError(
            f"a configuration is named by its path, not by {type(path).__name__}: give 'purify.toml'"
        )
    named = path or os.environ.get("PURIFY_CONFIG")
    return Path(named) if named else permitted(here())


def find_beside(folder: Path, path: str | Path | None = None) -> Path:
    """The configuration of a program in `folder`: the one named, in the environment, beside it, or here."""
    beside = folder / "purify.toml"
    if not path and "PURIFY_CONFIG" not in os.environ and beside.is_file():
        return permitted(beside)
    return find_config(path)


def here() -> Path:
    """The configuration in the working directory. Raises ConfigError when there is none."""
    if found := found_here():
        return found
    raise ConfigError("there is no purify.toml here; write one, or name it with --config or PURIFY_CONFIG")


def found_here() -> Path | None:
    """The configuration in the working directory, if there is one: purify.toml, else pyproject.toml."""
    if Path("purify.toml").is_file():
        return Path("purify.toml")
    project = Path("pyproject.toml")
    tools = _parse(project).get("tool") if project.is_file() else None
    return project if isinstance(tools, dict) and "purify" in tools else None


def permitted(file: Path) -> Path:
    """A file that was found rather than named. Raises ConfigError if its user must allow it first."""
    require_allowed(file, read_bytes(file), _table(file))
    return file


@dataclass(frozen=True)
class Allowed:
    """A configuration that its user has allowed: what it names and what it does."""

    file: Path
    names: list[str]
    wanted: list[str]


def allowed(file: Path | None = None) -> Allowed:
    """Store that a configuration (by default the one here) is allowed as it is now.

    One that needs no consent is not stored. Raises ConfigError for a file that is no configuration.
    """
    file = file or here()
    content, table = read_bytes(file), _table(file)
    wanted = list(wishes(table, file.parent))
    if wanted:
        allow(file, content, wanted)
    return Allowed(file, list(named_by(table)), wanted)


def _parse(file: Path) -> Table:
    try:
        return tomllib.loads(read_bytes(file).decode("utf-8"))
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"{file}: not valid TOML, {error}; correct it") from error


def _rooted(table: Table, folder: Path) -> Table:
    """Model directories and GGUF files are relative to the file that names them."""
    return {key: _model(value, folder) if key in ("llm", "slm") else value for key, value in table.items()}


def _members(value: Any, folder: Path) -> Any:
    """A list of models, each a directory or a table."""
    if not isinstance(value, list):
        return value
    named = [_model({"model": each}, folder)["model"] if isinstance(each, str) else each for each in value]
    return [_model(each, folder) for each in named]


def _model(value: Any, folder: Path) -> Any:
    if not isinstance(value, dict):
        return value
    said = {key: value[key] for key in MODELS if isinstance(value.get(key), str)}
    named = {key: folder / name for key, name in said.items() if name.strip()}
    inside = {
        key: _members(each, folder) if key == MEMBERS else _model(each, folder) for key, each in value.items()
    }
    files = {key: value[key] for key in NAMES if isinstance(value.get(key), str) and value[key].strip()}
    vouching = {key: str(folder / Path(file).expanduser()) for key, file in files.items()}
    return {**inside, **{key: str(beside) for key, beside in named.items() if _is_model(beside)}, **vouching}


def _is_model(place: Path) -> bool:
    """Whether there is a model's directory, or a GGUF file; other names are hub ids, or relative to here."""
    return place.is_dir() or (place.suffix == ".gguf" and place.is_file())
