"""Two sources that make measuring cheap: one that has no opinion, one that remembers its own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

from purify_plugins.errors import PromptError
from purify_plugins.types import LogitSource, Prompt, ScoredPrompt, Vocabulary

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, eq=False)
class Silent:
    """A source that finds every token equally likely, at no cost: the other model is measured alone."""

    vocabulary: Vocabulary
    context_length: None = None

    def open(self, prompts: Sequence[Prompt], scored: int = 0) -> tuple[SilentSession, Tensor]:
        import torch

        session = SilentSession(len(self.vocabulary), [ScoredPrompt(()) for _ in prompts])
        return session, torch.zeros(len(prompts), len(self.vocabulary))

    def identity(self) -> Mapping[str, Any]:
        return {"kind": "silent", "name": "nobody", "files": {}}


class SilentSession:
    """An open batch without a model."""

    def __init__(self, size: int, prompts: Sequence[ScoredPrompt]) -> None:
        self.size, self.prompts = size, prompts

    def extend(self, tokens: Tensor) -> Tensor:
        import torch

        return torch.zeros(*tokens.shape, self.size)

    def rewind(self, lengths: Tensor) -> None:
        """There is nothing to forget."""

    def close(self) -> None:
        """There is nothing to free."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


@dataclass(frozen=True, eq=False)
class Recorded:
    """A source that has read given runs of tokens once; every policy is then scored on its rows.

    `prompts` are what the runs begin with, `rows` (runs, n, V) the logits after the prompt and after
    each token that follows.
    """

    vocabulary: Vocabulary
    prompts: tuple[tuple[int, ...], ...]
    rows: Tensor
    context_length: None = None

    @classmethod
    def of(
        cls, source: LogitSource, prompts: Sequence[tuple[int, ...]], answers: Sequence[Sequence[int]]
    ) -> Recorded:
        """Read the answers, all of one length, in blocks."""
        import torch

        session, first = source.open(prompts)
        with session:
            read = [session.extend(block) for block in torch.tensor(answers).split(64, dim=1)]
        return cls(source.vocabulary, tuple(prompts), torch.cat([first[:, None], *read], dim=1))

    def open(self, prompts: Sequence[Prompt], scored: int = 0) -> tuple[RecordedSession, Tensor]:
        if tuple(prompts) != self.prompts:
            raise PromptError("only the recorded prompts can be asked again")
        return RecordedSession(self), self.rows[:, 0]

    def identity(self) -> Mapping[str, Any]:
        return {"kind": "recorded", "name": self.vocabulary.name, "files": {}}


class RecordedSession(SilentSession):
    """An open batch that is read from the record, whatever tokens are given."""

    def __init__(self, source: Recorded) -> None:
        super().__init__(len(source.vocabulary), [ScoredPrompt(prompt) for prompt in source.prompts])
        self.rows, self.at = source.rows, 1

    def extend(self, tokens: Tensor) -> Tensor:
        start, self.at = self.at, self.at + tokens.shape[1]
        return self.rows[:, start : self.at]
