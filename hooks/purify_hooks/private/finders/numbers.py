"""Numbers with a checksum: cards and what states and health services number people by."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

from purify_hooks.private.finders import checksums
from purify_hooks.private.finders.context import ReadText
from purify_hooks.private.finders.finder import CHECKED, CONTEXT, NAMED, Hit
from purify_hooks.private.finders.numbering import WEAK, Rule, never, rules_for

DIGITS = re.compile(r"(?<![A-Za-z0-9])[0-9]{1,19}(?![A-Za-z0-9])")
ATTACHED = re.compile(r"(?<![0-9])[0-9]{13,19}(?![0-9])")
LOOSE = re.compile(r"(?<![0-9])[0-9]{4}(?:[\s,:;|()*\\-]{1,4}[0-9]{4}){3}(?![0-9])")
TOKEN = re.compile(r"[A-Za-z0-9]{0,40}")
ANY = frozenset(" -_/+")
LONGEST = 20
"""The most groups of digits that are read as one number."""


class Numbers:
    """Cards, social-security and identity numbers: the right digits in the right groups, with a checksum.

    A number that short checksums leave common (nine digits modulo 11) counts only near a word for it.
    """

    def hits(self, read: ReadText) -> Iterator[Hit]:
        text = read.text
        run = NumberRun()
        for match in DIGITS.finditer(text):
            separator = _separator(text[run.spans[-1][1] : match.start()]) if run.spans else ""
            if run.spans and not separator:
                yield from run.hits(read)
                run = NumberRun()
            run.add(match, separator)
        yield from run.hits(read)
        yield from _attached(text)
        for match in LOOSE.finditer(text):
            digits = re.sub(r"[^0-9]", "", match[0])
            if checksums.branded(digits) and checksums.luhn(digits):
                yield Hit(*match.span(), "card", CHECKED)


def _separator(between: str) -> str:
    """What separates two groups of digits, "" where they are two numbers; a line break is a space."""
    if len(between) > 4:
        return ""
    mark = between.strip(" \t\r\n>")
    if not mark:
        return " "
    return mark if mark in "-./_+" else ""


class NumberRun:
    """Groups of digits with separators between them: where each stands, and its digits."""

    def __init__(self) -> None:
        self.spans: list[tuple[int, int]] = []
        self.digits: list[str] = []
        self.separators: list[str] = []

    def add(self, match: re.Match[str], separator: str) -> None:
        """One more group; `separator` stands before it, "" before the first."""
        self.spans.append(match.span())
        self.digits.append(match[0])
        self.separators += [separator] if separator else []

    def hits(self, read: ReadText) -> list[Hit]:
        """The numbers in the groups: of some of them in a row, and of all."""
        rules = rules_for(read.named)
        sizes, found = [*map(len, self.digits)], list[Hit]()
        for first in range(len(sizes)):
            node, last = rules, first
            while last < len(sizes) and (node := node.get(sizes[last], {})):
                last += 1
                if 0 in node:
                    found += self._fitting(read, node[0], first, last)
        if 1 < len(sizes) <= LONGEST:
            total = sum(sizes)
            loose = [
                rule._replace(separators=ANY, sure=rule.sure if total > 12 else never)
                for rule in rules.get(total, {}).get(0, ())
            ]
            found += self._fitting(read, loose, 0, len(sizes))
        return found

    def _fitting(self, read: ReadText, rules: Iterable[Rule], first: int, last: int) -> Iterator[Hit]:
        """The groups from `first` to `last`, by the rules that they fit."""
        digits = "".join(self.digits[first:last])
        for rule in rules:
            sure = rule.sure(digits)
            if not (sure or rule.kind in read.named) or not rule.fits(digits):
                continue
            separators = self.separators[first : last - 1]
            start, end = self.spans[first][0], self.spans[last - 1][1]
            if not rule.separators.issuperset(separators) or (
                not separators and _decimal(read.text, start, end)
            ):
                continue
            if read.near(rule.kind, start, end):
                yield Hit(start, end, rule.kind, CONTEXT if rule.fits in WEAK and not sure else NAMED)
            elif sure:
                yield Hit(start, end, rule.kind, CHECKED)


def _decimal(text: str, start: int, end: int) -> bool:
    """Whether digits are a part of a number with a point; 13 and more before one are no amount."""
    before, after = text[max(0, start - 2) : start], text[end : end + 2]
    return (before[-1:] == "." and before[:1].isdigit()) or (
        end - start < 13 and after[:1] == "." and after[1:].isdigit()
    )


def _attached(text: str) -> Iterator[Hit]:
    """Numbers of cards with letters before or after them; those of hexadecimal digits are none."""
    for match in ATTACHED.finditer(text):
        start, end = match.span()
        before = TOKEN.match(text[max(0, start - 40) : start][::-1])
        after = TOKEN.match(text, end, end + 40)
        letters = (before[0] if before else "") + (after[0] if after else "")
        if (
            letters
            and re.search("[G-Zg-z]", letters)
            and len(letters) < 20
            and checksums.branded(match[0])
            and checksums.luhn(match[0])
        ):
            yield Hit(start, end, "card", CHECKED)
