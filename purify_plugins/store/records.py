"""Where a store's records are kept: what each kind of place offers, and which one a text names."""

from __future__ import annotations

import hashlib
import shutil
from abc import ABC, abstractmethod
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from purify_plugins.certificates.pinning import as_sent
from purify_plugins.errors import StoreError
from purify_plugins.store.record import Entry, StoreRecord

WAIT = 2.0
"""The most seconds that a write waits for another process's."""
ROOM = 16 << 20
"""Bytes that must be free on the store's disk when an answer is begun: its end is too late to find none."""


@dataclass(frozen=True)
class Query:
    """Which records are wanted; None: any. Times are compared as texts, "2026-11-29" or with "T08:30:00Z"."""

    since: str | None = None
    until: str | None = None
    model: str | None = None
    policy: str | None = None
    guarantee: str | None = None
    tenant: str | None = None
    answers: Collection[str] | None = None
    digest: str | None = None
    """Of the certificate or of the answer."""

    def matches(self, record: StoreRecord) -> bool:
        """Whether it is the record of such an answer, whose content is still there."""
        if not record.certificate or record.content is None:
            return False
        facts = record.facts
        fields = {name: facts.get(name) for name in ("policy", "guarantee", "tenant")}
        return (
            all(vars(self)[name] in (None, value) for name, value in fields.items())
            and (self.since is None or facts["issued"] >= self.since)
            and (self.until is None or facts["issued"] < self.until)
            and (self.model is None or self.model in facts["models"].values())
            and (self.answers is None or facts["answer"] in self.answers)
            and (self.digest is None or self.digest in (record.certificate, facts["answer"]))
        )


class Records(ABC):
    """A store's records, in one place. Safe across threads and processes.

    Every method raises StoreError where the place cannot be read or written.
    """

    place: str
    """As `--store` names it."""
    chain: Path
    """The folder for the signed chain of each process that signs."""

    def require_room(self) -> None:
        """Raise StoreError where the disk is so full that answers might soon not be recorded."""
        try:
            free = shutil.disk_usage(self.chain.parent).free
        except OSError as error:
            raise StoreError(f"the store {self.place!r} cannot be reached: {error.strerror}") from error
        if free < ROOM:
            raise StoreError(
                f"the disk of the store {self.place!r} has {free >> 20} MiB left, and {ROOM >> 20} must be; "
                "make room there"
            )

    @abstractmethod
    def append(self, entries: Sequence[Entry]) -> list[StoreRecord]:
        """Append records, all or none."""

    @abstractmethod
    def records(self) -> Iterator[StoreRecord]:
        """Every record, in order."""

    @abstractmethod
    def drop(self, numbers: Sequence[int], event: Mapping[str, Any]) -> StoreRecord:
        """Append an event, and drop the content of these records; what is left of it is overwritten."""

    @abstractmethod
    def clean(self) -> None:
        """Overwrite what an earlier drop had to leave, because the store was being read."""

    def search(self, query: Query) -> Iterator[StoreRecord]:
        """The records of the answers that a query wants, in order."""
        return filter(query.matches, self.records())

    @abstractmethod
    def close(self) -> None:
        """Give back what is held open."""


def answer_digests(text: bytes) -> set[str]:
    """The SHA-256 of a text as it was sent, and as a program may have changed its end."""
    return {hashlib.sha256(each).hexdigest() for each in as_sent(text)}
