"""What a reader's options say: texts of a command line as values to compare a certificate with."""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

from purify_plugins.certificates.claims import MEANING
from purify_plugins.certificates.offered import Policies
from purify_plugins.certificates.pinning import Pins
from purify_plugins.errors import ConfigError
from purify_plugins.types import Guarantee
from purify_plugins.verifying.examine import Known, moment, public_keys

SHA256 = re.compile("[0-9a-f]{64}")


def known(given: Any, policies: Policies, contents: Callable[[str], bytes]) -> Known:
    """All that a certificate must agree with, by the options of `purify verify` or of `purify-verify`.

    `given` has them as attributes, None where one is not given; `contents` reads a file. Raises ConfigError,
    UnreadableError.
    """
    if given.set and not given.policy:
        raise ConfigError("--set gives an option of the policy; name it with --policy")
    options = dict(map(key_value, given.set or ()))
    keys = public_keys(given.key or (), contents)
    pins = Pins(
        answer=None if given.answer is None else contents(given.answer),
        policy=policies.policy(given.policy, options) if given.policy else None,
        slm=named_model(given.slm_digest),
        llm=named_model(given.llm_digest),
        slm_card=None if given.slm_card is None else contents(given.slm_card),
        llm_card=None if given.llm_card is None else contents(given.llm_card),
        guarantee=level(given.require),
        fields=dict(map(field, given.expect or ())),
    )
    return Known(
        keys,
        pins,
        None if given.issued_after is None else moment(given.issued_after),
        None if given.chain is None else Path(given.chain),
        None if given.tsa is None else contents(str(given.tsa)),
    )


def named_model(given: str | None) -> Path | str | None:
    """A SHA-256, or a directory or a GGUF file that has it; nothing in it is loaded."""
    if given is None or SHA256.fullmatch(given.lower()):
        return given and given.lower()
    if not (Path(given).is_dir() or (Path(given).suffix == ".gguf" and Path(given).is_file())):
        raise ConfigError(
            f"a model's digest is a SHA-256 of 64 hexadecimal digits, its directory or its GGUF file; "
            f"not {given!r}"
        )
    return Path(given)


def level(given: str | None, option: str = "--require") -> Guarantee | None:
    """The guarantee that an option names. Raises ConfigError for an unknown one."""
    for each in MEANING:
        if each == given:
            return each
    if given is None:
        return None
    raise ConfigError(f"{option} takes one of {', '.join(MEANING)}, not {given!r}")


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
