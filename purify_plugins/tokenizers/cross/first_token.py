"""An SLM in the LLM's vocabulary, approximately: fast, and no distribution over text (`top_k_union`)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

from purify_plugins.protocols import LogitSource, Session
from purify_plugins.sources.wrapper import SpelledSource, closed_on_error
from purify_plugins.tokenizers.cross.source import ROOM
from purify_plugins.tokenizers.cross.symbols import byte_symbols
from purify_plugins.tokenizers.cross.token_prefixes import PrefixReader, TokenPrefix
from purify_plugins.tokenizers.cross.vocabulary_trie import VocabularyTrie
from purify_plugins.types import Prompt, ScoredPrompt, Vocabulary

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, eq=False)
class FirstTokenSource(SpelledSource):
    """A source whose logits for another vocabulary's tokens are those of the first own token of each.

    Tokens that begin with the same own token get the same logit, so the rows are not those of a model of text
    and nothing can be guaranteed. Drawn tokens are read as the own tokens that spell them by longest match.
    Source: UniTE (2410.03777).
    """

    rough = True
    source: LogitSource
    vocabulary: Vocabulary

    @property
    def capabilities(self) -> None:
        """None: a server drafts in its own tokens, not in the other vocabulary."""

    def encode(self, prompt: Prompt) -> tuple[int, ...]:
        """The ids that a session's `prompts` have: its own token i as id -2 - i."""
        return tuple(-2 - token for token in self.source.encode(self._text(prompt)))

    def identity(self) -> Mapping[str, Any]:
        return {**self.source.identity(), "alphabet": {"kind": "top_k_union"}}

    @cached_property
    def trie(self) -> VocabularyTrie:
        return VocabularyTrie(self.source.vocabulary, byte_symbols())

    @cached_property
    def first(self) -> dict[int, int]:
        """Token -> the index of its first own token among the sorted ones; others are left out."""
        silent = self.vocabulary.control.keys() | self.vocabulary.eos
        begun = {
            token: self.trie.longest([*text], 0)[0]
            for token, text in enumerate(self.vocabulary.tokens)
            if text and token not in silent
        }
        return {token: self.trie.place[own] for token, own in begun.items() if own >= 0}

    def open(self, prompts: Sequence[Prompt], scored: int = 0) -> tuple[FirstTokenSession, Tensor]:
        """Read the prompts, whose ids are the other vocabulary's; no token of them is scored."""
        session, logits = self.source.open([self._text(prompt) for prompt in prompts])
        with closed_on_error(session):
            respelled = FirstTokenSession(session, logits, self)
            return respelled, respelled.rows()

    def _text(self, prompt: Prompt) -> Prompt:
        return self.vocabulary.spell(prompt).decode(errors="replace") if isinstance(prompt, tuple) else prompt


class FirstTokenSession(Session):
    """An open batch. `prompts` are in the model's own tokens, token i as id -2 - i."""

    def __init__(self, session: Session, logits: Tensor, source: FirstTokenSource) -> None:
        self._session, self.source = session, source
        self.prompts: Sequence[ScoredPrompt] = [
            ScoredPrompt(tuple(-2 - token for token in prompt.tokens)) for prompt in session.prompts
        ]
        self.answers: list[list[int]] = [[] for _ in self.prompts]
        self.reader = PrefixReader(session, source.trie, len(self.answers))
        for row, root in enumerate(self.reader.roots):
            self.reader.note(row, root, logits[row])

    @property
    def readings(self) -> Sequence[tuple[int, ...]]:
        return self._session.readings

    @property
    def full(self) -> set[int]:
        """The rows whose context is full."""
        length = self.source.context_length
        used = [len(prompt.tokens) + self._prefix(row).length for row, prompt in enumerate(self.prompts)]
        return {row for row, tokens in enumerate(used) if length is not None and tokens > length - ROOM}

    def _prefix(self, row: int) -> TokenPrefix:
        prefix = self.reader.roots[row]
        text = self.source.vocabulary.spell(self.answers[row])
        for token in self.source.trie.longest_run([*text]):
            prefix = prefix.then(token)
        return prefix

    def rows(self) -> Tensor:
        """Log-weights (rows, V) of the other vocabulary's tokens."""
        import torch

        prefixes = [self._prefix(row) for row in range(len(self.answers))]
        self.reader.read([[prefix] for prefix in prefixes])
        return torch.stack([self._row(prefix) for prefix in prefixes])

    def _row(self, prefix: TokenPrefix) -> Tensor:
        import torch

        distribution, first = prefix.distribution, self.source.first
        assert distribution is not None
        masses = torch.zeros(len(self.source.vocabulary), dtype=torch.float32)
        masses[list(first)] = torch.from_numpy(distribution.tokens[list(first.values())]).float()
        masses[min(self.source.vocabulary.eos)] = distribution.end
        return masses.log()

    def extend(self, tokens: Tensor) -> Tensor:
        """Append (rows, n) tokens; (rows, n, V) log-weights after each."""
        import torch

        return torch.stack([self._push(column) for column in zip(*tokens.tolist(), strict=True)], dim=1)

    def _push(self, column: Sequence[int]) -> Tensor:
        for answer, token in zip(self.answers, column, strict=True):
            answer.append(token)
        return self.rows()

    def rewind(self, lengths: Tensor) -> None:
        for answer, length in zip(self.answers, lengths.tolist(), strict=True):
            del answer[length:]

    def close(self) -> None:
        self._session.close()
