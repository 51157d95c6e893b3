"""The hash chain over the certificates of one process, and the Merkle tree over those of one day.

Source of the tree: RFC 6962, section 2.1. A leaf is the SHA-256 of a signed statement.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from datetime import UTC, datetime

from purify_plugins.signing.statement import FIRST, Link


class CertificateChain:
    """The places of a process's certificates, one after the other; not safe across threads by itself.

    A forked process begins a chain of its own.
    """

    def __init__(self) -> None:
        self._begin()

    def _begin(self) -> None:
        self._process, self.id = os.getpid(), os.urandom(16).hex()
        self._sequence, self._previous = 0, FIRST

    def next(self) -> Link:
        """The place of the next certificate."""
        if self._process != os.getpid():
            self._begin()
        return Link(now(), self.id, self._sequence, self._previous)

    def add(self, statement: bytes) -> str:
        """Take that certificate's statement into the chain; its digest."""
        self._previous = hashlib.sha256(statement).hexdigest()
        self._sequence += 1
        return self._previous


def now() -> str:
    """The time in UTC, to the second, as statements have it."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def merkle_root(leaves: Sequence[bytes]) -> bytes:
    """The root of the tree over these leaves' data, 32 bytes."""
    if len(leaves) < 2:
        return hashlib.sha256(b"\0" + leaves[0] if leaves else b"").digest()
    half = 1 << (len(leaves) - 1).bit_length() - 1  # the largest power of two below their number
    return hashlib.sha256(b"\1" + merkle_root(leaves[:half]) + merkle_root(leaves[half:])).digest()
