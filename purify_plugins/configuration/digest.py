"""The digest of a configuration: one for what a service runs by, the command line's options included."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from purify_plugins.configuration.config import Config
from purify_plugins.configuration.consent import shown_url
from purify_plugins.configuration.secrets import USUAL

SECRETS = USUAL | {"key_env", "key_file", "key_sha256"}
"""Keys whose values are left out: a digest is public, and a short secret could be guessed from it."""


def config_digest(config: Config) -> str:
    """SHA-256 of a configuration as JSON with sorted keys, without secrets and without `[activation]`.

    The order of keys, comments and spacing do not change it.
    """
    tables = {key: value for key, value in asdict(config).items() if key != "activation"}
    text = json.dumps(_public(tables), sort_keys=True, separators=(",", ":"), default=str)
    return hashlib.sha256(text.encode()).hexdigest()


def _public(value: Any) -> Any:
    """A value without the secrets in it, and URLs without their credentials."""
    if isinstance(value, Mapping):
        return {
            str(key): shown_url(each) if key == "url" else _public(each)
            for key, each in value.items()
            if key not in SECRETS
        }
    return [_public(each) for each in value] if isinstance(value, list) else value
