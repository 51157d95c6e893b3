"""The command `purify`; one module per group of commands, heavy imports inside them."""

from __future__ import annotations

import os
import sys
import warnings
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from purify_hooks.evaluation.bench.command import bench
from purify_hooks.evaluation.eval.command import evaluation, tune
from purify_plugins.cli import inspecting, running, serving, showing, writing
from purify_plugins.cli.usage import advising
from purify_plugins.errors import PurifyError

COMMANDS = (
    showing.demo,
    writing.generate,
    writing.chat,
    serving.serve,
    inspecting.policies,
    inspecting.plugins,
    inspecting.check,
    inspecting.verify,
    bench,
    tune,
    running.status,
    running.allow,
)


class _Advising(TyperGroup):
    """Prints what we refuse on purpose as one sentence; a traceback means a defect of ours."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        _literal(self)

    def make_context(self, info_name: Any, args: list[str], parent: Any = None, **extra: Any) -> Any:
        if not args:  # typer prints its help in answer to nothing
            return super().make_context(info_name, args, parent, **extra)
        with advising():
            return super().make_context(info_name, args, parent, **extra)

    def invoke(self, ctx: Any) -> Any:
        try:
            with advising():
                return super().invoke(ctx)
        except PurifyError as error:
            typer.echo(f"error: {' '.join(str(error).split())}", err=True)
            raise typer.Exit(error.exit_code) from None
        except KeyboardInterrupt:
            typer.echo("interrupted", err=True)
            raise typer.Exit(130) from None


def _literal(command: Any) -> None:
    """Let a help text mean what it says: `[the SLM's]` is a default, and no style of rich's."""
    from rich.markup import escape

    for parameter in command.params:
        if help_ := getattr(parameter, "help", None):  # click's arguments have none
            parameter.help = escape(help_)
    command.help = escape(command.help) if command.help else command.help
    for inner in getattr(command, "commands", {}).values():  # click's groups have some
        _literal(inner)


app = typer.Typer(
    cls=_Advising,
    help="Decode a language model you cannot vouch for through a small one you can.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
for command in COMMANDS:
    app.command()(command)
app.add_typer(evaluation, name="eval")

app.command(context_settings=running.THE_PROGRAM_S, add_help_option=False)(running.run)


def _version(asked: bool) -> None:
    """Print the version and end."""
    from purify_plugins._version import __version__

    if asked:
        typer.echo(f"purify-plugins {__version__}")
        raise typer.Exit


Version = Annotated[
    bool,
    typer.Option("--version", help="Print the version and end.", callback=_version, is_eager=True),
]


@app.callback()
def quiet(version: Version = False) -> None:
    """Decode a language model you cannot vouch for through a small one you can."""
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")  # the terminal belongs to the answer
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    if not sys.warnoptions:  # what other packages would tell their developers; -W and PYTHONWARNINGS show it
        warnings.simplefilter("ignore")


def main() -> None:
    """Run the command line."""
    app()
