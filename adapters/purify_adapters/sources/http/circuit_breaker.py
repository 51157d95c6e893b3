"""A circuit breaker: after repeated failures of a server, requests to it fail here, at once."""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from purify_plugins.errors import SourceError

log = logging.getLogger("purify.remote")

MOST, OF = 5, 10
"""The circuit opens after `MOST` failures among the last `OF` requests."""
FIRST, LONGEST = 1.0, 30.0
"""Seconds the circuit stays open: at first, and at most; each failed probe doubles them."""


class Unavailable(SourceError):
    """A fault that may pass; `after` is the server's Retry-After in seconds."""

    def __init__(self, message: str, after: float = 0.0) -> None:
        super().__init__(message)
        self.after = after


class Queued(Unavailable):
    """No request was sent: too many of this process's own were waiting."""


class CircuitOpen(SourceError):
    """No request was sent, since the circuit is open; try again in `after` seconds."""

    def __init__(self, after: float) -> None:
        super().__init__("the LLM's server has failed again and again and is left alone; see its log")
        self.after = after


class CircuitBreaker:
    """Open after repeated failures; then one request probes the server, and its success closes the circuit.

    Only `Unavailable` counts as a failure. Concurrent requests that fail count as one: a single answer
    asks for many rows at once.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self.clock = clock
        self.open = False
        self._fates: deque[bool] = deque(maxlen=OF)
        self._rest, self._until, self._probing = FIRST, 0.0, False
        self._faults = 0

    @property
    def resting(self) -> bool:
        """Whether a request would fail here. After the open time, the next request is the probe."""
        return self.open and self.clock() < self._until

    @contextmanager
    def asking(self) -> Iterator[Callable[[], None]]:
        """Around one request; call what it yields once the server has answered. Raises CircuitOpen."""
        probe, begun = self._admit(), self._faults
        try:
            yield self._answered
        except Unavailable:
            if probe or begun == self._faults:
                self._failed(probe)
            raise
        except SourceError:
            self._answered()
            raise
        finally:
            self._probing &= not probe

    def _admit(self) -> bool:
        """Whether this request is the probe. Raises CircuitOpen."""
        if not self.open:
            return False
        left = self._until - self.clock()
        if left > 0 or self._probing:
            raise CircuitOpen(max(left, FIRST))
        self._probing = True
        return True

    def _answered(self) -> None:
        if self.open:
            self.open, self._rest = False, FIRST
            self._fates.clear()
            log.warning("the LLM's server answers again")
        self._fates.append(True)

    def _failed(self, probe: bool) -> None:
        self._faults += 1
        self._fates.append(False)
        if probe and self.open:
            self._rest = min(2 * self._rest, LONGEST)
        elif self.open or self._fates.count(False) < MOST:
            return
        self.open, self._until = True, self.clock() + self._rest
        log.warning("the LLM's server is left alone for %g s, then tried by one request", self._rest)
