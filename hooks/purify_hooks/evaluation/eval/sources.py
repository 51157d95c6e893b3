"""Sources without a model: they play back logits that are uniform, recorded or synthetic."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from purify_plugins.protocols import LogitSource, Session
from purify_plugins.types import Prompt, ScoredPrompt, Vocabulary

if TYPE_CHECKING:
    from torch import Tensor

Rows = Callable[[int, int], "Tensor"]
"""(start, count) -> logits (rows, count, V) of `count` positions from `start`."""


@dataclass(frozen=True, eq=False)
class Playback(LogitSource):
    """Plays back logits by position, independent of the tokens drawn.

    `prompts` are how the answers begin, with scores for policies that look back.
    """

    engine = "in-process"
    vocabulary: Vocabulary
    rows: Rows
    prompts: Sequence[ScoredPrompt] = ()
    context_length: None = None

    def open(self, prompts: Sequence[Prompt], scored: int = 0) -> tuple[PlaybackSession, Tensor]:
        known = self.prompts or [ScoredPrompt(()) for _ in prompts]
        looked = [prompt.last(scored) for prompt in known]
        first = self.rows(0, 1)[:, 0]
        return PlaybackSession(self.rows, looked), first.expand(len(prompts), -1)

    def identity(self) -> Mapping[str, Any]:
        return {"kind": "playback", "name": self.vocabulary.name, "files": {}}


class PlaybackSession(Session):
    """An open batch of answers."""

    prompts: Sequence[ScoredPrompt]

    def __init__(self, rows: Rows, prompts: Sequence[ScoredPrompt]) -> None:
        self.rows, self.prompts, self.at = rows, prompts, 1

    def extend(self, tokens: Tensor) -> Tensor:
        start, self.at = self.at, self.at + tokens.shape[1]
        return self.rows(start, tokens.shape[1]).expand(len(tokens), -1, -1)

    def rewind(self, lengths: Tensor) -> None:
        """Nothing to undo: rows depend on the position alone."""


def uniform(vocabulary: Vocabulary) -> Playback:
    """Uniform logits at no cost, so that the other model is measured alone."""
    import torch

    row = torch.zeros(1, 1, len(vocabulary))
    return Playback(vocabulary, lambda start, count: row.expand(1, count, -1))
