"""A text as its writer meant it, and where each character of it stands in the text as it is written."""

from __future__ import annotations

import re
import unicodedata
from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from html import unescape
from typing import Self

CODE = r"%(?:25)*[0-9A-Fa-f]{2}"
ESCAPE = r"(?<!\\)\\+(?:u[0-9A-Fa-f]{4}|x[0-9A-Fa-f]{2}|[nrt]|[_*.@+/\"'#()\[\]-])|%u[0-9A-Fa-f]{4}"
ENTITY = (
    r"&(?:amp;){0,3}(?:#[0-9]{1,10};?|#[xX][0-9A-Fa-f]{1,8};?"
    r"|(?:commat|nbsp|period|lowbar|plus|hyphen|colon|sol|amp|quot);)"
)
SOFT = r"(?<=[^\n]{60})=\r?\n"
RARE = (
    "1090 1946 19d0 1a80 1a90 1b50 1bb0 1c40 1c50 a620 a8d0 a900 a9d0 a9f0 aa50 abf0 104a0 10d30 11066 110f0 "
    "11136 111d0 112f0 11450 114d0 11650 116c0 11730 118e0 11950 11c50 11d50 11da0 16a60 16ac0 16b50 "
    "1e140 1e2f0 1e950 1fbf0"
)
ZEROS = "٠۰߀०০੦૦୦௦౦೦൦෦๐໐༠၀០᠐" + "".join(chr(int(code, 16)) for code in RARE.split())
DIGITS = "".join(f"{zero}-{chr(ord(zero) + 9)}" for zero in ZEROS)
FOLDED = (
    rf"[\u00a0\u00ad\u00b2\u00b3\u00b9\u034f\u061c{DIGITS}\u115f-\u1160\u1680\u17b4-\u17b5\u180b-\u180e\u2000-\u209c\u20d0-\u20ff"
    r"\u2100-\u218f\u2212\u2460-\u24ff\u2800\u3000\u3164\ufe00-\ufe0f\ufe50-\ufe6f\ufeff\uff00-\uffef"
    r"\U0001d400-\U0001d7ff\U0001f100-\U0001f1ff\U000e0000-\U000e0fff]"
)
"""Characters that are no letter of a language: spaces, dashes, digits, letters of other widths or styles."""
ACCENTED = r"[^\W_][\u0300-\u036f]+"
ASCII = re.compile(rf"(?:{CODE})+|{ESCAPE}|{ENTITY}|{SOFT}")
WRITTEN = re.compile(rf"{ASCII.pattern}|{ACCENTED}|{FOLDED}")
"""What may stand for something else: percent-encoding, JSON's and Markdown's escapes, HTML's entities, a soft
line break, a letter or digit with an accent of its own, and what is not written in ASCII but could be."""
SPELLED = {"n": "\n", "r": "\n", "t": "\t"}
BLANK = {"\u115f": "", "\u1160": "", "\u3164": "", "\uffa0": "", "\u2800": " "}
"""Letters that are not seen."""
DASHES = "‐‑‒–—―−﹘﹣－⁃"


@dataclass(frozen=True)
class Plain:
    """`text` with its escapes undone and its characters folded to the usual ones.

    Zero-width characters are left out, digits of every script are 0-9, spaces and dashes are those of ASCII.
    `starts` and `places` are the beginnings of its pieces here and in the text as written, `whole` says which
    pieces stand for something else and are never cut.
    """

    text: str
    starts: tuple[int, ...]
    places: tuple[int, ...]
    whole: tuple[bool, ...]

    @classmethod
    def of(cls, written: str) -> Self:
        pieces = [*_pieces(written)]
        starts, at = [], 0
        for _, spelled, _ in pieces:
            starts.append(at)
            at += len(spelled)
        return cls(
            "".join(spelled for _, spelled, _ in pieces),
            (*starts, at),
            (*(place for place, _, _ in pieces), len(written)),
            (*(whole for _, _, whole in pieces), True),
        )

    def place(self, start: int, end: int) -> tuple[int, int]:
        """Where characters `start` to `end` of the plain text stand in the text as written."""
        first = bisect_right(self.starts, start) - 1
        last = bisect_right(self.starts, end - 1) - 1
        begins = self.places[first] + (0 if self.whole[first] else start - self.starts[first])
        if self.whole[last]:
            return begins, self.places[last + 1]
        return begins, self.places[last] + end - self.starts[last]


def plain(text: str) -> str:
    """A text with its escapes undone and its characters folded: what two spellings of one value share."""
    return text if text.isascii() and not ASCII.search(text) else Plain.of(text).text


def _pieces(written: str) -> Iterator[tuple[int, str, bool]]:
    """The pieces of a text: where each begins, what it spells, and whether it stands for something else."""
    at = 0
    for match in (ASCII if written.isascii() else WRITTEN).finditer(written):
        if match.start() > at:
            yield at, written[at : match.start()], False
        at = match.end()
        if match[0][0] == "%" and match[0][1] != "u":
            yield from _decoded(match.start(), match[0])
        else:
            yield match.start(), _spelled(match[0]), True
    if at < len(written) or not written:
        yield at, written[at:], False


def _decoded(place: int, part: str) -> Iterator[tuple[int, str, bool]]:
    """The characters of percent-encoded UTF-8, each a piece; what is no UTF-8 stays as it is."""
    codes = re.findall(CODE, part)
    try:
        spelled = bytes(int(code[-2:], 16) for code in codes).decode()
    except UnicodeDecodeError:
        yield place, part, False
        return
    used = 0
    for character in spelled:
        octets = codes[used : used + len(character.encode())]
        yield place, _folded(character), True
        used, place = used + len(octets), place + sum(map(len, octets))


@lru_cache(maxsize=4096)
def _spelled(part: str) -> str:
    """What a piece stands for."""
    if part[0] in "\\%":
        code = part.lstrip("\\%")
        return _folded(chr(int(code[1:], 16))) if code[0] in "ux" else SPELLED.get(code, code)
    if part[0] == "&":
        return "".join(map(_folded, unescape(part if part == "&amp;" else part.replace("amp;", ""))))
    if part[0] == "=":
        return ""
    if part[0].isdigit():
        part = part[0]  # which no accent makes another one
    return "".join(map(_folded, unicodedata.normalize("NFKC", part)))


def _folded(character: str) -> str:
    """A character as ASCII has it, where it is a digit, a dash or a space; "" for one without a width."""
    if character.isascii():
        return character
    if character in BLANK:
        return BLANK[character]
    kind = unicodedata.category(character)
    if kind in ("Cf", "Me") or "\ufe00" <= character <= "\ufe0f":
        return ""
    if kind == "Nd":
        return str(unicodedata.decimal(character))
    if kind in ("Zs", "Zl", "Zp"):
        return " " if kind == "Zs" else "\n"
    return "-" if character in DASHES else unicodedata.normalize("NFKC", character)
