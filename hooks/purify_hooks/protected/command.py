"""`purify protect`: make the index of protected works that the stage `copycheck` reads."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from purify_hooks.progress import rare_lines, shown_progress
from purify_plugins.cli.options import AsJson

if TYPE_CHECKING:
    from purify_hooks.protected.index import IndexHeader

app = typer.Typer(no_args_is_help=True, add_completion=False, help="Works that must not be copied.")


@app.callback()
def protect() -> None:
    """Works that must not be copied."""


@app.command()
def build(
    works: Annotated[
        list[Path],
        typer.Argument(metavar="WORKS...", help="The protected works: text files, or directories."),
    ],
    out: Annotated[Path, typer.Option(help="The index to make.")],
    common: Annotated[
        list[Path] | None,
        typer.Option(help="Text whose prints are commonplace, such as the SLM's corpus; may be repeated."),
    ] = None,
    licence: Annotated[str, typer.Option(help="A note on the works' licence, kept in the header.")] = "",
    glob: Annotated[str, typer.Option(help="The files to read in directories.")] = "*",
    code: Annotated[bool, typer.Option("--code", help="The works are source files.")] = False,
    force: Annotated[bool, typer.Option("--force", help="Replace an index that is there.")] = False,
    as_json: AsJson = False,
) -> None:
    """Index protected works by their prints, for the stage `copycheck`.

    Each file is a work; no text is kept.
    """
    from purify_hooks.protected.build import IndexOptions
    from purify_hooks.protected.build import build as built
    from purify_plugins.utils.files import require_new, require_writable

    require_writable(out)
    if not force:
        require_new(out)
    options = IndexOptions(works, out, common or (), licence, glob, code)
    with shown_progress(rare_lines, "reading") as told:
        header = built(options, told)
    typer.echo(_told(out, header, as_json))


def _told(out: Path, header: IndexHeader, as_json: bool) -> str:
    """What was made, in a line or as JSON."""
    size, words = out.stat().st_size, sum(each.words for each in header.sources)
    works, prints = len(header.sources), header.prints
    if as_json:
        facts = {"works": works, "words": words, "prints": prints, "bytes": size, "digest": header.digest}
        return json.dumps({"out": str(out), **facts})
    named = f"{works:,} {'work' if works == 1 else 'works'}, {words:,} words, {prints:,} prints"
    return f"{out}: {named}, {size / 1e6:.1f} MB"
