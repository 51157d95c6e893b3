"""The scores of a prompt's end where two models read it in different tokens: one per stretch both share."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from difflib import SequenceMatcher
from itertools import accumulate, pairwise
from typing import TYPE_CHECKING

from purify_plugins.utils.sequences import leading

if TYPE_CHECKING:
    from purify_plugins.types import ScoredPrompt, Vocabulary

Block = tuple[int, int, int]
"""Where a common run of symbols begins in either text, and its length."""


PromptScore = tuple[int, float, float]
"""A prompt's token or symbol, and its log-probabilities (nats) under the LLM and the SLM."""


def shared_symbol_scores(llm: ScoredPrompt, slm: ScoredPrompt, vocabulary: Vocabulary) -> list[PromptScore]:
    """The symbols of the scored text that both models read, with their log-probabilities (nats).

    The text is cut where both models' tokens end. A stretch has the sums of the log-probabilities of its
    tokens at its first symbol and 0 at the others, so that a long text adds up as it does in tokens: in
    symbols of their own, tokens that end in different places would seem more and less likely in turn.
    """
    one, other = PromptText(llm), PromptText(slm)
    blocks = _blocks(one.symbols, other.symbols, vocabulary)
    return [score for block in blocks for score in _scored(one, other, block)]


class PromptText:
    """The symbols of a prompt's scored tokens, and where these tokens begin and end.

    `scores` has each token's log-probability at its first symbol.
    """

    def __init__(self, prompt: ScoredPrompt) -> None:
        self.symbols = [symbol for token in prompt.spelled for symbol in token]
        self.cuts = set(accumulate(map(len, prompt.spelled), initial=0))
        self.scores: list[float] = []
        for token, logprob in zip(prompt.spelled, prompt.logprobs, strict=True):
            if token:  # a control token is no text
                self.scores += [logprob, *[0.0] * (len(token) - 1)]


def _scored(llm: PromptText, slm: PromptText, block: Block) -> Iterator[PromptScore]:
    """The scores of a common run of symbols, from the first to the last position where both are cut."""
    start, begin, size = block
    shared = (at for at in range(size + 1) if start + at in llm.cuts and begin + at in slm.cuts)
    for low, high in pairwise(shared):
        first, *others = llm.symbols[start + low : start + high]
        yield (
            first,
            sum(llm.scores[start + low : start + high]),
            sum(slm.scores[begin + low : begin + high]),
        )
        yield from ((symbol, 0.0, 0.0) for symbol in others)


def _blocks(llm: Sequence[int], slm: Sequence[int], vocabulary: Vocabulary) -> Iterator[Block]:
    """The runs of symbols that stand in both texts, in order: a common end, and common words before it."""
    alike = leading(llm[::-1], slm[::-1])
    ends = len(llm) - alike, len(slm) - alike
    if all(ends):  # two templates around one conversation
        yield from _common_words(llm[: ends[0]], slm[: ends[1]], vocabulary)
    yield (*ends, alike)


def _common_words(llm: Sequence[int], slm: Sequence[int], vocabulary: Vocabulary) -> Iterator[Block]:
    """The runs of words that stand in both; letters that two unlike words share are no common text."""
    spaces = {symbol for symbol, text in enumerate(vocabulary.tokens) if text[:1].isspace()}
    places = [_word_starts(text, spaces) for text in (llm, slm)]
    one, other = (
        [tuple(text[a:b]) for a, b in pairwise(starts)]
        for text, starts in zip((llm, slm), places, strict=True)
    )
    for block in SequenceMatcher(None, one, other, autojunk=False).get_matching_blocks():
        start, begin = places[0][block.a], places[1][block.b]
        yield start, begin, places[0][block.a + block.size] - start


def _word_starts(text: Sequence[int], spaces: set[int]) -> list[int]:
    """The positions where words begin, each with the space before it, and the text's end."""
    return [0, *(at for at, symbol in enumerate(text) if at and symbol in spaces), len(text)]
