"""Two sources that make measuring cheap: one that has no opinion, one that remembers its own."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from purify_plugins.errors import PromptError
from purify_plugins.protocols import LogitSource, Session
from purify_plugins.types import Prompt, ScoredPrompt, Vocabulary

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, eq=False)
class Silent(LogitSource):
    """A source that finds every token equally likely, at no cost: the other model is measured alone."""

    engine = "in-process"
    vocabulary: Vocabulary
    context_length: None = None

    def open(self, prompts: Sequence[Prompt], scored: int = 0) -> tuple[SilentSession, Tensor]:
        import torch

        session = SilentSession(len(self.vocabulary), [ScoredPrompt(()) for _ in prompts])
        return session, torch.zeros(len(prompts), len(self.vocabulary))

    def identity(self) -> Mapping[str, Any]:
        return {"kind": "silent", "name": "nobody", "files": {}}


class SilentSession(Session):
    """An open batch without a model."""

    prompts: Sequence[ScoredPrompt]

    def __init__(self, size: int, prompts: Sequence[ScoredPrompt]) -> None:
        self.size, self.prompts = size, prompts

    def extend(self, tokens: Tensor) -> Tensor:
        import torch

        return torch.zeros(*tokens.shape, self.size)

    def rewind(self, lengths: Tensor) -> None:
        """There is nothing to forget."""


@dataclass(frozen=True, eq=False)
class Recorded(LogitSource):
    """A source that has read given runs of tokens once; every policy is then scored on its rows.

    `asked` are the prompts that the runs begin with, `prompts` how they were read, scored for policies
    that look back; `rows` (runs, n, V) the logits after the prompt and after each token that follows.
    """

    engine = "in-process"
    vocabulary: Vocabulary
    asked: tuple[Prompt, ...]
    prompts: tuple[ScoredPrompt, ...]
    rows: Tensor
    context_length: None = None

    @classmethod
    def of(cls, source: LogitSource, prompts: Sequence[Prompt], answers: Sequence[Sequence[int]]) -> Recorded:
        """Read the answers in blocks; short ones are padded with token 0."""
        import torch

        width = max(map(len, answers))
        padded = torch.tensor([[*answer, *[0] * (width - len(answer))] for answer in answers])
        session, first = source.open(prompts, sys.maxsize)
        with session:
            read = [session.extend(block) for block in padded.split(64, dim=1)]
            scored = tuple(session.prompts)
        return cls(source.vocabulary, tuple(prompts), scored, torch.cat([first[:, None], *read], dim=1))

    def open(self, prompts: Sequence[Prompt], scored: int = 0) -> tuple[RecordedSession, Tensor]:
        if tuple(prompts) != self.asked:
            raise PromptError("only the recorded prompts can be asked again")
        return RecordedSession(self, scored), self.rows[:, 0]

    def identity(self) -> Mapping[str, Any]:
        return {"kind": "recorded", "name": self.vocabulary.name, "files": {}}


class RecordedSession(SilentSession):
    """An open batch that is read from the record, whatever tokens are given."""

    def __init__(self, source: Recorded, scored: int) -> None:
        looked = [
            ScoredPrompt(each.tokens, each.logprobs[max(len(each.logprobs) - scored, 0) :])
            for each in source.prompts
        ]
        super().__init__(len(source.vocabulary), looked)
        self.rows, self.at = source.rows, 1

    def extend(self, tokens: Tensor) -> Tensor:
        start, self.at = self.at, self.at + tokens.shape[1]
        return self.rows[:, start : self.at]
