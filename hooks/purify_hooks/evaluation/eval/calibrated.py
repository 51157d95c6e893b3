"""`purify eval --calibrate`: the rule is set by the pair itself, then measured beside the others."""

from __future__ import annotations

from pathlib import Path

import typer

from purify_plugins.cli.options import ModelOptions, configured
from purify_plugins.configuration.config import read_config
from purify_plugins.errors import ConfigError
from purify_plugins.utils.files import make_folder


def calibrated_file(llm: str, slm: str, out: Path) -> Path:
    """The file in `out` with this pair and `balanced` as it sets it; written once, and said what it means.

    Raises ConfigError for a file there that is of another pair.
    """
    from purify_hooks.calibration.command import calibrated, same_model
    from purify_hooks.calibration.sample import sample_of

    file = out / "calibrated.toml"
    if not file.exists():
        make_folder(out)
        calibrated(configured(ModelOptions(llm, slm)), file, sample_of(())).show(file, error=True)
        return file
    there = read_config(file)
    if not (same_model(llm, there.llm.get("model")) and same_model(slm, there.slm.get("model"))):
        raise ConfigError(f"{file} is a calibration of another pair; choose another --out")
    typer.echo(f"the rule is the one in {file}, which was calibrated before", err=True)
    return file
