"""Switch purification on and off for this process and the Python processes it starts."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from purify_adapters.activation.active import Activation, Status
from purify_adapters.activation.recorder import Counts
from purify_adapters.activation.subprocess_env import refuse_earlier
from purify_plugins.configuration.find import find_config
from purify_plugins.errors import ConfigError, RefusedError

__all__ = ["Counts", "Status", "activate", "assert_active", "deactivate", "published", "status"]

_active: Activation | None = None


def activate(config: str | Path | None = None) -> Status:
    """Purify every generation of this process and its children from now on.

    Calling it twice changes nothing. Raises ConfigError, PluginError, with nothing changed.
    """
    global _active
    file = find_config(config).absolute()
    if _active is None:
        _refuse_isolated_python()
        refuse_earlier()
        starting = Activation(file)
        starting.start()
        _active = starting
    elif _active.file != file:
        raise ConfigError(f"{_active.file} is active already; deactivate before you activate {file}")
    return _active.status()


def deactivate() -> None:
    """Put back every attribute that was replaced; the environment too."""
    global _active
    if _active is not None:
        _active.stop()
        _active = None


def status() -> Status:
    """What is active in this process."""
    return Status() if _active is None else _active.status()


def published(config: str | Path | None = None) -> tuple[Status, list[dict[str, Any]]]:
    """The status that `activate(config)` would give, and the published status of every process."""
    would_be = Activation(find_config(config).absolute())
    return would_be.status(), would_be.published()


def assert_active() -> None:
    """Raise RefusedError unless purification is switched on."""
    if _active is None:
        raise RefusedError("purification is not active; start the program with `purify run`")


def _refuse_isolated_python() -> None:
    """Raise ConfigError for a Python that ignores PYTHONPATH: its children would not be purified.

    A process that `zzz_purify.pth` has started is exempt: its children are started by that file too.
    """
    by_pth = "purify_plugins.running.started" in sys.modules
    if sys.flags.no_site or (sys.flags.ignore_environment and not by_pth):
        raise ConfigError("this Python ignores PYTHONPATH (-I, -E or -S); start it without")
