"""What a reader's options say: texts of a command line as values to compare a certificate with."""

from __future__ import annotations

import json
import re
import tomllib
from pathlib import Path
from typing import Any

from purify_plugins.certificates.claims import MEANING
from purify_plugins.errors import ConfigError
from purify_plugins.types import Guarantee

SHA256 = re.compile("[0-9a-f]{64}")


def named_model(given: str | None) -> Path | str | None:
    """A SHA-256, or a directory whose files have them; nothing in it is loaded."""
    if given is None or SHA256.fullmatch(given.lower()):
        return given and given.lower()
    if not Path(given).is_dir():
        raise ConfigError(
            f"a model's digest is a SHA-256 of 64 hexadecimal digits, or its directory; not {given!r}"
        )
    return Path(given)


def level(given: str | None) -> Guarantee | None:
    """The guarantee that must hold. Raises ConfigError for an unknown one."""
    for each in MEANING:
        if each == given:
            return each
    if given is None:
        return None
    raise ConfigError(f"--require takes one of {', '.join(MEANING)}, not {given!r}")


def field(text: str) -> tuple[str, Any]:
    """Parse `path=value`; a value that is not JSON stays text."""
    path, equals, value = text.partition("=")
    if not equals or not path:
        raise ConfigError(f"--expect takes FIELD=VALUE, such as --expect answer.bytes=120, not {text!r}")
    try:
        return path, json.loads(value)
    except ValueError:
        return path, value


def key_value(text: str) -> tuple[str, Any]:
    """Parse `key=value`; a value that is not TOML stays text."""
    key, equals, value = text.partition("=")
    if key.strip() == "name":
        raise ConfigError("--set gives a field of the policy; name the policy itself with --policy")
    if not equals or not key.strip():
        raise ConfigError(f"--set takes KEY=VALUE, such as --set alpha=0.3, not {text!r}")
    try:
        return key.strip(), tomllib.loads(f"value = {value}")["value"]
    except tomllib.TOMLDecodeError:
        return key.strip(), value
