"""`CertificateStore`: records each certificate that is handed out, and drops records that are old enough."""

from __future__ import annotations

import atexit
import logging
import os
import time
from collections.abc import Mapping
from copy import copy
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from threading import Thread
from typing import TYPE_CHECKING, Any, get_args

from purify_plugins.certificates.calibration_record import digest_of
from purify_plugins.errors import ConfigError, StoreError
from purify_plugins.signing.chain import now
from purify_plugins.store.record import Entry, ranges, sha256_of
from purify_plugins.store.records import Query
from purify_plugins.store.seal import SEAL_TYPE, seal
from purify_plugins.types import Keep, OnError
from purify_plugins.utils.locks import ForkedLock
from purify_plugins.utils.strict_json import loads

if TYPE_CHECKING:
    from purify_plugins.signing.signer import Signer
    from purify_plugins.store.record import StoreRecord
    from purify_plugins.store.records import Records
    from purify_plugins.types import Certificate

logger = logging.getLogger("purify.store")
SLOW = 0.1
"""Seconds from which on an answer that had to wait for its record is logged."""
QUIET = 30
"""Days without an answer after which the clock is doubted, and nothing is dropped without being asked."""
AT_ONCE = 1000
"""Records dropped in one transaction, so that answers can be recorded between two."""


@dataclass
class Trouble:
    """Answers that could not be recorded since `since`, which the next record tells."""

    answers: int = 0
    since: str = ""
    total: int = 0
    """Of this process, since it began."""


@dataclass
class _State:
    """What the views of a store for several tenants share."""

    trouble: Trouble = field(default_factory=Trouble)
    lock: ForkedLock = field(default_factory=lambda: ForkedLock(reentrant=True))
    """An abandoned answer comes to it by the garbage collector, wherever this thread is."""
    day: str = ""
    last: StoreRecord | None = None
    """The last record of this process that no seal is over."""


class CertificateStore:
    """Records answers' certificates; `tenant` is whose they are.

    `keep` "digests" keeps what identifies no text, "certificates" the certificate as it was handed out too.
    `retention` are the days after which a record's content is dropped; None: never. `on_error` says what
    becomes of an answer that cannot be recorded: "refuse" raises StoreError, "warn" logs a warning; either
    way the next record tells how many there were. With a `signer` its keys seal the first record of each
    day and the last one of the process. Raises ConfigError for wrong options.
    """

    def __init__(
        self,
        records: Records,
        *,
        keep: Keep = "digests",
        retention: int | None = None,
        on_error: OnError = "refuse",
        signer: Signer | None = None,
    ) -> None:
        for name, value, known in (("keep", keep, get_args(Keep)), ("on_error", on_error, get_args(OnError))):
            if value not in known:
                raise ConfigError(f"{name} must be {' or '.join(map(repr, known))}, not {value!r}")
        if retention is not None and retention < 1:
            raise ConfigError(f"retention must be 1 day or more, not {retention}")
        self.records, self.keep, self.retention, self.on_error = records, keep, retention, on_error
        self.tenant, self._signer, self._state = "", signer, _State()
        if signer is not None:
            atexit.register(self.close)

    def of(self, tenant: str) -> CertificateStore:
        """This store, for the answers of a tenant."""
        found = copy(self)
        found.tenant = tenant
        return found

    @property
    def unrecorded(self) -> int:
        """Answers of this process that could not be recorded."""
        return self._state.trouble.total

    def require_ready(self) -> None:
        """Raise StoreError, before an answer is begun, where there is no room, or the last had no record."""
        if self.on_error == "warn":
            return
        self.records.require_room()
        if self._state.trouble.answers:
            self._append([])  # that one's loss, which shows that there can be records again

    def add(self, certificate: Certificate) -> None:
        """Record a certificate that is handed out. Raises StoreError where `on_error` is "refuse"."""
        begun = time.perf_counter()
        try:
            self._append([entry(certificate, self.tenant, self.keep)])
        except StoreError as error:
            self._failed()
            if self.on_error == "refuse":
                raise
            logger.warning("an answer was handed out without a record: %s", error)
        if (seconds := time.perf_counter() - begun) > SLOW:
            logger.warning("an answer waited %.1f s for its record in %s", seconds, self.records.place)
        self._daily()

    def unfinished(self, released: int) -> None:
        """Record that so many bytes were released of an answer that has no certificate: it ended before."""
        try:
            self._append([event("unfinished", bytes=released, tenant=self.tenant)])
        except StoreError as error:  # its reader has gone, or has another error: none is raised over it
            self._failed()
            logger.warning("an answer that ended early has no record: %s", error)

    def _append(self, entries: list[Entry]) -> None:
        """Append entries, after an event for the answers that could not be recorded before."""
        state = self._state
        with state.lock:
            lost, state.trouble.answers = state.trouble.answers, 0
        told = {"answers": lost, "on_error": self.on_error, "since": state.trouble.since}
        try:
            made = self.records.append([*([event("unrecorded", **told)] if lost else []), *entries])
        except BaseException:
            with state.lock:
                state.trouble.answers += lost
            raise
        for last in made[-1:]:
            with state.lock:  # another thread may have told of a later one by now; a new store begins at 0
                if state.last is None or last.number > state.last.number or not made[0].number:
                    state.last = last

    def _failed(self) -> None:
        with self._state.lock:
            trouble = self._state.trouble
            trouble.since = trouble.since if trouble.answers else now()
            trouble.answers += 1
            trouble.total += 1

    def _daily(self) -> None:
        """Once a day, seal the store, and drop on another thread what is older than the retention."""
        today = now()[:10]
        with self._state.lock:
            due, self._state.day = self._state.day != today, today
        if due:
            self._seal()
        if due and self.retention is not None:
            Thread(target=self._drop_old, daemon=True, name="purify-retention").start()

    def _seal(self) -> None:
        """Sign the hash of the last record, where there are keys."""
        with self._state.lock:
            last, self._state.last = self._state.last, None
        if self._signer is None or last is None:
            return
        when = now()
        envelope = self._signer.envelope(SEAL_TYPE, seal(last.number, last.hash, when))
        told = {"number": last.number, "hash": last.hash, "when": when, "envelope": loads(envelope.text)}
        try:
            self.records.append([event("sealed", **told)])
        except StoreError as error:
            logger.warning("%s was not sealed: %s", self.records.place, error)

    def close(self) -> None:
        """Seal what no seal is over."""
        self._seal()

    def _drop_old(self) -> None:
        assert self.retention is not None
        try:
            if self._silent():
                logger.warning(
                    "nothing was dropped: %s has no answer of the %d days before today, so the clock may be "
                    "wrong; if it is right, `purify store expire` drops what is old",
                    self.records.place,
                    QUIET,
                )
            else:
                expire(self.records, self.retention)
        except StoreError as error:
            logger.warning("what is older than %d days was not dropped: %s", self.retention, error)

    def _silent(self) -> bool:
        """Whether there are answers, but none of the last days before today."""
        today = datetime.now(UTC)
        since, until = f"{today - timedelta(days=QUIET):%Y-%m-%d}", f"{today:%Y-%m-%d}"
        recent = any(True for _ in self.records.search(Query(since=since, until=until)))
        return not recent and any(True for _ in self.records.search(Query(until=until)))


def entry(certificate: Certificate, tenant: str = "", keep: Keep = "digests") -> Entry:
    """What is recorded of a certificate: nothing that identifies a text, but for a short one that is guessed.

    The `salt` is for the time after the content was dropped: without it a guess at the content could be tried
    by the digest that stays.
    """
    body, decoded, claim = certificate.body, certificate.decoded, certificate.claim
    method, models = decoded["method"], decoded["models"]
    content = {
        "issued": now(),
        "answer": body["answer"]["sha256"],
        "document": sha256_of(certificate.issued),
        "signed": bool(certificate.envelope),
        "kept": keep == "certificates",
        "models": {side: digest_of(told) for side, told in models.items()},
        "policy": method["policy"],
        "guarantee": claim["guarantee"],
        "adversary": claim["adversary"],
        "log_ratio": body["ledger"]["spent"] if certificate.staged else body["totals"]["log_ratio"],
        "tokens": body["totals"]["tokens"],
        "tenant": tenant,
        "salt": os.urandom(16).hex(),
    }
    return Entry(certificate.digest, content, certificate.issued if keep == "certificates" else None)


def event(kind: str, **told: Any) -> Entry:
    """What is recorded of an event of the store."""
    return Entry("", {"event": kind, "when": now(), **told})


def erase(records: Records, digest: str, why: str) -> int:
    """Drop what is recorded of a certificate, or of each answer of that text; how many. Raises StoreError."""
    return _dropped(records, Query(digest=digest), "erased", {"why": why})


def expire(records: Records, days: int) -> int:
    """Drop what was issued more than so many days ago; how many. Raises StoreError."""
    until = (datetime.now(UTC) - timedelta(days=days)).strftime("%Y-%m-%dT%H:%M:%SZ")
    return _dropped(records, Query(until=until), "expired", {"why": f"retention of {days} days"})


def _dropped(records: Records, query: Query, kind: str, told: Mapping[str, Any]) -> int:
    numbers = [each.number for each in records.search(query)]
    for at in range(0, len(numbers), AT_ONCE):
        some = numbers[at : at + AT_ONCE]
        records.drop(some, event(kind, numbers=ranges(some), **told).content)
    if not numbers:
        records.clean()
    return len(numbers)
