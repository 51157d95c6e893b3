"""`CopyMask`: no answer holds `longest` words in a row of a protected work. A constraint.

What counts are letters: spaces, punctuation, case and tokens make no difference. Each run of words that the
answer ends with is followed word by word, since the index says how long the work's next word is and which
print it ends with. Only where a token could complete `longest` words is any token looked at.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy
import torch

from purify_hooks.protected.folding import letters_of, words_of
from purify_hooks.protected.prints import BASE, codes_of, value, values_of
from purify_hooks.protected.runs import RunPosition, WorkRuns
from purify_plugins.decode.deny_list import decoded
from purify_plugins.utils.sequences import leading

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor

    from purify_hooks.protected.index import PrintIndex
    from purify_plugins.types import Vocabulary

SPELLED = 32
"""Letters of a token that are looked at."""
REMEMBERED = 1024
"""Answers to which tokens complete a run, kept for each vocabulary."""


@dataclass(frozen=True)
class CopyMask:
    """Rules out each token that would complete `longest` words of a protected work, in both models' rows.

    `before` is where the text stands that the answer goes on from: a run of it goes on in the answer. Works
    that are `quotable`, by their names in the index, may be copied. A run may be stopped a word or two
    earlier: where it begins is known to a print, which has some three words. One that an answer begins with
    may be stopped two or three words earlier still: as many may be the prompt's last, too few to be known.
    """

    index: PrintIndex = field(repr=False)
    longest: int = 10
    quotable: frozenset[str] = frozenset()
    before: RunPosition | None = field(default=None, repr=False)

    def follower(self, vocabulary: Vocabulary) -> CopyFollower:
        """A new answer's follower."""
        runs = token_runs(self._runs, vocabulary)
        return CopyFollower(runs, self.before or runs.runs.answering)

    @property
    def _runs(self) -> WorkRuns:
        return followed(self.index, self.longest, self.quotable)

    def after(self, text: str) -> CopyMask:
        """The mask of an answer that goes on from a text; itself where the text ends in no protected work."""
        before = self._runs.read(self._runs.beginning, letters_of(text))
        return replace(self, before=before) if before.runs else self

    def public(self) -> Mapping[str, Any]:
        """Its kind, the index's digest, and how many words of the prompt count."""
        return {
            "kind": "copy_mask",
            "index": self.index.digest,
            "longest": self.longest,
            "quotable": len(self.quotable),
            "before": max((run.words for run in self.before.runs), default=0) if self.before else 0,
        }


class CopyFollower:
    """One answer's position among the protected works."""

    def __init__(self, runs: TokenRuns, before: RunPosition) -> None:
        self.runs = runs
        self.read: list[int] = []
        self.positions = [before]  # before each token read, and after the last

    def allowed(self, answer: Sequence[int]) -> Tensor:
        """The tokens (V,) bool that complete no `longest` words after `answer`."""
        answer = list(answer)
        if self.read[: len(answer)] != answer:
            longer = answer[: len(self.read)] == self.read
            kept = len(self.read) if longer else leading(self.read, answer)
            del self.read[kept:], self.positions[kept + 1 :]
            for token in answer[kept:]:
                self.positions.append(self.runs.after(self.positions[-1], token))
            self.read += answer[kept:]
        return self.runs.mask(self.positions[len(answer)])


class TokenRuns:
    """The works' runs in the tokens of one vocabulary."""

    def __init__(self, runs: WorkRuns, vocabulary: Vocabulary) -> None:
        self.runs, self.index = runs, runs.index
        self.spelled = spelled_letters(vocabulary)
        self.all = torch.ones(len(vocabulary), dtype=torch.bool)
        self._completing: dict[tuple[str, int, int], Any] = {}

    def after(self, position: RunPosition, token: int) -> RunPosition:
        """The position after one token more."""
        if not position.pending and token not in self.spelled.broken:
            letters = self.spelled.letters[token]
            return self.runs.read(position, letters) if letters else position
        text, pending = decoded(position.pending + self.spelled.vocabulary.tokens[token])
        return self.runs.read(position, letters_of(text), pending)

    def mask(self, position: RunPosition) -> Tensor:
        """The tokens (V,) bool that complete no run of `longest` words."""
        found = None
        for run in position.runs:
            if self.runs.longest - run.words > self.spelled.words + 1:  # even if words are run together
                continue
            word, end = self.runs.completed(run)
            if 0 < end - position.length <= SPELLED:
                ids = self._tokens(position, end - position.length, word)
                if len(ids):
                    found = self.all.clone() if found is None else found
                    found[ids] = False
        return self.all if found is None else found

    def _tokens(self, position: RunPosition, need: int, word: int) -> NDArray[Any]:
        """The ids of the tokens whose first `need` letters complete the word at a position of the works."""
        key = position.last[min(need, len(position.last)) :], need, word
        known: NDArray[Any] | None = None if position.pending else self._completing.get(key)
        if known is not None:
            return known
        ids = self.spelled.having(need)
        first = max(0, need - len(position.last))
        prints = self.spelled.prints(ids, first, need, self._before(position.last, need))
        found: NDArray[Any] = ids[self.index.ends_at(prints, word)]
        if position.pending:
            return numpy.concatenate([found, self._continuing(position, need, word)])
        if len(self._completing) >= REMEMBERED:
            self._completing.clear()
        self._completing[key] = found
        return found

    def _before(self, last: str, need: int) -> int:
        """What the letters before the `need` new ones are worth in their print."""
        found = 0
        for letter in last[min(need, len(last)) :]:
            found = (found * BASE + value(letter)) % 2**64
        return found * pow(BASE, min(need, len(last)), 2**64) % 2**64

    def _continuing(self, position: RunPosition, need: int, word: int) -> NDArray[Any]:
        """The same of tokens that go on with a character that is not complete."""
        tokens, found = self.spelled.vocabulary.tokens, []
        for token in self.spelled.continuing:
            letters = letters_of(decoded(position.pending + tokens[token])[0])
            if len(letters) >= need:
                print_ = self.runs.roller.print_of(position.last + letters[:need])
                if self.index.complete(print_, word):
                    found.append(token)
        return numpy.array(found, dtype=numpy.int64)


@lru_cache(maxsize=16)
def followed(index: PrintIndex, longest: int, quotable: frozenset[str]) -> WorkRuns:
    """An index's runs."""
    return WorkRuns(index, longest, quotable)


@lru_cache(maxsize=16)
def token_runs(runs: WorkRuns, vocabulary: Vocabulary) -> TokenRuns:
    """An index's runs in a vocabulary, made once for each."""
    return TokenRuns(runs, vocabulary)


class SpelledLetters:
    """A vocabulary's tokens as the letters that they add to complete text.

    `broken` are the ids of tokens whose bytes are no whole characters, `continuing` of those that begin
    inside a character.
    """

    def __init__(self, vocabulary: Vocabulary) -> None:
        self.vocabulary = vocabulary
        found = [decoded(token) for token in vocabulary.tokens]
        self.letters = [letters_of(text) for text, _ in found]
        self.words = max(len(words_of(text)) for text, _ in found)  # that one token has
        self.broken = {at for at, (text, rest) in enumerate(found) if rest or "\ufffd" in text}
        tokens = vocabulary.tokens
        self.continuing = [at for at in sorted(self.broken) if tokens[at] and 0x80 <= tokens[at][0] < 0xC0]
        lengths = numpy.array([min(len(each), SPELLED) for each in self.letters], dtype=numpy.int64)
        self._order = numpy.argsort(lengths, kind="stable")
        self._edges = numpy.searchsorted(lengths[self._order], numpy.arange(SPELLED + 2))
        padded = "".join(f"{each[:SPELLED]: <{SPELLED}}" for each in self.letters)
        self._values = values_of(codes_of(padded)).reshape(len(tokens), SPELLED)

    def having(self, least: int) -> NDArray[Any]:
        """The ids of the tokens with at least so many letters."""
        return self._order[self._edges[least] :]

    def prints(self, ids: NDArray[Any], first: int, last: int, before: int) -> NDArray[Any]:
        """The prints of tokens' letters `first` to `last`, behind letters that are worth `before` in them."""
        found = numpy.zeros(len(ids), dtype=numpy.uint64)
        for at in range(first, last):
            found *= numpy.uint64(BASE)
            found += self._values[ids, at]
        return found + numpy.uint64(before)


@lru_cache(maxsize=4)
def spelled_letters(vocabulary: Vocabulary) -> SpelledLetters:
    """A vocabulary's letters, which all its masks share."""
    return SpelledLetters(vocabulary)
