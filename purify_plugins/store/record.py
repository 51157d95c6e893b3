"""What a store has: records in a hash chain, of answers and of events such as an erasure."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

from purify_plugins.canonical_json import canonical
from purify_plugins.errors import StoreAlteredError
from purify_plugins.signing.statement import FIRST
from purify_plugins.utils.strict_json import loads


class Entry(NamedTuple):
    """What is to be recorded: the certificate's digest ("" of an event), the content, the certificate."""

    certificate: str
    content: Mapping[str, Any]
    document: str | None = None


@dataclass(frozen=True)
class StoreRecord:
    """A place in a store's chain.

    `content` is canonical JSON, None where it was dropped, by the event of number `dropped`, or `withheld`
    from an export; its SHA-256 stays, and so does the `certificate`'s digest. `document` is the certificate
    as it was handed out, where those are kept. `previous` is the hash of the record before.
    """

    number: int
    previous: str
    certificate: str
    content_sha256: str
    content: str | None
    document: str | None = None
    dropped: int | None = None
    withheld: bool = False

    @property
    def hash(self) -> str:
        """SHA-256 over what stays of the record for ever."""
        kept = ("number", "previous", "certificate", "content_sha256")
        return sha256_of(canonical({name: vars(self)[name] for name in kept}))

    @property
    def facts(self) -> dict[str, Any]:
        """The parsed content; empty where it is gone."""
        found: dict[str, Any] = {} if self.content is None else loads(self.content)
        return found

    @property
    def event(self) -> str:
        """Which event it records; "": an answer, or one that was dropped."""
        return "" if self.certificate else str(self.facts.get("event", ""))

    @property
    def told(self) -> dict[str, Any]:
        """The record as JSON values, for a line of a file and for a reader."""
        body = {"content": None if self.content is None else self.facts, "number": self.number}
        body |= {name: vars(self)[name] for name in ("previous", "certificate", "content_sha256")}
        optional = {"document": self.document, "dropped": self.dropped, "withheld": self.withheld or None}
        return {**body, **{name: value for name, value in optional.items() if value is not None}}

    def without_content(self, dropped: int | None = None) -> StoreRecord:
        """What stays of it: dropped by an event, or else withheld."""
        return replace(self, content=None, document=None, dropped=dropped, withheld=dropped is None)


def after(head: StoreRecord | None, entries: Sequence[Entry]) -> list[StoreRecord]:
    """The records of new entries, which follow `head`, the last one there is."""
    found: list[StoreRecord] = []
    for entry in entries:
        content, last = canonical(entry.content), found[-1] if found else head
        number, previous = (0, FIRST) if last is None else (last.number + 1, last.hash)
        place = number, previous, entry.certificate, sha256_of(content)
        found.append(StoreRecord(*place, content, entry.document))
    return found


def record_of(line: bytes, where: str) -> StoreRecord:
    """The record of a line of a file. Raises StoreAlteredError."""
    try:
        told = loads(line.decode())
        content = told.pop("content")
        found = StoreRecord(content=None if content is None else canonical(content), **told)
        if canonical(found.told).encode() != line:
            raise ValueError("it is not as it was written")
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise StoreAlteredError(f"{where} is no record of a store ({error})") from error
    return found


def ranges(numbers: Iterable[int]) -> list[list[int]]:
    """Numbers as the runs they form: 1, 2, 3, 7 are [[1, 3], [7, 7]]."""
    found: list[list[int]] = []
    for number in sorted(numbers):
        if found and found[-1][1] == number - 1:
            found[-1][1] = number
        else:
            found.append([number, number])
    return found


def dropped_runs(event: StoreRecord) -> list[tuple[int, int]]:
    """The runs of numbers whose records an event has dropped. Raises ValueError, KeyError or TypeError."""
    found = [(int(first), int(last)) for first, last in event.facts["numbers"]]
    if not all(0 <= first <= last < event.number for first, last in found):
        raise ValueError("it drops what is not before it")
    return found


def sha256_of(text: str) -> str:
    """SHA-256 of a text's bytes, as hexadecimal digits."""
    return hashlib.sha256(text.encode()).hexdigest()
