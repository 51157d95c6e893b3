"""Surrogates of each kind: what is like a value and is no one's."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping

from purify_hooks.private.dice import Dice
from purify_hooks.private.finders import checksums
from purify_hooks.private.pools import AREAS, MONTHS, PREFIXES, TEST_CARDS, WORDS

LONGEST = 240
"""The most characters of a surrogate: so much of an answer may be held back."""
TRIES = 100
"""Numbers tried for one whose checksum does not fit: one in ten does, or fewer."""
Maker = Callable[[Dice, str], str]
FIGURES = "0123456789"
UPPER, LOWER = "ABCDEFGHIJKLMNOPQRSTUVWXYZ", "abcdefghijklmnopqrstuvwxyz"
MARKS, SIGNS = re.compile(r"[\W_]+"), re.compile(r"[^\W_]")
"""What stands around letters and digits, and one of these."""
PEM = re.compile(r"(-----BEGIN [^\n-]+-----)(.*?)(-----END [^\n-]+-----|$)", re.DOTALL)
NUMBERS: Mapping[str, Callable[[str], bool]] = {
    "aadhaar": checksums.aadhaar,
    "ahv": checksums.ahv,
    "bsn": checksums.bsn,
    "codice_fiscale": checksums.codice_fiscale,
    "cpf": checksums.cpf,
    "dni": checksums.dni,
    "fodselsnummer": checksums.fodselsnummer,
    "imei": checksums.luhn,
    "nhs": checksums.nhs,
    "nir": checksums.nir,
    "pesel": checksums.pesel,
    "personnummer": checksums.personnummer,
    "resident_id": checksums.resident_id,
    "rijksregister": checksums.rijksregister,
    "sin": checksums.luhn,
    "steuer_id": checksums.steuer_id,
    "tckn": checksums.tckn,
    "tfn": checksums.tfn,
}
"""Numbers that states and makers give, and their checksums."""


def alphanumeric(text: str) -> str:
    """Its letters and digits."""
    return text if text.isalnum() else MARKS.sub("", text)


def laid_out(characters: str, layout: str) -> str:
    """`characters` in place of the letters and digits of `layout`, which has as many."""
    rest = iter(characters)
    return SIGNS.sub(lambda _: next(rest), layout)


def layout(text: str) -> str:
    """What stands around its letters and digits."""
    return SIGNS.sub("x", text)


def shaped(dice: Dice, value: str) -> str:
    """A text with a capital for each capital, a letter for each letter and a digit for each digit.

    What a key begins with stays, and hexadecimal figures stay such.
    """
    value = value[:LONGEST]
    prefix = next((each for each in PREFIXES if value.startswith(each) and len(value) >= 2 * len(each)), "")
    rest = value.removeprefix(prefix)
    hexadecimal = bool(re.fullmatch(r"[0-9a-f\W_]{8,}|[0-9A-F\W_]{8,}", rest)) and any(map(str.isalpha, rest))
    few = 6 if hexadecimal else 26
    upper, lower = UPPER[:few], LOWER[:few]

    def pool(each: str) -> str:
        if each.isdigit():
            return FIGURES
        return (upper if each.isupper() else lower) if each.isalpha() else each

    return prefix + dice.like(map(pool, rest))


def refigured(dice: Dice, value: str) -> str:
    """The value with other figures."""
    return dice.like(FIGURES if each.isdigit() else each for each in value[:LONGEST])


def token(dice: Dice, value: str) -> str:
    """A key or token like it; the three parts of a JWT stay such, and a PEM block keeps its two lines."""
    if block := PEM.fullmatch(value.strip()):
        body = "\n".join(shaped(dice, "Aa0Ab1Bc2Cd3De4Ef5" * 3) for _ in range(2))
        first, end = block[1][:60], block[3][:60]
        return f"{first}\n{body}\n{end}" if end else f"{first}\n{body}"
    if value.startswith("eyJ") and value.count(".") == 2:
        head, claims, signature = value.split(".")
        return ".".join((shaped(dice, head[:80]), shaped(dice, claims[:100]), shaped(dice, signature[:50])))
    return shaped(dice, value)


def email(dice: Dice, value: str) -> str:
    """An address of a domain kept for examples (RFC 2606)."""
    return f"{dice.pick(WORDS)}.{dice.pick(WORDS)}@example.{dice.pick(('com', 'org', 'net'))}"


def phone(dice: Dice, value: str) -> str:
    """A number kept for fiction: of North America, France or Britain, in the value's layout where it fits."""
    digits = alphanumeric(value)
    fiction = dice.pick(AREAS) + "55501" + dice.digits(2)
    ways = (
        (r"1\d{10}", "1" + fiction),
        (r"[2-9]\d{9}", fiction),
        (r"447\d{9}", "447700900" + dice.digits(3)),
        (r"44\d{10}", "442079460" + dice.digits(3)),
        (r"07\d{9}", "07700900" + dice.digits(3)),
        (r"0\d{10}", "02079460" + dice.digits(3)),
        (r"336\d{8}", "3363998" + dice.digits(4)),
        (r"0\d{9}", "063998" + dice.digits(4)),
    )
    for way, found in ways:
        if re.fullmatch(way, digits):
            return laid_out(found, value)
    return f"+1 {fiction[:3]} {fiction[3:6]} {fiction[6:]}"


def luhn_digit(digits: str) -> str:
    """The last digit with which `digits` pass Luhn's test (ISO/IEC 7812-1)."""
    doubled = [int(each) * (2 - at % 2) for at, each in enumerate(reversed(digits))]
    return str(-sum(each // 10 + each % 10 for each in doubled) % 10)


def card(dice: Dice, value: str) -> str:
    """A number that passes Luhn's test and begins as the network's test cards do."""
    digits = alphanumeric(value)
    if not re.fullmatch(r"[0-9]{12,19}", digits):
        return shaped(dice, value)
    prefix = next((test for real, test in TEST_CARDS if digits.startswith(real)), "424242")
    body = prefix + dice.digits(len(digits) - len(prefix) - 1)
    return laid_out(body + luhn_digit(body), value)


def check_digits(country: str, account: str) -> str:
    """The check digits of an IBAN (ISO 13616)."""
    number = "".join(str(int(each, 36)) for each in account + country + "00")
    return f"{98 - int(number) % 97:02}"


def iban(dice: Dice, value: str) -> str:
    """An IBAN of the same country whose check digits fit, of no bank: its code begins with four 0 or X."""
    found = alphanumeric(value).upper()
    if not re.fullmatch(r"[A-Z]{2}[0-9]{2}[A-Z0-9]{8,30}", found):
        return shaped(dice, value)
    country, account = found[:2], found[4:]
    bank = "".join("0" if each.isdigit() else "X" for each in account[:4])
    account = bank + shaped(dice, account[4:])
    return laid_out(country + check_digits(country, account) + account, value)


def ssn(dice: Dice, value: str) -> str:
    """A social security number that is never given: area 900 to 999, no group of a taxpayer's number."""
    if len(alphanumeric(value)) != 9:
        return shaped(dice, value)
    return laid_out(f"9{dice.digits(2)}{1 + dice.below(49):02}{1 + dice.below(9999):04}", value)


def ip(dice: Dice, value: str) -> str:
    """An address kept for documentation (RFC 3849), or for measurements (RFC 2544)."""
    if ":" in value:
        return f"2001:db8:{1 + dice.below(0xFFFE):x}::{1 + dice.below(0xFFFE):x}"
    return f"198.{18 + dice.below(2)}.{dice.below(256)}.{1 + dice.below(254)}"


def mac(dice: Dice, value: str) -> str:
    """A hardware address of local administration, which no maker gives."""
    digits = alphanumeric(value)
    return laid_out("02" + shaped(dice, digits[2:]), value)


def birth(dice: Dice, value: str) -> str:
    """A date in the same way of writing, valid whichever of its numbers is the month."""
    year, day, month = str(1950 + dice.below(55)), 1 + dice.below(12), dice.below(12)
    small = iter((day, month + 1, day, month + 1))

    def number(found: re.Match[str]) -> str:
        text = found[0]
        if len(text) in (4, 8):
            return year + (f"{day:02}{month + 1:02}" if len(text) == 8 else "")
        if len(text) > 4:
            return shaped(dice, text)
        return f"{next(small, day):0{len(text)}}"

    def name(found: re.Match[str]) -> str:
        known = next((each for each in MONTHS if each.lower().startswith(found[0].lower())), "")
        return (
            MONTHS[month][: len(found[0])]
            if known and len(found[0]) == 3
            else MONTHS[month]
            if known
            else found[0]
        )

    return re.sub(r"[A-Za-z]{3,}", name, re.sub(r"\d+", number, value[:LONGEST]))


def _whole(fits: Callable[[str], bool], number: str) -> bool:
    try:
        return fits(number)
    except (ValueError, IndexError, KeyError):  # another form than the checksum's
        return False


def unissued(fits: Callable[[str], bool], marked: bool = False) -> Maker:
    """Makes numbers of the value's form whose checksum does not fit: they are given to no one."""

    def make(dice: Dice, value: str) -> str:
        for _ in range(TRIES):
            found = shaped(dice, value)
            if not _whole(fits, found.upper() if marked else alphanumeric(found).upper()):
                break
        return found

    return make


MAKERS: Mapping[str, Maker] = {
    "email": email,
    "phone": phone,
    "card": card,
    "iban": iban,
    "ssn": ssn,
    "ipv4": ip,
    "ipv6": ip,
    "mac": mac,
    "birth_date": birth,
    **dict.fromkeys(("jwt", "private_key"), token),
    **{kind: unissued(fits) for kind, fits in NUMBERS.items()},
    "hetu": unissued(checksums.hetu, marked=True),
}
"""How surrogates of each kind are made; of every other kind they are `shaped`, or words in place of words."""
