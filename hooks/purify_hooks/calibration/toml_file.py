"""Put [policy] and [calibration] into a configuration file; every other line of it stays as it is."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from purify_plugins.errors import ConfigError

HEADER = re.compile(r"\s*\[+\s*([^\]]+?)\s*\]+\s*(#.*)?$")
"""A line that begins a table."""
Tables = Mapping[str, Mapping[str, Any]]


@dataclass(frozen=True)
class TomlTable:
    """A table as it is written: its comment lines first, then each key with the comment above it."""

    name: str
    values: Mapping[str, Any]
    about: Sequence[str] = ()
    words: Mapping[str, str] = field(default_factory=dict)

    def lines(self, prefix: str) -> Iterator[str]:
        yield f"[{prefix}{self.name}]"
        yield from (f"# {line}" for line in self.about)
        for key, value in self.values.items():
            if key in self.words:
                yield f"# {self.words[key]}"
            yield f"{key} = {spelled(value)}"


def spelled(value: Any) -> str:
    """A text, a number, a truth value, or a list or table of them, as TOML in one line."""
    if isinstance(value, Mapping):
        return "{ " + ", ".join(f"{key} = {spelled(each)}" for key, each in value.items()) + " }"
    if isinstance(value, list):
        return "[" + ", ".join(map(spelled, value)) + "]"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int | float):
        return repr(value)  # "inf" is TOML's own spelling
    return '"' + str(value).replace("\\", "\\\\").replace('"', '\\"') + '"'


def rewritten(text: str, blocks: Sequence[TomlTable], prefix: str = "") -> str:
    """The file's text with these tables in place of its own; `prefix` is "tool.purify." in pyproject.toml.

    A table stands where it stood, a new one at the end. Raises ConfigError for a file in which that cannot be
    done without touching anything else.
    """
    before = tomllib.loads(text) if text.strip() else {}
    lines = text.splitlines()
    for block in blocks:
        lines = _replaced(lines, prefix, block)
    after = "\n".join(lines) + "\n"
    wanted = _with(before, prefix, {block.name: block.values for block in blocks})
    if _parsed(after) != wanted:
        raise ConfigError(
            "its [policy] cannot be replaced without touching other lines; write it as a table of its own, "
            "[policy], or run without --config and paste what is printed"
        )
    return after


def _parsed(text: str) -> Any:
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError:
        return None


def _with(table: Mapping[str, Any], prefix: str, tables: Tables) -> dict[str, Any]:
    """The parsed file with these tables."""
    name, _, rest = prefix.partition(".")
    if not name:
        return {**table, **tables}
    return {**table, name: _with(table.get(name, {}), rest, tables)}


def _replaced(lines: list[str], prefix: str, block: TomlTable) -> list[str]:
    """The lines with this block in place of the table of its name, and of those inside that."""
    name, new = prefix + block.name, list(block.lines(prefix))
    kept: list[str] = []
    place: int | None = None
    for header, part in _parts(lines):
        if header == name or header.startswith(f"{name}."):
            place = len(kept) if place is None else place
            kept += part[_end(part) :]
        else:
            kept += [line for line in part if header or prefix or not _inline(line, block.name)]
    if place is None:
        return [*kept, *([""] if kept and kept[-1].strip() else []), *new]
    return [*kept[:place], *new, *kept[place:]]


def _inline(line: str, name: str) -> bool:
    """Whether a line gives the table in one line, or a key of it."""
    return bool(re.match(rf"{name}\s*[=.]", line.strip()))


def _parts(lines: Sequence[str]) -> Iterator[tuple[str, list[str]]]:
    """The tables of a file: each one's name, "" before the first, and its lines."""
    header, part = "", list[str]()
    for line in lines:
        if found := HEADER.match(line):
            yield header, part
            header, part = re.sub(r"\s*\.\s*", ".", found[1]), list[str]()
        part.append(line)
    yield header, part


def _end(part: Sequence[str]) -> int:
    """How many lines of a table are its own: comments and empty lines at its end belong to what follows."""
    own = (at for at, line in enumerate(part, 1) if line.strip() and not line.strip().startswith("#"))
    return max(own, default=0)
