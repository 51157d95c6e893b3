"""What `purify bench --preset` does."""

from __future__ import annotations

import json
from pathlib import Path

import typer

from purify_hooks.evaluation.bench.settings import BenchSettings, Progress
from purify_plugins.errors import ConfigError

PAGE = "gpu.md"


def run_preset(
    name: str, settings: BenchSettings, device: str, progress: Progress, write: Path | None, as_json: bool
) -> None:
    """Measure a preset on a device; print it, or write it into the page too. Raises ConfigError."""
    from purify_hooks.evaluation.bench.accelerator.pair import PRESETS
    from purify_hooks.evaluation.bench.accelerator.tables import heading, section, tables
    from purify_hooks.evaluation.eval.page import fill_region, require_region
    from purify_hooks.evaluation.table import put

    if name not in PRESETS:
        raise ConfigError(f"there is no preset {name!r}; the presets are {', '.join(sorted(PRESETS))}")
    if write:
        require_region(write / PAGE, name)
    from purify_hooks.evaluation.bench.accelerator.measure import measured

    found = measured(PRESETS[name], settings, device, progress)
    if write:
        fill_region(write / PAGE, name, section(found))
    if as_json:
        typer.echo(json.dumps(found))
        return
    from rich.console import Console

    console = Console()
    console.print(heading(found), markup=False)
    for table in tables(found):
        put(console, table)
