"""Whether a store is as it was written: its chain, what was dropped from it, and what a key has sealed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from purify_plugins.errors import CertificateError, StoreAlteredError
from purify_plugins.signing.envelope import envelope_of
from purify_plugins.signing.keys import PublicKey
from purify_plugins.signing.statement import FIRST
from purify_plugins.store.record import StoreRecord, dropped_runs, sha256_of
from purify_plugins.store.seal import SEAL_TYPE, seal
from purify_plugins.verifying.opening import require_signed


@dataclass
class CheckedStore:
    """What a whole store holds; `head` is the hash of its last record."""

    head: str = FIRST
    records: int = 0
    events: Counter[str] = field(default_factory=Counter)
    dropped: int = 0
    withheld: int = 0
    documents: int = 0
    sealed: int = 0
    """Records that a seal of the keys that were given is over, and that seal where it follows at once."""
    seals: list[str] = field(default_factory=list)
    """When each was made, by its signer's clock."""
    unsealed_drops: int = 0
    """Records dropped by an event that no seal is over: anybody who can write there can have done it."""
    unfinished: list[int] = field(default_factory=list)
    """Records that an event says were dropped, and that are still there: a drop was interrupted."""

    def take(self, record: StoreRecord) -> None:
        """Count the next record."""
        self.head, self.records = record.hash, self.records + 1
        self.events.update([record.event] if record.event else ())
        self.dropped += record.dropped is not None
        self.withheld += record.withheld
        self.documents += record.document is not None

    @property
    def answers(self) -> int:
        """Answers whose content is there."""
        return self.records - self.events.total() - self.dropped - self.withheld


def check(
    records: Iterable[StoreRecord],
    keys: Sequence[PublicKey] = (),
    head: str | None = None,
    partial: bool = False,
) -> CheckedStore:
    """Check every record in order. Raises StoreAlteredError for the first that is not as it was written.

    All of `keys` must have signed each seal. `head` is the hash of a record, noted before. `partial` allows
    what an export has withheld.
    """
    found, drops, hashes = CheckedStore(), Drops(), dict[int, str]()
    noted = head is None
    for each in records:
        try:
            _check_place(each, found)
            _check_content(each, partial)
            drops.take(each)
            if keys and each.event == "sealed":
                _check_seal(each, hashes, keys)
                # Another thread, or process, may have come between a record and the seal over it.
                over = int(each.facts["number"])
                found.sealed = max(found.sealed, over + 1 + (over + 1 == each.number))
                found.seals.append(str(each.facts["when"]))
            found.take(each)
        except (AttributeError, KeyError, TypeError, ValueError) as error:  # values of other kinds than ours
            raise StoreAlteredError(f"record {found.records} is no record of a store ({error})") from error
        noted = noted or found.head == head
        if keys:
            hashes[each.number] = found.head
    found.unfinished = drops.unfinished()
    if keys:
        found.unsealed_drops = sum(event >= found.sealed for event in drops.gone.values())
    if not noted:
        raise StoreAlteredError("no record has the hash that you noted: records were altered, or cut off")
    return found


class Drops:
    """The records whose content is gone, and the events that say so."""

    def __init__(self) -> None:
        self.gone: dict[int, int] = {}
        self.withheld: set[int] = set()
        self.runs: dict[int, list[tuple[int, int]]] = {}

    def take(self, record: StoreRecord) -> None:
        """Take the next record. Raises StoreAlteredError for an event that is none."""
        if record.dropped is not None:
            self.gone[record.number] = record.dropped
        if record.withheld:
            self.withheld.add(record.number)
        if record.event in ("erased", "expired"):
            try:
                self.runs[record.number] = dropped_runs(record)
            except (KeyError, TypeError, ValueError) as error:
                raise StoreAlteredError(f"record {record.number} is no event of a store ({error})") from error

    def unfinished(self) -> list[int]:
        """Records that an event has dropped, and that are there. Raises StoreAlteredError for the reverse."""
        for number, event in self.gone.items():
            if not any(first <= number <= last for first, last in self.runs.get(event, ())):
                raise StoreAlteredError(f"the content of record {number} is gone, and no event dropped it")
        told = (number for runs in self.runs.values() for run in runs for number in range(run[0], run[1] + 1))
        return sorted(set(told) - self.gone.keys() - self.withheld)


def _check_place(record: StoreRecord, found: CheckedStore) -> None:
    if record.number != found.records:
        raise StoreAlteredError(f"record {record.number} is where {found.records} must be: one was removed")
    if record.previous != found.head:
        raise StoreAlteredError(f"record {record.number} does not follow from the one before it")


def _check_content(record: StoreRecord, partial: bool) -> None:
    number = record.number
    if record.content is not None and sha256_of(record.content) != record.content_sha256:
        raise StoreAlteredError(f"record {number} has another content than its digest says")
    if record.content is None and record.dropped is None and not (partial and record.withheld):
        why = (
            "withheld; check an export with --partial" if record.withheld else "gone, and no event dropped it"
        )
        raise StoreAlteredError(f"the content of record {number} is {why}")
    if record.content is not None and (record.dropped is not None or record.withheld):
        raise StoreAlteredError(f"record {number} was dropped, and has a content")
    if record.document is None and record.facts.get("kept"):
        raise StoreAlteredError(f"the certificate that record {number} kept is gone, and no event dropped it")
    if record.document is not None and sha256_of(record.document) != record.facts.get("document"):
        raise StoreAlteredError(f"record {number} holds another certificate than its digest says")


def _check_seal(record: StoreRecord, hashes: Mapping[int, str], keys: Sequence[PublicKey]) -> None:
    facts = record.facts
    try:
        envelope = envelope_of(facts["envelope"])
        require_signed(envelope, keys)
    except (CertificateError, KeyError, ValueError) as error:
        raise StoreAlteredError(f"the seal in record {record.number} is not of that key: {error}") from error
    stated, known = seal(facts["number"], facts["hash"], facts["when"]), hashes.get(facts["number"])
    if (envelope.payload_type, envelope.payload) != (SEAL_TYPE, stated) or facts["hash"] != known:
        raise StoreAlteredError(
            f"the seal in record {record.number} is of other records than those before it"
        )
