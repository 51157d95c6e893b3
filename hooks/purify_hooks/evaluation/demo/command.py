"""`purify demo`: the test bed, attacked and purified."""

from __future__ import annotations

import json
import time
from collections.abc import Collection
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from purify_plugins.cli.options import AsJson

if TYPE_CHECKING:
    from purify_hooks.evaluation.demo.run import DemoFindings
    from purify_hooks.evaluation.eval.systems import System

PAGE = Path("purify-demo.html")
UNFINISHED = "Not finished: the figures that are missing were still being measured."
INTERRUPTED = "Interrupted: this is what was known by then. Figures that are missing were not measured."


def demo(
    out: Annotated[
        Path | None, typer.Option(help=f"Where the page goes. [{PAGE}; with --json: nowhere]")
    ] = None,
    full: Annotated[
        bool, typer.Option("--full", help="Compare every policy there is; a minute more.")
    ] = False,
    real: Annotated[
        bool,
        typer.Option(
            "--real", help="On a twin of SmolLM2-135M-Instruct, which is trained first if it is not here yet."
        ),
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Attack a really trained LLM, alone and purified, and show both; about half a minute on two cores.

    The first answers are there in ten seconds; Ctrl-C keeps what is known.
    """
    from purify_hooks.evaluation.demo.preset import preset
    from purify_hooks.evaluation.demo.run import DemoFindings
    from purify_plugins.utils.files import require_writable

    path = out or (None if as_json else PAGE)
    if path:
        require_writable(path)
    systems = _systems(full, as_json)
    known = _real(systems) if real else DemoFindings(preset(systems))
    shown = _Output(known, path, as_json)
    try:
        shown.run(full)
    except KeyboardInterrupt:
        shown.interrupted()
        raise typer.Exit(130) from None
    shown.figures()


def _systems(full: bool, as_json: bool) -> Collection[System]:
    """Which systems are measured."""
    from purify_hooks.evaluation.demo.preset import FEW, HEADLINE, demo_systems
    from purify_plugins.plugin.manager import load_plugins

    if not (full or as_json):
        return FEW
    return demo_systems(load_plugins([]), () if full else HEADLINE)


def _real(systems: Collection[System]) -> DemoFindings:
    """Nothing yet, of the real pair, which is made first if it is not in the cache directory."""
    from purify_hooks.evaluation.demo.preset import REQUESTS, real_preset
    from purify_hooks.evaluation.demo.run import DemoFindings
    from purify_hooks.evaluation.testbed.real.cache import made

    return DemoFindings(real_preset(systems, made(partial(typer.echo, err=True))), REQUESTS, real=True)


@dataclass
class _Output:
    """What the command prints, and the page, which is rewritten after every result."""

    known: DemoFindings
    path: Path | None
    as_json: bool
    began: float = field(default_factory=time.monotonic)
    compared: bool = False

    def run(self, full: bool) -> None:
        """Measure everything and print each finding as it comes. Raises KeyboardInterrupt."""
        from purify_hooks.evaluation.demo.run import demonstrate
        from purify_hooks.evaluation.eval.worker_pool import worker_pool

        length, seconds = ("a minute or two" if full else "half a minute"), "ten seconds"
        if self.known.real:
            length, seconds = ("half an hour" if full else "five minutes"), "a minute"
        first = f"three attacks in about {seconds}, " if self.path else ""
        self.progress(f"{first}the whole in about {length} on two cores; Ctrl-C keeps what is known")
        with worker_pool() as pool:
            for news in demonstrate(self.known, pool, showing=self.path is not None):
                self.progress(news.text)
                self.compare()
                self.write(UNFINISHED)
        self.write()

    def progress(self, text: str) -> None:
        """A line on standard error; no terminal is needed to read it."""
        typer.echo(f"{time.monotonic() - self.began:4.0f} s  {text}", err=True)

    def write(self, note: str = "") -> None:
        from purify_hooks.evaluation.demo.report import page
        from purify_plugins.utils.files import write_whole

        if self.path and self.known.anything:
            write_whole(self.path, page(self.known, "" if self.known.complete else note))

    def compare(self) -> None:
        """The three attacks, the LLM's answer beside the purified one: once, as soon as they are there."""
        from rich.console import Console

        from purify_hooks.evaluation.demo.report import comparison

        if self.as_json or self.compared or "sampled" not in self.known.exhibits:
            return
        console = Console(highlight=False)
        for part in comparison(self.known.exhibits["sampled"]):
            console.print(part)
        self.compared = True
        typer.echo(f"these, and the figures as they come, are in {self.path}")

    def figures(self) -> None:
        """The figures, in the terminal or as JSON."""
        from rich.console import Console

        from purify_hooks.evaluation.demo.report import headline, headline_sentence, tables
        from purify_hooks.evaluation.eval.findings import summary
        from purify_hooks.evaluation.table import put

        results = self.known.results
        if self.as_json:
            typer.echo(json.dumps({each.system.key: summary(each) for each in results}, allow_nan=False))
            return
        console = Console()
        for table in tables(results):
            put(console, table)
        if found := headline(results):
            console.print(headline_sentence(found), markup=False)
        typer.echo(f"the page is {self.path}")

    def interrupted(self) -> None:
        """Write and print the results so far, after Ctrl-C."""
        if not self.known.anything:
            typer.echo("interrupted before anything was known; nothing was written", err=True)
            return
        self.compare()
        self.write(INTERRUPTED)
        if self.as_json or self.known.results:
            self.figures()
        where = f"; what was known by then is in {self.path}" if self.path else ""
        typer.echo(f"interrupted after {time.monotonic() - self.began:.0f} s{where}", err=True)
