"""Addresses of bitcoin and Ethereum, drawn at random, with their checksums."""

from __future__ import annotations

import hashlib
from random import Random

from purify_hooks.private.finders.lettered import BASE58, BECH32, polymod


def bitcoin(random: Random) -> str:
    """A legacy, script, segwit or taproot address, or a private key for import."""
    version = random.choice((0, 5, 0x80, None, None))
    if version is None:
        return segwit(random)
    body = bytes([version]) + random.randbytes(32 if version == 0x80 else 20)
    return base58(body + hashlib.sha256(hashlib.sha256(body).digest()).digest()[:4])


def base58(octets: bytes) -> str:
    number, found = int.from_bytes(octets, "big"), ""
    while number:
        number, digit = divmod(number, 58)
        found = BASE58[digit] + found
    return "1" * (len(octets) - len(octets.lstrip(b"\0"))) + found


def segwit(random: Random) -> str:
    """BIP 173 for version 0, BIP 350 for version 1 (taproot)."""
    version, size, constant = random.choice(((0, 32, 1), (1, 52, 0x2BC830A3)))
    values = [version, *(random.randrange(32) for _ in range(size))]
    expanded = [ord(each) >> 5 for each in "bc"] + [0] + [ord(each) & 31 for each in "bc"]
    rest = polymod([*expanded, *values, 0, 0, 0, 0, 0, 0]) ^ constant
    check = [rest >> 5 * (5 - place) & 31 for place in range(6)]
    return "bc1" + "".join(BECH32[each] for each in (*values, *check))


def ethereum(random: Random) -> str:
    return "0x" + random.randbytes(20).hex()
