"""Constrained decoding: which tokens a grammar lets an answer go on with, in both rows alike."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache, partial
from typing import TYPE_CHECKING, Any

import numpy
import torch
from torch import Tensor

from purify_plugins.decode.constraint_mask import FollowerMask
from purify_plugins.errors import ConfigError, SourceError
from purify_plugins.grammar import lark

if TYPE_CHECKING:
    from llguidance import LLMatcher, LLTokenizer

    from purify_plugins.grammar import Grammar
    from purify_plugins.types import Vocabulary

REMEMBERED = 32
"""Masks kept of one answer: each position of a draft needs its mask three times."""
COMPILED = 64
"""Grammars kept compiled, each with the vocabulary it was compiled for."""


class Mask(FollowerMask):
    """A logits processor: rules out, in each row, every token that the grammar does not allow next.

    The end of the answer is allowed exactly where the grammar is complete. Rows that have ended, or
    are not in the grammar (an answer from elsewhere, replayed), may only end.
    """

    def __init__(self, grammar: Grammar, vocabulary: Vocabulary) -> None:
        if not vocabulary.eos:
            raise ConfigError(
                f"{vocabulary.name!r} has no end token, which a grammar needs; leave `grammar` out"
            )
        self.grammar = grammar
        super().__init__(partial(GrammarFollower, grammar, vocabulary))


class GrammarFollower:
    """One row's position in the grammar; it is rolled back where the answer is."""

    def __init__(self, grammar: Grammar, vocabulary: Vocabulary) -> None:
        self.grammar, self.vocabulary = grammar, vocabulary
        self.matcher = compiled(grammar, vocabulary).deep_copy()
        self.eos = vocabulary.eos
        self.read: list[int] = []
        self.masks: dict[int, Tensor] = {}
        self.end = torch.zeros(len(vocabulary), dtype=torch.bool)
        self.end[sorted(self.eos)] = True

    def allowed(self, answer: Sequence[int]) -> Tensor:
        """The tokens (V,) bool that may follow `answer`."""
        if not self.eos.isdisjoint(answer):
            return self.end
        if list(answer) == self.read[: len(answer)] and len(answer) in self.masks:
            return self.masks[len(answer)]
        return self._mask() if self._go_to(list(answer)) else self.end

    def _go_to(self, answer: list[int]) -> bool:
        """Move to the position after `answer`; False if no text of the grammar begins with it."""
        # A matcher never leaves its error state, and rows are dropped: another row may have this place now.
        if self.matcher.get_error():
            self.matcher = compiled(self.grammar, self.vocabulary).deep_copy()
            self.read, self.masks = [], {}
        kept = _shared(self.read, answer)
        if kept < len(self.read):
            self.matcher.rollback(len(self.read) - kept)
            self.masks = {at: mask for at, mask in self.masks.items() if at <= kept}
        taken = self.matcher.try_consume_tokens(answer[kept:])
        self.read = answer[: kept + taken]
        return len(self.read) == len(answer)

    def _mask(self) -> Tensor:
        bits = numpy.frombuffer(self.matcher.compute_bitmask(), dtype=numpy.uint8)
        if error := self.matcher.get_error():
            raise _stuck(error.split()[0])
        mask = numpy.unpackbits(bits, bitorder="little", count=len(self.end)).astype(bool)
        self.masks.pop(len(self.read) - REMEMBERED, None)
        return self.masks.setdefault(len(self.read), torch.from_numpy(mask))


def _stuck(code: str) -> ConfigError | SourceError:
    if code == "NoExtensionBias":
        return ConfigError("no token of the models' vocabulary continues this grammar; use another")
    return SourceError(f"the grammar could not be followed to its end ({code}); simplify it")


def _shared(one: list[int], other: list[int]) -> int:
    """The length of the common prefix of two answers."""
    short = min(len(one), len(other))
    if one[:short] == other[:short]:
        return short
    return next(at for at in range(short) if one[at] != other[at])


@lru_cache(maxsize=COMPILED)
def compiled(grammar: Grammar, vocabulary: Vocabulary) -> LLMatcher:
    """A matcher at a grammar's beginning, for each row to copy: compiling costs a hundred copies."""
    from llguidance import LLMatcher

    return LLMatcher(tokenizer(vocabulary), lark(grammar), log_level=0)


class _Spelling:
    """A vocabulary for llguidance: control tokens by name, which no text can spell."""

    is_tokenizer_wrapper = True
    bos_token_id = None

    def __init__(self, vocabulary: Vocabulary) -> None:
        self.eos_token_id = min(vocabulary.eos)
        self.tokens = [
            vocabulary.control[index].encode() if index in vocabulary.control else token
            for index, token in enumerate(vocabulary.tokens)
        ]
        self.special_token_ids = sorted(vocabulary.control)

    def __call__(self, text: str) -> list[int]:
        raise NotImplementedError("nothing is tokenised: no grammar forces a spelling")


@lru_cache(maxsize=4)
def tokenizer(vocabulary: Vocabulary) -> LLTokenizer:
    """llguidance's index of a vocabulary, made once for each."""
    from llguidance import LLTokenizer

    spelling: Any = _Spelling(vocabulary)
    return LLTokenizer(spelling, n_vocab=len(vocabulary), eos_token=sorted(vocabulary.eos))
