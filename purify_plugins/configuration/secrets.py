"""Secrets: declared by the sources that take them, read from the environment, never printed."""

from __future__ import annotations

import inspect
import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import is_dataclass
from pathlib import Path
from typing import Any, get_args, get_type_hints

from purify_plugins.errors import ConfigError

ENDING = "_env"
USUAL = frozenset(("api_key", "token"))
"""Keys that hold a secret for every source."""


class Secret(str):
    """A password, token or key; its `repr` does not show it.

    A source declares that a parameter is one by this type: `api_key: str | Secret | None = None`.
    """

    def __repr__(self) -> str:
        return "Secret('…')"


def secret_keys(factory: Callable[..., Any]) -> frozenset[str]:
    """The parameters of a factory that are secrets, by their types."""
    found = hints_of(factory)
    return USUAL | {name for name, hint in found.items() if hint is Secret or Secret in get_args(hint)}


def hints_of(factory: Callable[..., Any]) -> Mapping[str, Any]:
    """The types of a factory's parameters, as far as they are annotated; a factory may be any callable."""
    plain = inspect.unwrap(factory)
    if isinstance(plain, type) and not is_dataclass(
        plain
    ):  # a dataclass's fields have their own module's names
        plain = plain.__init__  # type: ignore[misc]  # the constructor of just this class is meant
    unseen: dict[str, Any] = {}
    while True:
        try:
            return get_type_hints(plain, localns=unseen)
        except NameError as error:  # a type that only type checkers import
            if error.name is None or error.name in unseen:
                return {}
            unseen[error.name] = Any
        except TypeError:  # an object with `__call__`
            return {}


def secrets(table: Mapping[str, Any], keys: Iterable[str] = USUAL) -> dict[str, Any]:
    """A table with secrets read from the environment variables that keys ending in `_env` name.

    `token_env = "TGI_TOKEN"` sets `token`; the secret itself is never in the file. Only secrets are read this
    way: another value of the environment could end up in an error or a URL. Raises ConfigError.
    """
    return dict(
        _secret(key, value, frozenset(keys)) if key.endswith(ENDING) else (key, value)
        for key, value in table.items()
    )


def _secret(key: str, variable: Any, keys: frozenset[str]) -> tuple[str, Secret]:
    name = key.removesuffix(ENDING)
    if not isinstance(variable, str) or variable not in os.environ:
        raise ConfigError(f"{key} names the environment variable {variable!r}, which is not set")
    if name not in keys:
        raise ConfigError(
            f"{key}: {name} is no secret, so its value is not taken from the environment; write {name} itself"
        )
    return name, Secret(os.environ[variable])


def key_of(variable: str | None, file: str | Path | None, where: str, names: tuple[str, str]) -> bytes | None:
    """The key in an environment variable or a file, one of them; None: neither is named. Raises ConfigError.

    `where` begins an error, `names` are what the two options are called. Line breaks at a file's end are no
    part of a key.
    """
    if variable is not None and file is not None:
        raise ConfigError(f"{where}{names[0]} and {names[1]} both name a key; leave one out")
    if variable is not None:
        if variable not in os.environ:
            raise ConfigError(
                f"{where}{names[0]} names the environment variable {variable!r}, which is not set"
            )
        return os.environ[variable].encode(errors="surrogateescape")
    if file is None:
        return None
    try:
        return Path(file).expanduser().read_bytes().rstrip(b"\r\n")
    except (OSError, ValueError) as error:
        raise ConfigError(f"{where}{names[1]} names {str(file)!r}, which cannot be read: {error}") from error


def named(table: Mapping[str, Any]) -> dict[str, str]:
    """The keys of a table that name an environment variable, set or not, and the variables."""
    return {
        key: value
        for key, value in table.items()
        if key.endswith(ENDING) and isinstance(value, str) and value
    }
