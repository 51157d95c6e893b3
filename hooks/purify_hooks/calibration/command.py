"""The command `purify calibrate`: set the ledger's parameters by the pair, from ordinary text alone."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from purify_plugins.cli.options import AsJson, ModelOptions, configured, on_interrupt, prepared
from purify_plugins.errors import ConfigError

if TYPE_CHECKING:
    from purify_hooks.calibration.result import CalibrationResult
    from purify_hooks.calibration.sample import TextSample
    from purify_plugins.configuration.config import Config


def calibrate(
    llm: Annotated[str | None, typer.Option(help="The untrusted model: a directory or a hub id.")] = None,
    slm: Annotated[str | None, typer.Option(help="The benign model: a directory or a hub id.")] = None,
    text: Annotated[
        list[Path] | None,
        typer.Option(
            metavar="FILE", help="Ordinary text of your kind, UTF-8; repeatable. [a sample of many kinds]"
        ),
    ] = None,
    config: Annotated[
        Path | None,
        typer.Option(help="The purify.toml to write into. [the one here; with --llm and --slm: none]"),
    ] = None,
    force: Annotated[
        bool, typer.Option("--force", help="Replace a [policy] that is there without asking.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Set the parameters of `balanced` by your two models, on ordinary text; no attack is needed."""
    from purify_hooks.calibration.sample import sample_of

    place = _place(llm, slm, config)
    sample = sample_of(text or ())
    base = _base(llm, slm, place)
    require_permission(base, force)
    found = calibrated(base, place, sample)
    if as_json:
        typer.echo(json.dumps(found.as_json()))
    else:
        found.show(place)


def calibrated(base: Config, place: Path | None, sample: TextSample) -> CalibrationResult:
    """Measure a configuration's pair on a sample and write what follows into the file; None: print it."""
    from purify_hooks.calibration.result import measured
    from purify_hooks.calibration.target import CalibrationTarget

    target = CalibrationTarget(place, base)
    ready = prepared(replace(base, policy={"name": "balanced"}, calibration={}))
    where = f"{place} is as it was" if place and place.exists() else "nothing was written"
    with on_interrupt(where):
        found = measured(ready, sample)
    target.write(found)
    return found


def _place(llm: str | None, slm: str | None, config: Path | None) -> Path | None:
    """The file to write into; None: print."""
    from purify_plugins.configuration.find import find_config

    if config is None and llm and slm:
        return None
    if config is not None and llm and slm and not config.exists():
        return config
    return find_config(config)


def _base(llm: str | None, slm: str | None, place: Path | None) -> Config:
    """The configuration to calibrate. Raises ConfigError for other models than the file's."""
    from purify_hooks.calibration.target import alone
    from purify_plugins.configuration.config import read_config

    if place is None or (llm and slm and not place.exists()):
        return configured(ModelOptions(llm, slm))
    base: Config = read_config(place)
    for side, given, table in (("--llm", llm, base.llm), ("--slm", slm, base.slm)):
        if given is not None and not same_model(given, alone(table).get("model")):
            raise ConfigError(
                f"{place} has another model than {side} {given}: {table.get('model')!r}; leave {side} out, "
                "or change the file: a calibration is of the pair that is run"
            )
    return base


def same_model(given: str, named: Any) -> bool:
    """Whether a model on the command line is the one that a configuration names."""
    return isinstance(named, str) and (given == named or Path(given).resolve() == Path(named).resolve())


def require_permission(config: Config, force: bool) -> None:
    """Ask before a policy that was set by hand is replaced. Raises Exit, ConfigError without a terminal."""
    from purify_plugins.certificates.calibration_record import settings_digest
    from purify_plugins.certificates.explain import assignments

    ours = config.calibration.get("settings") == settings_digest(config.policy)
    if force or ours or config.policy == {"name": "balanced"}:
        return
    told = f"[policy] is set by hand: {assignments(config.policy)}"
    if not sys.stdin.isatty():
        raise ConfigError(f"{told}; replace it with --force")
    if not typer.confirm(f"{told}. Replace it?", err=True):
        raise typer.Exit(1)
