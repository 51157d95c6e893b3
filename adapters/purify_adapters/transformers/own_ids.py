"""A model's own token ids, which `generate` takes and returns, and the purifier's ids."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from functools import cached_property
from typing import TYPE_CHECKING

from purify_plugins.errors import PromptError
from purify_plugins.tokenizers.cross.symbols import byte_symbols
from purify_plugins.tokenizers.cross.vocabulary_trie import VocabularyTrie
from purify_plugins.tokenizers.prompt_encoder import PromptEncoder

if TYPE_CHECKING:
    from purify_plugins.purifier import Purifier
    from purify_plugins.types import Prompt


def own_ids(purifier: Purifier) -> OwnIds:
    """The translation between the LLM's own ids and this purifier's, which may be symbols."""
    return RespelledIds(purifier) if purifier.llm.symbolic else SharedIds(purifier)


class OwnIds(ABC):
    """Translates between the LLM's own token ids and the purifier's. `ends` are the model's own."""

    ends: frozenset[int]

    @abstractmethod
    def prompt(self, tokens: Sequence[int]) -> Prompt:
        """The prompt that these tokens are. Raises PromptError."""

    @abstractmethod
    def answer(self, ids: Sequence[int]) -> list[int]:
        """An answer of the purifier's ids in the model's own tokens."""

    @abstractmethod
    def certain(self, ids: Sequence[int]) -> int:
        """How many of the first ids of an unfinished answer have tokens that what follows cannot change."""


class SharedIds(OwnIds):
    """For models fused in whole tokens: an id for each, or none."""

    def __init__(self, purifier: Purifier) -> None:
        self.llm = purifier.llm
        self.ends = frozenset(self.llm.to_own(sorted(purifier.vocabulary.eos)))

    def prompt(self, tokens: Sequence[int]) -> Prompt:
        found = tuple(self.llm.from_own(tokens))
        if (missing := next((at for at, token in enumerate(found) if token < 0), None)) is not None:
            raise PromptError(
                f"the prompt holds token {tokens[missing]}, which the SLM does not have; leave it out"
            )
        return found

    def answer(self, ids: Sequence[int]) -> list[int]:
        return list(self.llm.to_own(ids))

    def certain(self, ids: Sequence[int]) -> int:
        return len(ids)


class RespelledIds(OwnIds):
    """For models fused in symbols: a prompt is its text, and an answer's text is tokenised again.

    A control token in a prompt is written by its name, which a model that has no such token reads as text.
    An answer has as many tokens as its text comes to: `max_new_tokens` is kept on average only.
    """

    def __init__(self, purifier: Purifier) -> None:
        llm = purifier.llm.inner
        self.symbols, self.vocabulary, self.tokenizer = purifier.vocabulary, llm.vocabulary, llm.tokenizer
        self.ends = frozenset(self.vocabulary.eos)
        self._reader = PromptEncoder(self.tokenizer, self.vocabulary.name, self.vocabulary)

    def prompt(self, tokens: Sequence[int]) -> Prompt:
        return self._reader.text(tuple(tokens))

    def answer(self, ids: Sequence[int]) -> list[int]:
        ended = bool(ids) and ids[-1] in self.symbols.eos
        return [*self._tokenised(self.symbols.spell(ids)), *([self._end] if ended else [])]

    def _tokenised(self, text: bytes) -> list[int]:
        """The tokens of a text, in bytes; those that spell it by longest match where the tokenizer's do not.

        The tokenizer's may begin with a space, or be control tokens whose names stand in the text.
        """
        read = self.tokenizer(text.decode(errors="replace"), add_special_tokens=False)["input_ids"]
        return list(read) if self.vocabulary.spell(read) == text else self._trie.longest_run([*text])

    @cached_property
    def _trie(self) -> VocabularyTrie:
        return VocabularyTrie(self.vocabulary, byte_symbols())

    @property
    def _end(self) -> int:
        preferred = self.tokenizer.eos_token_id
        return preferred if preferred in self.ends else min(self.ends)

    def certain(self, ids: Sequence[int]) -> int:
        """Up to the space before the last word: a word may become other tokens as it goes on."""
        texts = [self.symbols.tokens[each] for each in ids]
        at = len(texts) - 1
        while at > 0 and not (texts[at][:1].isspace() and not texts[at - 1][-1:].isspace()):
            at -= 1
        return max(at, 0)
