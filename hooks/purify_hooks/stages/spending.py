"""What each user's answers have cost since a moment (nats), in an SQLite file that processes share."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from uuid import uuid4

TABLE = """
CREATE TABLE IF NOT EXISTS charges (id TEXT PRIMARY KEY, user TEXT, at REAL, nats REAL, settled INTEGER);
CREATE INDEX IF NOT EXISTS of_user ON charges (user, at);
"""
KEPT = 62 * 86400.0
"""Seconds that a charge is kept: longer than the longest period."""
PATIENCE = 30.0
"""Seconds to wait for another process's write."""


@dataclass(frozen=True)
class Spending:
    """Charges in the file `path`. A connection lasts for one operation, so threads and forks share none.

    A charge is written before the answer that it is for, and set to what that cost afterwards: one that no
    process came back to, since it was killed, stays as it is.
    """

    path: str

    def prepare(self) -> None:
        """Create the file, unless it is there. Raises sqlite3.Error."""
        with self._open() as database:
            database.executescript(TABLE)

    def reserve(self, user: str, nats: float, most: float, since: float, now: float) -> str | None:
        """Charge a user `nats`; None, and nothing is charged, where that makes more than `most` since then.

        Returns the charge's id.
        """
        charge = uuid4().hex
        with self._open() as database:
            database.execute("BEGIN IMMEDIATE")  # no other process reads the sum before this charge is in it
            database.execute("DELETE FROM charges WHERE at < ?", (now - KEPT,))
            fits = self._sum(database, user, since) + nats <= most + 1e-9
            if fits:
                database.execute("INSERT INTO charges VALUES (?, ?, ?, ?, 0)", (charge, user, now, nats))
            database.execute("COMMIT")
        return charge if fits else None

    def settle(self, charge: str, nats: float) -> None:
        """Set a charge to what its answer has cost."""
        with self._open() as database:
            database.execute("UPDATE charges SET nats = ?, settled = 1 WHERE id = ?", (nats, charge))

    def spent(self, user: str, since: float) -> float:
        """What a user has been charged since a moment (nats)."""
        with self._open() as database:
            return self._sum(database, user, since)

    @staticmethod
    def _sum(database: sqlite3.Connection, user: str, since: float) -> float:
        query = "SELECT TOTAL(nats) FROM charges WHERE user = ? AND at >= ?"
        return float(database.execute(query, (user, since)).fetchone()[0])

    @contextmanager
    def _open(self) -> Iterator[sqlite3.Connection]:
        database = sqlite3.connect(self.path, timeout=PATIENCE, isolation_level=None)
        try:
            yield database
        finally:
            database.close()  # what was not committed is undone
