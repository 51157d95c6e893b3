"""`purify demo`: the test bed, attacked and purified."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from purify_plugins.cli.options import AsJson

if TYPE_CHECKING:
    from purify_hooks.evaluation.demo.run import DemoFindings
    from purify_hooks.evaluation.eval.run import Plan

PAGE = Path("purify-demo.html")


def demo(
    out: Annotated[
        Path | None, typer.Option(help=f"Where the page goes. [{PAGE}; with --json: nowhere]")
    ] = None,
    full: Annotated[
        bool, typer.Option("--full", help="Compare every policy there is; a minute more.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Attack a really trained LLM, alone and purified, and show both; about half a minute on two cores.

    The first answers are there in ten seconds; Ctrl-C keeps what is known.
    """
    from purify_hooks.evaluation.demo.run import DemoFindings
    from purify_plugins.utils.files import require_writable

    path = out or (None if as_json else PAGE)
    if path:
        require_writable(path)
    show = _Show(DemoFindings(_planned(full, as_json)), path, as_json)
    try:
        show.run(full)
    except KeyboardInterrupt:
        show.interrupted()
        raise typer.Exit(130) from None
    show.end()


def _planned(full: bool, as_json: bool) -> Plan:
    """Which systems are measured."""
    from purify_hooks.evaluation.demo.preset import FEW, HEADLINE, demo_systems, preset
    from purify_plugins.plugin.manager import load_plugins

    if not (full or as_json):
        return preset(FEW)
    return preset(demo_systems(load_plugins([]), () if full else HEADLINE))


@dataclass
class _Show:
    """What the command prints, and the page, which is written anew with everything that is found."""

    known: DemoFindings
    path: Path | None
    as_json: bool
    began: float = field(default_factory=time.monotonic)
    compared: bool = False

    def run(self, full: bool) -> None:
        """Find everything out, and say so as it comes. Raises KeyboardInterrupt."""
        from purify_hooks.evaluation.demo.run import demonstrate
        from purify_hooks.evaluation.eval.worker_pool import worker_pool

        length = "a minute or two" if full else "half a minute"
        first = "three attacks in about ten seconds, " if self.path else ""
        self._say(f"{first}the whole in about {length} on two cores; Ctrl-C keeps what is known")
        with worker_pool() as pool:
            for news in demonstrate(self.known, pool, showing=self.path is not None):
                self._say(news.text)
                self._compare()
                self._write("Not finished: the figures that are missing were still being measured.")
        self._write()

    def _say(self, text: str) -> None:
        """A line of progress on standard error; no terminal is needed to read it."""
        typer.echo(f"{time.monotonic() - self.began:4.0f} s  {text}", err=True)

    def _write(self, note: str = "") -> None:
        from purify_hooks.evaluation.demo.report import page
        from purify_plugins.utils.files import write_whole

        if self.path and self.known.anything:
            write_whole(self.path, page(self.known, "" if self.known.complete else note))

    def _compare(self) -> None:
        """The three attacks, the LLM's answer beside the purified one: once, as soon as they are there."""
        from rich.console import Console

        from purify_hooks.evaluation.demo.report import comparison

        exhibit = self.known.exhibits.get("sampled")
        if self.as_json or self.compared or exhibit is None:
            return
        console = Console(highlight=False)
        for part in comparison(exhibit):
            console.print(part)
        self.compared = True
        typer.echo(f"these, and the figures as they come, are in {self.path}")

    def end(self) -> None:
        """The figures, in the terminal or as JSON."""
        if self.as_json:
            self._print_json()
        else:
            self._print_figures()

    def _print_json(self) -> None:
        from purify_hooks.evaluation.eval.findings import summary

        records = {each.system.key: summary(each) for each in self.known.results}
        typer.echo(json.dumps(records, allow_nan=False))

    def _print_figures(self) -> None:
        from rich.console import Console

        from purify_hooks.evaluation.demo.report import headline, tables, told
        from purify_hooks.evaluation.table import put

        console = Console()
        for table in tables(self.known.results):
            put(console, table)
        if found := headline(self.known.results):
            console.print(told(found), markup=False)
        typer.echo(f"the page is {self.path}")

    def interrupted(self) -> None:
        """Ctrl-C: write and tell what is known."""
        if not self.known.anything:
            typer.echo("interrupted before anything was known; nothing was written", err=True)
            return
        self._compare()
        self._write(
            "Interrupted: this is what was known by then. Figures that are missing were not measured."
        )
        if self.as_json:
            self._print_json()
        elif self.known.results:
            self._print_figures()
        where = f"; what was known by then is in {self.path}" if self.path else ""
        typer.echo(f"interrupted after {time.monotonic() - self.began:.0f} s{where}", err=True)
