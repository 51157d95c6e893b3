"""`purify eval --calibrate`: the rule is set by the pair itself, then measured beside the others."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import typer

from purify_plugins.cli.options import ModelOptions, configured, on_interrupt, prepared
from purify_plugins.configuration.config import read_config
from purify_plugins.errors import ConfigError
from purify_plugins.utils.files import make_folder


def calibrated(llm: str, slm: str, out: Path) -> Path:
    """The file in `out` with this pair and `balanced` as it sets it; written once, and said what it means.

    Raises ConfigError for a file there that is of another pair.
    """
    from purify_hooks.calibration.command import same_model

    file = out / "calibrated.toml"
    if not file.exists():
        make_folder(out)
        _calibrate(file, llm, slm)
        return file
    there = read_config(file)
    if not (same_model(llm, there.llm.get("model")) and same_model(slm, there.slm.get("model"))):
        raise ConfigError(f"{file} is a calibration of another pair; choose another --out")
    typer.echo(f"the rule is the one in {file}, which was calibrated before", err=True)
    return file


def _calibrate(file: Path, llm: str, slm: str) -> None:
    from purify_hooks.calibration.result import measured
    from purify_hooks.calibration.sample import sample_of
    from purify_hooks.calibration.target import CalibrationTarget

    base = configured(ModelOptions(llm, slm))
    target = CalibrationTarget(file, base)
    with on_interrupt("nothing was written"):
        found = measured(prepared(replace(base, policy={"name": "balanced"}, calibration={})), sample_of(()))
    target.write(found)
    found.show(file, error=True)
