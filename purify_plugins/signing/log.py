"""The log of a chain: a line for each certificate, digests only, and a signed root for each day.

`CHAIN.links.jsonl` has the links, each line an envelope; `DAY-CHAIN-FIRST.root.json` a day's root; `.tsr`
beside it is the time-stamp of that file.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from pathlib import Path
from threading import Thread

from purify_plugins.errors import ConfigError, PurifyError
from purify_plugins.signing.chain import merkle_root
from purify_plugins.signing.day import LINK_TYPE, day_statement, logged_link
from purify_plugins.signing.envelope import Envelope
from purify_plugins.signing.statement import PAYLOAD_TYPE, Link
from purify_plugins.utils.files import make_folder, write_whole

logger = logging.getLogger("purify.log")
Sign = Callable[[str, bytes], Envelope]


class ChainLog:
    """The files of one process's chain; not safe across threads by itself."""

    def __init__(self, folder: Path, sign: Sign, timestamp: str | None = None) -> None:
        make_folder(folder)
        if timestamp is not None:
            from purify_plugins.signing.timestamps import require_url

            require_url(timestamp)
        self._folder, self._sign, self._timestamp = folder, sign, timestamp
        self._open: list[tuple[Link, str]] = []
        self._process = os.getpid()
        self._threads: list[Thread] = []

    def add(self, link: Link, digest: str) -> None:
        """Log a certificate; the day before is closed first. Raises ConfigError."""
        self._forget_parent()
        if self._open and (self._open[-1][0].chain, _day(self._open[-1][0])) != (link.chain, _day(link)):
            self._close()
        line = self._sign(LINK_TYPE, logged_link(link, digest))
        try:
            place = self._folder / f"{link.chain}.links.jsonl"
            written = os.open(place, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
            try:
                _write(written, f"{line.text}\n".encode())
            finally:
                os.close(written)
        except OSError as error:
            raise ConfigError(
                f"cannot write the certificates' log in {str(self._folder)!r}: {error.strerror}"
            ) from error
        self._open.append((link, digest))

    def close(self) -> None:
        """Write the root of what is open, and wait for time-stamps."""
        self._forget_parent()
        if self._open:
            self._close()
        while self._threads:
            self._threads.pop().join()

    def _forget_parent(self) -> None:
        """In a forked process, leave to the one it came from what is that one's."""
        if self._process != os.getpid():
            self._process, self._open, self._threads = os.getpid(), [], []

    def _close(self) -> None:
        """The root of the links since the last one, which are of one day."""
        entries, self._open = self._open, []
        first = entries[0][0]
        root = merkle_root([bytes.fromhex(digest) for _, digest in entries])
        stated = day_statement(first.chain, _day(first), first.sequence, len(entries), root)
        file = self._folder / f"{_day(first)}-{first.chain}-{first.sequence}.root.json"
        text = self._sign(PAYLOAD_TYPE, stated).text
        write_whole(file, text)
        if self._timestamp is not None:
            thread = Thread(target=_stamp, args=(self._timestamp, file, text.encode()), daemon=True)
            thread.start()  # an authority may take seconds, and the next answer need not wait for it
            self._threads.append(thread)


def _day(link: Link) -> str:
    return link.issued[:10]


def _write(file: int, data: bytes) -> None:
    while data:
        data = data[os.write(file, data) :]


def _stamp(url: str, file: Path, data: bytes) -> None:
    """Write the time-stamp beside a root; one that cannot be had is logged, and may be asked for later."""
    from purify_plugins.signing.timestamps import requested

    try:
        write_whole(file.with_suffix(".tsr"), requested(url, data))
    except PurifyError as error:
        logger.warning("%s has no time-stamp: %s", file, error)
