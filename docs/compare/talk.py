"""What a guard's process and `compare.py` say to each other: one line of JSON a request, one an answer."""

from __future__ import annotations

import json
import os
import sys
import time
import traceback
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any, TextIO


@dataclass(frozen=True)
class Settings:
    """What every guard is configured with, each in its own way."""

    host: str
    """The host's address, for an OpenAI client."""
    own: str
    """A regular expression of the operator's own values, beside emails, cards and IP addresses."""
    forbidden: tuple[str, ...]
    """Texts that no reader may get."""
    how: str
    """Which of a system's ways of streaming is asked."""


@dataclass
class Heard:
    """What a reader gets; each piece of text is told at once, so that a guard which hangs later is seen."""

    out: TextIO
    arguments: str = ""
    """What came of a tool call's arguments: the value, or their JSON."""

    def add(self, text: str | None) -> None:
        """A piece of text that came now."""
        if text:
            say(self.out, piece=text, at=time.monotonic())


def say(out: TextIO, **told: Any) -> None:
    """A line to `compare.py`."""
    print(json.dumps(told), file=out, flush=True)


Answer = Callable[[dict[str, Any], Heard], None]
"""Answers a request (`messages`, `tools`, `stream`, `fault`) by adding to what was heard."""


def settings() -> Settings:
    """The settings on the command line."""
    told = json.loads(sys.argv[1])
    return Settings(told["host"], told["own"], tuple(told["forbidden"]), told["how"])


def serve(packages: Iterable[str], answer: Answer, lacks: Iterable[str] = ()) -> None:
    """Answer the requests on standard input by lines on the file descriptor that was given.

    `lacks` are words of the attacks that the system is not made for, which are then not tried.
    """
    out = os.fdopen(int(sys.argv[2]), "w")
    versions = ", ".join(f"{name} {version(name)}" for name in packages)
    say(out, versions=versions, lacks=list(lacks))
    for line in sys.stdin:
        heard, error = Heard(out), ""
        try:
            answer(json.loads(line), heard)
        except Exception as raised:  # a guard that refuses does so by its own kind of error
            traceback.print_exc()
            error = f"{type(raised).__name__}: {raised}"[:300]
        say(out, arguments=heard.arguments, error=error)
