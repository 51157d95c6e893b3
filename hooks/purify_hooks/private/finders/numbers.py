"""Numbers with a checksum: cards and what states and health services number people by."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from purify_hooks.private.finders import checksums
from purify_hooks.private.finders.context import Nearby
from purify_hooks.private.finders.finder import CHECKED, CONTEXT, NAMED, Hit
from purify_hooks.private.finders.numbering import RULES, WEAK, Rule, never

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

    def hits(self, text: str) -> Iterator[Hit]:
        nearby = Nearby(text)
        run: list[tuple[int, int]] = []
        separators: list[str] = []
        for match in DIGITS.finditer(text):
            separator = _separator(text[run[-1][1] : match.start()]) if run else ""
            if run and not separator:
                yield from _of_run(nearby, run, separators)
                run, separators = [], []
            separators += [separator] if run else []
            run.append(match.span())
        yield from _of_run(nearby, run, separators)
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


def _of_run(nearby: Nearby, run: Sequence[tuple[int, int]], separators: Sequence[str]) -> Iterator[Hit]:
    sizes = [end - start for start, end in run]
    for first in range(len(run)):
        node, last = RULES, first
        while last < len(run) and (node := node.get(sizes[last], {})):
            last += 1
            for rule in node.get(0, ()):
                if rule.sure is never and not nearby.names(rule.kind):
                    continue
                if hit := _hit(nearby, rule, run[first:last], separators[first : last - 1]):
                    yield hit
    if 1 < len(run) <= LONGEST:
        for rule in RULES.get(sum(sizes), {}).get(0, ()):
            sure = rule.sure if sum(sizes) > 12 else never
            if hit := _hit(nearby, rule._replace(separators=ANY, sure=sure), run, separators):
                yield hit


def _hit(
    nearby: Nearby, rule: Rule, groups: Sequence[tuple[int, int]], separators: Sequence[str]
) -> Hit | None:
    start, end, text = groups[0][0], groups[-1][1], nearby.text
    named = len(nearby.names(rule.kind)) > 0
    if not rule.separators.issuperset(separators) or (rule.sure is never and not named):
        return None
    digits = "".join([text[begin:stop] for begin, stop in groups])
    sure = rule.sure(digits)
    if not (sure or named) or not rule.fits(digits) or (not separators and _decimal(text, start, end)):
        return None
    if named and nearby(rule.kind, start, end):
        return Hit(start, end, rule.kind, CONTEXT if rule.fits in WEAK and not sure else NAMED)
    return Hit(start, end, rule.kind, CHECKED) if sure else None


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
