"""Keys, tokens, secrets and addresses of machines, drawn at random."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from random import Random
from string import ascii_letters, digits

from purify_hooks.private.samples.drawing import FIRST, LAST, grouped, text

BASE64 = ascii_letters + digits + "+/"


def private_key(random: Random) -> str:
    name = random.choice(("RSA PRIVATE KEY", "PRIVATE KEY", "EC PRIVATE KEY", "OPENSSH PRIVATE KEY"))
    lines = [text(random, BASE64, 64) for _ in range(random.randint(3, 12))]
    return "\n".join(
        (f"-----BEGIN {name}-----", *lines, text(random, BASE64, 22) + "==", f"-----END {name}-----")
    )


def jwt(random: Random) -> str:
    def part(value: object) -> str:
        return base64.urlsafe_b64encode(json.dumps(value).encode()).decode().rstrip("=")

    claims = {"sub": text(random, digits, 10), "iat": random.randrange(10**9, 2 * 10**9)}
    signature = text(random, ascii_letters + digits + "-_", 43)
    return f"{part({'alg': 'HS256', 'typ': 'JWT'})}.{part(claims)}.{signature}"


def sk_key(random: Random) -> str:
    head, size = random.choice((("sk-", 48), ("sk-proj-", 120), ("sk-ant-api03-", 95), ("sk-or-v1-", 64)))
    return head + text(random, ascii_letters + digits + ("" if size == 48 else "-_"), size - 1) + "7"


def ipv6(random: Random) -> str:
    groups = [f"{random.randrange(1, 65536):x}" for _ in range(6)]
    return random.choice(
        (
            f"2001:db8:{':'.join(groups)}",
            f"2001:db8::{':'.join(groups[:2])}",
            f"fe80::1{groups[0][:3]}:{groups[1]}",
        )
    )


def ipv4(random: Random) -> str:
    groups = (random.choice((10, 172, 192, 198, 203, 81)), *(random.randrange(1, 255) for _ in range(3)))
    return ".".join(map(str, groups))


def mac(random: Random) -> str:
    found = text(random, "0123456789abcdef", 12)
    return random.choice(
        (
            grouped(found, "2 2 2 2 2", ":"),
            grouped(found.upper(), "2 2 2 2 2", "-"),
            grouped(found, "4 4", "."),
        )
    )


def url_credentials(random: Random) -> str:
    return f"{random.choice(FIRST)}:{text(random, ascii_letters + digits + '!$*_-', random.randint(6, 20))}x"


def secret(random: Random) -> str:
    return random.choice(LAST).capitalize() + text(random, digits, 3) + text(random, ascii_letters + "!#*", 6)


def tokens(*written: tuple[str, str, int]) -> Callable[[Random], str]:
    """Tokens of a beginning and so many characters of an alphabet."""

    def draw(random: Random) -> str:
        head, alphabet, size = random.choice(written)
        return head + text(random, alphabet, size)

    return draw
