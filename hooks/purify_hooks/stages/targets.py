"""The targets of `forget`: their file, the spellings of a name that are one, and what compares meanings."""

from __future__ import annotations

import binascii
import html
import json
import re
from base64 import b64decode
from bisect import bisect_left
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import unquote

from purify_plugins.errors import ConfigError
from purify_plugins.utils.files import read_text
from purify_plugins.utils.spelling import spaced, spelling

LEAST = 3
"""The fewest letters and digits of a name in a script with spaces between words."""
SHORT = 5
"""Names with fewer rule out many other words that begin with them."""
MANY = 4
"""Words of a name of which any may be run together: one more doubles its spellings."""
POSSESSIVE = re.compile(r"['’]s\b", re.IGNORECASE)
ESCAPED = re.compile(r"(?:\\u[0-9a-fA-F]{4})+")
CODED = re.compile(r"[A-Za-z0-9+/]{6,}={0,2}")
CAPITALS = str.maketrans("ΗΜΝΥΖ", "HMNYZ")
"""Greek capitals that look like other letters than those of their lower case do."""
UMLAUTS = str.maketrans({"ä": "ae", "ö": "oe", "ü": "ue", "Ä": "Ae", "Ö": "Oe", "Ü": "Ue"})


@dataclass
class ForgottenTarget:
    """What is to be forgotten: its names, and texts of requests or works that are about it."""

    names: list[str] = field(repr=False)
    examples: list[str] = field(default_factory=list, repr=False)


def read_targets(path: Path) -> list[ForgottenTarget]:
    """The targets of a file: a line each, `Name | alias | alias`, with indented lines of examples below.

    Lines that begin with `#` are comments. Raises ConfigError with a line's number, and not its text.
    """
    found: list[ForgottenTarget] = []
    for number, line in enumerate(read_text(path).split("\n"), 1):
        text = line.strip()
        if not text or text.startswith("#"):
            continue
        if line[0].isspace() and not found:
            raise _bad(path, number, "an indented example stands before the first target")
        if line[0].isspace():
            found[-1].examples.append(text)
        else:
            found.append(ForgottenTarget([_name(each, path, number) for each in text.split("|")]))
    if not found:
        raise ConfigError(f"{path} names no target; give one a line: Name | alias | alias")
    return found


def _name(text: str, path: Path, number: int) -> str:
    letters = spelling(text).replace(" ", "")
    if not letters or "\ufffd" in letters:
        raise _bad(path, number, "a name or an alias has no letter, or bytes that are no UTF-8")
    if len(letters) < LEAST and spaced(letters):
        raise _bad(path, number, f"a name or an alias has fewer than {LEAST} letters; give more of it")
    return text.strip()


def _bad(path: Path, number: int, what: str) -> ConfigError:
    return ConfigError(f"{path.name}, line {number}: {what}")


def spellings(name: str) -> set[str]:
    """The ways of writing a name that are not one already by `spelling`.

    With any of its words run together (of more than four: all, or its initials alone), with and without a
    possessive s inside, "and" for "&", ae, oe and ue for umlauts, and letter by letter.
    """
    written = {name, POSSESSIVE.sub("", name), name.replace("&", " and "), name.translate(UMLAUTS)}
    rows = {tuple(spelling(each).split()) for each in written} - {()}
    for words in list(rows):
        owning = (at for at, word in enumerate(words[:-1]) if not word.endswith("s"))
        rows |= {(*words[:at], f"{words[at]}s", *words[at + 1 :]) for at in owning}
        if len(words) > 2:
            rows.add(tuple(each for each in words if each != "and"))
    found = {each for words in rows if words for each in _joined(words)}
    return found | {" ".join("".join(words)) for words in rows if words}


def _joined(words: tuple[str, ...]) -> Iterator[str]:
    """The words with spaces between them, and with fewer."""
    if len(words) > MANY:
        yield from (" ".join(words), "".join(words), _initials(words))
        return
    for gaps in product((" ", ""), repeat=len(words) - 1):
        yield "".join(map("".join, zip(words, (*gaps, ""), strict=True)))


def _initials(words: tuple[str, ...]) -> str:
    """The words with single letters that follow each other as one word."""
    return re.sub(r"\b(\w) (?=\w\b)", r"\1", " ".join(words))


class Embedder(Protocol):
    """An operator's model of meaning."""

    def vectors(self, texts: Sequence[str]) -> Any:
        """A vector for each text, (texts, dimensions), as an array or a list of lists; of any length."""


def readings(text: str) -> Iterator[str]:
    """A text, and what it reads as decoded: escapes of JSON, HTML and addresses; parts that are base64."""
    yield text
    plain = ESCAPED.sub(lambda found: json.loads(f'"{found[0]}"'), text)
    plain = unquote(html.unescape(plain)).translate(CAPITALS)
    if plain != text:
        yield plain
    for found in CODED.findall(text):
        try:
            yield b64decode(found.rstrip("=") + "=" * (-len(found.rstrip("=")) % 4)).decode()
        except (binascii.Error, UnicodeDecodeError):  # most words are none
            continue


class Names:
    """Names to be found in a text: whole words, in any spelling, with spaces anywhere inside or nowhere."""

    def __init__(self, spelled: Iterable[str]) -> None:
        known = {(spaced(each), each.replace(" ", "")) for each in spelled}
        self.words = sorted(each for parted, each in known if parted)
        self.inside = sorted(each for parted, each in known if not parted)

    def found_in(self, text: str) -> bool:
        """Whether the text holds one of them; an s after its last word is the possessive, or the plural."""
        words = spelling(text).split()
        if any(self._begun_at(words, at) for at in range(len(words))):
            return True
        return bool(self.inside) and any(each in "".join(words) for each in self.inside)

    def _begun_at(self, words: Sequence[str], at: int) -> bool:
        """Whether the words from here on, run together, are a name."""
        run = ""
        for each in range(at, len(words)):
            run += words[each]
            found, plural = self._beginning(run), run.removesuffix("s")
            if run == found or plural == self._beginning(plural):
                return True
            if not found.startswith(run):
                return False
        return False

    def _beginning(self, run: str) -> str:
        """The first name that may begin so."""
        found = bisect_left(self.words, run)
        return self.words[found] if found < len(self.words) else ""
