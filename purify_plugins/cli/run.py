"""`purify run`, `status` and `allow`: an application with purification on, and what is known of it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from purify_plugins.cli.options import AsJson, ConfigFile

program = typer.Typer(add_completion=False)
PROGRAM_ARGUMENTS = {
    "ignore_unknown_options": True,
    "allow_extra_args": True,
    "allow_interspersed_args": False,
}
"""Every word after `run` is read by `purify_plugins.running.launch`, or by the program itself."""


@program.command(context_settings=PROGRAM_ARGUMENTS, add_help_option=False)
def run(context: typer.Context) -> None:
    """Run a program with purification on: [--quiet] [--config FILE] (SCRIPT | -m MODULE | COMMAND) ..."""
    from purify_plugins.running.launch import run as launch

    raise typer.Exit(launch(context.args))


def allow(
    file: Annotated[Path | None, typer.Argument(help="The configuration; default the one here.")] = None,
) -> None:
    """Let a purify.toml that is only found here use your secrets, as long as it stays as it is."""
    from purify_plugins.configuration.find import allowed

    found = allowed(file)
    for each in (*found.names, *found.wanted):
        typer.echo(f"{found.file} {each}")
    if found.wanted:
        typer.echo(f"allowed {found.file.resolve()} as it is now; when it changes, you are asked again")
    else:
        typer.echo("nothing here needs allowing: it gives away no secret and writes nowhere else")


def status(
    config: ConfigFile = None,
    as_json: AsJson = False,
    verbose: Annotated[bool, typer.Option("--verbose", help="Name every module that is watched.")] = False,
) -> None:
    """Say what `purify run` would switch on here, and what running processes have purified."""
    from purify_plugins.running.activate import adapter

    would_be, processes = adapter().published(config)
    if as_json:
        typer.echo(json.dumps({"here": asdict(would_be), "processes": processes}))
        return
    typer.echo(f"configuration  {would_be.config}")
    typer.echo(f"policy         {would_be.policy}")
    typer.echo(f"fingerprint    {would_be.fingerprint}")
    many = f"{len(would_be.waiting)} modules of clients and engines (--verbose names them)"
    typer.echo(f"watches        {', '.join(would_be.waiting) if verbose else many}")
    typer.echo("certificates   are kept by a plugin alone: docs/gateway.md, Keep every certificate")
    for process in processes:
        typer.echo("\n" + "\n".join(_process_lines(process)))


def _process_lines(process: Mapping[str, Any]) -> list[str]:
    """The published state of one process, as lines."""
    how = "running" if process["running"] else "ended"
    lines = [f"process {process['pid']} ({how}): {' '.join(process['argv'])}"]
    for name, counts in process["models"].items():
        lines.append(f"  {name}: {_counts_text(**counts)}")
    for what in ("refused", "unseen"):
        if process[what]:
            lines.append(f"  {what}: {', '.join(process[what])}")
    return lines


def _counts_text(purified: int, refused: int, trusted: int, guaranteed: int = 0) -> str:
    """How many calls were answered, and how: greedy ones are purified, and carry no guarantee."""
    return f"{purified} purified, {guaranteed} with a guarantee; {refused} refused; {trusted} trusted"
