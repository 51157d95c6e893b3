"""Whose pair a command measures that was given no models."""

from __future__ import annotations

from typing import TYPE_CHECKING

from purify_plugins.cli.options import configuration_exists

if TYPE_CHECKING:
    from pathlib import Path


def whose_pair(named: object, config: Path | None, how: str, made: str = "") -> str:
    """That the test bed's pair is measured; and `how` a configuration's is, where there is one.

    Nothing where the models are `named`; `made` is what was done to the pair.
    """
    if named:
        return ""
    other = f"; the configuration's own models are measured {how}" if configuration_exists(config) else ""
    return f"measuring the test bed's pair{made}, since --llm and --slm name no other{other}"
