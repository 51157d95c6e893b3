"""The test vectors of the DSSE specification: github.com/secure-systems-lab/dsse, testvectors/vectors.json.

The keys are those of RFC 8032, section 7.1, tests 1 and 2.
"""

from __future__ import annotations

from typing import NamedTuple

KEYS = {
    "A": "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a",
    "B": "3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c",
}
IN_TOTO = "application/vnd.in-toto+json"
OTHER = "application/vnd.example.other+json"
UMLAUT = "application/vnd.exämple+json"
STATEMENT = "eyJfdHlwZSI6Imh0dHBzOi8vaW4tdG90by5pby9TdGF0ZW1lbnQvdjEifQ=="
HEX = "7b225f74797065223a2268747470733a2f2f696e2d746f746f2e696f2f53746174656d656e742f7631227d"
START = "445353457631203238206170706c69636174696f6e2f766e642e696e2d746f746f2b6a736f6e20"
BY_A = "2WAfaHm5jluo0w+0rk8uVkluELJYWjSmU9x7EUzx+AyteDGJ4/nqyJXfmAUVFIAoQafWm7AxBZNw5M9ixNHiCA=="
BY_B = "c1+67/aT0yqEpwx8PsVY3MLHsj9D0CZ014/Fv/QlG59P+9CobUZ7xECJ/V3USG0Ob9CiE5LjReEZUzNF2l7eBw=="


class Vector(NamedTuple):
    """An envelope, the keys that all must have signed it, the types read, its encoding, and the outcome."""

    payload: str
    kind: str
    signatures: tuple[tuple[str | None, str], ...]
    keys: str
    supported: tuple[str, ...]
    pae: str
    accepted: bool


VECTORS = {
    "single-signature": Vector(
        STATEMENT, IN_TOTO, (("A", BY_A),), "A", (IN_TOTO,), f"{START}343320{HEX}", True
    ),
    "url-safe-base64": Vector(
        "-_-_Pj8=",
        IN_TOTO,
        (("A", "P-_KHICeR7tI6S_YyejJTRtrXhcQyQ2LYPaL8h90KjC9qN8HU_svOQ6TuDOT1HIrsGW886DbWNWcCmX5twLrAw=="),),
        "A",
        (IN_TOTO,),
        f"{START}3520fbffbf3e3f",
        True,
    ),
    "payload-type-swapped": Vector(
        STATEMENT, OTHER, (("A", BY_A),), "A", (IN_TOTO, OTHER), f"{START}343320{HEX}", False
    ),
    "non-ascii-payload-type": Vector(
        STATEMENT,
        UMLAUT,
        (("A", "xmSk/ug66ysT7ayhkCIjhAq42zgZXSsEWuzUaNL7w2eGAdF/NU6/fRXPtmfN+5DNSAs5/i2lUnHjbbjPsu0tAw=="),),
        "A",
        (UMLAUT,),
        f"445353457631203239206170706c69636174696f6e2f766e642e6578c3a46d706c652b6a736f6e20343320{HEX}",
        True,
    ),
    "empty-payload": Vector(
        "",
        IN_TOTO,
        (("A", "gSggCAaTLTYyRH6FIDBem6meyIynsYy8RTHVzwx9tnTb7Bg/1jMWnuVgI/gffqmbsC2VX5/jHfkkDqsj7CDbDg=="),),
        "A",
        (IN_TOTO,),
        f"{START}3020",
        True,
    ),
    "empty-payload-type": Vector(
        STATEMENT,
        "",
        (("A", "iC3q/+3Rm0+lpAJRueDmDh15PnwCfxKmS0NAfKsbv+zgulXQC/WM9trc+j1XEqlwDIg/vf/uNfebeD6sxInrDg=="),),
        "A",
        (IN_TOTO,),
        f"445353457631203020203433 20{HEX}".replace(" ", ""),
        False,
    ),
    "threshold-two-distinct-keys": Vector(
        STATEMENT, IN_TOTO, (("A", BY_A), ("B", BY_B)), "AB", (IN_TOTO,), f"{START}343320{HEX}", True
    ),
    "threshold-two-one-key-twice": Vector(
        STATEMENT, IN_TOTO, (("A", BY_A), ("A", BY_A)), "AB", (IN_TOTO,), f"{START}343320{HEX}", False
    ),
    "threshold-two-without-keyids": Vector(
        STATEMENT, IN_TOTO, ((None, BY_A), (None, BY_B)), "AB", (IN_TOTO,), f"{START}343320{HEX}", True
    ),
}
