"""Read the files of a chain: links from a log or from signed certificates in a directory; daily roots."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from purify_plugins.canonical_json import canonical
from purify_plugins.errors import CertificateError, ChainError, UnreadableError
from purify_plugins.signing.day import DAY_TYPE, LINK_TYPE
from purify_plugins.signing.envelope import Envelope, read_envelope
from purify_plugins.signing.keys import PublicKey
from purify_plugins.signing.statement import PAYLOAD_TYPE, Link, link_of, read_statement
from purify_plugins.utils.strict_json import loads
from purify_plugins.verifying.opening import signatures

MOST = 1 << 30
"""The most bytes of a log that are read."""
ENDINGS = (".json", ".jsonl")
ROOT = ".root.json"
LOGGED = re.compile(r"([0-9a-f]{32})\.links\.jsonl|\d{4}-\d\d-\d\d-([0-9a-f]{32})-\d+\.root\.json")
"""The names that `ChainLog` gives its files, with the chain in them."""


@dataclass(frozen=True)
class Place:
    """A link as a log or a certificate states it: `digest` is that of its statement."""

    link: Link
    digest: str


@dataclass(frozen=True)
class DayRoot:
    """A day's root as its file states it; `file` is where, `data` what it holds."""

    chain: str
    day: str
    first: int
    count: int
    root: str
    file: Path
    data: bytes


@dataclass(frozen=True)
class ChainFiles:
    """The links of one chain, in the order of their files, and its roots by their first number."""

    places: tuple[Place, ...]
    roots: tuple[DayRoot, ...]


def read_chain(place: Path, chain: str, keys: Sequence[PublicKey]) -> ChainFiles:
    """What the file or directory at `place` says of a chain. Raises ChainError, UnreadableError."""
    places: list[Place] = []
    roots: list[DayRoot] = []
    for file in _files(place, chain):
        data = _content(file)
        for number, line in enumerate(data.removesuffix(b"\n").split(b"\n"), 1):
            found = _read(line, file, number, keys)
            if isinstance(found, Place) and found.link.chain == chain:
                places.append(found)
            elif isinstance(found, DayRoot) and found.chain == chain:
                roots.append(found)
    if place.is_dir():  # where a log and the certificates of its answers may lie side by side, in any order
        once = {each.link.sequence: each for each in reversed(places)}
        _require_agreed(places, once)
        places = [once[at] for at in sorted(once)]
    return ChainFiles(tuple(places), tuple(sorted(roots, key=lambda each: each.first)))


def _require_agreed(places: Sequence[Place], once: dict[int, Place]) -> None:
    for each in places:
        if once[each.link.sequence] != each:
            raise ChainError(f"the chain has two certificates of number {each.link.sequence}")


def _files(place: Path, chain: str) -> list[Path]:
    """The files of a chain; those that are another's by their names may be signed by keys of its own."""
    if not place.is_dir():
        return [place]
    named = ((each, LOGGED.fullmatch(each.name)) for each in place.iterdir())
    return sorted(
        each
        for each, found in named
        if each.name.endswith(ENDINGS) and each.is_file() and (found is None or chain in found.groups())
    )


def _content(file: Path) -> bytes:
    try:
        if (size := file.stat().st_size) > MOST:
            raise UnreadableError(f"{file.name!r} has {size:,} bytes; give one chain's log")
        return file.read_bytes()
    except OSError as error:
        raise UnreadableError(f"cannot read the chain in {str(file)!r}: {error.strerror}") from error


def _read(line: bytes, file: Path, number: int, keys: Sequence[PublicKey]) -> Place | DayRoot | None:
    """What a line states; None: it is no part of a chain, as other JSON files in a directory are not."""
    where = f"line {number} of {file.name!r}"
    try:
        envelope = read_envelope(line)
    except CertificateError as error:
        if file.name.endswith((ROOT, ".jsonl")):
            raise ChainError(f"{where} is no link and no root of a chain: {error}") from error
        return None
    try:
        signatures(envelope, keys)
        _require_spelled(envelope, line)
        return _stated(envelope, file, line)
    except (CertificateError, KeyError, TypeError, ValueError) as error:
        raise ChainError(f"{where}: {error}") from error


def _require_spelled(envelope: Envelope, line: bytes) -> None:
    if envelope.text.encode() != line:
        raise ValueError("it is not as it was written")


def _stated(envelope: Envelope, file: Path, line: bytes) -> Place | DayRoot:
    if envelope.payload_type == LINK_TYPE:
        return _link(loads(envelope.payload.decode()))
    if envelope.payload_type == PAYLOAD_TYPE and file.name.endswith(ROOT):
        return _root(loads(envelope.payload.decode()), file, line)
    stated = read_statement(envelope.payload_type, envelope.payload)
    return Place(stated.link, hashlib.sha256(envelope.payload).hexdigest())


def _link(found: Any) -> Place:
    digest = found.pop("statement")
    if not isinstance(digest, str) or not re.fullmatch("[0-9a-f]{64}", digest):
        raise ValueError("the digest of its statement is none")
    return Place(link_of(found), digest)


def _root(found: Any, file: Path, line: bytes) -> DayRoot:
    from purify_plugins.signing.day import day_statement

    told, subject = found["predicate"], found["subject"][0]
    root = DayRoot(
        **{key: told[key] for key in ("chain", "day", "first", "count")},
        root=subject["digest"]["sha256"],
        file=file,
        data=line,
    )
    if type(root.first) is not int or type(root.count) is not int or found["predicateType"] != DAY_TYPE:
        raise ValueError("it is no root of a day")
    stated = day_statement(root.chain, root.day, root.first, root.count, bytes.fromhex(root.root))
    if canonical(found).encode() != stated:
        raise ValueError("it is not as a day's root is stated")
    return root
