"""Whether a certificate stands in its issuer's chain, and the chain is whole."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise
from pathlib import Path

from purify_plugins.errors import ChainError, UncheckableError
from purify_plugins.signing.chain import merkle_root
from purify_plugins.signing.keys import PublicKey
from purify_plugins.signing.statement import FIRST, Link, Statement
from purify_plugins.verifying.chain_files import ChainFiles, DayRoot, Place, read_chain


def check_chain(
    stated: Statement, place: Path, keys: Sequence[PublicKey], authorities: bytes | None = None
) -> list[str]:
    """What the chain at `place` says of a certificate, in sentences.

    `authorities` are the certificates (PEM) of time-stamp authorities that are trusted. Raises ChainError,
    UncheckableError where a time-stamp was to be checked and there is none.
    """
    link = stated.link
    found = read_chain(place, link.chain, keys)
    _check_links(found.places, link)
    mine = found.places[link.sequence] if link.sequence < len(found.places) else None
    if mine != Place(link, stated.digest):
        raise ChainError(f"the chain's number {link.sequence} is not this certificate")
    for root in found.roots:
        _check_root(root, found.places)
    return [*_told(found, link), *_dated(found, link, authorities)]


def _check_links(places: Sequence[Place], link: Link) -> None:
    """Every number is there, once and in order, and each link names the one before."""
    if not places:
        raise ChainError(f"there is nothing of its chain {link.chain[:16]}… there")
    for at, each in enumerate(places):
        if each.link.sequence != at:
            raise ChainError(
                f"the chain has number {each.link.sequence} where {at} must be: one was dropped or moved"
            )
    if places[0].link.previous != FIRST:
        raise ChainError("the chain's number 0 names one before it")
    for before, after in pairwise(places):
        if after.link.previous != before.digest:
            raise ChainError(
                f"the chain's number {after.link.sequence} does not follow from the one before it"
            )


def _check_root(root: DayRoot, places: Sequence[Place]) -> None:
    covered = places[root.first : root.first + root.count]
    if root.first < 0 or len(covered) != root.count or root.count < 1:
        raise ChainError(f"the root of {root.day} covers certificates that the chain lacks")
    if any(each.link.issued[:10] != root.day for each in covered):
        raise ChainError(f"the root of {root.day} covers certificates of another day")
    if merkle_root([bytes.fromhex(each.digest) for each in covered]).hex() != root.root:
        raise ChainError(f"the root of {root.day} is not that of its certificates")


def _told(found: ChainFiles, link: Link) -> Iterator[str]:
    count = len(found.places)
    yield (
        f"Chain: number {link.sequence} of {count} that one process of its issuer's signed; none before or "
        "between them is missing, and their order is as it was. What came after the last of them is not seen."
    )
    covered = sum(each.count for each in found.roots)
    if found.roots:
        yield f"Daily roots: {len(found.roots)}, over {covered} of the {count}, each right."


def _dated(found: ChainFiles, link: Link, authorities: bytes | None) -> Iterator[str]:
    """When an authority saw the day's root."""
    roots = [each for each in found.roots if each.first <= link.sequence < each.first + each.count]
    stamps = [(each, each.file.with_suffix(".tsr")) for each in roots]
    stamps = [(root, file) for root, file in stamps if file.is_file()]
    if authorities is None:
        if stamps:
            yield "Time-stamp: there is one; give --tsa FILE, the authority's certificates, to check it."
        return
    if not stamps:
        raise UncheckableError("there is no time-stamp of the day that this certificate is of")
    from purify_plugins.signing.timestamps import stamped

    root, file = stamps[0]
    time = stamped(file.read_bytes(), root.data, authorities)
    yield f"Time-stamp: its day's root is from before {time:%Y-%m-%d %H:%M:%S} UTC, by an authority you gave."
