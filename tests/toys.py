"""What the core's tests share: toys that fail, watch and forbid, and the test bed's pair, loaded once."""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import torch
from torch import Tensor

from purify_hooks.local.source import LocalSource
from purify_plugins import Purifier, Sampling, SourceError
from purify_plugins.plugin.manager import load_plugins
from purify_plugins.protocols import LogitSource, Session
from purify_plugins.testbed import LLM, SLM
from purify_plugins.testing import ToySession, ToySource, byte_vocabulary, letters
from purify_plugins.threat import Engine
from purify_plugins.types import Prompt, Vocabulary

BYTES = byte_vocabulary()


@dataclass(frozen=True)
class Watched:
    """A source that keeps every session it has opened."""

    source: Any
    sessions: list[Any] = field(default_factory=list)

    @property
    def vocabulary(self) -> Vocabulary:
        return self.source.vocabulary  # type: ignore[no-any-return]

    @property
    def engine(self) -> Engine:
        return self.source.engine  # type: ignore[no-any-return]

    @property
    def context_length(self) -> int | None:
        return self.source.context_length  # type: ignore[no-any-return]

    def open(self, prompts: Sequence[Prompt], scored: int = 0) -> tuple[Session, Tensor]:
        session, logits = self.source.open(prompts, scored)
        self.sessions.append(session)
        return session, logits

    def identity(self) -> Mapping[str, Any]:
        return self.source.identity()  # type: ignore[no-any-return]

    @property
    def open_sessions(self) -> int:
        return sum(session.open for session in self.sessions)


@dataclass(frozen=True)
class Unscored:
    """The LLM as a processor inside vLLM knows it: what it thinks of a prompt is not shown."""

    source: Any

    def __getattr__(self, name: str) -> Any:
        return getattr(self.source, name)

    def open(self, prompts: Any, scored: int = 0) -> Any:
        return self.source.open(prompts)


@dataclass(frozen=True)
class Failing(ToySource):
    """A toy that fails: at `opening`, or with its answer's token number `at`; or there returns `value`."""

    opening: bool = False
    at: int = 10**9
    value: float | None = None

    def open(self, prompts: Sequence[Prompt], scored: int = 0) -> tuple[FailingSession, Tensor]:
        if self.opening:
            raise SourceError("the server hung up")
        session = FailingSession(self, [self.encode(prompt) for prompt in prompts], scored)
        return session, session.spoil(torch.stack([self.logits(row) for row in session.rows]), 0)


class FailingSession(ToySession):
    def extend(self, tokens: Tensor) -> Tensor:
        logits = super().extend(tokens)
        return self.spoil(logits, len(self.rows[0]) - len(self.prompts[0].tokens))

    def spoil(self, logits: Tensor, length: int) -> Tensor:
        source: Any = self.source
        if length < source.at:
            return logits
        if source.value is None:
            raise SourceError("the server hung up")
        logits[..., 1] = source.value
        return logits


@dataclass(frozen=True)
class Forbidding(ToySource):
    """A toy that rules some tokens out: their probability is exactly zero."""

    forbidden: frozenset[int] = frozenset()

    def logits(self, tokens: Sequence[int]) -> Tensor:
        return super().logits(tokens).index_fill(0, torch.tensor(sorted(self.forbidden)), -torch.inf)


@dataclass(frozen=True)
class Slow(ToySource):
    """A toy that takes its time over every row."""

    seconds: float = 0.01

    def logits(self, tokens: Sequence[int]) -> Tensor:
        time.sleep(self.seconds)
        return super().logits(tokens)


@dataclass(frozen=True)
class Placed(ToySource):
    """A toy that notes on which threads it was asked."""

    threads: set[int] = field(default_factory=set, compare=False)

    def logits(self, tokens: Sequence[int]) -> Tensor:
        self.threads.add(threading.get_ident())
        return super().logits(tokens)


def toys(policy: Any = "geometric", vocabulary: Vocabulary = BYTES, **options: Any) -> Purifier:
    """A purifier of two toys with different seeds."""
    return pair(ToySource(vocabulary, 1), ToySource(vocabulary, 2), policy, **options)


def pair(llm: LogitSource, slm: LogitSource, policy: Any = "geometric", **options: Any) -> Purifier:
    """A purifier of two sources and a policy or its name; `options` are the purifier's own."""
    plugins = options.pop("plugins", None) or load_plugins()
    return Purifier(llm, slm, plugins.policy(policy), plugins=plugins, **options)


@cache
def both() -> tuple[LocalSource, LocalSource]:
    """The test bed's LLM and SLM."""
    return tuple(LocalSource.load(folder, dtype="float32", device="cpu") for folder in (LLM, SLM))  # type: ignore[return-value]


def real(policy: Any = "windowed", **options: Any) -> Purifier:
    """A purifier of the test bed's pair."""
    return pair(*both(), policy, **options)


def few(length: int = 8, **options: Any) -> Sampling:
    """Short answers of a fixed length."""
    return Sampling(max_tokens=length, **{"ignore_eos": True, "seed": 0, **options})


AB = letters("ab")
