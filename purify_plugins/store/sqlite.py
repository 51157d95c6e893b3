"""Records in an SQLite file: written by any number of processes, append-only by its triggers."""

from __future__ import annotations

import logging
import os
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from purify_plugins.errors import ConfigError, StoreError
from purify_plugins.store.record import Entry, StoreRecord, after
from purify_plugins.store.records import WAIT, Query, Records
from purify_plugins.utils.locks import ForkedLock

logger = logging.getLogger("purify.store")
APPLICATION = 0x50757266
"""What marks a file as a store ("Purf" in its header)."""
SCHEMA = f"""
CREATE TABLE record (
    number INTEGER PRIMARY KEY, previous TEXT NOT NULL, certificate TEXT NOT NULL,
    content_sha256 TEXT NOT NULL, content TEXT, document TEXT, dropped INTEGER
);
CREATE INDEX by_certificate ON record (certificate) WHERE certificate <> '';
CREATE INDEX by_answer ON record (json_extract(content, '$.answer')) WHERE content IS NOT NULL;
CREATE INDEX by_issued ON record (json_extract(content, '$.issued')) WHERE content IS NOT NULL;
CREATE TRIGGER append_only BEFORE INSERT ON record
WHEN NEW.number <> (SELECT coalesce(max(number), -1) + 1 FROM record) OR NEW.content IS NULL
BEGIN SELECT raise(ABORT, 'records are appended'); END;
CREATE TRIGGER never_deleted BEFORE DELETE ON record
BEGIN SELECT raise(ABORT, 'a record is never deleted'); END;
CREATE TRIGGER never_changed BEFORE UPDATE ON record
WHEN NOT (
    OLD.certificate <> '' AND OLD.content IS NOT NULL AND NEW.content IS NULL AND NEW.document IS NULL
    AND NEW.dropped = (SELECT max(number) FROM record)
    AND NEW.number = OLD.number AND NEW.previous = OLD.previous AND NEW.certificate = OLD.certificate
    AND NEW.content_sha256 = OLD.content_sha256
)
BEGIN SELECT raise(ABORT, 'a record is only ever dropped, by the event that was appended last'); END;
PRAGMA application_id = {APPLICATION};
PRAGMA user_version = 1;
"""
COLUMNS = "number, previous, certificate, content_sha256, content, document, dropped"


class SqliteRecords(Records):
    """Records in a file of SQLite's, with a write-ahead log beside it.

    A process that is killed loses the record that it was writing, at most; so does a machine that loses its
    power, but for the last records before it, which may not have reached the disk.
    """

    def __init__(self, file: Path, new: bool = True) -> None:
        self.place, self.chain = f"sqlite:{file}", file.with_name(f"{file.name}.chain")
        self.file, self._lock = file, ForkedLock()
        self._connection: sqlite3.Connection | None = None
        self._parents: list[sqlite3.Connection | None] = []
        self._found: tuple[int, int] | None = None
        self._process = os.getpid()
        if not new and not file.is_file():
            raise ConfigError(f"there is no store {self.place!r}; check the path")
        if not file.absolute().parent.is_dir():
            raise ConfigError(f"there is no directory for the store {self.place!r}; create it first")
        with self._open(new) as connection:
            self._require_ours(connection, new)

    def _require_ours(self, connection: sqlite3.Connection, new: bool) -> None:
        connection.execute("PRAGMA journal_mode = WAL")
        with _transaction(connection):
            mark = connection.execute("PRAGMA application_id").fetchone()[0]
            empty = not connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]
            if empty and new:
                for statement in _statements(SCHEMA):
                    connection.execute(statement)
            elif empty or mark != APPLICATION:
                raise ConfigError(f"{str(self.file)!r} is a database, but no store; name another file")

    @contextmanager
    def _open(self, new: bool = False) -> Iterator[sqlite3.Connection]:
        """The connection, held by one thread. Raises StoreError."""
        if not self._lock.acquire(timeout=WAIT):
            raise StoreError(f"the store {self.place!r} is being written to for {WAIT:g} s; try again")
        try:
            if self._process != os.getpid():  # a connection must not be used in a forked process
                self._parents.append(self._connection)  # not closed: a thread may have been in it
                self._connection, self._process = None, os.getpid()
            if self._connection is None:
                self._connection = _connected(self.file, new)
                self._found = _identity(self.file)
            self._require_there()
            yield self._connection
        except sqlite3.Error as error:
            raise self._failed(error) from error
        finally:
            self._lock.release()

    def _require_there(self) -> None:
        """Raise StoreError where another file, or none, has the name: records would be lost to its readers.

        The connection stays: SQLite names the log beside the file by its name, so that closing it could take
        away the log of a file that was put there.
        """
        if self._found != _identity(self.file):
            raise StoreError(
                f"the file of the store {self.place!r} was moved or replaced while it was in use: put it "
                "back, or restart this process"
            )

    def _failed(self, error: sqlite3.Error) -> StoreError:
        return StoreError(f"the store {self.place!r} cannot be used: {error}; {_advice(str(error))}")

    def append(self, entries: Sequence[Entry]) -> list[StoreRecord]:
        with self._open() as connection, _transaction(connection):
            return _insert(connection, entries)

    def records(self) -> Iterator[StoreRecord]:
        return self._selected("SELECT {} FROM record ORDER BY number", ())

    def search(self, query: Query) -> Iterator[StoreRecord]:
        where = ["content IS NOT NULL"]
        given: list[str] = []
        for value, test in (
            (query.since, "json_extract(content, '$.issued') >= ?"),
            (query.until, "json_extract(content, '$.issued') < ?"),
        ):
            if value is not None:
                where.append(test)
                given.append(value)
        if query.digest is not None:
            where.append("(certificate = ? OR json_extract(content, '$.answer') = ?)")
            given += [query.digest] * 2
        if query.answers is not None:
            marks = ", ".join("?" * len(query.answers))
            where.append(f"json_extract(content, '$.answer') IN ({marks})")
            given += sorted(query.answers)
        asked = "SELECT {} FROM record WHERE " + " AND ".join(where) + " ORDER BY number"
        return filter(query.matches, self._selected(asked, given))

    def _selected(self, asked: str, given: Sequence[str]) -> Iterator[StoreRecord]:
        """The rows of a query, by a connection of its own, so that no writer waits for its reader."""
        try:
            connection = _connected(self.file)
            try:
                for row in connection.execute(asked.format(COLUMNS), given):
                    yield StoreRecord(*row)
            finally:
                connection.close()
        except sqlite3.Error as error:
            raise self._failed(error) from error

    def drop(self, numbers: Sequence[int], event: Mapping[str, Any]) -> StoreRecord:
        with self._open() as connection, _transaction(connection):
            [made] = _insert(connection, [Entry("", event)])
            for number in numbers:
                connection.execute(
                    "UPDATE record SET content = NULL, document = NULL, dropped = ? "
                    "WHERE number = ? AND content IS NOT NULL",
                    (made.number, number),
                )
        self.clean()
        return made

    def clean(self) -> None:
        """Empty the log beside the file, which has what was dropped too; other writers wait meanwhile."""
        with self._open() as connection:
            connection.execute(f"PRAGMA busy_timeout = {int(WAIT * 250)}")
            try:
                [busy, *_] = connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
            finally:
                connection.execute(f"PRAGMA busy_timeout = {int(WAIT * 1000)}")
        if busy:
            logger.warning(
                "what was dropped is still in %s-wal, since somebody reads the store: drop it again once "
                "nobody does",
                self.file,
            )

    def close(self) -> None:
        with self._lock:
            if self._connection is not None:
                self._connection.close()
            self._connection = None


def _connected(file: Path, new: bool = False) -> sqlite3.Connection:
    """A connection to the file; it is made only if it is `new`, so that one that was moved is not missed."""
    place = f"{file.absolute().as_uri()}?mode={'rwc' if new else 'rw'}"
    found = sqlite3.connect(place, timeout=WAIT, isolation_level=None, check_same_thread=False, uri=True)
    found.execute("PRAGMA synchronous = NORMAL")  # a commit waits for no disk
    found.execute("PRAGMA secure_delete = ON")
    return found


def _identity(file: Path) -> tuple[int, int] | None:
    """Which file has that name now; None: none has."""
    try:
        found = file.stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino


@contextmanager
def _transaction(connection: sqlite3.Connection) -> Iterator[None]:
    """A transaction that no other writer's can come into."""
    try:
        connection.execute("BEGIN IMMEDIATE")  # inside: Ctrl-C may come as it returns, after a wait
        yield
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise


def _insert(connection: sqlite3.Connection, entries: Sequence[Entry]) -> list[StoreRecord]:
    row = connection.execute(f"SELECT {COLUMNS} FROM record ORDER BY number DESC LIMIT 1").fetchone()
    made = after(None if row is None else StoreRecord(*row), entries)
    for each in made:
        values = (each.number, each.previous, each.certificate, each.content_sha256, each.content)
        connection.execute(
            f"INSERT INTO record ({COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, NULL)", (*values, each.document)
        )
    return made


def _statements(script: str) -> Iterator[str]:
    """The statements of a script, one by one: `executescript` would commit."""
    statement = ""
    for line in script.splitlines(keepends=True):
        statement += line
        if sqlite3.complete_statement(statement):
            yield statement
            statement = ""


def _advice(said: str) -> str:
    """What to do about SQLite's message."""
    if "locked" in said:
        return f"another program holds it for more than {WAIT:g} s: end that one"
    if "full" in said:
        return "make room on its disk"
    if "readonly" in said or "unable to open" in said:
        return "check that it is there, and that this process may write it and its directory"
    if "not a database" in said:
        return "it is no store: name another file"
    return "keep the file as it is, and put back a copy"
