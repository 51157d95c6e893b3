"""One model for many threads: concurrent forward passes are batched into one."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from purify_plugins.errors import SourceError
from purify_plugins.protocols import LogitSource, Session
from purify_plugins.sources.wrapper import SessionWrapper, TranslatedSource
from purify_plugins.types import Prompt

if TYPE_CHECKING:
    from torch import Tensor

PATIENCE = 0.002
"""Seconds to wait for the sessions that took part in the last passes."""


def batching(source: LogitSource) -> LogitSource:
    """The source with passes of several threads batched, where it or a source inside it `joins`.

    Other sources are returned unchanged; a server batches by itself, and a BatchingSource batches already.
    """
    if isinstance(source, BatchingSource):
        return source
    return BatchingSource(source) if source.joins else source.over(batching)


@dataclass(eq=False)
class PendingPass:
    """A forward pass that a thread waits for, and its result; with `seen` it is a session's `branch`."""

    session: Session
    tokens: Tensor
    seen: Tensor | None = None
    logits: Tensor | None = None
    error: Exception | None = None

    @property
    def done(self) -> bool:
        return self.logits is not None or self.error is not None


class BatchingSource(TranslatedSource):
    """A source whose sessions, each used in a thread of its own, are read in joint passes.

    Threads that arrive while a pass runs wait for its end; one of them then runs a pass for all that wait.
    Prompts are read one request at a time.
    """

    def __init__(self, source: LogitSource, patience: float = PATIENCE) -> None:
        self.source, self.patience = source, patience
        self._reading = threading.Lock()
        lock = threading.Lock()
        self._arrived, self._ended = threading.Condition(lock), threading.Condition(lock)
        self._waiting: list[PendingPass] = []
        self._leader = False
        self._company: deque[set[int]] = deque(maxlen=2)

    @property
    def in_thread(self) -> bool:
        """False: another thread may run the pass."""
        return False

    def over(self, change: Callable[[LogitSource], LogitSource]) -> LogitSource:
        return BatchingSource(change(self.source), self.patience)

    def open(self, prompts: Sequence[Prompt], scored: int = 0) -> tuple[BatchingSession, Tensor]:
        with self._reading:
            session, logits = self.source.open(prompts, scored)
        return BatchingSession(self, session), logits

    def read(self, session: Session, tokens: Tensor, seen: Tensor | None = None) -> Tensor:
        """The session's logits (rows, n, V) after its tokens (rows, n), in a joint pass with other sessions.

        With `seen` the tokens are read by `branch`.
        """
        call = PendingPass(session, tokens, seen)
        try:
            if self._must_lead(call):
                self._lead()
        except BaseException:  # Ctrl-C: this thread waits for its pass no more
            with self._ended:
                self._waiting = [each for each in self._waiting if each is not call]
            raise
        if call.error is not None:
            raise call.error
        assert call.logits is not None
        return call.logits

    def _must_lead(self, call: PendingPass) -> bool:
        """Wait until the pass is done, or until this thread must run the next one for all."""
        with self._ended:
            self._waiting.append(call)
            self._arrived.notify()
            self._ended.wait_for(lambda: call.done or not self._leader)
            self._leader = self._leader or not call.done
            return not call.done

    def _lead(self) -> None:
        calls: list[PendingPass] = []
        try:
            self._read(calls := self._gathered())
        except BaseException as error:  # Ctrl-C in this thread: the others' passes are lost too
            for call in calls:
                if not call.done:
                    call.error = _told(error)
            raise
        finally:
            with self._ended:
                self._leader = False
                self._ended.notify_all()

    def _gathered(self) -> list[PendingPass]:
        """The waiting passes, after a short wait for as many sessions as took part in the last two.

        Two, so that two groups of sessions that alternate are merged.
        """
        expected = len(set().union(*self._company))
        with self._arrived:
            self._arrived.wait_for(lambda: len(self._waiting) >= expected, self.patience)
            found, self._waiting = self._waiting, []
        self._company.append({id(call.session) for call in found})
        return found

    def _read(self, calls: list[PendingPass]) -> None:
        """One pass for all that extend, one for all that branch."""
        for some in ([c for c in calls if c.seen is None], [c for c in calls if c.seen is not None]):
            if some:
                self._pass(some)

    def _pass(self, calls: list[PendingPass]) -> None:
        """One pass for all; if it fails, one for each, so that only the broken session fails."""
        try:
            with self._reading:
                read = self._asked(calls)
        except Exception as error:  # no thread may wait for ever, whatever a source raises
            if len(calls) == 1:
                calls[0].error = _told(error)
                return
            for call in calls:
                self._pass([call])
        else:
            for call, logits in zip(calls, read, strict=True):
                call.logits = logits

    def _asked(self, calls: list[PendingPass]) -> list[Tensor]:
        sessions, tokens = [call.session for call in calls], [call.tokens for call in calls]
        seen = [call.seen for call in calls if call.seen is not None]
        if seen:
            return self.source.branch_all(sessions, tokens, seen)
        return self.source.extend_all(sessions, tokens)


def _told(error: BaseException) -> SourceError:
    """A source's exception as a SourceError."""
    if isinstance(error, SourceError):
        return error
    told = SourceError(f"a shared pass failed: {str(error) or type(error).__name__}")
    told.__cause__ = error
    return told


class BatchingSession(SessionWrapper):
    """A session whose passes are joined with those of other sessions."""

    def __init__(self, shared: BatchingSource, session: Session) -> None:
        self.shared, self.session = shared, session

    def extend(self, tokens: Tensor) -> Tensor:
        return self.shared.read(self.session, tokens)

    def branch(self, tokens: Tensor, seen: Tensor) -> Tensor:
        return self.shared.read(self.session, tokens, seen)

    def each(self, tokens: Tensor) -> None:
        """None: a joint pass is computed as a whole."""
