"""A model that writes what a test says, and keeps all that it was asked."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from purify_plugins.protocols import LogitSource, Session
from purify_plugins.testing import ToySource, byte_vocabulary
from purify_plugins.testing.toys import ToySession
from purify_plugins.types import Chat, Prompt, Vocabulary

TOY = ToySource(byte_vocabulary())


def said(prompt: Prompt) -> str:
    """All that a prompt says."""
    if isinstance(prompt, Chat):
        return "\n".join(str(message.get("content")) for message in prompt.messages)
    return str(prompt)


@dataclass(frozen=True)
class Scripted(LogitSource):
    """Writes `write(prompt)`, with the vocabulary of a model that encodes texts; `asked` are the prompts."""

    engine = "in-process"
    write: Callable[[str], str]
    like: Any = TOY
    asked: list[str] = field(default_factory=list, compare=False)

    @property
    def vocabulary(self) -> Vocabulary:
        return self.like.vocabulary  # type: ignore[no-any-return]

    @property
    def context_length(self) -> int | None:
        return None

    def open(self, prompts: Sequence[Prompt], scored: int = 0) -> tuple[Session, torch.Tensor]:
        texts = [self._said(prompt) for prompt in prompts]
        self.asked.extend(texts)
        session = ScriptedSession(self, [self.like.encode(each) for each in texts])
        session.scripts = [self._spelled(self.write(each)) for each in texts]
        return session, torch.stack([session.logits(row) for row in range(len(texts))])

    def _said(self, prompt: Prompt) -> str:
        if isinstance(prompt, tuple):
            return b"".join(self.vocabulary.tokens[token] for token in prompt).decode()
        return said(prompt)

    def _spelled(self, text: str) -> list[int]:
        control = self.vocabulary.control
        return [token for token in self.like.encode(text) if token not in control] if text else []

    def identity(self) -> Mapping[str, Any]:
        return {"kind": "scripted", "name": "scripted"}


class ScriptedSession(ToySession):
    scripts: Sequence[Sequence[int]]

    def logits(self, row: int) -> torch.Tensor:
        script, at = self.scripts[row], len(self.rows[row]) - len(self.prompts[row].tokens)
        vocabulary = self.source.vocabulary
        following = script[at] if at < len(script) else min(vocabulary.eos)
        return torch.full((len(vocabulary),), -30.0).index_fill(0, torch.tensor(following), 0.0)

    def extend(self, tokens: torch.Tensor) -> torch.Tensor:
        columns = []
        for column in tokens.T.tolist():
            for row, token in zip(self.rows, column, strict=True):
                row.append(token)
            columns.append(torch.stack([self.logits(row) for row in range(len(self.rows))]))
        return torch.stack(columns, dim=1)
