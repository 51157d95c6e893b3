"""`purify takedown`: build a list of works to take out of an LLM, and change it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from purify_hooks.progress import rare_lines, shown_progress
from purify_plugins.cli.options import AsJson

if TYPE_CHECKING:
    from purify_hooks.ngram.build import Built

app = typer.Typer(no_args_is_help=True, add_completion=False, help="Named works taken out of an LLM's rows.")

Place = Annotated[Path, typer.Argument(metavar="DIR", help="What `purify takedown build` made.")]
Glob = Annotated[str, typer.Option(help="The files to read in directories.")]


@app.command()
def build(
    works: Annotated[list[Path], typer.Argument(metavar="WORKS...", help="Text files, or directories.")],
    neutral: Annotated[list[Path], typer.Option(help="Common text: a file or directory; repeatable.")],
    tokenizer: Annotated[str, typer.Option(help="The LLM's tokenizer: directory, hub id or GGUF file.")],
    out: Annotated[Path, typer.Option(help="The directory to make.")],
    glob: Glob = "*",
    force: Annotated[bool, typer.Option("--force", help="Replace a list that is there.")] = False,
    as_json: AsJson = False,
) -> None:
    """Make a list of works for `[llm] source = "takedown"`; each file is a work. It holds their text."""
    from purify_hooks.takedown.build import ListOptions, build_list

    with shown_progress(rare_lines, "reading") as stage:
        found, common = build_list(ListOptions(works, neutral, tokenizer, out, glob, force), stage)
    warn(out)
    if as_json:
        typer.echo(json.dumps({"out": str(out), "works": found._asdict(), "neutral": common._asdict()}))
        return
    typer.echo(f"{_told(out, found)}; common text: {common.tokens:,} tokens, {common.size / 1e6:.1f} MB")


@app.command()
def add(
    place: Place,
    works: Annotated[list[Path], typer.Argument(metavar="WORKS...", help="Text files, or directories.")],
    glob: Glob = "*",
) -> None:
    """Add works to a list."""
    from purify_hooks.takedown.build import add as added

    with shown_progress(rare_lines, "reading") as stage:
        found = added(place, works, stage, glob)
    warn(place)
    typer.echo(_told(place, found))


@app.command()
def remove(
    place: Place, names: Annotated[list[str], typer.Argument(metavar="NAMES...", help="As `list` has them.")]
) -> None:
    """Remove works from a list, by name."""
    from purify_hooks.takedown.build import remove as removed

    with shown_progress(rare_lines, "reading") as stage:
        found = removed(place, names, stage)
    typer.echo(_told(place, found))


@app.command(name="list")
def list_works(place: Place, as_json: AsJson = False) -> None:
    """List the works, with tokens and SHA-256."""
    from purify_hooks.ngram.storage import load
    from purify_hooks.takedown.works import WORKS, find

    texts = load(find(place) / WORKS)[1].texts
    if as_json:
        typer.echo(json.dumps([text._asdict() for text in texts]))
        return
    for text in texts:
        typer.echo(f"{text.name}: {text.tokens:,} tokens, SHA-256 {text.sha256}")


def warn(place: Path) -> None:
    """Say on stderr which works the list hardly recognises."""
    from purify_hooks.takedown.recognised import recognised
    from purify_hooks.takedown.works import TakedownList

    for work in recognised(TakedownList.load(place)):
        if work.doubtful:
            typer.echo(
                f"warning: {work.name} is recognised in {work.noticed} of {work.places} places tried: the "
                "common text holds it too, or it is a sentence long; take it out of --neutral",
                err=True,
            )


def _told(place: Path, works: Built) -> str:
    counted = f"{works.documents} work{'s' if works.documents != 1 else ''}"
    return f"{place}: {counted}, {works.tokens:,} tokens, {works.size / 1e6:.1f} MB"
