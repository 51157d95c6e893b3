"""Models with a script: what each says depends on the conversation, and both sides of a pair can agree."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from purify_plugins import Chat, Purifier
from purify_plugins.plugin.manager import load_plugins
from purify_plugins.testing import ToySession, ToySource
from purify_plugins.types import Prompt, Vocabulary

PIECES = (
    *("<tool_call>\n", '{"name": "', '", "arguments": {', "}}\n</tool_call>", '": "', '", "', "function"),
    *("customer", "description", "setup", "punchline", "magic", "weather", "location", "San Francisco"),
    *(" the", " and", " a ", "ing", "Hello", "name", "XYZZY"),
)
END = 256
WORDS = Vocabulary(
    (*(bytes([byte]) for byte in range(256)), b"", *(piece.encode() for piece in PIECES)),
    frozenset({END}),
    {END: "<end>"},
    frozenset({END}),
    "words",
)


def split(text: bytes, vocabulary: Vocabulary = WORDS) -> list[int]:
    """Token ids, the longest first."""
    longest_first = sorted(range(len(vocabulary)), key=lambda index: -len(vocabulary.tokens[index]))
    found = []
    while text:
        index = next(
            i for i in longest_first if vocabulary.tokens[i] and text.startswith(vocabulary.tokens[i])
        )
        found.append(index)
        text = text[len(vocabulary.tokens[index]) :]
    return found


@dataclass(frozen=True)
class Actor:
    """A model that is sure of what `reply` says to a prompt, and a little unsure of everything else."""

    reply: Callable[[Prompt], str]
    name: str = "actor"
    doubt: float = 1e-9  # or one answer in twenty would stray from its script
    forbidden: frozenset[int] = frozenset()
    context_length: int | None = None
    vocabulary: Vocabulary = WORDS

    def open(self, prompts: Sequence[Prompt], scored: int = 0) -> tuple[ActorSession, Tensor]:
        session = ActorSession(self, prompts)
        return session, torch.stack([session.logits(row) for row in range(len(prompts))])

    def encode(self, prompt: Prompt) -> tuple[int, ...]:
        if isinstance(prompt, Chat):
            prompt = "\n".join(f"{m['role']}: {m['content']}" for m in prompt.messages)
        return prompt if isinstance(prompt, tuple) else tuple(split(prompt.encode()))

    def identity(self) -> Mapping[str, Any]:
        return {"kind": "actor", "name": self.name}


class ActorSession(ToySession):
    """Where each row is in its script."""

    def __init__(self, actor: Actor, prompts: Sequence[Prompt]) -> None:
        self.actor = actor
        self.scripts = [[*split(actor.reply(prompt).encode()), END] for prompt in prompts]
        super().__init__(ToySource(actor.vocabulary), [actor.encode(prompt) for prompt in prompts])

    def logits(self, row: int) -> Tensor:
        at = len(self.rows[row]) - len(self.prompts[row].tokens)
        script, size = self.scripts[row], len(self.actor.vocabulary)
        following = script[at] if at < len(script) else END
        logits = torch.full((size,), math.log(self.actor.doubt / (size - 1)))
        logits[following] = math.log1p(-self.actor.doubt)
        return logits.index_fill(0, torch.tensor(sorted(self.actor.forbidden), dtype=torch.long), -torch.inf)

    def extend(self, tokens: Tensor) -> Tensor:
        columns = []
        for column in tokens.T.tolist():
            for row, token in zip(self.rows, column, strict=True):
                row.append(token)
            columns.append(torch.stack([self.logits(row) for row in range(len(self.rows))]))
        return torch.stack(columns, dim=1)


def agreeing(reply: Callable[[Prompt], str], policy: str = "balanced", **options: Any) -> Purifier:
    """Two actors with one script."""
    plugins = load_plugins(())
    models = Actor(reply, "large"), Actor(reply, "small")
    return Purifier(*models, plugins.policy(policy), plugins=plugins, **options)


def last(prompt: Prompt) -> str:
    """What was said last."""
    return str(prompt.messages[-1]["content"]) if isinstance(prompt, Chat) else str(prompt)


def call(tool: str, **arguments: Any) -> str:
    """A tool call in the format of pairs without chat templates."""
    body = json.dumps({"name": tool, "arguments": arguments}, ensure_ascii=False)
    return f"<tool_call>\n{body}\n</tool_call>"
