"""VAT numbers of European countries: how each looks after its country's letters, and its checksum."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import NamedTuple

from purify_hooks.private.finders.checksums import dni, luhn, mod11_10, mod97_10, weighted


class VatRule(NamedTuple):
    """What follows the country's letters, and whether its digits fit."""

    shape: str
    fits: Callable[[str], bool]


def france(text: str) -> bool:
    """A key of two letters or digits, and a SIREN; a key of digits is 12 + 3 (SIREN mod 97), mod 97."""
    return not text[:2].isdigit() or int(text[:2]) == (12 + 3 * (int(text[2:]) % 97)) % 97


def netherlands(text: str) -> bool:
    """Before 2020 a BSN or RSIN; since then MOD 97-10 over NL and all of it."""
    return weighted(text, (9, 8, 7, 6, 5, 4, 3, 2, -1)) % 11 == 0 or mod97_10("NL" + text)


def spain(text: str) -> bool:
    """A DNI or NIE, or a company's letter, seven digits and a control (Orden EHA/451/2008)."""
    if text[0].isdigit() or text[0] in "XYZ":
        return dni(text)
    doubled = sum(sum(divmod(2 * int(digit), 10)) for digit in text[1:8:2])
    control = -(doubled + sum(map(int, text[2:8:2]))) % 10
    return text[8] in (str(control), "JABCDEFGHI"[control])


def austria(text: str) -> bool:
    doubled = sum(sum(divmod(2 * int(digit), 10)) for digit in text[2:8:2])
    return (6 - doubled - sum(map(int, text[1:8:2]))) % 10 == int(text[8])


def britain(text: str) -> bool:
    """Nine digits modulo 97, or 55 less for those issued since 2009."""
    return (weighted(text, (8, 7, 6, 5, 4, 3, 2, 10, 1)) % 97) in (0, 42)


def _mod11(*weights: int) -> Callable[[str], bool]:
    """The last digit is the weighted sum of the others modulo 11, 10 as 0."""
    return lambda text: weighted(text[:-1], weights) % 11 % 10 == int(text[-1])


def _less11(*weights: int) -> Callable[[str], bool]:
    """The last digit is 11 less the weighted sum of the others modulo 11, 10 and 11 as 0."""
    return lambda text: -weighted(text[:-1], weights) % 11 % 10 == int(text[-1])


def _zero(modulus: int, *weights: int) -> Callable[[str], bool]:
    """The modulus divides the weighted sum of all digits."""
    return lambda text: weighted(text, weights) % modulus == 0


VAT: Mapping[str, VatRule] = {
    "AT": VatRule(r"U\d{8}", austria),
    "BE": VatRule(r"[01]\d{9}", lambda text: 97 - int(text[:8]) % 97 == int(text[8:])),
    "CHE": VatRule(r"\d{9}", lambda text: -weighted(text, (5, 4, 3, 2, 7, 6, 5, 4)) % 11 == int(text[8])),
    "DE": VatRule(r"[1-9]\d{8}", mod11_10),
    "DK": VatRule(r"\d{8}", _zero(11, 2, 7, 6, 5, 4, 3, 2, 1)),
    "EE": VatRule(r"\d{9}", _zero(10, 3, 7, 1, 3, 7, 1, 3, 7, 1)),
    "EL": VatRule(r"\d{9}", _mod11(256, 128, 64, 32, 16, 8, 4, 2)),
    "ES": VatRule(r"(?:[A-Z]\d{7}[A-Z0-9]|\d{8}[A-Z])", spain),
    "FI": VatRule(r"\d{8}", _zero(11, 7, 9, 10, 5, 8, 4, 2, 1)),
    "FR": VatRule(r"[A-HJ-NP-Z0-9]{2}\d{9}", france),
    "GB": VatRule(r"\d{9}", britain),
    "HR": VatRule(r"\d{11}", mod11_10),
    "HU": VatRule(r"\d{8}", _zero(10, 9, 7, 3, 1, 9, 7, 3, 1)),
    "IT": VatRule(r"\d{11}", luhn),
    "LU": VatRule(r"\d{8}", lambda text: int(text[:6]) % 89 == int(text[6:])),
    "NL": VatRule(r"\d{9}B\d{2}", netherlands),
    "PL": VatRule(r"\d{10}", _mod11(6, 5, 7, 2, 3, 4, 5, 6, 7)),
    "PT": VatRule(r"\d{9}", _less11(9, 8, 7, 6, 5, 4, 3, 2)),
    "SE": VatRule(r"\d{10}01", lambda text: luhn(text[:10])),
    "SI": VatRule(r"[1-9]\d{7}", _less11(8, 7, 6, 5, 4, 3, 2)),
}
"""By the letters before it. CHE is Switzerland's UID, written CHE-123.456.789 MWST."""
SHAPES = {country: re.compile(rule.shape) for country, rule in VAT.items()}


def vat(text: str) -> bool:
    """Whether a text without separators, in capitals, is a VAT number with a fitting checksum."""
    country = "CHE" if text.startswith("CHE") else text[:2].replace("GR", "EL")
    body = text[len(country) :]
    return country in VAT and bool(SHAPES[country].fullmatch(body)) and VAT[country].fits(body)
