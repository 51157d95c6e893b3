"""The tenants of a gateway: whose key it is, and under which policy its answers are drawn."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from purify_plugins.configuration.config import Config, Named, placed, where
from purify_plugins.configuration.find import Table
from purify_plugins.errors import ConfigError, UnknownNameError
from purify_plugins.plugin.manager import Plugins
from purify_plugins.utils.files import read_text

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
DIGEST = re.compile("[0-9a-f]{64}")
SHORTEST = 16
"""Characters that a key has at least: its unsalted SHA-256 stands in the configuration."""
KEYS = ("key_env", "key_file", "key_sha256")
OPTIONS = ("name", *KEYS, "policy", "strength", "require_guarantee", "max_concurrent")


@dataclass(frozen=True)
class Tenant:
    """Who sends requests with certain keys, and what holds for their answers. Raises ConfigError.

    `policy` replaces the configured one (None: that one), `strength` is the share of its latitude that is
    left, from 1 down to 0. `require_guarantee` refuses requests whose answer could claim none.
    `max_concurrent` is how many requests may be under way at once, in each worker; None: as many as the
    gateway takes.
    """

    name: str
    key_sha256: tuple[str, ...] = field(repr=False)
    policy: Any = None
    strength: float = 1.0
    require_guarantee: bool = False
    max_concurrent: int | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.name, str) or not NAME.fullmatch(self.name):
            raise ConfigError(f"a tenant's name is letters, digits, '.', '_' and '-', not {self.name!r}")
        if not self.key_sha256:
            raise ConfigError(f"tenant {self.name!r} needs one of {', '.join(KEYS)}")
        if type(self.strength) not in (int, float) or not 0 <= self.strength <= 1:
            raise ConfigError(f"strength only tightens: a number from 0 to 1, not {self.strength!r}")
        if not isinstance(self.require_guarantee, bool):
            raise ConfigError(f"require_guarantee must be true or false, not {self.require_guarantee!r}")
        most = self.max_concurrent
        if most is not None and (type(most) is not int or most < 1):
            raise ConfigError(f"max_concurrent must be a whole number of 1 or more, not {most!r}")


def with_keys(config: Config) -> Config:
    """The configuration with each tenant's keys read, and only their SHA-256 in it. Raises ConfigError."""
    return replace(config, tenant=[_digested(table) for table in config.tenant])


def tenants_of(config: Config, plugins: Plugins) -> tuple[Tenant, ...]:
    """The tenants of a configuration that `with_keys` has read. Raises ConfigError, saying where."""
    found = []
    for table in config.tenant:
        with placed(where(table)):
            given = {key: value for key, value in table.items() if key != "policy"}
            policy = plugins.policy(table["policy"]) if "policy" in table else None
            named = {"name": None, **given, "key_sha256": tuple(given["key_sha256"])}
            found.append(Tenant(**named, policy=policy))
            _require_distinct("name", [each.name for each in found])
            _require_distinct("key", [key for each in found for key in each.key_sha256])
    return tuple(found)


def _require_distinct(what: str, values: Sequence[str]) -> None:
    if len(set(values)) < len(values):
        twice = next(each for each in values if values.count(each) > 1)
        shown = f" {twice!r}" if what == "name" else ""
        raise ConfigError(f"two tenants have one {what}{shown}; give each its own")


def _digested(table: Table) -> Table:
    """A tenant's table with the digests of its keys in place of what names them."""
    with placed(where(table)):
        for key in table:
            if key not in OPTIONS:
                raise UnknownNameError("tenant option", key, OPTIONS)
        if len(given := [key for key in KEYS if key in table]) != 1:
            raise ConfigError(f"a tenant has one of {', '.join(KEYS)}, and its key never stands in the file")
        folder = table.folder if isinstance(table, Named) else Path()
        digests = _digests(given[0], table[given[0]], folder)
    rest = {key: value for key, value in table.items() if key not in KEYS}
    return Named.at(where(table), {**rest, "key_sha256": digests}, folder)


def _digests(key: str, value: Any, folder: Path) -> list[str]:
    if key == "key_sha256":
        found = value if isinstance(value, list) else [value]
        if not all(isinstance(each, str) and DIGEST.fullmatch(each) for each in found):
            raise ConfigError("key_sha256 is the key's SHA-256 in 64 hexadecimal digits, or a list of such")
        return found
    if not isinstance(value, str) or not value:
        raise ConfigError(f"{key} must be text in quotes, not {value!r}")
    if key == "key_env":
        if not os.environ.get(value):
            raise ConfigError(f"key_env names the environment variable {value!r}, which is not set")
        keys = [os.environ[value]]
    else:
        keys = [line.strip() for line in read_text(folder / value).splitlines() if line.strip()]
    if not keys or any(len(each) < SHORTEST for each in keys):
        raise ConfigError(f"{key}: a tenant's key has {SHORTEST} characters or more; make a longer one")
    return [hashlib.sha256(each.encode()).hexdigest() for each in keys]
