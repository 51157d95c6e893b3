"""`purify demo`: the test bed, attacked and purified."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from purify_plugins.cli.options import AsJson

if TYPE_CHECKING:
    from concurrent.futures import Executor

    from rich.progress import Progress

    from purify_plugins.demo.measure import Result
    from purify_plugins.eval.systems import System

PAGE = Path("purify-demo.html")


def demo(
    out: Annotated[
        Path | None, typer.Option(help=f"Where the page goes. [{PAGE}; with --json: nowhere]")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Attack a really trained LLM, alone and purified; write a page that shows both."""
    from purify_plugins.files import require_folder

    path = out or (None if as_json else PAGE)
    if path:
        require_folder(path)
    with _bar() as bar:
        results = _paged(path, bar) if path else _headline(bar)
    if as_json:
        typer.echo(json.dumps(_figures(results), allow_nan=False))
    else:
        _report(results, path)


def _bar() -> Progress:
    """Progress, on standard error."""
    from rich.console import Console
    from rich.progress import Progress, TimeElapsedColumn

    return Progress(*Progress.get_default_columns(), TimeElapsedColumn(), console=Console(stderr=True))


def _headline(bar: Progress) -> list[Result]:
    """The systems of the JSON object."""
    from purify_plugins.demo.measure import HEADLINE, lineup
    from purify_plugins.demo.workers import hired
    from purify_plugins.plugins import load_plugins

    with hired() as pool:
        return _measured(pool, lineup(load_plugins([]), HEADLINE), bar)


def _paged(path: Path, bar: Progress) -> list[Result]:
    """Every system; the page is written when all is known."""
    from purify_plugins.demo.measure import lineup
    from purify_plugins.demo.report import page
    from purify_plugins.demo.workers import exhibit, hired
    from purify_plugins.files import write_whole
    from purify_plugins.plugins import load_plugins

    with hired() as pool:
        shown = pool.submit(exhibit)
        results = _measured(pool, lineup(load_plugins([])), bar)
        write_whole(path, page(results, shown.result()))
    return results


def _measured(pool: Executor, systems: Sequence[System], bar: Progress) -> list[Result]:
    from purify_plugins.demo.workers import measure

    coming = pool.map(measure, systems)
    return list(bar.track(coming, total=len(systems), description=f"attacking {len(systems)} systems"))


def _figures(results: Sequence[Result]) -> dict[str, object]:
    from purify_plugins.demo.measure import HEADLINE

    return {result.system.key: result.json() for result in results if result.system.key in HEADLINE}


def _report(results: Sequence[Result], path: Path | None) -> None:
    from rich.console import Console

    from purify_plugins.demo.report import table

    Console().print(table(results))
    typer.echo(f"the page is {path}")
