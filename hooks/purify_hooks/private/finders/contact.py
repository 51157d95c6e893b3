"""Email addresses and telephone numbers."""

from __future__ import annotations

import re
from collections.abc import Iterator

from purify_hooks.private.finders.context import ReadText
from purify_hooks.private.finders.finder import CHECKED, CONTEXT, SHAPE, Hit

OPEN, SHUT = r"[\[({<]\s?", r"\s?[\])}>]"
AT = re.compile(
    rf"(?<=[^\s@])@(?=[\w\[])|\s{{0,2}}{OPEN}(?:at|@|AT){SHUT}\s{{0,2}}"
    r"|(?<=\w)[ \t]@[ \t](?=\w)|(?<=\w)\s(?:at|AT)\s(?=\w)|(?<=\w)@(?:[ \t]|\r?\n[ >]{0,2})(?=\w)"
)
LOCAL = re.compile(r"[^\s@<>()\[\]{}\"',;:\\|=&?/!`“”‘’«»、。，；：]{1,64}(?:'(?=\w)[\w.+-]{1,32})?")
QUOTED = re.compile(r'"[^"\n]{1,64}"')
POINT = rf"(?:\.|\s{{0,2}}{OPEN}(?:\.|dot|DOT){SHUT}\s{{0,2}}|\s(?:dot|DOT)\s)"
NAME = r"[^\W_](?:[\w-]{0,61}[^\W_])?"
TOP = r"(?:xn--[A-Za-z0-9-]{2,59}|[A-Za-z]{2,24}(?![A-Za-z0-9])|[^\W\d_\x00-\x7f]{2,24})"
DOMAIN = re.compile(
    rf"(?:{NAME}{POINT}){{1,8}}{TOP}|\[[0-9a-fA-F:.]{{3,45}}\]|(?:[0-9]{{1,3}}\.){{3}}[0-9]{{1,3}}"
)
FILES = {"png", "jpg", "jpeg", "gif", "svg", "webp", "css", "js", "json", "html"}
"""Ends of names of files ("icon@2x.png"), which are no top-level domains."""

GROUP = r"[ \t.\-/()]{0,3}[0-9]"
PHONE = re.compile(
    r"(?<![A-Za-z0-9+@#$€£])(?<![0-9][.,/])(?<![0-9a-f]-)(?:"
    rf"(?P<abroad>\(?(?:\+[ (]?|00 ?)[1-9](?:[ \t.\-/()\r\n]{{0,3}}[0-9]){{6}}(?:{GROUP}){{0,9}})"
    r"|(?P<shape>(?:1[ .\-/]{0,3})?(?:\([2-9][0-9]{2}\)\s{0,2}-?|[2-9][0-9]{2}(?: ?[.\-/] ?|\s))"
    r"[2-9][0-9]{2}(?: ?[.\-] ?|\s)[0-9]{4}"
    r"|1[3-9][0-9][ -][0-9]{4}[ -][0-9]{4}|0[1-9][0-9]{8,9}|1[3-9][0-9]{9}"
    r"|(?:8[ \-]?)?\([0-9]{2,5}\)[ .\-]{0,2}[0-9]{3,5}[ .\-][0-9]{2,4}(?:[ .\-][0-9]{2})?)"
    r"|(?P<zero>\(?0[1-9][0-9]{0,4}\)?(?:[ .\-/()]{1,3}[0-9]{2,8}){1,5})"
    rf"|(?P<named>\(?[0-9](?:{GROUP}){{6,13}}))"
    r"(?![0-9A-Za-z%])(?:,?\s{0,2}(?:ext\.?|x|extension|Durchwahl|poste|#)\s?[0-9]{1,6}(?![0-9]))?"
)
LONGEST = {
    "1": 11,
    "7": 11,
    "33": 11,
    "34": 11,
    "31": 11,
    "48": 11,
    "41": 11,
    "61": 11,
    "44": 12,
    "91": 12,
    "81": 12,
}
"""The most digits of a number by its country's code, where these are fewer than E.164's 15."""
DATE = re.compile(
    r"(?:[0-9]{1,2}([./-])[0-9]{1,2}\1[0-9]{2,4}|[0-9]{4}([./-])[0-9]{1,2}\2[0-9]{1,2})(?![./-]?[0-9])"
)
ALPHABETS = ("0123456789", "1234567890")
"""The digits in order, which are in programs and no number."""


class Emails:
    """Email addresses: plus-addresses, quoted local parts, domains of any script, and `(at)` for @."""

    def hits(self, read: ReadText) -> Iterator[Hit]:
        text = read.text
        for at in AT.finditer(text):
            domain = DOMAIN.match(text, at.end())
            if not domain or not _is_domain(at[0], domain[0]):
                continue
            back = text[max(0, at.start() - 68) : at.start()][::-1]
            local = QUOTED.match(back) or LOCAL.match(back)
            if local and (size := _size(local[0][::-1])):
                yield Hit(at.start() - size, domain.end(), "email", CHECKED)


def _is_domain(at: str, domain: str) -> bool:
    if at.strip() in ("at", "AT") and not re.search(r"\s(?:dot|DOT)\s|[\])}>]", domain):
        return False
    return domain.rpartition(".")[2].lower() not in FILES


def _size(local: str) -> int:
    """How many characters of what stands before an @ are the address; 0: it is none that people have."""
    if local[0] == '"':
        return len(local)
    local = local.lstrip(".*_~-#$%^")
    if (split := re.search(r"[^\x00-\u024f](?=[\x21-\x7e\u00c0-\u024f]+$)", local)) is not None:
        local = local[split.end() :]  # a text without spaces runs into the address
    return 0 if local == "git" else len(local)


class Phones:
    """Telephone numbers by their shapes: with a country's code, as several countries write them, or named.

    Digits without a shape of their own ("612 345 678") count only near a word such as "call" or "móvil".
    """

    def hits(self, read: ReadText) -> Iterator[Hit]:
        for match in PHONE.finditer(read.text):
            written, start = match[match.lastgroup or 0], match.start()
            if written[0] == "(" and ")" not in written:
                written, start = written[1:], start + 1
            if match.lastgroup == "abroad":
                end = start + _end(written, _longest(written))
                yield Hit(start, match.end() if end == match.end("abroad") else end, "phone", CONTEXT)
            elif DATE.match(written) or written in ALPHABETS:
                continue
            elif match.lastgroup == "shape":
                yield Hit(start, match.end(), "phone", SHAPE)
            elif not re.fullmatch(r"[0-9]+\.[0-9]+", written) and read.near(
                "phone", start, match.end(), before=28, after=12
            ):
                yield Hit(start, match.end(), "phone", CONTEXT)
            elif match.lastgroup == "zero" and _digits(written[: (end := _end(written, 12))]) >= 9:
                yield Hit(start, start + end, "phone", SHAPE)


def _digits(text: str) -> int:
    """How many digits a number has; the zero of "+44 (0)20" is none of its own."""
    return sum(each.isdigit() for each in text.replace("(0)", ""))


def _longest(written: str) -> int:
    """The most digits that an international number has, its prefix included."""
    digits = re.sub(r"[^0-9]", "", written)
    prefix = 0 if "+" in written else 2
    code = digits[prefix:]
    return prefix + next((most for head, most in LONGEST.items() if code.startswith(head)), 15)


def _end(written: str, most: int) -> int:
    """Where a number ends that has at most so many digits; whole groups, and the first one in any case."""
    end = len(written)
    while _digits(written[:end]) > most and (last := re.search(r"(?<=[0-9)])[^0-9]+[0-9]+$", written[:end])):
        end = last.start()
    return end
