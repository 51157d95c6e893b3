"""Base classes of wrappers around sources and sessions: they forward every member."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from copy import copy
from dataclasses import is_dataclass, replace
from typing import TYPE_CHECKING, Any

from purify_plugins.errors import SourceError
from purify_plugins.protocols import LogitSource, Session, Slots, member

if TYPE_CHECKING:
    from torch import Tensor

    from purify_plugins.protocols import Capabilities, Reading
    from purify_plugins.threat import Engine
    from purify_plugins.types import Prompt, ScoredPrompt, Vocabulary


@contextmanager
def closed_on_error(session: Session) -> Iterator[None]:
    """Close a session that was opened if this block fails: its caller has none to close yet."""
    try:
        yield
    except BaseException:
        session.close()
        raise


class SourceWrapper(LogitSource):
    """A wrapper around `source`; a subclass overrides what it changes."""

    source: LogitSource

    @member
    def vocabulary(self) -> Vocabulary:
        return self.source.vocabulary

    @member
    def context_length(self) -> int | None:
        return self.source.context_length

    def open(self, prompts: Sequence[Prompt], scored: int = 0) -> tuple[Session, Tensor]:
        return self.source.open(prompts, scored)

    def identity(self) -> Mapping[str, Any]:
        return self.source.identity()

    @member
    def capabilities(self) -> Capabilities | None:
        return self.source.capabilities

    @member
    def engine(self) -> Engine:
        return self.source.engine

    @member
    def reading(self) -> Reading:
        return self.source.reading

    @member
    def parameters(self) -> int | None:
        return self.source.parameters

    @member
    def in_thread(self) -> bool:
        return self.source.in_thread

    @member
    def tokenizer(self) -> Any:
        return self.source.tokenizer

    @member
    def encodes(self) -> bool:
        return self.source.encodes

    def encode(self, prompt: Prompt) -> tuple[int, ...]:
        return self.source.encode(prompt)

    @member
    def joins(self) -> bool:
        return self.source.joins

    def extend_all(self, sessions: Sequence[Any], tokens: Sequence[Tensor]) -> list[Tensor]:
        return self.source.extend_all(sessions, tokens)

    def branch_all(
        self, sessions: Sequence[Any], tokens: Sequence[Tensor], seen: Sequence[Tensor]
    ) -> list[Tensor]:
        return self.source.branch_all(sessions, tokens, seen)

    def slots(self) -> Slots | None:
        return None  # the inner source's rows are not what `extend` returns here

    @member
    def symbolic(self) -> bool:
        return self.source.symbolic

    @member
    def rough(self) -> bool:
        return self.source.rough

    def to_own(self, tokens: Sequence[int]) -> tuple[int, ...]:
        return self.source.to_own(tokens)

    def from_own(self, tokens: Sequence[int]) -> tuple[int, ...]:
        return self.source.from_own(tokens)

    @member
    def inner(self) -> LogitSource:
        return self.source.inner

    def over(self, change: Callable[[LogitSource], LogitSource]) -> LogitSource:
        if is_dataclass(self):
            return replace(self, source=change(self.source))
        found = copy(self)
        found.source = change(self.source)
        return found


class TranslatedSource(SourceWrapper):
    """A wrapper whose sessions are not the inner source's, which alone can join passes."""

    @member
    def joins(self) -> bool:
        return False

    def extend_all(self, sessions: Sequence[Any], tokens: Sequence[Tensor]) -> list[Tensor]:
        return LogitSource.extend_all(self, sessions, tokens)

    def branch_all(
        self, sessions: Sequence[Any], tokens: Sequence[Tensor], seen: Sequence[Tensor]
    ) -> list[Tensor]:
        return LogitSource.branch_all(self, sessions, tokens, seen)


class SpelledSource(TranslatedSource):
    """A wrapper whose ids stand for text, not for the model's own tokens; own token i is id -2 - i."""

    def to_own(self, tokens: Sequence[int]) -> tuple[int, ...]:
        if any(token > -2 for token in tokens):
            raise SourceError(f"ids of {type(self).__name__} stand for text, and for no token of its model")
        return tuple(-2 - token for token in tokens)

    def from_own(self, tokens: Sequence[int]) -> tuple[int, ...]:
        return tuple(-2 - token for token in tokens)


class SessionWrapper(Session):
    """A wrapper around `session`; a subclass overrides what it changes."""

    session: Session

    @member
    def prompts(self) -> Sequence[ScoredPrompt]:
        return self.session.prompts

    @member
    def readings(self) -> Sequence[tuple[int, ...]]:
        return self.session.readings

    def extend(self, tokens: Tensor) -> Tensor:
        return self.session.extend(tokens)

    def rewind(self, lengths: Tensor) -> None:
        self.session.rewind(lengths)

    def close(self) -> None:
        self.session.close()

    def each(self, tokens: Tensor) -> Iterator[Tensor] | None:
        return self.session.each(tokens)

    def asks(self, tokens: Tensor) -> float:
        return self.session.asks(tokens)

    @member
    def full(self) -> Collection[int] | None:
        return self.session.full

    @member
    def keeps(self) -> bool:
        return self.session.keeps

    def keep(self, rows: Sequence[int]) -> None:
        self.session.keep(rows)

    @member
    def branches(self) -> bool:
        return self.session.branches

    def branch(self, tokens: Tensor, seen: Tensor) -> Tensor:
        return self.session.branch(tokens, seen)

    def select(self, columns: Tensor) -> None:
        self.session.select(columns)

    def read_ahead(self, limit: int, live: Collection[int]) -> list[list[int]]:
        return self.session.read_ahead(limit, live)

    def mark(self) -> Any:
        return self.session.mark()

    def undo(self, mark: Any) -> None:
        self.session.undo(mark)
