"""How Pythons are started: which commands are one, and which of those would not be purified."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from purify_plugins.errors import RefusedError

NAME = re.compile(r"(python|pypy)[\d.]*(\.exe)?", re.IGNORECASE)
FLAGS = "[bBdhiOPqsuvVx?]*"
BLIND = re.compile(f"-{FLAGS}[IES]")
"""A cluster of options with one that makes Python ignore PYTHONPATH, or `sitecustomize` altogether."""


def is_python(program: str) -> bool:
    """Whether a program is a Python interpreter, by its name."""
    return NAME.fullmatch(Path(program).name) is not None


def refuse_blind(words: Sequence[str], executable: Any = None) -> None:
    """Raise RefusedError for a command that starts a Python with -I, -E or -S.

    `executable` is the program itself where it is not the command's first word.
    """
    program = os.fsdecode(executable) if executable else words[0] if words else ""
    for option in _options(program, words[1:]):
        if BLIND.match(option):
            raise RefusedError(
                f"a Python started with {option} ignores PYTHONPATH and would write unpurified; "
                f"leave {option} out"
            )


def _options(program: str, rest: Sequence[str]) -> Iterator[str]:
    """The options of the Python that a command starts, by its name or by a script's first line."""
    from shutil import which

    if is_python(program):
        return _leading(rest)
    interpreter = shebang(which(program) or program)
    return _leading(interpreter[1:]) if interpreter and is_python(interpreter[0]) else iter(())


def shebang(program: str) -> list[str]:
    """The interpreter that a script's first line names, and its options; [] for any other file."""
    try:
        with open(program, "rb") as file:
            first, second = file.readline(512), file.readline(512)
    except OSError:
        return []
    words = first[2:].decode("utf-8", "replace").split() if first.startswith(b"#!") else []
    if second.startswith(b"'''exec' "):  # how pip writes a path that is too long for a first line
        words = second.decode("utf-8", "replace").replace('"', "").split()[1:2]
    if words and Path(words[0]).name == "env":
        words = [word for word in words[1:] if word != "-S"]
    return words


def _leading(words: Sequence[str]) -> Iterator[str]:
    """The options before a program, its -c or its -m."""
    rest = iter(words)
    for word in rest:
        if not word.startswith("-") or word in ("-", "--"):
            return
        yield word
        if re.match(f"-{FLAGS}[cm]", word):
            return
        if re.fullmatch(f"-{FLAGS}[WX]|--check-hash-based-pycs", word):
            next(rest, None)
