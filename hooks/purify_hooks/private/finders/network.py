"""Addresses of machines, and the credentials in URLs."""

from __future__ import annotations

import re
from collections.abc import Iterator
from ipaddress import AddressValueError, IPv4Address, IPv6Address

from purify_hooks.private.finders.context import ReadText
from purify_hooks.private.finders.finder import CHECKED, NAMED, SHAPE, Hit

DOT = r"(?:\.|\[\.\]|\(\.\)|\[dot\])"
IPV4 = re.compile(rf"(?<![A-Za-z0-9.])(?:[0-9]{{1,3}}{DOT}){{3}}[0-9]{{1,3}}(?![A-Za-z0-9]|\.[0-9])")
VERSION = re.compile(r"(?:version|release|build|\bv(?:er)?\.?|==|>=|<=|~=|section|§)[\s:=]*$", re.IGNORECASE)
MACHINE = re.compile(r"ip|host|server|addr|ping|ssh|//|@|:$", re.IGNORECASE)
IPV6 = re.compile(
    r"(?:(?<![A-Za-z0-9.:])::|(?<![A-Za-z0-9.])[0-9a-fA-F]{1,4}:)[0-9a-fA-F:]{1,37}(?:\.[0-9]{1,3}){0,3}(?![A-Za-z0-9:])"
)
LABEL = re.compile(r"(?:^|[^:])\b(?![0-9a-fA-F]{1,4}:)\w+[:-]$")
"""A label right before an address ("ip:", "MAC-"), not one more group of it."""
MAC = re.compile(
    r"(?<![A-Za-z0-9])(?:[0-9A-Fa-f]{2}(?:([:-])[0-9A-Fa-f]{2})(?:\1[0-9A-Fa-f]{2}){4}(?:(?:\1[0-9A-Fa-f]{2}){2})?"
    r"|[0-9A-Fa-f]{4}\.[0-9A-Fa-f]{4}\.[0-9A-Fa-f]{4})(?![A-Za-z0-9:]|-[0-9A-Fa-f])"
)
AUTHORITY = re.compile(r"(?<![A-Za-z0-9/])//([^\s/@:\"'<>`]{0,128}:[^\s\"'<>`]{1,256})")
HOST = re.compile(r"@(?:[\w.-]{1,253}|\[[0-9a-fA-F:.]{2,45}\])(?::[0-9]{1,5})?(?=[/?#,;:.)\]}\\]|$)")


EXAMPLES = ("user:pass", "user:password", "username:password", "user:secret")
"""What manuals write for a user and a password."""


class Network:
    """IPv4, IPv6 and MAC addresses, and `user:password` in URLs.

    Addresses that every machine has (127.0.0.1, ::1, 0.0.0.0) are no private data.
    """

    def hits(self, read: ReadText) -> Iterator[Hit]:
        text = read.text
        for match in IPV4.finditer(text):
            spelled = re.sub(DOT, ".", match[0])
            before = text[max(0, match.start() - 14) : match.start()]
            small = len(spelled) == 7 and not MACHINE.search(before)  # 5.2.2.3 is a section of a document
            if _ipv4(spelled) and not small and not VERSION.search(before):
                yield Hit(*match.span(), "ipv4", CHECKED)
        for match in IPV6.finditer(text):
            if _ipv6(match[0]) and _begins(text, match.start()):
                yield Hit(*match.span(), "ipv6", CHECKED)
        for match in MAC.finditer(text):
            if len(set(match[0])) > 2 and _begins(
                text, match.start()
            ):  # 00:00:00:00:00:00 and ff:ff:ff:ff:ff:ff are no machine's
                yield Hit(*match.span(), "mac", SHAPE)
        yield from _credentials(text)


def _begins(text: str, start: int) -> bool:
    """Whether no group of an address stands before it."""
    before = text[max(0, start - 16) : start]
    return before[-1:] not in (":", "-") or LABEL.search(before) is not None


def _ipv4(text: str) -> bool:
    try:
        address = IPv4Address(text)
    except AddressValueError:
        return False
    return not (address.is_loopback or address.is_unspecified or text.startswith(("255.255.", "0.")))


def _ipv6(text: str) -> bool:
    """Whether a text is an address with two groups or more; `ab::cd` is a name and `0::2` a slice."""
    groups = [group for group in re.split("[:.]", text) if group]
    if text.count(":") < 2 or len(groups) < 2 or not re.search("[0-9]", text) or max(map(len, groups)) < 2:
        return False
    try:
        address = IPv6Address(text)
    except AddressValueError:
        return False
    return not (address.is_loopback or address.is_unspecified)


def _credentials(text: str) -> Iterator[Hit]:
    """The user and the password before a URL's host; a password may hold `@`, `/` and `:` itself."""
    for match in AUTHORITY.finditer(text):
        hosts = HOST.finditer(text, match.start(1), match.end(1))
        host = next((each for each in hosts if not _more(text, each.end(), match.end(1))), None)
        if host and text[match.start(1) : host.start()].lower() not in EXAMPLES:
            yield Hit(match.start(1), host.start(), "url_credentials", NAMED)


def _more(text: str, start: int, end: int) -> bool:
    """Whether another @ comes before the next slash: the host was a part of the password."""
    return re.match(r"[^/\s?#]{0,128}@", text[start:end]) is not None
