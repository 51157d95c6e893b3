"""Untrusted LLMs that are out to break a bound: weights in an honest engine, and whole engines.

Both are a `Mind`: from a `View`, what the LLM can see before it commits to a row, to that row. Weights see
the tokens before the place, and nothing else ever. An engine sees what was sent with them, who was asked
beside them, and all that it was sent before; it may show part of a row, lie about the prompt, and fail.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor

from purify_plugins.errors import SourceError
from purify_plugins.protocols import Capabilities, LogitSource
from purify_plugins.testing import ToySession, ToySource
from purify_plugins.threat import Engine
from purify_plugins.types import Prompt, ScoredPrompt, Vocabulary

Tokens = tuple[int, ...]


class View(NamedTuple):
    """One row of one request, as the LLM sees it before it says how likely the next token is.

    `draft` are the tokens sent in the same request that come after this place, `beside` the other rows of
    the batch with what is sent of theirs. Weights are shown neither.
    """

    prompt: Tokens
    answer: Tokens
    draft: Tokens = ()
    beside: tuple[Tokens, ...] = ()


Mind = Callable[[View], Tensor]
"""To the row that the LLM commits to: (V,) logits, (V + 1,) where only part is shown. Raises SourceError."""


@dataclass(frozen=True, eq=False)
class Weights(LogitSource):
    """Weights that somebody trained to break the bound: a pure function of the tokens, fixed before the run.

    Within the prompt, whose length a template would tell them, they are `innocent`, so that no policy that
    looks back finds anything known by heart.
    """

    engine: ClassVar[Engine] = "in-process"  # an honest one
    innocent: ToySource
    mind: Mind
    prompt_length: int
    context_length: int | None = None
    known: dict[Tokens, Tensor] = field(default_factory=dict)

    @property
    def vocabulary(self) -> Vocabulary:
        return self.innocent.vocabulary

    def logits(self, tokens: Sequence[int]) -> Tensor:
        """The logits (V,) of what follows `tokens`."""
        read, end = tuple(tokens), self.prompt_length
        if len(read) < end:
            return self.innocent.logits(read)
        if read not in self.known:
            self.known[read] = self.mind(View(read[:end], read[end:]))
        return self.known[read]

    def open(self, prompts: Sequence[Prompt], scored: int = 0) -> tuple[ToySession, Tensor]:
        session = ToySession(self, [self.innocent.encode(prompt) for prompt in prompts], scored)
        return session, torch.stack([self.logits(row) for row in session.rows])

    def identity(self) -> Mapping[str, Any]:
        return {"kind": "toy", "name": "adversary"}


@dataclass(frozen=True, eq=False)
class Served(LogitSource):
    """A server that runs the adversary's own program: every request is answered by what it may see.

    `drafts`: it streams a draft of its own with its rows, for the walk "readahead". `scores` is what it says
    of every token of a prompt, in nats; None: nothing.
    """

    vocabulary: Vocabulary
    mind: Mind
    drafts: bool = False
    scores: float | None = None
    context_length: int | None = None

    @property
    def capabilities(self) -> Capabilities:
        """Several tokens may be sent in one request: whether that is wise is the purifier's business."""
        return Capabilities(True, True, len(self.vocabulary), True, not self.drafts, self.drafts)

    def encode(self, prompt: Prompt) -> Tokens:
        return ToySource(self.vocabulary).encode(prompt)

    def open(self, prompts: Sequence[Prompt], scored: int = 0) -> tuple[Conversation, Tensor]:
        session = Conversation(self, [self.encode(prompt) for prompt in prompts], scored)
        return session, session.extend(torch.empty(len(prompts), 0, dtype=torch.long))[:, 0]

    def identity(self) -> Mapping[str, Any]:
        return {"kind": "toy", "name": "adversary"}


class Conversation(ToySession):
    """All that is sent to the server about one batch."""

    def __init__(self, server: Served, prompts: Sequence[Tokens], scored: int) -> None:
        self.server = server
        super().__init__(ToySource(server.vocabulary), prompts)
        if server.scores is not None:
            said = [(server.scores,) * min(scored, len(prompt) - 1) for prompt in prompts]
            self.prompts = [ScoredPrompt(*each) for each in zip(prompts, said, strict=True)]

    def extend(self, tokens: Tensor) -> Tensor:
        """(rows, n) -> (rows, n, V) logits after each; where n is 0, (rows, 1, V) after the prompts."""
        sent = tokens.tolist()
        for row, new in zip(self.rows, sent, strict=True):
            row += new
        views = [self._views(at, max(len(new), 1)) for at, new in enumerate(sent)]
        return torch.stack([torch.stack([self.server.mind(view) for view in row]) for row in views])

    def _views(self, at: int, columns: int) -> list[View]:
        prompt, read = self.prompts[at].tokens, tuple(self.rows[at])
        beside = tuple(tuple(row) for other, row in enumerate(self.rows) if other != at)
        places = range(len(read) - columns + 1, len(read) + 1)
        return [View(prompt, read[len(prompt) : place], read[place:], beside) for place in places]

    def read_ahead(self, limit: int, live: Collection[int]) -> list[list[int]]:
        """Its own draft: what it likes best, token after token."""
        drafts = [self._likes(row, min(limit, 3)) for row in range(len(self.rows))]
        return [draft if at in live else [0] * len(draft) for at, draft in enumerate(drafts)]

    def _likes(self, at: int, length: int) -> list[int]:
        prompt, answer, drafted = self.prompts[at].tokens, tuple(self.rows[at]), []
        for _ in range(length):
            view = View(prompt, (*answer[len(prompt) :], *drafted))
            row = self.server.mind(view)
            drafted.append(int(row[: len(self.server.vocabulary)].argmax()))
        return drafted


def failing() -> Tensor:
    """What a server does that will not answer."""
    raise SourceError("the server hung up")
