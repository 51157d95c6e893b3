"""`purify slm`: build a small model of one's own text, and explain what it says."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from purify_hooks.cards.command import card
from purify_hooks.progress import rare_lines, shown_progress
from purify_hooks.suggest.command import suggest
from purify_plugins.cli.options import AsJson

if TYPE_CHECKING:
    from purify_hooks.ngram.source import NgramSource

app = typer.Typer(no_args_is_help=True, add_completion=False, help="Small language models to purify with.")

app.command()(suggest)
app.command()(card)


@app.command()
def build(
    corpus: Annotated[list[Path], typer.Argument(metavar="CORPUS...", help="Text files, or directories.")],
    tokenizer: Annotated[
        str, typer.Option(help="Whose tokens are counted: the LLM's directory, hub id or GGUF file.")
    ],
    out: Annotated[Path, typer.Option(help="The directory to make.")],
    order: Annotated[int, typer.Option(help="Tokens of the longest n-grams, 2 to 12.")] = 4,
    glob: Annotated[str, typer.Option(help="The files to read in directories.")] = "*",
    force: Annotated[bool, typer.Option("--force", help="Replace a model that is there.")] = False,
    as_json: AsJson = False,
) -> None:
    """Make a language model of one's own text: every probability can be explained.

    Interpolated modified Kneser-Ney over the LLM's tokens; each file is a document.
    """
    from purify_hooks.ngram.build import BuildOptions
    from purify_hooks.ngram.build import build as built

    options = BuildOptions(corpus, tokenizer, out, order, glob, force)
    with shown_progress(rare_lines, "reading") as stage:
        found = built(options, stage)
    if as_json:
        typer.echo(json.dumps({"out": str(out), **found._asdict()}))
        return
    grams = ", ".join(f"{number:,}" for number in found.ngrams)
    typer.echo(
        f"{out}: {found.documents} documents, {found.tokens:,} tokens, {grams} n-grams of 1 to {order} "
        f"tokens, {found.size / 1e6:.1f} MB"
    )


@app.command()
def explain(
    model: Annotated[Path, typer.Argument(metavar="DIR", help="What `purify slm build` made.")],
    prompt: Annotated[str, typer.Option(help="The text before the token.")],
    token: Annotated[
        str | None, typer.Option(help="The text of the token, its leading space included. [the likeliest]")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Say where a token's probability comes from: counts, discounts, back-off weights and files."""
    from purify_hooks.ngram.source import NgramSource

    source = NgramSource.load(model)
    found = source.explain(prompt, _token(source, prompt, token))
    if as_json:
        typer.echo(json.dumps({**asdict(found), "probability": found.probability}))
        return
    for line in found.lines():
        typer.echo(line)


def _token(source: NgramSource, prompt: str, text: str | None) -> int:
    """The id of one token's text; without one, of the likeliest token. Raises ConfigError."""
    from purify_plugins.errors import ConfigError

    if text is None:
        session, rows = source.open([prompt])
        session.close()
        return int(rows[0].argmax())
    named = [index for index, name in source.vocabulary.control.items() if name == text]
    ids = named or source.tokenizer(text, add_special_tokens=False)["input_ids"]
    if len(ids) != 1:
        pieces = [source.vocabulary.tokens[each].decode("utf-8", "replace") for each in ids]
        raise ConfigError(f"{text!r} is {len(ids)} tokens ({', '.join(map(repr, pieces))}); name one of them")
    return int(ids[0])
