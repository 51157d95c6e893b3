"""Records in a directory: a file of JSON lines for each day, for file systems that SQLite cannot use."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from purify_plugins.canonical_json import canonical
from purify_plugins.errors import ConfigError, StoreAlteredError, StoreError
from purify_plugins.store.record import Entry, StoreRecord, after, record_of
from purify_plugins.store.records import WAIT, Query, Records
from purify_plugins.utils.files import make_folder, write_whole
from purify_plugins.utils.locks import ForkedLock

DAY = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}\.jsonl")
BLOCK = 1 << 16
Version = tuple[int, int, int]
"""Tells a file that was written to since: its inode, size and time."""


class FolderRecords(Records):
    """Records as lines of `DAY.jsonl`, appended under a lock that all processes of the machine share.

    A process that is killed while it writes leaves a part of a line, which the next one cuts off.
    """

    def __init__(self, folder: Path, new: bool = True) -> None:
        try:
            import fcntl
        except ImportError as error:
            raise ConfigError("a store in a directory needs POSIX's locks; use 'sqlite:FILE' here") from error
        self.place, self.chain, self.folder = str(folder), folder / "chain", folder
        self._lock, self._flock = ForkedLock(), fcntl.flock
        self._shared, self._unlocked = fcntl.LOCK_EX | fcntl.LOCK_NB, fcntl.LOCK_UN
        self._head: tuple[Path, Version, StoreRecord] | None = None
        if new:
            make_folder(folder)
        elif not folder.is_dir():
            raise ConfigError(f"there is no store {str(folder)!r}; check the path")

    @contextmanager
    def _held(self) -> Iterator[None]:
        """The lock, for at most WAIT seconds of waiting. Raises StoreError, for what fails inside too."""
        until = time.monotonic() + WAIT
        if not self._lock.acquire(timeout=WAIT):
            raise StoreError(self._busy)
        try:
            with open(self.folder / ".lock", "ab") as file:
                while not self._take(file.fileno()):
                    if time.monotonic() > until:
                        raise StoreError(self._busy)
                    time.sleep(0.002)
                try:
                    yield
                finally:
                    self._flock(file.fileno(), self._unlocked)  # else a process forked meanwhile holds it on
        except OSError as error:
            raise StoreError(
                f"the store {self.place!r} cannot be written: {error.strerror}; make room there, "
                "or let this process write to it"
            ) from error
        finally:
            self._lock.release()

    def _take(self, file: int) -> bool:
        try:
            self._flock(file, self._shared)
        except BlockingIOError:
            return False
        return True

    @property
    def _busy(self) -> str:
        return f"the store {self.place!r} is held by another process for more than {WAIT:g} s; end that one"

    def append(self, entries: Sequence[Entry]) -> list[StoreRecord]:
        with self._held():
            return self._append(entries)

    def _append(self, entries: Sequence[Entry]) -> list[StoreRecord]:
        head = self._last()
        made = after(head, entries)
        today = self.folder / f"{datetime.now(UTC):%Y-%m-%d}.jsonl"
        file = max([today, *self._files()[-1:]], key=lambda each: each.name)  # a clock may be put back
        opened = os.open(file, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o640)
        try:
            _write(opened, b"".join(map(_line, made)))
            self._head = file, _version(os.fstat(opened)), made[-1]
        finally:
            os.close(opened)
        return made

    def _last(self) -> StoreRecord | None:
        """The last record; a part of a line after it is cut off."""
        for file in reversed(self._files()):
            found = file.stat()
            if self._head is not None and self._head[:2] == (file, _version(found)):
                return self._head[2]
            line, whole = _last_line(file, found.st_size)
            if whole < found.st_size:
                os.truncate(file, whole)
            if line:
                return record_of(line, f"the last line of {file.name!r}")
        return None

    def _files(self) -> list[Path]:
        return sorted(each for each in self.folder.iterdir() if DAY.fullmatch(each.name))

    def records(self) -> Iterator[StoreRecord]:
        if not self.folder.is_dir():
            raise StoreError(f"there is no store {self.place!r}")
        try:
            files = self._files()
            for file in files:
                yield from _read(file, last=file == files[-1])
        except OSError as error:
            raise StoreError(f"the store {self.place!r} cannot be read: {error.strerror}") from error

    def drop(self, numbers: Sequence[int], event: Mapping[str, Any]) -> StoreRecord:
        with self._held():
            [made] = self._append([Entry("", event)])  # first, so that no content is gone without it
            gone = set(numbers)
            for file in self._files():
                found = list(_read(file, last=True))
                if gone.isdisjoint(each.number for each in found):
                    continue
                kept = [
                    each.without_content(made.number) if each.number in gone and each.content else each
                    for each in found
                ]
                write_whole(file, b"".join(map(_line, kept)))
            self._head = None
        return made

    def clean(self) -> None:
        """No drop leaves anything in a file."""

    def close(self) -> None:
        """Nothing is held open."""


def _line(record: StoreRecord) -> bytes:
    return f"{canonical(record.told)}\n".encode()


def _version(found: os.stat_result) -> Version:
    return found.st_ino, found.st_size, found.st_mtime_ns


def _write(file: int, data: bytes) -> None:
    """Append all of the bytes, or none that stay."""
    rest, size = data, os.fstat(file).st_size
    try:
        while rest:
            rest = rest[os.write(file, rest) :]
    except OSError:
        if len(rest) < len(data):
            os.ftruncate(file, size)
        raise


def _last_line(file: Path, size: int) -> tuple[bytes, int]:
    """The last whole line of a file, and where it ends."""
    with file.open("rb") as opened:
        found, at = b"", size
        while at > 0 and found.rstrip(b"\n").count(b"\n") < 2:
            at = max(at - BLOCK, 0)
            opened.seek(at)
            found = opened.read(size - at)
    whole = found[: found.rfind(b"\n") + 1]
    return whole.removesuffix(b"\n").rpartition(b"\n")[2], at + len(whole)


def _read(file: Path, last: bool) -> Iterator[StoreRecord]:
    """The records of a file; of the last one, a part of a line at its end is one that is being written."""
    with file.open("rb") as opened:
        for number, line in enumerate(opened, 1):
            if line.endswith(b"\n"):
                yield record_of(line[:-1], f"line {number} of {file.name!r}")
            elif not last:
                raise StoreAlteredError(f"line {number} of {file.name!r} was cut off")


def exported(records: Iterable[StoreRecord], query: Query) -> tuple[bytes, int]:
    """The lines of a store, without the content of answers that a query does not want; how many it wants."""
    lines, shown = [], 0
    for each in records:
        wanted = query.matches(each)
        shown += wanted
        told = each.event or each.dropped is not None or each.withheld
        lines.append(_line(each if wanted or told else each.without_content()))
    return b"".join(lines), shown
