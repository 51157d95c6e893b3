"""The calibration plugin: a pair measured on ordinary text, for `purify calibrate` and `purify check`."""

from __future__ import annotations

from collections.abc import Mapping

from purify_plugins.plugin.hookspecs import hookimpl


@hookimpl
def purify_commands() -> Mapping[str, str]:
    return {"calibrate": "purify_hooks.calibration.command:calibrate"}


@hookimpl
def purify_checks() -> Mapping[str, str]:
    return {"text": "purify_hooks.calibration.checking:check_text"}
