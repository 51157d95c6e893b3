"""A pair that repeats what it has read, and keeps all that it was asked."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from purify_plugins import Purifier, Sampling
from purify_plugins.plugin.manager import load_plugins
from purify_plugins.protocols import LogitSource, Session
from purify_plugins.stages.stage import Stage
from purify_plugins.testing import ToySource, byte_vocabulary
from purify_plugins.testing.toys import ToySession
from purify_plugins.types import Prompt, Vocabulary

BYTES = byte_vocabulary()


@dataclass(frozen=True)
class Echo(LogitSource):
    """A model that writes the last message it has read, byte by byte, from byte `skip` on.

    `asked` are the prompts.
    """

    engine = "in-process"
    vocabulary: Vocabulary = BYTES
    context_length: int | None = None
    skip: int = 0
    asked: list[Prompt] = field(default_factory=list, compare=False)

    def open(self, prompts: Sequence[Prompt], scored: int = 0) -> tuple[Session, torch.Tensor]:
        self.asked.extend(prompts)
        said = [_last(prompt) for prompt in prompts]
        session = EchoSession(self, said)
        return session, torch.stack([session.logits(row) for row in range(len(said))])

    def identity(self) -> Mapping[str, Any]:
        return {"kind": "echo", "name": "echo"}


def _last(prompt: Prompt) -> str:
    if isinstance(prompt, str):
        return prompt
    assert not isinstance(prompt, tuple)
    content = prompt.messages[-1]["content"]
    return content if isinstance(content, str) else "".join(part["text"] for part in content)


class EchoSession(ToySession):
    def __init__(self, echo: Echo, said: Sequence[str]) -> None:
        toy = ToySource(echo.vocabulary)
        super().__init__(toy, [toy.encode(each) for each in said])
        self.size, self.skip = len(echo.vocabulary), echo.skip

    def logits(self, row: int) -> torch.Tensor:
        prompt = self.prompts[row].tokens
        at = self.skip + len(self.rows[row]) - len(prompt)
        following = prompt[at] if at < len(prompt) else 256
        return torch.full((self.size,), -40.0).index_fill(0, torch.tensor(following), 0.0)

    def extend(self, tokens: torch.Tensor) -> torch.Tensor:
        columns = []
        for column in tokens.T.tolist():
            for row, token in zip(self.rows, column, strict=True):
                row.append(token)
            columns.append(torch.stack([self.logits(row) for row in range(len(self.rows))]))
        return torch.stack(columns, dim=1)


def echoing(*stages: Stage, **sampling: Any) -> tuple[Purifier, Echo]:
    """The pair with stages around it, and its LLM."""
    plugins = load_plugins()
    llm = Echo()
    options = Sampling(**{"max_tokens": 400, "temperature": 0, **sampling})
    policy = plugins.policy("geometric")
    return Purifier(llm, Echo(), policy, plugins=plugins, sampling=options, stages=stages), llm
