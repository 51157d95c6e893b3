"""How numbers with a checksum are written: the sizes of their groups of digits, and what is between."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from typing import Any, NamedTuple

from purify_hooks.private.finders import checksums
from purify_hooks.private.finders.vat import VAT


class Rule(NamedTuple):
    """Digits in groups of given sizes that are a number of one kind, near a word for it if not `sure`."""

    kind: str
    fits: Callable[[str], bool]
    separators: frozenset[str]
    sure: Callable[[str], bool]


def always(digits: str) -> bool:
    return True


def never(digits: str) -> bool:
    return False


CARDS = "16|15|14|13|19|18|17|4 4 4 4|4 6 5|4 6 4|4 4 4 4 3|4 4 4 3|4 4 4 2|8 8|4 12|12 4|6 6 4|6 10|6 13"
Written = tuple[str, str, Callable[[str], bool], str, Callable[[str], bool]]
WRITTEN: Sequence[Written] = (
    (CARDS, "card", checksums.luhn, " -._/", checksums.branded),
    ("3 2 4", "ssn", checksums.ssn, " -", always),
    ("9|3 3 3|3 2 4", "ssn", checksums.ssn, " -./_", never),
    ("3 3 4", "nhs", checksums.nhs, " -", always),
    ("10|3 3 4", "nhs", checksums.nhs, " -.", never),
    ("15|13 2|1 2 2 2 3 3 2", "nir", checksums.nir, " -.", always),
    ("4 2 3", "bsn", checksums.bsn, ".", always),
    ("9|3 3 3|4 2 3", "bsn", checksums.bsn, " .-", never),
    ("8", "bsn", lambda digits: checksums.bsn("0" + digits), "", never),
    ("11|9 2|3 3 3 2", "cpf", checksums.cpf, " .-/", always),
    ("11|6 5", "pesel", checksums.pesel, " -", always),
    ("11|2 3 3 3|3 3 3 2", "steuer_id", checksums.steuer_id, " -/", always),
    ("4 4 4", "aadhaar", checksums.aadhaar, " -", always),
    ("12", "aadhaar", checksums.aadhaar, "", never),
    ("13|3 4 4 2", "ahv", checksums.ahv, " .-", always),
    ("6 4|8 4", "personnummer", checksums.personnummer, "-+", always),
    ("10|12|6 4|8 4", "personnummer", checksums.personnummer, " -+", never),
    ("11|6 5", "fodselsnummer", checksums.fodselsnummer, " -.", always),
    ("11|2 2 2 3 2|6 3 2|6 5", "rijksregister", checksums.rijksregister, " .-/", always),
    ("18|6 8 4|6 4 4 4", "resident_id", checksums.resident_id, " -", always),
    ("9|3 3 3", "tfn", checksums.tfn, " -.", never),
    ("9|3 3 3", "sin", checksums.luhn, " -.", never),
    ("11|3 3 3 2|3 4 4", "tckn", checksums.tckn, " -", always),
    ("15|2 6 6 1|6 2 6 1|8 6 1", "imei", checksums.luhn, " -/", never),
    ("9", "bank_account", checksums.routing, "", never),
    ("6|7|8|9|10|11|12|2 2 2|4 4|3 3 4|4 4 2|4 4 4", "bank_account", always, " -", never),
    ("11", "vat", checksums.luhn, "", never),
    ("10|3 3 2 2|3 2 2 3", "vat", VAT["PL"].fits, " -", never),
    ("9|3 3 3", "vat", checksums.mod11_10, " .", never),
    ("9|3 4 2", "vat", VAT["GB"].fits, " ", never),
)
"""Shapes, kind, checksum, separators (a space is a line break too), and whether the checksum is enough.

Where it is not, one number in ten or eleven fits it by chance, and only a word nearby tells.
"""
WEAK = (always, checksums.ssn)
"""What most numbers fit."""


@lru_cache(maxsize=256)
def rules_for(named: frozenset[str]) -> Mapping[int, Any]:
    """The rules that can count in a text with words for the kinds `named`, by the sizes of their groups.

    One level a group; the rules stand under 0.
    """
    tree: dict[int, Any] = {}
    for shapes, kind, fits, separators, sure in WRITTEN:
        if sure is never and kind not in named:
            continue
        for shape in shapes.split("|"):
            node = tree
            for size in map(int, shape.split()):
                node = node.setdefault(size, {})
            node.setdefault(0, []).append(Rule(kind, fits, frozenset(separators), sure))
    return tree
