"""What is signed of a chain beside its certificates: each link for a log, and each day's root."""

from __future__ import annotations

from dataclasses import asdict

from purify_plugins.canonical_json import canonical
from purify_plugins.signing.statement import STATEMENT, Link

LINK_TYPE = "application/vnd.purify-plugins.link+json"
DAY_TYPE = "urn:purify-plugins:day:1"


def logged_link(link: Link, digest: str) -> bytes:
    """What is signed of a certificate for a log: its place, and the digest of its statement."""
    return canonical({**asdict(link), "statement": digest}).encode()


def day_statement(chain: str, day: str, first: int, count: int, root: bytes) -> bytes:
    """What is signed of a day: the root over `count` certificates of a chain, from number `first`."""
    return canonical(
        {
            "_type": STATEMENT,
            "subject": [{"name": "merkle-root", "digest": {"sha256": root.hex()}}],
            "predicateType": DAY_TYPE,
            "predicate": {"chain": chain, "day": day, "first": first, "count": count},
        }
    ).encode()
