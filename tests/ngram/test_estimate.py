"""The estimate: its counts, a second implementation of Kneser-Ney, rows that sum to 1, explanations."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from purify_hooks.ngram.counting import count, stream_of
from purify_hooks.ngram.model import NgramModel
from purify_hooks.ngram.smoothing import FALLBACK, discounts

V, END = 6, 5
BEGIN = V
Gram = tuple[int, ...]
corpora = st.lists(st.lists(st.integers(0, V - 2), max_size=25), min_size=1, max_size=4)
texts = st.lists(st.integers(0, V - 1), max_size=6)
orders = st.integers(2, 5)


def model(documents: Sequence[Sequence[int]], order: int) -> NgramModel:
    stream, _ = stream_of([np.array(each, dtype=np.int32) for each in documents], V, order, [END])
    counts = count(stream, V, order)
    levels = [level.counts for level in counts.levels]
    return NgramModel(counts, [discounts(each[:-1] if n == 0 else each) for n, each in enumerate(levels)], V)


def occurrences(documents: Sequence[Sequence[int]], n: int) -> Counter[Gram]:
    whole = [(BEGIN, *each, END) for each in documents]
    return Counter(
        each[at : at + n] for each in whole for at in range(len(each) - n + 1)
    )  # a short one has none


class Reference:
    """Chen and Goodman's equations over dictionaries, one sum after another."""

    def __init__(self, documents: Sequence[Sequence[int]], order: int) -> None:
        self.order = order
        raw = {n: occurrences(documents, n) for n in range(1, order + 1)}
        self.counts = {order: raw[order]}
        for n in range(1, order):
            before = Counter(longer[1:] for longer in raw[n + 1])
            self.counts[n] = Counter(
                {gram: uses if gram[0] == BEGIN else before[gram] for gram, uses in raw[n].items()}
            )
        del self.counts[1][(BEGIN,)]
        self.by = {n: discounts(np.array([*each.values()], dtype=int)) for n, each in self.counts.items()}

    def probability(self, text: Sequence[int], token: int, n: int | None = None) -> float:
        n = self.order if n is None else n
        if n == 0:
            return 1 / V
        context = tuple(text[len(text) - n + 1 :]) if n > 1 else ()
        after = {gram[-1]: c for gram, c in self.counts[n].items() if gram[:-1] == context}
        lower = self.probability(text, token, n - 1)
        if len(context) < n - 1 or not after:
            return lower
        taken = {word: self.by[n][min(c, 3) - 1] for word, c in after.items()}
        total = sum(after.values())
        own = (after[token] - taken[token]) / total if token in after else 0.0
        return own + sum(taken.values()) / total * lower


@given(documents=corpora, order=orders)
def test_counts_are_those_of_a_loop_over_the_text(documents: list[list[int]], order: int) -> None:
    reference = Reference(documents, order)
    for n, level in enumerate(model(documents, order).levels, start=1):
        grams = sorted(occurrences(documents, n))
        assert level.tokens.tolist() == [gram[-1] for gram in grams]
        assert level.uses.tolist() == [occurrences(documents, n)[gram] for gram in grams]
        kept = [(c, gram) for c, gram in zip(level.counts.tolist(), grams, strict=True) if gram != (BEGIN,)]
        assert kept == [(reference.counts[n][gram], gram) for _, gram in kept]


@given(documents=corpora, order=orders, text=texts)
@settings(max_examples=60)
def test_probabilities_are_those_of_the_equations(
    documents: list[list[int]], order: int, text: list[int]
) -> None:
    found, reference = model(documents, order), Reference(documents, order)
    whole = [BEGIN, *text]
    for token in range(V):
        expected = reference.probability(whole, token)
        assert found.probability(whole, token) == pytest.approx(expected, rel=1e-12, abs=1e-15)


@given(documents=corpora, order=orders, text=texts)
def test_rows_sum_to_one_and_explain_reproduces_each_entry(
    documents: list[list[int]], order: int, text: list[int]
) -> None:
    found, whole = model(documents, order), [BEGIN, *text]
    explained = [found.probability(whole, token) for token in range(V)]
    assert math.fsum(explained) == pytest.approx(1, abs=1e-12)
    assert min(explained) > 0
    np.testing.assert_allclose(found.log_row(whole), np.log(explained), atol=2e-6)


def test_discounts_follow_the_counts_of_counts() -> None:
    """n1..n4 = 40, 15, 8, 5: Y = 40 / 70."""
    counts = np.repeat([1, 2, 3, 4, 9], [40, 15, 8, 5, 3])
    y = 40 / 70
    assert discounts(counts) == pytest.approx((1 - 2 * y * 15 / 40, 2 - 3 * y * 8 / 15, 3 - 4 * y * 5 / 8))


@pytest.mark.parametrize("counts", [[1, 1, 1], [2, 2, 3], [1, 2, 3, *[4] * 40]])
def test_counts_that_allow_no_estimate_have_fixed_discounts(counts: list[int]) -> None:
    assert discounts(np.array(counts)) == FALLBACK


def test_a_term_names_where_the_n_gram_stands() -> None:
    documents = [[0, 1, 2], [3, 0, 1, 2, 0, 1]]
    found = model(documents, 3)
    stream, _ = stream_of([np.array(each) for each in documents], V, 3, [END])
    longest, shorter, _ = found.explain([0, 1], 2)
    assert (longest.context, longest.times, longest.kind) == ((0, 1), 2, "occurrences")
    assert (shorter.times, shorter.kind) == (1, "distinct preceding tokens")
    for term in (longest, shorter):
        n = len(term.context) + 1
        assert sorted((stream[at : at + n] - 1).tolist() for at in term.positions) == [[*term.context, 2]] * 2
