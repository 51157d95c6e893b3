"""An open batch on a GGUF file that llama.cpp runs: a sequence of its cache for each row."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from purify_hooks.gguf.context import SPACE, STEP, Contexts, New
from purify_plugins.errors import SourceError
from purify_plugins.protocols import Session
from purify_plugins.types import ScoredPrompt

BLOCK = 256
"""Prompt tokens of a row that are read at once; bounds the scored logits in memory to rows x 256 x V."""


class GgufSession(Session):
    """An open batch: row i's tokens are `_texts[i]`, in the cache's sequence `_sequences[i]`."""

    def __init__(self, contexts: Contexts, prompts: Sequence[tuple[int, ...]], vocabulary_size: int) -> None:
        self.contexts, self.vocabulary_size = contexts, vocabulary_size
        self.prompts: Sequence[ScoredPrompt] = [ScoredPrompt(prompt) for prompt in prompts]
        self._sequences = list(range(len(prompts)))
        self._texts: list[list[int]] = [[] for _ in prompts]
        self._opened = contexts.take(len(prompts), _room(max(map(len, prompts)) + SPACE))
        self._closed = False

    def prefill(self, scored: int) -> Tensor:
        """Read the prompts in blocks and score their last `scored` tokens; the last logits (rows, V)."""
        prompts = [prompt.tokens for prompt in self.prompts]
        scores: list[list[float]] = [[] for _ in prompts]
        last = [torch.empty(0)] * len(prompts)
        for start in range(0, max(map(len, prompts)), BLOCK):
            news = [list(prompt[start : start + BLOCK]) for prompt in prompts]
            firsts = [max(len(prompt) - 1 - scored, start) for prompt in prompts]  # whose row is wanted
            wanted = [max(start + len(new) - at, 0) for new, at in zip(news, firsts, strict=True)]
            for at, rows in enumerate(self._read(news, wanted)):
                if len(rows):
                    scores[at] += _scores(rows, prompts[at][firsts[at] + 1 :])
                    last[at] = rows[-1]
        self.prompts = [
            ScoredPrompt(prompt, tuple(found)) for prompt, found in zip(prompts, scores, strict=True)
        ]
        return torch.stack(last)

    def extend(self, tokens: Tensor) -> Tensor:
        """(rows, n) token ids -> (rows, n, V) float32 logits of the token after each."""
        news: list[list[int]] = tokens.tolist()
        return torch.stack(self._read(news, [len(new) for new in news]))

    def _read(self, news: Sequence[list[int]], wanted: Sequence[int]) -> list[Tensor]:
        """Append tokens to each row; the logits (wanted, V) after its last `wanted` of them."""
        if self._closed:
            raise SourceError("this session is closed; open the prompts again")
        before = [len(text) for text in self._texts]
        self._grow(max(at + len(new) for at, new in zip(before, news, strict=True)))
        places = zip(news, wanted, self._sequences, before, strict=True)
        tokens = [
            New(token, sequence, start + at, at >= len(new) - last)
            for new, last, sequence, start in places
            for at, token in enumerate(new)
        ]
        for text, new in zip(self._texts, news, strict=True):
            text.extend(new)
        try:
            rows = self._opened.read(tokens)
        except BaseException:
            self._cut(before)
            raise
        return list(self._to_vocabulary(rows).split(list(wanted)))

    def _to_vocabulary(self, rows: Tensor) -> Tensor:
        """Without the rows by which a model is padded beyond its tokenizer."""
        return rows[:, : self.vocabulary_size]

    def _grow(self, length: int) -> None:
        """Move to a context with room for rows of `length` tokens."""
        old = self._opened
        if length <= old.room:
            return
        larger = self.contexts.take(old.rows, _room(max(length, 2 * old.room)), most=old.rows)
        try:
            for sequence in self._sequences:
                old.copy_to(larger, sequence)
        except BaseException:
            self.contexts.give(larger)
            raise
        self._opened = larger
        self.contexts.give(old)

    def rewind(self, lengths: Tensor) -> None:
        """Remove all but the first `lengths` (rows,) tokens after each row's prompt."""
        kept = [len(p.tokens) + n for p, n in zip(self.prompts, lengths.tolist(), strict=True)]
        self._cut([min(n, len(text)) for n, text in zip(kept, self._texts, strict=True)])

    def _cut(self, lengths: Sequence[int]) -> None:
        for sequence, text, length in zip(self._sequences, self._texts, lengths, strict=True):
            if length < len(text):
                self._opened.cut(sequence, length)
                del text[length:]

    def keep(self, rows: Sequence[int]) -> None:
        """Keep these rows only."""
        for row in set(range(len(self._sequences))) - set(rows):
            self._opened.cut(self._sequences[row], 0)
        self.prompts = [self.prompts[row] for row in rows]
        self._sequences = [self._sequences[row] for row in rows]
        self._texts = [self._texts[row] for row in rows]

    def mark(self) -> list[int]:
        """The state for `undo`: each row's length."""
        return [len(text) for text in self._texts]

    def undo(self, mark: list[int]) -> None:
        """Remove what was read since the mark."""
        self._cut(mark)

    def close(self) -> None:
        if not self._closed:
            self._closed = True
            self.contexts.give(self._opened)


def _room(tokens: int) -> int:
    return -(-tokens // STEP) * STEP


def _scores(rows: Tensor, tokens: Sequence[int]) -> list[float]:
    """Log-probabilities of the tokens after the first rows (n, V), where there are any."""
    following = torch.tensor(tokens[: len(rows)], dtype=torch.long)
    found = rows[: len(following)].log_softmax(dim=-1).gather(-1, following[:, None])
    return [*found[:, 0].tolist()]
