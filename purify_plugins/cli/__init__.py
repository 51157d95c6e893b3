"""The command `purify`: errors are printed as one sentence; `commands` lists the commands."""

from __future__ import annotations

import os
import sys
import warnings
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from purify_plugins.cli.commands import Commands
from purify_plugins.cli.usage import advising


class _Purify(TyperGroup):
    """The command group: a PurifyError is printed as one sentence; a traceback is a defect of ours."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(**{**settings, "commands": {}})
        self.commands = Commands()  # type: ignore[assignment]  # typer reads it, and adds to it only if asked to

    def make_context(self, info_name: Any, args: list[str], parent: Any = None, **extra: Any) -> Any:
        with advising(usage=bool(args)):  # typer prints its help in answer to nothing
            return super().make_context(info_name, args, parent, **extra)

    def format_help(self, ctx: Any, formatter: Any) -> None:
        self.commands = dict(self.commands)  # one that does not load is an error, not half of a page
        super().format_help(ctx, formatter)

    def invoke(self, ctx: Any) -> Any:
        with advising():
            return super().invoke(ctx)


app = typer.Typer(
    cls=_Purify,
    help="Decode a language model you cannot vouch for through a small one you can.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)


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
