"""Which store a text names: `sqlite:FILE` or a directory."""

from __future__ import annotations

from pathlib import Path

from purify_plugins.errors import ConfigError
from purify_plugins.store.folder import FolderRecords
from purify_plugins.store.records import Records
from purify_plugins.store.sqlite import SqliteRecords


def records_at(named: str, folder: Path = Path(), new: bool = True) -> Records:
    """The records at a place: `sqlite:FILE` or a directory, from `folder`; `new`: it is made if need be.

    Raises ConfigError, StoreError.
    """
    kind, _, path = named.rpartition("sqlite:")
    if kind or not path.strip():
        raise ConfigError(f"store must be 'sqlite:FILE' or a directory, not {named!r}")
    if "://" in path:
        raise ConfigError(f"store {named!r} is an address; a store is a file, 'sqlite:FILE', or a directory")
    return (SqliteRecords if "sqlite:" in named else FolderRecords)(folder / path, new)


def absolute(named: str) -> str:
    """A place with its path from the root, so that it is the same one from every directory."""
    kind, sqlite, path = named.rpartition("sqlite:")
    return f"{kind}{sqlite}{Path(path).absolute()}" if path.strip() and "://" not in path else named
