"""Numbers with letters and a checksum: IBANs, VAT and identity numbers, bitcoin addresses."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterator, Mapping
from functools import cache

from purify_hooks.private.finders import checksums
from purify_hooks.private.finders.checksums import IBAN_LENGTHS, iban
from purify_hooks.private.finders.context import ReadText
from purify_hooks.private.finders.finder import CHECKED, CONTEXT, NAMED, SHAPE, Hit
from purify_hooks.private.finders.vat import vat

BEFORE, AFTER = r"(?<![A-Za-z0-9])", r"(?![A-Za-z0-9])"
BASE58 = "123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz"
BECH32 = "qpzry9x8gf2tvdw0s3jn54khce6mua7l"
GAP = r"[ \t\r\n.\-_/>]{0,3}"
TIGHT = re.compile(r"[A-Za-z0-9]")
IBAN = re.compile(rf"(?:{BEFORE}|(?<=IBAN))[A-Za-z]{GAP}[A-Za-z]{GAP}[0-9]{GAP}[0-9]")
PATTERNS = {
    "dni": (
        r"(?:[XYZxyz][ .-]?[0-9]{7}|[0-9]{8}|[0-9]{1,2}[. ][0-9]{3}[. ][0-9]{3})[ .-]?"
        r"[A-HJ-NP-TV-Za-hj-np-tv-z]"
    ),
    "nir": rf"[1-478](?:{GAP}[0-9]){{4}}{GAP}2[AaBb](?:{GAP}[0-9]){{8}}",
    "codice_fiscale": (
        r"[A-Za-z]{3} ?[A-Za-z]{3} ?[0-9L-Vl-v]{2}[A-EHLMPR-Ta-ehlmpr-t][0-9L-Vl-v]{2} ?"
        r"[A-Za-z][0-9L-Vl-v]{3} ?[A-Za-z]"
    ),
    "hetu": r"[0-3][0-9][01][0-9]{3}[-+A-FU-Ya-fu-y][0-9]{3}[0-9A-FHJ-NPR-Ya-fhj-npr-y]",
    "resident_id": r"[1-9][0-9]{5}[ -]?(?:18|19|20)[0-9]{6}[ -]?[0-9]{3}[Xx]",
    "nino": (
        r"(?!BG|GB|NK|KN|TN|NT|ZZ)[A-CEGHJ-PR-TW-Za-ceghj-pr-tw-z][A-CEGHJ-NPR-TW-Za-ceghj-npr-tw-z]"
        r"(?:[ -]?[0-9]{2}){3}[ -]?[A-Da-d]"
    ),
    "bitcoin": (
        rf"(?:[13][{BASE58}]{{25,34}}|[5KL][{BASE58}]{{50,51}}|[xyz](?:prv|pub)[{BASE58}]{{107}}"
        r"|(?:bc|BC|tb)1[A-Za-z0-9]{38,60})"
    ),
    "ethereum": r"0x[0-9a-fA-F]{40}",
}
IDENTITY = re.compile(
    f"{BEFORE}(?:{'|'.join(f'(?P<{kind}>{pattern})' for kind, pattern in PATTERNS.items())}){AFTER}"
)
"""One search for all: their shapes are not each other's."""
VAT = re.compile(
    rf"{BEFORE}(?:CHE|AT|BE|DE|DK|EE|EL|GR|ES|FI|FR|GB|HR|HU|IT|LU|NL|PL|PT|SE|SI)[ -]?"
    rf"[A-Z0-9](?:[ .\-/]?[0-9]){{6,10}}(?:[ .\-]?(?:B ?[0-9]{{2}}|[0-9A-Z]))?{AFTER}"
)


class Lettered:
    """IBANs, VAT numbers, identity numbers with letters in them, addresses of bitcoin and Ethereum."""

    def hits(self, read: ReadText) -> Iterator[Hit]:
        yield from _ibans(read.text)
        yield from _identities(read)
        yield from _vats(read)


def _ibans(text: str) -> Iterator[Hit]:
    """IBANs, of as many characters as their country has."""
    for head in IBAN.finditer(text):
        country = "".join(TIGHT.findall(head[0])[:2]).upper()
        size = IBAN_LENGTHS.get(country)
        match = _of_size(size).match(text, head.start()) if size else None
        if match and iban("".join(TIGHT.findall(match[0])).upper()):
            yield Hit(*match.span(), "iban", CHECKED)


@cache
def _of_size(size: int) -> re.Pattern[str]:
    """So many letters and digits, with or without separators."""
    return re.compile(rf"[A-Za-z0-9](?:{GAP}[A-Za-z0-9]){{{size - 1}}}{AFTER}")


def _identities(read: ReadText) -> Iterator[Hit]:
    for match in IDENTITY.finditer(read.text):
        kind = match.lastgroup or ""
        if FITS[kind](match[0]):
            certainty = SHAPE if kind in ("nino", "ethereum") else CHECKED
            yield Hit(*match.span(), kind, NAMED if read.near(kind, *match.span()) else certainty)


def _tight(fits: Callable[[str], bool]) -> Callable[[str], bool]:
    """A checksum of what is written with separators and in small letters."""
    return lambda text: fits(re.sub(r"[^A-Z0-9]", "", text.upper()))


def _dni(text: str) -> bool:
    return checksums.dni(text) and (text[0] in "XYZ" or len(text) == 9)


def _vats(read: ReadText) -> Iterator[Hit]:
    for match in VAT.finditer(read.text):
        spelled = re.sub(r"[^A-Z0-9]", "", match[0])
        if vat(spelled):
            yield Hit(*match.span(), "vat", CHECKED)
        elif read.near("vat", *match.span()):
            yield Hit(*match.span(), "vat", CONTEXT)


def base58check(text: str) -> bool:
    """Whether base-58 text ends with the first 4 bytes of its double SHA-256."""
    number = 0
    for character in text:
        number = number * 58 + BASE58.index(character)
    zeros = len(text) - len(text.lstrip("1"))
    octets = b"\0" * zeros + number.to_bytes((number.bit_length() + 7) // 8, "big")
    return hashlib.sha256(hashlib.sha256(octets[:-4]).digest()).digest()[:4] == octets[-4:]


def bech32(text: str) -> bool:
    """BIP 173 and 350: whether the polynomial over the address is 1 (bech32) or 0x2bc830a3 (bech32m)."""
    if text not in (text.lower(), text.upper()):
        return False
    name, _, data = text.lower().rpartition("1")
    if not set(data) <= set(BECH32):
        return False
    values = [*(ord(each) >> 5 for each in name), 0, *(ord(each) & 31 for each in name)]
    return polymod([*values, *map(BECH32.index, data)]) in (1, 0x2BC830A3)


def polymod(values: list[int]) -> int:
    """The checksum of BIP 173: the remainder of a polynomial over GF(32)."""
    rest = 1
    for value in values:
        top = rest >> 25
        rest = (rest & 0x1FFFFFF) << 5 ^ value
        for place, generator in enumerate((0x3B6A57B2, 0x26508E6D, 0x1EA119FA, 0x3D4233DD, 0x2A1462B3)):
            rest ^= generator if top >> place & 1 else 0
    return rest


FITS: Mapping[str, Callable[[str], bool]] = {
    "dni": _tight(_dni),
    "nir": _tight(checksums.nir),
    "codice_fiscale": _tight(checksums.codice_fiscale),
    "hetu": lambda text: checksums.hetu(text.upper()),
    "resident_id": _tight(checksums.resident_id),
    "nino": bool,
    "bitcoin": lambda text: bech32(text) if text[:3].lower() in ("bc1", "tb1") else base58check(text),
    "ethereum": lambda text: len(set(text)) > 8,
}
