"""`purify chat`: a conversation in the terminal."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from io import TextIOWrapper
from typing import TYPE_CHECKING

import typer

from purify_plugins.cli.generate import streamed
from purify_plugins.cli.options import ModelOptions, SamplingOptions, configured, load_pair, prepared, spread
from purify_plugins.errors import PurifyError
from purify_plugins.types import Chat

if TYPE_CHECKING:
    from purify_plugins.purifier import Purifier

HELP = "/exit, /quit or Ctrl-D leaves, Ctrl-C ends an answer, /help says this again."
LEAVING = ("/exit", "/quit")


@spread
def chat(models: ModelOptions, draws: SamplingOptions) -> None:
    """Talk; Ctrl-C ends an answer, Ctrl-D or /exit the conversation."""
    ready = prepared(configured(models, draws))
    if sys.stdin.isatty():
        typer.echo("loading both models…", err=True)
    writer = load_pair(ready)
    if sys.stdin.isatty():
        typer.echo(_welcome(writer), err=True)
    said: list[dict[str, str]] = []
    for line in _lines():
        if line == "/help":
            typer.echo(HELP, err=True)
            continue
        asked = [*said, {"role": "user", "content": line}]
        answer = _answer(writer, asked)
        if answer is not None:
            said = [*asked, {"role": "assistant", "content": answer}]


def _welcome(writer: Purifier) -> str:
    """The greeting: models, policy, guarantee, and the chat's commands."""
    llm, slm = (source.identity().get("name") for source in (writer.llm, writer.slm))
    claim = "none, for greedy decoding carries none" if writer.sampling.greedy else writer.policy.guarantee
    policy = writer.plugins.name_of(writer.policy)
    return f"{llm}, purified by {slm}; policy {policy}, guarantee {claim}. {HELP}"


def _lines() -> Iterator[str]:
    """The user's lines until they leave; Ctrl-C at the prompt drops the line."""
    if isinstance(sys.stdin, TextIOWrapper):  # a line that is not UTF-8 is refused, and the next one read
        sys.stdin.reconfigure(errors="surrogateescape")
    while True:
        try:
            line = input("you> " if sys.stdin.isatty() else "").strip()
        except KeyboardInterrupt:
            print()
            continue
        except EOFError:
            return
        if line in LEAVING:
            return
        if line:
            yield line


def _answer(writer: Purifier, asked: list[dict[str, str]]) -> str | None:
    """Print the answer; None when it failed or was ended early: then the exchange is not kept."""
    try:
        return streamed(writer, Chat(tuple(asked)), False).text
    except KeyboardInterrupt:
        typer.echo("interrupted; this exchange is not kept", err=True)
    except PurifyError as error:
        typer.echo(f"error: {error}", err=True)
    return None
