"""Commands that start a Python: those whose Python would not be purified are refused.

A child process is purified through `PYTHONPATH`, or through `zzz_purify.pth` and `PURIFY_ACTIVE`. A command
that starts a Python without either is refused, as far as its words, its shell text or its script show.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import takewhile
from pathlib import Path
from typing import Any

from purify_plugins.errors import RefusedError

NAME = re.compile(r"(python|pypy)[\d.]*t?(\.exe)?", re.IGNORECASE)
VARIABLE = re.compile(r"\$\{?\w*(python|interpreter)\w*", re.IGNORECASE)
"""A shell variable whose name suggests a Python."""
FLAGS = "[bBdhiOPqsuvVx?]*"
BLIND = re.compile(f"-{FLAGS}[IES]")
"""A cluster of options with one that makes Python ignore PYTHONPATH, or `sitecustomize` altogether."""
SHELLS = frozenset(("sh", "bash", "dash", "ash", "zsh", "ksh", "mksh", "fish"))
SWEEPING = frozenset(("sudo", "doas", "su", "runuser", "ssh", "docker", "podman", "kubectl"))
"""Commands that start others with another environment, or on another machine."""
WORDS = frozenset(("!", "{", "if", "then", "else", "elif", "while", "until", "do", "exec", "command", "time"))
"""Words that may precede a command in shell text."""
ASSIGNED = re.compile(r"\w+=")
OPERATORS = "();<>|&\n"
DEEP, LONG = 5, 1 << 16
"""The nesting depth of commands that is followed, and the characters of a script that are read."""


@dataclass(frozen=True)
class Around:
    """How a command's environment differs: what replaces `PYTHONPATH`, and what drops everything."""

    path: str = ""
    everything: str = ""
    depth: int = 0


def is_python(program: str) -> bool:
    """Whether a program is a Python interpreter, by its name."""
    return NAME.fullmatch(Path(program).name) is not None or VARIABLE.match(program) is not None


def refuse_blind(words: Sequence[str], executable: Any = None) -> None:
    """Raise RefusedError for a command that starts a Python which would not be purified.

    `executable` is the program itself where it is not the command's first word.
    """
    program = os.fsdecode(executable) if executable else words[0] if words else ""
    _refuse(_faults([program, *words[1:]], Around()))


def refuse_text(text: str) -> None:
    """Raise RefusedError for a shell's text that starts such a Python."""
    _refuse(_in_text(text, Around()))


def _refuse(faults: Iterator[str]) -> None:
    for fault in faults:
        raise RefusedError(
            f"a Python started with {fault} does not find us and would write unpurified; leave {fault} out"
        )


def _faults(words: Sequence[str], around: Around) -> Iterator[str]:
    """The words of a command because of which a Python it starts would not be purified."""
    around = replace(around, depth=around.depth + 1)
    if around.depth > DEEP or not words or not words[0]:
        return
    name = Path(words[0]).name
    if is_python(words[0]):
        yield from _of_python(words, around)
    elif name == "env":
        yield from _of_env(words[1:], around)
    elif name in SHELLS:
        yield from _of_shell(words[1:], around)
    elif name not in SWEEPING and (interpreter := shebang(_which(words[0]))):
        yield from _faults([*interpreter, _which(words[0]), *words[1:]], around)
    else:
        around = replace(around, everything=name) if name in SWEEPING else around
        for at in range(1, len(words)):
            if _starts(words[at]):
                yield from _faults(words[at:], around)


def _of_python(words: Sequence[str], around: Around) -> Iterator[str]:
    yield from (option for option in _leading(words[1:]) if BLIND.match(option))
    if around.everything:
        yield around.everything
    if around.path and not _reads_ours(words[0]):
        yield around.path


def _of_env(words: Sequence[str], around: Around) -> Iterator[str]:
    """`env [-i] [-u NAME] [-S TEXT] [NAME=VALUE]... COMMAND`."""
    rest = list(words)
    while rest and (rest[0].startswith("-") or ASSIGNED.match(rest[0])):
        word = rest.pop(0)
        if word in ("-", "-i", "--ignore-environment"):
            around = replace(around, everything="env -i")
        elif word in ("-u", "--unset") and rest:
            around = _set(rest.pop(0), around)
        elif word in ("-C", "--chdir") and rest:
            rest.pop(0)
        elif word in ("-S", "--split-string") and rest:
            rest[:1] = _split(rest[0])
        else:
            around = _set(word.removeprefix("--unset="), around)
    yield from _faults(rest, around)


def _of_shell(words: Sequence[str], around: Around) -> Iterator[str]:
    """`sh -c TEXT`, or `sh FILE`."""
    for at, word in enumerate(words):
        if re.fullmatch(r"-[a-z]*c", word):
            yield from _in_text(words[at + 1] if at + 1 < len(words) else "", around)
            return
        if not word.startswith("-"):
            yield from _in_text(_read(word), around)
            return


def _in_text(text: str, around: Around) -> Iterator[str]:
    """The faults of the commands in shell text; assignments hold for later lines."""
    for words in _commands(text):
        while words and words[0] in WORDS:
            words.pop(0)
        own, for_all = around, words[:1] in (["export"], ["unset"])
        while words and (for_all or ASSIGNED.match(words[0])):
            own = _set(words.pop(0), own)
        if not words:
            around = own
        yield from _faults(words, own)


def _commands(text: str) -> Iterator[list[str]]:
    """The simple commands of shell text, as words."""
    plain = text.replace("\\\n", " ").replace("`", ";")
    words = _split(plain, OPERATORS) or [word for line in plain.splitlines() for word in _line(line)]
    found: list[str] = []
    for word in [*words, "\n"]:
        if not word or word.strip(OPERATORS):
            found.append(word)
        elif "\n" in word or not any(each.startswith("#") for each in found):
            yield list(takewhile(lambda each: not each.startswith("#"), found))
            found = []


def _line(line: str) -> list[str]:
    """A line's words, where the whole text cannot be split because of an open quotation mark."""
    return [*_split(line.partition(" #")[0], OPERATORS), "\n"]


def _split(text: str, operators: str = "") -> list[str]:
    """The words and operators of shell text; [] where a quotation is left open."""
    from shlex import shlex

    words = shlex(text, posix=True, punctuation_chars=operators or False)
    words.whitespace_split = True
    words.whitespace, words.commenters = " \t\r", ""
    try:
        return list(words)
    except ValueError:
        return []


def _set(word: str, around: Around) -> Around:
    """The environment after `NAME=VALUE`, or after NAME is unset; a path that extends ours is harmless."""
    name, _, value = word.partition("=")
    if name != "PYTHONPATH" or "$PYTHONPATH" in value or "${PYTHONPATH" in value:
        return around
    return replace(around, path=f"{name}=")


def _starts(word: str) -> bool:
    """Whether a word among another command's words may start a command."""
    name = Path(word).name
    return is_python(word) or name == "env" or name in SHELLS or (os.sep in word and bool(shebang(word)))


def _reads_ours(program: str) -> bool:
    """Whether a Python is this environment's, and zzz_purify.pth is installed in it."""
    from sysconfig import get_path

    here = Path(_which(program)).parent.resolve() == Path(sys.executable).parent.resolve()
    return here and Path(get_path("purelib"), "zzz_purify.pth").is_file()


def _which(program: str) -> str:
    from shutil import which

    return which(program) or program


def _read(file: str) -> str:
    try:
        with open(file, encoding="utf-8", errors="replace") as script:
            return script.read(LONG)
    except OSError:
        return ""


def shebang(program: str) -> list[str]:
    """The interpreter in a script's first line, with its options; [] for any other file."""
    try:
        with open(program, "rb") as file:
            first, second = file.readline(512), file.readline(512)
    except OSError:
        return []
    words = first[2:].decode("utf-8", "replace").split() if first.startswith(b"#!") else []
    if second.startswith(b"'''exec' "):  # pip writes a path this way if it is too long for the first line
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
