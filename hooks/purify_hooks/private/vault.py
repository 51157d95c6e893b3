"""`SurrogateVault`: puts true values back in an answer, also inside its JSON."""

from __future__ import annotations

import json
import re

from purify_hooks.private.forms import Lookup

JSON = re.compile(
    r"""\s*(?:"((?:[^"\\\x00-\x1f]|\\.)*)(?:(")|\Z)|([{\[])|([}\]])|[,:]|-?\d[\d.eE+-]*|true|false|null|\Z)"""
)
"""The next part of a JSON text: a string, which its end may cut, a bracket, a mark, a number or a word."""


class SurrogateVault:
    """The surrogates of one request, in the forms a model may write them in.

    `in_json`: the whole answer is JSON. A true value is escaped as the strings are in which it stands.
    """

    def __init__(self, lookup: Lookup, in_json: bool = False) -> None:
        self.lookup, self.in_json = lookup, in_json
        self.longest = lookup.longest + 1  # one character more says whether a word goes on

    def find(self, text: str, start: int) -> tuple[int, int, str, str] | None:
        found = next(self.lookup.find(text, start), None)
        if found is None:
            return None
        value = found.form.replacing(text[found.start : found.end])
        if escaped(value) != value:
            for _ in range(max(depth(text[: found.start]), int(self.in_json))):
                value = escaped(value)
        return found.start, found.end, found.form.id, value


BRACKET = re.compile(r"[{\[]")
TRIES = 64
"""Brackets before a value that are tried one after another."""


def escaped(text: str) -> str:
    """A text as a JSON string has it."""
    return json.dumps(text, ensure_ascii=False)[1:-1]


def depth(text: str) -> int:
    """How many JSON strings are open at the end of `text`, each in the one before it."""
    at = 0
    for number in range(len(text)):
        if (begins := BRACKET.search(text, at)) is None:
            break
        inside, end = _open(text, begins.start())
        if inside is not None:
            try:
                return 1 + depth(json.loads(f'"{inside}"'))
            except ValueError:
                return 1
        # After many brackets that begin no JSON the next one is looked for where the last was found out.
        at = end if end == len(text) or number >= TRIES else begins.end()
    return 0


def _open(text: str, start: int) -> tuple[str | None, int]:
    """What stands in the string at the end of the JSON that begins at `start`; None: no string is open there.

    And where the JSON ends, or is none any more.
    """
    brackets, at, before = 0, start, ""
    while at < len(text) and (part := JSON.match(text, at)):
        string = part[1]
        if string is not None and before not in ("{", "[", ",", ":"):
            break
        if string is not None and not part[2]:
            return string, at
        brackets += bool(part[3]) - bool(part[4])
        at, before = part.end(), part[0].strip()
        if brackets <= 0:
            break
    return None, at
