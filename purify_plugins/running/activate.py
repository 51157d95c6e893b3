"""Switch purification on and off for a whole program; the adapter `activation` does the work."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

from purify_plugins.plugin.manager import load_plugins


@cache
def adapter() -> Any:
    """The bundled adapter named `activation`; the configuration, and so its plugins, are not read yet."""
    return load_plugins([]).make("purify_adapters", "activation", {})


def activate(config: str | Path | None = None) -> Any:
    """Purify every generation of this process and its children from now on; return the `status`.

    `config` is a `purify.toml`; else `$PURIFY_CONFIG`, else the working directory's. What cannot be
    purified is refused when it is called. Raises ConfigError, PluginError; then nothing has changed.
    """
    return adapter().activate(config)


def deactivate() -> None:
    """Undo `activate`: restore every attribute that was replaced."""
    adapter().deactivate()


def status() -> Any:
    """The state of activation: patched points, policy, fingerprint, counts of purified and other calls."""
    return adapter().status()


def assert_active() -> None:
    """Raise RefusedError unless purification is switched on in this process."""
    adapter().assert_active()
