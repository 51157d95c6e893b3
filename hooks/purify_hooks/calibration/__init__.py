"""The calibration plugin: sets the ledger's parameters from a pair of models and ordinary text."""

from __future__ import annotations

from collections.abc import Mapping

from purify_plugins.plugin.hookspecs import hookimpl


@hookimpl
def purify_commands() -> Mapping[str, str]:
    return {"calibrate": "purify_hooks.calibration.command:calibrate"}
