"""Values drawn at random, as their issuers and their customers write them."""

from __future__ import annotations

from collections.abc import Callable
from datetime import date, timedelta
from random import Random
from string import ascii_uppercase, digits

from purify_hooks.private.finders import checksums
from purify_hooks.private.finders.vat import VAT

FIRST = (
    "ada",
    "ben",
    "cleo",
    "dora",
    "emil",
    "fay",
    "gus",
    "hana",
    "igor",
    "jun",
    "kofi",
    "lena",
    "noor",
    "olu",
)
LAST = (
    "quill",
    "stone",
    "brook",
    "marsh",
    "field",
    "penn",
    "reed",
    "thorn",
    "vale",
    "young",
    "o'hara",
    "saint-just",
)
DOMAINS = (
    *("example.org", "example.com", "mail.example.net", "example.co.uk", "bücher.example", "acme.test"),
    "xn--bcher-kva.example",
)


def text(random: Random, alphabet: str, size: int) -> str:
    return "".join(random.choice(alphabet) for _ in range(size))


def until(draw: Callable[[], str], fits: Callable[[str], bool]) -> str:
    """The first draw that fits."""
    while not fits(found := draw()):
        pass
    return found


def grouped(value: str, sizes: str, separator: str) -> str:
    """A value in groups of these sizes, the last as long as it must be."""
    groups, at = [], 0
    for size in map(int, sizes.split()):
        groups.append(value[at : at + size])
        at += size
    return separator.join(part for part in (*groups, value[at:]) if part)


def numbered(
    size: int, fits: Callable[[str], bool], *written: tuple[str, str], head: str = ""
) -> Callable[[Random], str]:
    """Numbers of so many digits after `head`, with a checksum.

    `written` are the ways they are written: the sizes of their groups, and what is between.
    """

    def draw(random: Random) -> str:
        found = until(lambda: head + text(random, digits, size), fits)
        sizes, separator = random.choice(written)
        return grouped(found, sizes, separator)

    return draw


def email(random: Random) -> str:
    first, last = random.choice(FIRST), random.choice(LAST)
    local = random.choice(
        (
            f"{first}.{last}",
            f"{first[0]}{last}",
            f"{first}_{last}{random.randrange(99)}",
            f"{first}+shop",
            last,
        )
    )
    if random.random() < 0.05:
        local = f'"{first} {last}"'
    domain = random.choice(DOMAINS)
    return f"{local.upper()}@{domain.upper()}" if random.random() < 0.05 else f"{local}@{domain}"


def phone(random: Random) -> str:
    def some(size: int) -> str:
        return text(random, digits, size)

    area = f"{random.randint(201, 989)}"
    return random.choice(
        (
            f"+1 {area} 555 01{some(2)}",
            f"+1-{area}-555-01{some(2)}",
            f"+1{area}55501{some(2)}",
            f"({area}) 555-01{some(2)}",
            f"{area}-555-01{some(2)}",
            f"{area}.555.01{some(2)}",
            f"1-{area}-555-01{some(2)}",
            f"+44 20 7946 0{some(3)}",
            f"020 7946 0{some(3)}",
            f"07700 900{some(3)}",
            f"+44 (0)7700 900{some(3)}",
            f"+49 30 23125 {some(3)}",
            f"030/23125{some(3)}",
            f"+33 6 39 98 {some(2)} {some(2)}",
            f"06 39 98 {some(2)} {some(2)}",
            f"06.39.98.{some(2)}.{some(2)}",
            f"0033 6 39 98 {some(2)} {some(2)}",
            f"+34 6{some(2)} {some(3)} {some(3)}",
            f"+86 138 0013 8{some(3)}",
            f"+91 98765 4{some(4)}",
            f"+55 (11) 95550-{some(4)}",
            f"(11) 95550-{some(4)}",
            f"+61 491 570 {some(3)}",
            f"+352 27 12 {some(2)} {some(2)}",
        )
    )


def iban(random: Random) -> str:
    country = random.choice(
        ("DE", "FR", "GB", "NL", "ES", "IT", "PL", "BE", "CH", "AT", "NO", "PT", "MT", "SE")
    )
    size = checksums.IBAN_LENGTHS[country] - 4
    letters = {"GB": 4, "NL": 4, "MT": 4, "IT": 1}.get(country, 0)
    body = text(random, ascii_uppercase, letters) + text(random, digits, size - letters)
    found = f"{country}{98 - int((body + country + '00').translate(checksums.IN_BASE_36)) % 97:02}{body}"
    return random.choice(
        (found, grouped(found, "4 4 4 4 4 4 4", " "), found.lower(), grouped(found, "4 4 4 4 4", "-"))
    )


def card(random: Random) -> str:
    prefix, size = random.choice(
        (
            ("4", 16),
            ("4", 13),
            ("51", 16),
            ("55", 16),
            ("2221", 16),
            ("34", 15),
            ("37", 15),
            ("6011", 16),
            ("65", 16),
            ("36", 14),
            ("3530", 16),
            ("62", 16),
            ("62", 19),
            ("5018", 16),
            ("4", 19),
        )
    )
    found = until(lambda: prefix + text(random, digits, size - len(prefix)), checksums.luhn)
    sizes = {15: "4 6 5", 14: "4 6 4"}.get(size, "4 4 4 4")
    return random.choice(
        (found, grouped(found, sizes, " "), grouped(found, sizes, "-"), grouped(found, sizes, " "))
    )


def born(random: Random) -> date:
    return date(1930, 1, 1) + timedelta(days=random.randrange(80 * 365))


def birth_date(random: Random) -> str:
    day = born(random)
    return random.choice(
        (
            f"{day:%Y-%m-%d}",
            f"{day:%d/%m/%Y}",
            f"{day:%m/%d/%Y}",
            f"{day:%d.%m.%Y}",
            f"{day:%d.%m.%y}",
            f"{day.day} {day:%B %Y}",
            f"{day:%B} {day.day}, {day.year}",
            f"{day:%b %d %Y}",
            f"{day:%d-%b-%Y}",
            f"{day:%Y/%m/%d}",
            f"{day:%Y%m%d}",
            f"{day.day}. März {day.year}",
            f"{day.day} de mayo de {day.year}",
            f"{day.day} février {day.year}",
            f"{day.year}年{day.month}月{day.day}日",
            f"{day.day}th of May {day.year}",
            f"{day.day}/{day.month}/{day:%y}",
        )
    )


def steuer_id(random: Random) -> str:
    ten = random.sample(digits, 9)
    ten.insert(random.randrange(10), random.choice(ten))
    while ten[0] == "0":
        ten.append(ten.pop(0))
    found = until(lambda: "".join(ten) + random.choice(digits), checksums.mod11_10)
    return random.choice((found, grouped(found, "2 3 3", " ")))


def dated(
    pattern: str, rest: int, fits: Callable[[str], bool], cut: str = "", mark: str = ""
) -> Callable[[Random], str]:
    """Numbers that begin with a date of birth: its format, how many digits follow, how they are cut."""

    def draw(random: Random) -> str:
        found = until(lambda: f"{born(random):{pattern}}{text(random, digits, rest)}", fits)
        return grouped(found, cut, mark) if cut and random.random() < 0.5 else found

    return draw


def dni(random: Random) -> str:
    lead = random.choice(("", "", "X", "Y", "Z"))
    number = text(random, digits, 7 if lead else 8)
    letter = checksums.DNI[int(number if not lead else str("XYZ".index(lead)) + number) % 23]
    return random.choice((f"{lead}{number}{letter}", f"{lead}{number}-{letter}", f"{lead}{number} {letter}"))


def nir(random: Random) -> str:
    head = f"{random.choice('12')}{random.randrange(100):02}{random.randint(1, 12):02}"
    place = random.choice((f"{random.randint(1, 95):02}", "2A", "2B"))
    found = head + place + text(random, digits, 6)
    key = 97 - int(found.replace("2A", "19").replace("2B", "18")) % 97
    return random.choice((f"{found}{key:02}", grouped(f"{found}{key:02}", "1 2 2 2 3 3", " ")))


def codice_fiscale(random: Random) -> str:
    day = born(random)
    month = "ABCDEHLMPRST"[day.month - 1]
    head = text(random, ascii_uppercase, 6) + f"{day:%y}{month}{day.day + random.choice((0, 40)):02}"
    found = f"{head}{random.choice('ABCDEFGHL')}{text(random, digits, 3)}"
    found += next(letter for letter in ascii_uppercase if checksums.codice_fiscale(found + letter))
    return random.choice((found, found, found.lower(), grouped(found, "3 3 5", " ")))


def hetu(random: Random) -> str:
    day, number = born(random), text(random, digits, 3)
    mark = "A" if day.year > 1999 else "-"
    return f"{day:%d%m%y}{mark}{number}{checksums.HETU[int(f'{day:%d%m%y}{number}') % 31]}"


def resident_id(random: Random) -> str:
    head = (
        text(random, "123456", 1)
        + text(random, digits, 5)
        + f"{born(random):%Y%m%d}"
        + text(random, digits, 3)
    )
    return next(head + last for last in "0123456789X" if checksums.resident_id(head + last))


def nino(random: Random) -> str:
    found = random.choice(("AB", "CE", "JW", "PX")) + text(random, digits, 6) + random.choice("ABCD")
    return random.choice((found, grouped(found, "2 2 2 2", " ")))


def vat(random: Random) -> str:
    country = random.choice(
        ("AT", "BE", "DE", "DK", "FI", "FR", "GB", "IT", "LU", "NL", "PL", "PT", "SE", "SI", "HU")
    )
    size = {
        "AT": 8,
        "DK": 8,
        "FI": 8,
        "HU": 8,
        "LU": 8,
        "SI": 8,
        "BE": 9,
        "PL": 10,
        "IT": 11,
        "FR": 11,
        "SE": 10,
    }
    head = {"AT": "U", "BE": "0"}.get(country, "")
    tail = {"SE": "01", "NL": "B01"}.get(country, "")
    lead = "123456789" if country in ("DE", "SI") else digits
    body = until(
        lambda: head + text(random, lead, 1) + text(random, digits, size.get(country, 9) - 1) + tail,
        VAT[country].fits,
    )
    return random.choice((country + body, f"{country} {body}"))
