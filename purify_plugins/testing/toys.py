"""Toys: small vocabularies, and models that are cheap to read."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from purify_plugins.errors import PromptError
from purify_plugins.protocols import LogitSource, Session
from purify_plugins.types import Chat, Prompt, ScoredPrompt, Vocabulary


def byte_vocabulary() -> Vocabulary:
    """All 256 bytes, and an end token with id 256."""
    tokens = (*(bytes([byte]) for byte in range(256)), b"")
    return Vocabulary(tokens, frozenset({256}), {256: "<end>"}, frozenset({256}), "bytes")


def letters(alphabet: str) -> Vocabulary:
    """One token per letter and an end token after them; small enough to enumerate every answer."""
    end = len(alphabet)
    tokens = (*(letter.encode() for letter in alphabet), b"")
    return Vocabulary(tokens, frozenset({end}), {end: "<end>"}, frozenset({end}), alphabet)


@dataclass(frozen=True)
class ToySource(LogitSource):
    """A deterministic language model: each context's logits are drawn from a seed of their own.

    `order` tokens of context matter; `sharpness` scales the logits.
    """

    engine = "in-process"
    vocabulary: Vocabulary
    seed: int = 0
    order: int = 3
    sharpness: float = 2.0
    context_length: int | None = None

    def logits(self, tokens: Sequence[int]) -> Tensor:
        """The logits (V,) of what follows `tokens`."""
        context = hash((self.seed, *tokens[-self.order :])) & 0x7FFFFFFF
        generator = torch.Generator().manual_seed(context)
        return self.sharpness * torch.randn(len(self.vocabulary), generator=generator)

    def encode(self, prompt: Prompt) -> tuple[int, ...]:
        """One token per byte, or per letter of a small alphabet."""
        if isinstance(prompt, tuple):
            return prompt
        if isinstance(prompt, Chat):
            prompt = "\n".join(str(message["content"]) for message in prompt.messages)
        ids = {piece: index for index, piece in enumerate(self.vocabulary.tokens)}
        tokens = tuple(ids[bytes([byte])] for byte in prompt.encode())
        if not tokens or (self.context_length and len(tokens) >= self.context_length):
            raise PromptError(f"the prompt has {len(tokens)} tokens; this toy reads {self.context_length}")
        return tokens

    def open(self, prompts: Sequence[Prompt], scored: int = 0) -> tuple[ToySession, Tensor]:
        session = ToySession(self, [self.encode(prompt) for prompt in prompts], scored)
        return session, torch.stack([self.logits(row) for row in session.rows])

    def identity(self) -> Mapping[str, Any]:
        return {"kind": "toy", "name": f"toy {self.seed}"}


class ToySession(Session):
    """The rows a ToySource has read; it keeps no cache, so that it cannot be wrong."""

    prompts: Sequence[ScoredPrompt]

    def __init__(self, source: ToySource, rows: Sequence[tuple[int, ...]], scored: int = 0) -> None:
        self.source = source
        self.rows = [list(row) for row in rows]
        self.prompts = [ScoredPrompt(row, self._scores(row, scored) if scored else ()) for row in rows]
        self.open = True

    def _scores(self, row: tuple[int, ...], scored: int) -> tuple[float, ...]:
        first = max(1, len(row) - scored)
        logprobs = (torch.log_softmax(self.source.logits(row[:at]), -1) for at in range(first, len(row)))
        return tuple(float(row_[token]) for row_, token in zip(logprobs, row[first:], strict=True))

    def extend(self, tokens: Tensor) -> Tensor:
        columns = []
        for column in tokens.T.tolist():
            for row, token in zip(self.rows, column, strict=True):
                row.append(token)
            columns.append(torch.stack([self.source.logits(row) for row in self.rows]))
        return torch.stack(columns, dim=1)

    def keep(self, rows: Sequence[int]) -> None:
        self.rows, self.prompts = [self.rows[row] for row in rows], [self.prompts[row] for row in rows]

    def rewind(self, lengths: Tensor) -> None:
        for row, prompt, length in zip(self.rows, self.prompts, lengths.tolist(), strict=True):
            del row[len(prompt.tokens) + length :]

    def close(self) -> None:
        self.open = False


@dataclass(frozen=True)
class ScriptedSource(LogitSource):
    """A model that is sure of one text: `text` after any prompt, then the end. An attacker's dream."""

    engine = "in-process"
    vocabulary: Vocabulary
    text: bytes
    doubt: float = 1e-3
    context_length: int | None = None

    def open(self, prompts: Sequence[Prompt], scored: int = 0) -> tuple[ScriptedSession, Tensor]:
        toy = ToySource(self.vocabulary)
        session = ScriptedSession(self, [toy.encode(prompt) for prompt in prompts])
        return session, torch.stack([session.logits(row) for row in range(len(prompts))])

    def identity(self) -> Mapping[str, Any]:
        return {"kind": "scripted", "name": "script"}


class ScriptedSession(ToySession):
    """Where each row is in the script."""

    def __init__(self, script: ScriptedSource, rows: Sequence[tuple[int, ...]]) -> None:
        self.script = script
        super().__init__(ToySource(script.vocabulary), rows)

    def logits(self, row: int) -> Tensor:
        """All but `doubt` on the script's next token."""
        at = len(self.rows[row]) - len(self.prompts[row].tokens)
        script, size = self.script.text, len(self.script.vocabulary)
        ids = {piece: index for index, piece in enumerate(self.script.vocabulary.tokens)}
        following = ids[script[at : at + 1]] if at < len(script) else min(self.script.vocabulary.eos)
        rest = math.log(self.script.doubt / (size - 1))
        return torch.full((size,), rest).index_fill(
            0, torch.tensor(following), math.log1p(-self.script.doubt)
        )

    def extend(self, tokens: Tensor) -> Tensor:
        columns = []
        for column in tokens.T.tolist():
            for row, token in zip(self.rows, column, strict=True):
                row.append(token)
            columns.append(torch.stack([self.logits(row) for row in range(len(self.rows))]))
        return torch.stack(columns, dim=1)
