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
    from purify_plugins.types import Chunk, Prompt


def own_ids(purifier: Purifier) -> OwnIds:
    """The translation between the LLM's own ids and this purifier's, which may be symbols."""
    return RespelledIds(purifier) if purifier.llm.symbolic else SharedIds(purifier)


class OwnIds(ABC):
    """Translates between the LLM's own token ids and the purifier's. `ends` are the model's own."""

    ends: frozenset[int]

    def __init__(self, purifier: Purifier) -> None:
        llm = purifier.llm.inner
        self.symbols, self.vocabulary, self.tokenizer = purifier.vocabulary, llm.vocabulary, llm.tokenizer

    @abstractmethod
    def prompt(self, tokens: Sequence[int]) -> Prompt:
        """The prompt that these tokens are. Raises PromptError."""

    @abstractmethod
    def answer(self, ids: Sequence[int]) -> list[int]:
        """An answer of the purifier's ids in the model's own tokens."""

    @abstractmethod
    def certain(self, ids: Sequence[int]) -> int:
        """How many of the first ids of an unfinished answer have tokens that what follows cannot change."""

    def tokenised(self, text: bytes) -> list[int]:
        """The tokens of a text, in bytes; those that spell it by longest match where the tokenizer's do not.

        The tokenizer's may begin with a space, or be control tokens whose names stand in the text.
        """
        if self.tokenizer is not None:
            read = self.tokenizer(text.decode(errors="replace"), add_special_tokens=False)["input_ids"]
            if self.vocabulary.spell(read) == text:
                return list(read)
        return self._trie.longest_run([*text])

    @cached_property
    def _trie(self) -> VocabularyTrie:
        return VocabularyTrie(self.vocabulary, byte_symbols())


class SharedIds(OwnIds):
    """For models fused in whole tokens: an id for each, or none."""

    def __init__(self, purifier: Purifier) -> None:
        super().__init__(purifier)
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
        super().__init__(purifier)
        self.ends = frozenset(self.vocabulary.eos)
        self._reader = PromptEncoder(self.tokenizer, self.vocabulary.name, self.vocabulary)

    def prompt(self, tokens: Sequence[int]) -> Prompt:
        return self._reader.text(tuple(tokens))

    def answer(self, ids: Sequence[int]) -> list[int]:
        ended = bool(ids) and ids[-1] in self.symbols.eos
        return [*self.tokenised(self.symbols.spell(ids)), *([self._end] if ended else [])]

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


class DrawnIds:
    """The model's own ids of an answer as it is drawn."""

    def __init__(self, ids: OwnIds) -> None:
        self.ids = ids
        self._waiting: list[int] = []

    def take(self, chunk: Chunk) -> list[int]:
        """The ids that are certain with this chunk."""
        self._waiting += [token.id for token in chunk.steps]
        certain = len(self._waiting) if chunk.completion else self.ids.certain(self._waiting)
        found = self.ids.answer(self._waiting[:certain])
        del self._waiting[:certain]
        return found


class ReleasedIds:
    """The model's own ids of an answer that stages made, as it is released.

    They are those that were drawn, where these spell what was released of them. A true value and an
    operator's text, which no token wrote, are tokenised.
    """

    def __init__(self, ids: OwnIds) -> None:
        self.ids = ids
        self._drawn: list[int] = []
        self._text = ""

    def take(self, chunk: Chunk) -> list[int]:
        """The ids of what this chunk completes."""
        found: list[int] = []
        for token, text in chunk.drawn:
            self._drawn.append(token.id)
            self._text += text
            found += self._certain()
        said = "".join(piece.text for piece in chunk.pieces if piece.token is None)
        if said or chunk.completion:
            found += self._rest()
        return [*found, *self.ids.tokenised(said.encode())] if said else found

    def _certain(self) -> list[int]:
        """The ids of what has been taken, unless more tokens belong to its last character, or word."""
        spelled, text = self.ids.symbols.spell(self._drawn), self._text.encode()
        if spelled == text:
            certain = self.ids.certain(self._drawn)
            found, self._drawn = self.ids.answer(self._drawn[:certain]), self._drawn[certain:]
            self._text = self.ids.symbols.spell(self._drawn).decode()
            return found
        return [] if spelled.startswith(text) and not _is_text(spelled) else self._rest()

    def _rest(self) -> list[int]:
        drawn, text = self._drawn, self._text.encode()
        self._drawn, self._text = [], ""
        return self.ids.answer(drawn) if self.ids.symbols.spell(drawn) == text else self.ids.tokenised(text)


def _is_text(spelled: bytes) -> bool:
    try:
        spelled.decode()
    except UnicodeDecodeError:
        return False
    return True
