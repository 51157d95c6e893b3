"""One model for many threads: passes that are asked for at the same time become one."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, is_dataclass, replace
from typing import TYPE_CHECKING, Any, Protocol, Self, cast

from purify_plugins.errors import SourceError
from purify_plugins.threat import Engine, engine
from purify_plugins.types import LogitSource, Prompt, ScoredPrompt, Session, Vocabulary

if TYPE_CHECKING:
    from torch import Tensor

PATIENCE = 0.002
"""Seconds to wait for those who were here last time."""


class Joinable(LogitSource, Protocol):
    """A source that can read for several of its sessions in one pass."""

    def extend_all(self, sessions: Sequence[Any], tokens: Sequence[Tensor]) -> list[Tensor]:
        """What each session's `extend` would return for its (rows, n) tokens; n may differ.

        Where it raises, every session is as it was before.
        """


def share(source: LogitSource) -> LogitSource:
    """The source, fit for many threads: what offers `extend_all` is shared, also behind a wrapper.

    Other sources are returned as they are; a remote one has its server to batch for it.
    """
    if hasattr(source, "extend_all"):
        return Shared(cast("Joinable", source))
    inner: Any = getattr(source, "source", None)
    if inner is None or not is_dataclass(source) or isinstance(source, type):
        return source
    return cast("LogitSource", replace(cast("Any", source), source=share(inner)))


@dataclass(eq=False)
class Call:
    """A pass somebody waits for, and what came of it."""

    session: Session
    tokens: Tensor
    logits: Tensor | None = None
    error: Exception | None = None

    @property
    def done(self) -> bool:
        return self.logits is not None or self.error is not None


class Shared:
    """A source whose sessions, each used from a thread of its own, are read together.

    Who comes while a pass runs waits for it; the first to go on then reads for all who wait. Prompts are
    read one request at a time.
    """

    def __init__(self, source: Joinable, patience: float = PATIENCE) -> None:
        self.source, self.patience = source, patience
        self._reading = threading.Lock()
        lock = threading.Lock()
        self._arrived, self._ended = threading.Condition(lock), threading.Condition(lock)
        self._waiting: list[Call] = []
        self._leader = False
        self._company: deque[set[int]] = deque(maxlen=2)

    def __getattr__(self, name: str) -> Any:
        """What else the source knows of itself: its size, its tokenizer."""
        if name == "source":
            raise AttributeError(name)
        return getattr(self.source, name)

    @property
    def engine(self) -> Engine:
        """What runs the model."""
        return engine(self.source)

    @property
    def vocabulary(self) -> Vocabulary:
        return self.source.vocabulary

    @property
    def context_length(self) -> int | None:
        return self.source.context_length

    def open(self, prompts: Sequence[Prompt], scored: int = 0) -> tuple[SharedSession, Tensor]:
        with self._reading:
            session, logits = self.source.open(prompts, scored)
        return SharedSession(self, session), logits

    def identity(self) -> Mapping[str, Any]:
        return self.source.identity()

    def extend(self, session: Session, tokens: Tensor) -> Tensor:
        """The session's logits (rows, n, V) after its tokens (rows, n), read with whoever else asks."""
        call = Call(session, tokens)
        if self._must_lead(call):
            self._lead()
        if call.error is not None:
            raise call.error
        assert call.logits is not None
        return call.logits

    def _must_lead(self, call: Call) -> bool:
        """Wait until the call is answered, or until it is this thread's turn to read for all."""
        with self._ended:
            self._waiting.append(call)
            self._arrived.notify()
            self._ended.wait_for(lambda: call.done or not self._leader)
            self._leader = self._leader or not call.done
            return not call.done

    def _lead(self) -> None:
        try:
            self._read(self._gathered())
        finally:
            with self._ended:
                self._leader = False
                self._ended.notify_all()

    def _gathered(self) -> list[Call]:
        """Everybody who waits, with a moment's grace for as many as came in the last two passes.

        Two, so that halves who take turns find together.
        """
        expected = len(set().union(*self._company))
        with self._arrived:
            self._arrived.wait_for(lambda: len(self._waiting) >= expected, self.patience)
            found, self._waiting = self._waiting, []
        self._company.append({id(call.session) for call in found})
        return found

    def _read(self, calls: list[Call]) -> None:
        """One pass for all; where it fails, one for each, so that only what is broken fails."""
        try:
            with self._reading:
                read = self.source.extend_all([c.session for c in calls], [c.tokens for c in calls])
        except Exception as error:  # nobody may wait for ever, whatever a stranger's source raises
            if len(calls) == 1:
                calls[0].error = _told(error)
                return
            for call in calls:
                self._read([call])
        else:
            for call, logits in zip(calls, read, strict=True):
                call.logits = logits


def _told(error: Exception) -> SourceError:
    """A source's failure as one of ours."""
    if isinstance(error, SourceError):
        return error
    told = SourceError(f"a shared pass failed: {error}")
    told.__cause__ = error
    return told


class SharedSession:
    """A session that reads when the others do."""

    def __init__(self, shared: Shared, session: Session) -> None:
        self.shared, self.session = shared, session

    @property
    def prompts(self) -> Sequence[ScoredPrompt]:
        return self.session.prompts

    def extend(self, tokens: Tensor) -> Tensor:
        return self.shared.extend(self.session, tokens)

    @property
    def keep(self) -> Any:
        """The session's own, if it has one."""
        return self.session.keep  # type: ignore[attr-defined]  # then this has none either

    def rewind(self, lengths: Tensor) -> None:
        self.session.rewind(lengths)

    def close(self) -> None:
        self.session.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()
