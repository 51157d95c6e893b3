"""`NgramModel`: rows, single probabilities and their explanation from tables of counts."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any, NamedTuple

from purify_hooks.ngram.counting import NgramCounts
from purify_hooks.ngram.smoothing import Discounted, discounted

if TYPE_CHECKING:
    from numpy.typing import NDArray

Span = tuple[int, int]
"""Numbers of n-grams at one level, from the first to before the second: the continuations of a context."""


class Term(NamedTuple):
    """One order's part in a probability.

    `context` are the tokens it looks back at (V for the document's beginning). `times` is the token's count
    after it and `kind` what was counted ("occurrences" or "distinct preceding tokens"), `total` the sum over
    all tokens, `discount` what was taken off `times`, `backoff` the weight this order leaves to the shorter
    context. `reach` is the product of the longer contexts' back-off weights: the term adds
    `reach * (times - discount) / total`. `positions` are where the n-gram stands in the corpus.
    """

    context: tuple[int, ...]
    times: int
    kind: str
    total: float
    discount: float
    backoff: float
    reach: float
    positions: NDArray[Any]

    @property
    def added(self) -> float:
        """What this order adds to the probability."""
        return self.reach * (self.times - self.discount) / self.total


class NgramModel:
    """Probabilities of the next of V tokens, from the `counts` of a corpus and each order's `discounts`.

    The order is the number of levels: an answer's row depends on the last `order - 1` tokens of its text.
    Token V stands for the beginning of a document and is never predicted.
    """

    def __init__(self, counts: NgramCounts, discounts: Sequence[Sequence[float]], size: int) -> None:
        self.levels, self.positions, self.size = counts.levels, counts.positions, size
        self.discounts = tuple(map(tuple, discounts))

    @property
    def order(self) -> int:
        return len(self.levels)

    @cached_property
    def unigrams(self) -> NDArray[Any]:
        """The probabilities (V,) float64 of the empty context: discounted counts and a uniform rest."""
        import numpy as np

        found = self._discounted_unigrams
        row = np.full(self.size, found.backoff / self.size)
        row[self._tokens(1, self._root())] += found.shares
        return row

    @cached_property
    def _log_unigrams(self) -> NDArray[Any]:
        import numpy as np

        row: NDArray[Any] = np.log(self.unigrams).astype(np.float32)
        return row

    def log_row(self, text: Sequence[int]) -> NDArray[Any]:
        """Log-probabilities (V,) float32 of the token after `text`, whose first token may be V, BEGIN."""
        import numpy as np

        seen = [(self._tokens(n, span), self._discounted(n, span)) for n, span in self._spans(text)][1:]
        reach = float(np.prod([found.backoff for _, found in seen]))  # of the empty context
        row: NDArray[Any] = self._log_unigrams + np.float32(np.log(reach))
        if seen:
            # What follows a context follows every shorter one too: no token but the bigrams' is touched.
            touched = seen[0][0]
            masses, weight = self.unigrams[touched] * reach, 1.0
            for tokens, found in reversed(seen):
                masses[np.searchsorted(touched, tokens)] += weight * found.shares
                weight *= found.backoff
            row[touched] = np.log(masses)
        return row

    def probability(self, text: Sequence[int], token: int) -> float:
        """The probability of `token` after `text`, in float64: the sum of `explain`'s terms."""
        terms = self.explain(text, token)
        return sum(term.added for term in terms) + self.uniform(terms)

    def uniform(self, terms: Sequence[Term]) -> float:
        """What the uniform distribution adds, below the shortest context, which is the last of the terms."""
        return terms[-1].reach * terms[-1].backoff / self.size

    def probabilities(self, text: Sequence[int], tokens: NDArray[Any]) -> NDArray[Any]:
        """The probabilities (K,) float64 of these tokens (K,) after `text`."""
        import numpy as np

        found, weight = np.zeros(len(tokens)), 1.0
        for n, span in reversed([*self._spans(text)][1:]):
            known, said = self._tokens(n, span), self._discounted(n, span)
            at = np.minimum(np.searchsorted(known, tokens), len(known) - 1)
            found += np.where(known[at] == tokens, weight * said.shares[at], 0.0)
            weight *= said.backoff
        found += weight * self.unigrams[tokens]
        return found

    def matched(self, text: Sequence[int]) -> int:
        """How many of the last tokens of `text` stand in a row in the corpus; order - 1 at most."""
        return max(n for n, _ in self._spans(text)) - 1

    @cached_property
    def stream(self) -> NDArray[Any]:
        """The corpus (T,) int32 that the sorted positions still tell: V, BEGIN, before each document, and -1
        between documents."""
        import numpy as np

        unigrams = self.levels[0]
        found = np.full(int(self.positions.max()) + 1, -1, dtype=np.int32)
        found[self.positions] = np.repeat(unigrams.tokens, unigrams.uses)
        return found

    def places(self, text: Sequence[int]) -> NDArray[Any]:
        """The places (K,) int64 in the stream right behind the run of tokens that `matched` counts."""
        import numpy as np

        n, (first, last) = max(self._spans(text))
        level = self.levels[n - 1]
        begins = self.positions[int(level.first[first]) : int(level.first[last - 1] + level.uses[last - 1])]
        return begins.astype(np.int64) + (n - 1)

    def followers(self, text: Sequence[int]) -> NDArray[Any]:
        """The tokens (K,) that follow the last token of `text` somewhere in the corpus, ascending."""
        import numpy as np

        span = self._continuations(text[-1:])
        tokens = self._tokens(2, span or (0, 0)).astype(np.int64)
        return tokens[tokens < self.size]

    def explain(self, text: Sequence[int], token: int) -> list[Term]:
        """The terms of a token's probability after `text`, the longest context that was seen first."""
        terms, reach = [], 1.0
        for n, span in reversed([*self._spans(text)]):
            found = self._discounted(n, span)
            number = self._find(n, span, token)
            terms.append(self._term(n, tuple(text[len(text) - n + 1 :]), number, found, reach))
            reach *= found.backoff
        return terms

    def _term(
        self, n: int, context: tuple[int, ...], number: int | None, found: Discounted, reach: float
    ) -> Term:
        level = self.levels[n - 1]
        whole = n == self.order or context[:1] == (self.size,)
        kind = "occurrences" if whole else "distinct preceding tokens"
        if number is None:
            return Term(context, 0, kind, found.total, 0.0, found.backoff, reach, self.positions[:0])
        count, first = int(level.counts[number]), int(level.first[number])
        discount = self.discounts[n - 1][min(count, 3) - 1]
        where = self.positions[first : first + int(level.uses[number])]
        return Term(context, count, kind, found.total, discount, found.backoff, reach, where)

    def _discounted(self, n: int, span: Span) -> Discounted:
        if n == 1:
            return self._discounted_unigrams
        return discounted(self.levels[n - 1].counts[slice(*span)], self.discounts[n - 1])

    @cached_property
    def _discounted_unigrams(self) -> Discounted:
        return discounted(self.levels[0].counts[slice(*self._root())], self.discounts[0])

    def _tokens(self, n: int, span: Span) -> NDArray[Any]:
        return self.levels[n - 1].tokens[slice(*span)]

    def _root(self) -> Span:
        """All unigrams but the last, BEGIN."""
        return 0, len(self.levels[0].tokens) - 1

    def _spans(self, text: Sequence[int]) -> Iterator[tuple[int, Span]]:
        """For each order n that has seen the last n - 1 tokens followed by any: n and what followed."""
        yield 1, self._root()
        for length in range(1, min(self.order - 1, len(text)) + 1):
            span = self._continuations(text[len(text) - length :])
            if span is None:  # then no longer context was seen either
                return
            yield length + 1, span

    def _continuations(self, context: Sequence[int]) -> Span | None:
        """The n-grams that continue a context; None if there are none."""
        span = 0, len(self.levels[0].tokens)
        for n, token in enumerate(context, start=1):
            number = self._find(n, span, token)
            if number is None:
                return None
            children = self.levels[n - 1].children
            span = int(children[number]), int(children[number + 1])
        return span if span[0] < span[1] else None

    def _find(self, n: int, span: Span, token: int) -> int | None:
        """The number of the n-gram among `span` that ends with this token."""
        import numpy as np

        tokens = self._tokens(n, span)
        at = int(np.searchsorted(tokens, np.uint32(token)))
        return span[0] + at if at < len(tokens) and tokens[at] == token else None
