"""`purify generate`: one answer, printed as it is written."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from purify_plugins.cli.options import (
    AsJson,
    ModelOptions,
    SamplingOptions,
    configured,
    contents,
    load_pair,
    prepared,
    spread,
)
from purify_plugins.errors import SourceError
from purify_plugins.types import Chat, Chunk, Completion, Token
from purify_plugins.utils.files import decoded, require_new, require_writable, write_whole

if TYPE_CHECKING:
    from rich.console import Console

    from purify_plugins.purifier import Purifier

EDGES = (-2.0, -1.0, -0.5, 0.5, 1.0, 2.0)
NAMES = ("-2", "-1", "-½", "as the LLM", "+½", "+1", "+2")
"""Names of the seven styles, by log fused/llm in nats."""
SHADED = (
    "white on #b2182b",
    "white on #d6604d",
    "black on #f4a582",
    "",
    "black on #92c5de",
    "white on #4393c3",
    "white on #2166ac",
)
SIXTEEN = (
    "white on red",
    "black on bright_red",
    "black on yellow",
    "",
    "black on cyan",
    "black on bright_blue",
    "white on blue",
)
"""Styles for terminals of sixteen colours, where the two palest shades would look alike."""
PLAIN = ("underline reverse", "underline bold", "underline", "", "italic", "italic bold", "italic reverse")
"""Styles without colours: underlined where the SLM lowered a token, italic where it raised it."""


@spread
def generate(
    prompt: Annotated[str, typer.Argument(help="The text to go on from; `-` reads standard input.")],
    models: ModelOptions,
    draws: SamplingOptions,
    explain: Annotated[
        bool, typer.Option("--explain", help="Colour each token by how far the SLM moved it.")
    ] = False,
    as_json: AsJson = False,
    certificate: Annotated[
        Path | None, typer.Option(help="Write the answer's certificate to this file.")
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace a certificate that is there.")] = False,
) -> None:
    """Write one answer, as it comes."""
    if certificate:
        require_writable(certificate)
        if not force:
            require_new(certificate)
    if draws.seed is not None:
        _warn_of_secret()
    text = decoded(contents("-"), "standard input") if prompt == "-" else prompt
    ready = prepared(configured(models, draws))
    ready.refuse(text)
    writer = load_pair(ready).replace(explain=explain)
    completion = writer.generate(text, errors="raise")[0] if as_json else streamed(writer, text, explain)
    if certificate:
        write_whole(certificate, completion.certificate.issued)
    if as_json:
        typer.echo(json.dumps(_object(completion, explain), ensure_ascii=False))


def _warn_of_secret() -> None:
    """Warn on standard error that without a secret a seed repeats nothing in another process."""
    from purify_plugins.decode.draw_keys import VARIABLE, kept

    if not kept():
        typer.echo(
            f"note: {VARIABLE} is not set, so this seed draws another answer in every process; to repeat "
            "one, set it to what `openssl rand -hex 32` prints",
            err=True,
        )


def _object(completion: Completion, explain: bool) -> dict[str, Any]:
    """An answer as JSON; explained, with the LLM's log-probability of each token (null: -inf)."""
    own = [None if step.llm in (None, -math.inf) else step.llm for step in completion.steps]
    return {
        "text": completion.text,
        "tokens": list(completion.tokens),
        "finish_reason": completion.finish_reason,
        **({"llm": own} if explain else {}),
        "certificate": completion.certificate.body,
    }


def streamed(writer: Purifier, prompt: str | Chat, explain: bool) -> Completion:
    """Print the answer as it comes."""
    from rich.console import Console

    console = Console(highlight=False, soft_wrap=True)
    completion = None
    try:
        with closing(writer.stream(prompt)) as chunks:
            for chunk in _coloured(chunks, console) if explain else _plain(chunks):
                completion = chunk.completion
    except KeyboardInterrupt:
        print()  # the error is printed on a line of its own
        raise
    if completion is None:
        raise SourceError("the answer ended without a completion; a plugin has cut it short")
    print()
    if explain:
        _legend(console, completion)
    return completion


def _plain(chunks: Iterator[Chunk]) -> Iterator[Chunk]:
    for chunk in chunks:
        print(chunk, end="", flush=True)
        yield chunk


def _coloured(chunks: Iterator[Chunk], console: Console) -> Iterator[Chunk]:
    for chunk in chunks:
        for token, text in chunk.pieces:
            named = style(token, styles(console)) if token else ""
            console.print(text, style=named, end="", markup=False, emoji=False)
        yield chunk


def styles(console: Console) -> Sequence[str]:
    """The seven styles for this terminal's colours."""
    if console.no_color or console.color_system is None:
        return PLAIN
    return SIXTEEN if console.color_system in ("standard", "windows") else SHADED


def style(token: Token, among: Sequence[str] = SHADED) -> str:
    """The terminal style of a token, by log fused/llm."""
    if token.llm is None:
        return ""
    moved = token.fused - token.llm
    return among[sum(moved > edge for edge in EDGES)]


def _legend(console: Console, completion: Completion) -> None:
    console.print("\nwhat the SLM did to each token, nats: ", end="")
    if console.color_system is None:
        console.print("told by colours, which only a terminal shows", end="")
    else:
        for each, name in zip(styles(console), NAMES, strict=True):
            console.print(f" {name} ", style=each, end="")
    certificate = completion.certificate
    console.print(
        f"\n{len(completion.tokens)} tokens, {completion.finish_reason}; this answer took "
        f"{certificate.log_ratio:.2f} nats from the LLM; guarantee: {certificate.guarantee}"
    )
