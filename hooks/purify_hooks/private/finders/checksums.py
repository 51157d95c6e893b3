"""Checksums of numbers that people and companies have; each takes digits and letters without separators."""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import date
from itertools import cycle
from string import ascii_uppercase

DNI = "TRWAGMYFPDXBNJZSQVHLCKE"
VALUES = bytes(max(0, code - 48) for code in range(256))
"""The digit that a character is."""
DOUBLED = bytes(sum(divmod(2 * digit, 10)) for digit in range(10)) + bytes(246)
"""Twice a digit, the two digits of what is above nine added up."""
IN_BASE_36 = str.maketrans({letter: str(10 + place) for place, letter in enumerate(ascii_uppercase)})
HETU = "0123456789ABCDEFHJKLMNPRSTUVWXY"
LENGTHS = (
    "AD24AE23AL28AT20AZ28BA20BE16BG22BH22BI27BR29BY28CH21CR22CY28CZ24DE22DJ27DK18DO28EE20EG29ES24FI18FK18FO18FR27"
    "GB22GE22GI23GL18GR27GT28HN28HR21HU28IE22IL23IQ23IS26IT27JO30KW30KZ20LB28LC32LI21LT20LU20LV21LY25MC27MD24ME22"
    "MK19MN20MR27MT31MU30NI28NL18NO15OM23PK24PL28PS29PT25QA29RO24RS22RU33SA24SC31SD18SE24SI19SK24SM27SO23ST25SV28"
    "TL23TN24TR26UA29VA22VG24XK20YE30"
)
IBAN_LENGTHS = {LENGTHS[at : at + 2]: int(LENGTHS[at + 2 : at + 4]) for at in range(0, len(LENGTHS), 4)}
"""Characters of an IBAN by country (SWIFT's registry)."""
ODD = (1, 0, 5, 7, 9, 13, 15, 17, 19, 21, 2, 4, 18, 20, 11, 3, 6, 8, 12, 14, 16, 10, 22, 25, 24, 23)
"""What a letter at an odd place of a codice fiscale counts (DM 23/12/1976); digits count as A to J."""


def weighted(digits: str, weights: Sequence[int]) -> int:
    """The sum of the digits, each times its weight."""
    return sum(int(digit) * weight for digit, weight in zip(digits, weights, strict=False))


def luhn(digits: str) -> bool:
    """ISO/IEC 7812-1: cards, Canada's SIN, Sweden's personnummer."""
    octets = digits.encode().translate(VALUES)
    return (sum(octets[-1::-2]) + sum(octets[-2::-2].translate(DOUBLED))) % 10 == 0


def mod97_10(text: str) -> bool:
    """ISO 7064 MOD 97-10, a letter counting as its two digits in base 36."""
    return int(text.translate(IN_BASE_36)) % 97 == 1


def iban(text: str) -> bool:
    """ISO 13616: MOD 97-10 with the country and the check digits at the end, in the country's length."""
    return len(text) == IBAN_LENGTHS.get(text[:2], 0) and mod97_10(text[4:] + text[:4])


def mod11_10(digits: str) -> bool:
    """ISO 7064 MOD 11,10: Germany's tax id and VAT number, Croatia's OIB."""
    rest = 10
    for digit in digits[:-1]:
        rest = ((int(digit) + rest) % 10 or 10) * 2 % 11
    return (11 - rest) % 10 == int(digits[-1])


BRANDS = re.compile(
    r"4\d{12}(?:\d{3}){0,2}|(?:5[1-5]\d\d|22(?:0[0-4]|2[1-9]|[3-9]\d)|2[3-6]\d\d|27(?:[01]\d|20))\d{12}|3[47]\d{13}"
    r"|(?=\d{14}(?:\d\d(?:\d{3})?)?\Z)(?:30[0-5]|3095|3[689])\d+"
    r"|(?=\d{16,19}\Z)(?:35(?:2[89]|[3-8]\d)|50|5[6-9]|6\d)\d+"
)
"""How the numbers of a card's brand begin, and how long they are."""


def branded(digits: str) -> bool:
    """Whether a card's brand issues numbers of this length that begin so."""
    return BRANDS.fullmatch(digits) is not None


def nhs(digits: str) -> bool:
    """The UK's NHS number, modulus 11; no trust issues ten equal digits."""
    check = -weighted(digits, range(10, 1, -1)) % 11
    return check == int(digits[9]) and len(set(digits)) > 1


def nir(text: str) -> bool:
    """France's numéro de sécurité sociale: 13 digits, and 97 less them modulo 97; Corsica is 2A or 2B."""
    number = int(text[:13].replace("2A", "19").replace("2B", "18"))
    month = int(text[3:5])
    return text[0] in "123478" and (1 <= month <= 12 or month >= 20) and 97 - number % 97 == int(text[13:])


def dni(text: str) -> bool:
    """Spain's DNI and NIE: a letter for the number modulo 23; X, Y and Z stand for 0, 1 and 2."""
    number = text[:-1].translate(str.maketrans("XYZ", "012"))
    return DNI[int(number) % 23] == text[-1]


def bsn(digits: str) -> bool:
    """The Netherlands' burgerservicenummer, the eleven test."""
    return weighted(digits, (9, 8, 7, 6, 5, 4, 3, 2, -1)) % 11 == 0 and int(digits) > 9_999_999


def cpf(digits: str) -> bool:
    """Brazil's CPF: two digits modulo 11."""
    checks = (weighted(digits, range(size, 1, -1)) * 10 % 11 % 10 for size in (10, 11))
    return [*checks] == [int(digits[9]), int(digits[10])] and len(set(digits)) > 1


def pesel(digits: str) -> bool:
    """Poland's PESEL: a date of birth, its century in the month, and a weighted digit."""
    month = int(digits[2:4])
    year = {0: 1900, 1: 2000, 2: 2100, 3: 2200, 4: 1800}[month // 20] + int(digits[:2])
    fits = weighted(digits, (1, 3, 7, 9, 1, 3, 7, 9, 1, 3, 1)) % 10 == 0
    return fits and is_date(year, month % 20, int(digits[4:6]))


def steuer_id(digits: str) -> bool:
    """Germany's tax id: one digit of the first ten stands there twice or three times, the others once."""
    counts = sorted(digits[:10].count(each) for each in set(digits[:10]))
    return (
        digits[0] != "0"
        and counts[-1] in (2, 3)
        and counts[:-1] == [1] * (len(counts) - 1)
        and mod11_10(digits)
    )


def aadhaar(digits: str) -> bool:
    """India's Aadhaar: twelve digits with a Verhoeff checksum."""
    if digits[0] in "01":
        return False
    rest = 0
    for row, octet in zip(cycle(PERMUTED), digits.encode()[::-1], strict=False):
        rest = DIHEDRAL[rest][row[octet - 48]]
    return rest == 0


def _dihedral(a: int, b: int) -> int:
    """The product of two elements of the dihedral group of order 10."""
    if a < 5:
        return (a + b) % 5 + (5 if b >= 5 else 0)
    return (a - b) % 5 + (0 if b >= 5 else 5)


def _permuted(digit: int, times: int) -> int:
    for _ in range(times):
        digit = (1, 5, 7, 6, 2, 8, 3, 0, 9, 4)[digit]
    return digit


def ahv(digits: str) -> bool:
    """Switzerland's AHV number: an EAN-13 that begins with 756."""
    return digits[:3] == "756" and weighted(digits, (1, 3) * 6 + (1,)) % 10 == 0


def personnummer(digits: str) -> bool:
    """Sweden's personnummer: a date (its day plus 60 for a samordningsnummer) and a Luhn digit."""
    return luhn(digits[-10:]) and short_date(digits[-10:-8], digits[-8:-6], str(int(digits[-6:-4]) % 60))


def fodselsnummer(digits: str) -> bool:
    """Norway's fødselsnummer: a date and two digits modulo 11."""
    first = weighted(digits, (3, 7, 6, 1, 8, 9, 4, 5, 2, 1)) % 11
    second = weighted(digits, (5, 4, 3, 2, 7, 6, 5, 4, 3, 2, 1)) % 11
    day = str(int(digits[:2]) % 40)
    return first == second == 0 and short_date(digits[4:6], str(int(digits[2:4]) % 40), day)


def rijksregister(digits: str) -> bool:
    """Belgium's national number: 97 less the first nine digits modulo 97, after a 2 since the year 2000."""
    fits = any(97 - int(century + digits[:9]) % 97 == int(digits[9:]) for century in ("", "2"))
    return fits and int(digits[2:4]) % 20 <= 12 and int(digits[4:6]) <= 31


def resident_id(text: str) -> bool:
    """China's resident identity number (GB 11643): a date of birth and ISO 7064 MOD 11-2."""
    rest = weighted(text, (7, 9, 10, 5, 8, 4, 2, 1, 6, 3, 7, 9, 10, 5, 8, 4, 2)) % 11
    return "10X98765432"[rest] == text[17] and is_date(int(text[6:10]), int(text[10:12]), int(text[12:14]))


def tfn(digits: str) -> bool:
    """Australia's tax file number: a weighted sum that 11 divides."""
    return weighted(digits, (1, 4, 3, 7, 5, 8, 6, 9, 10)) % 11 == 0 and len(set(digits)) > 1


def routing(digits: str) -> bool:
    """A routing number of a bank of the USA."""
    return weighted(digits, (3, 7, 1) * 3) % 10 == 0


def tckn(digits: str) -> bool:
    """Turkey's identity number: two digits modulo 10."""
    odd, even = sum(map(int, digits[0:9:2])), sum(map(int, digits[1:8:2]))
    checks = [(7 * odd - even) % 10, sum(map(int, digits[:10])) % 10]
    return digits[0] != "0" and checks == [int(digits[9]), int(digits[10])]


def codice_fiscale(text: str) -> bool:
    """Italy's codice fiscale: a letter for the sum of the 15 others, those at odd places permuted."""
    codes = [int(each) if each.isdigit() else ascii_uppercase.index(each) for each in text[:15]]
    return ascii_uppercase[(sum(ODD[each] for each in codes[::2]) + sum(codes[1::2])) % 26] == text[15]


def hetu(text: str) -> bool:
    """Finland's henkilötunnus: a date, and a letter for the digits modulo 31."""
    return HETU[int(text[:6] + text[7:10]) % 31] == text[10] and short_date(text[4:6], text[2:4], text[:2])


def ssn(digits: str) -> bool:
    """Digits that the USA's Social Security Administration can have issued, or its tax office (ITIN)."""
    area, group = int(digits[:3]), int(digits[3:5])
    return (area not in (0, 666) and area < 900 and group > 0 and digits[5:] != "0000") or (
        area >= 900 and (50 <= group <= 65 or 70 <= group <= 99)
    )


def short_date(year: str, month: str, day: str) -> bool:
    """Whether a day exists in a year of this century or the last."""
    return any(is_date(century + int(year), int(month), int(day)) for century in (1900, 2000))


def is_date(year: int, month: int, day: int) -> bool:
    try:
        date(year, month, day)
    except ValueError:
        return False
    return True


DIHEDRAL = [[_dihedral(a, b) for b in range(10)] for a in range(10)]
PERMUTED = [[_permuted(digit, times) for digit in range(10)] for times in range(8)]
