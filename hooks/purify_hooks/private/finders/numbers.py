"""Numbers with a checksum: cards and what states and health services number people by."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

from purify_hooks.private.finders import checksums
from purify_hooks.private.finders.context import Nearby
from purify_hooks.private.finders.finder import CHECKED, CONTEXT, NAMED, Hit
from purify_hooks.private.finders.vat import VAT

DIGITS = re.compile(r"(?<![A-Za-z0-9])[0-9]{1,19}(?![A-Za-z0-9])")
ATTACHED = re.compile(r"(?<![0-9])[0-9]{13,19}(?![0-9])")
TOKEN = re.compile(r"[A-Za-z0-9]{0,40}")
LONGEST = 20
"""The most groups of digits that are read as one number."""


class Rule(NamedTuple):
    """Digits in groups of given sizes that are a number of one kind, near a word for it if not `sure`."""

    kind: str
    fits: Callable[[str], bool]
    separators: str
    sure: Callable[[str], bool]


class Shapes:
    """Rules by the sizes of their groups of digits, as a tree."""

    def __init__(self) -> None:
        self.tree: dict[int, Any] = {}

    def add(self, shapes: str, *rules: Rule) -> None:
        for shape in shapes.split("|"):
            node = self.tree
            for size in map(int, shape.split()):
                node = node.setdefault(size, {})
            node.setdefault(0, []).extend(rules)

    def whole(self, size: int) -> Sequence[Rule]:
        """The rules for so many digits in one group."""
        found: Sequence[Rule] = self.tree.get(size, {}).get(0, ())
        return found


def always(digits: str) -> bool:
    return True


def never(digits: str) -> bool:
    return False


def _rules() -> Shapes:
    """How each kind is written: any of `separators` between groups; a space is a line break too."""
    shapes = Shapes()

    def add(
        written: str,
        kind: str,
        fits: Callable[[str], bool],
        separators: str = " -",
        sure: Callable[[str], bool] = always,
    ) -> None:
        shapes.add(written, Rule(kind, fits, separators, sure))

    cards = "16|15|14|13|19|18|17|4 4 4 4|4 6 5|4 6 4|4 4 4 4 3|4 4 4 3|4 4 4 2|8 8|4 12|12 4|6 6 4|6 10|6 13"
    add(cards, "card", checksums.luhn, " -._/", sure=checksums.branded)
    add("3 2 4", "ssn", checksums.ssn)
    add("9|3 3 3|3 2 4", "ssn", checksums.ssn, " -./_", sure=never)
    add("3 3 4", "nhs", checksums.nhs, " -")
    add("10|3 3 4", "nhs", checksums.nhs, " -.", sure=never)
    add("15|13 2|1 2 2 2 3 3 2", "nir", checksums.nir, " -.")
    add("4 2 3", "bsn", checksums.bsn, ".")
    add("9|3 3 3|4 2 3", "bsn", checksums.bsn, " .-", sure=never)
    add("8", "bsn", lambda digits: checksums.bsn("0" + digits), sure=never)
    add("11|9 2|3 3 3 2", "cpf", checksums.cpf, " .-/")
    add("11|6 5", "pesel", checksums.pesel)
    add("11|2 3 3 3|3 3 3 2", "steuer_id", checksums.steuer_id, " -/")
    add("4 4 4", "aadhaar", checksums.aadhaar)
    add("12", "aadhaar", checksums.aadhaar, " -.", sure=never)
    add("13|3 4 4 2", "ahv", checksums.ahv, " .-")
    add("6 4|8 4", "personnummer", checksums.personnummer, "-+")
    add("10|12|6 4|8 4", "personnummer", checksums.personnummer, " -+", sure=never)
    add("11|6 5", "fodselsnummer", checksums.fodselsnummer, " -.")
    add("11|2 2 2 3 2|6 3 2|6 5", "rijksregister", checksums.rijksregister, " .-/")
    add("18|6 8 4|6 4 4 4", "resident_id", checksums.resident_id)
    add("9|3 3 3", "tfn", checksums.tfn, " -.", sure=never)
    add("9|3 3 3", "sin", checksums.luhn, " -.", sure=never)
    add("11|3 3 3 2|3 4 4", "tckn", checksums.tckn)
    add("15|2 6 6 1|6 2 6 1|8 6 1", "imei", checksums.luhn, " -/", sure=never)
    add("9", "bank_account", checksums.routing, sure=never)
    add("6|7|8|9|10|11|12|2 2 2|4 4|3 3 4|4 4 2|4 4 4", "bank_account", always, sure=never)
    add("11", "vat", checksums.luhn, sure=never)
    add("10|3 3 2 2|3 2 2 3", "vat", VAT["PL"].fits, sure=never)
    add("9|3 3 3", "vat", checksums.mod11_10, " .", sure=never)
    add("9|3 4 2", "vat", VAT["GB"].fits, sure=never)
    return shapes


RULES = _rules()
WEAK = (always, checksums.ssn)
"""What most numbers fit."""


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
        node, last = RULES.tree, first
        while last < len(run) and (node := node.get(sizes[last], {})):
            last += 1
            for rule in node.get(0, ()):
                yield from _hit(nearby, rule, run[first:last], separators[first : last - 1])
    if 1 < len(run) <= LONGEST and 13 <= sum(sizes) <= 19:
        for rule in RULES.whole(sum(sizes)):
            yield from _hit(nearby, rule._replace(separators=" -._/+"), run, separators)


def _hit(
    nearby: Nearby, rule: Rule, groups: Sequence[tuple[int, int]], separators: Sequence[str]
) -> Iterator[Hit]:
    start, end, text = groups[0][0], groups[-1][1], nearby.text
    if not all(each in rule.separators for each in separators) or (
        not separators and _decimal(text, start, end)
    ):
        return
    if rule.sure is never and not nearby(rule.kind, start, end):
        return
    digits = "".join(text[begin:stop] for begin, stop in groups)
    if rule.fits(digits):
        sure = rule.sure(digits)
        if nearby(rule.kind, start, end):
            yield Hit(start, end, rule.kind, CONTEXT if rule.fits in WEAK and not sure else NAMED)
        elif sure:
            yield Hit(start, end, rule.kind, CHECKED)


def _decimal(text: str, start: int, end: int) -> bool:
    """Whether digits are a part of a number with a point or a comma."""
    before, after = text[max(0, start - 2) : start], text[end : end + 2]
    return (before[-1:] in (".", ",") and before[:1].isdigit()) or (
        after[:1] in (".", ",") and after[1:].isdigit()
    )


def _attached(text: str) -> Iterator[Hit]:
    """Numbers of cards with letters before or after them; those of hexadecimal digits are none."""
    for match in ATTACHED.finditer(text):
        start, end = match.span()
        before = TOKEN.match(text[max(0, start - 40) : start][::-1])
        after = TOKEN.match(text, end, end + 40)
        letters = (before[0] if before else "") + (after[0] if after else "")
        if letters and re.search("[G-Zg-z]", letters) and len(letters) < 20 and checksums.card(match[0]):
            yield Hit(start, end, "card", CHECKED)
