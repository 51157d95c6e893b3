"""NgramCounts every n-gram of a corpus at once: one sort of its positions holds all orders.

The corpus is a stream of ids in which every document is BEGIN, its tokens and its end token. Sorting the
positions by the n tokens that follow each (a suffix array cut off at n, Manber and Myers 1993) puts the
occurrences of every n-gram, of every order up to n, side by side.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from numpy.typing import NDArray

PAD = 0
"""The stream's id between documents; token t stands there as t + 1, and BEGIN as V + 1."""


class Level(NamedTuple):
    """The K distinct n-grams of one length, sorted by their ids; every array is uint32.

    `tokens` (K,): the last token of each. `counts` (K,): what the estimate is made of, occurrences for the
    longest n-grams and for those that begin a document, distinct preceding tokens for all others. `uses`
    (K,): occurrences. `first` (K,): where their positions begin in the sorted positions. `children` (K + 1,):
    the n-grams that continue number k are numbers children[k] to children[k + 1] of the next level.
    """

    tokens: NDArray[Any]
    counts: NDArray[Any]
    uses: NDArray[Any]
    first: NDArray[Any]
    children: NDArray[Any]


class NgramCounts(NamedTuple):
    """All orders of a corpus: `levels[n - 1]` are the n-grams; `positions` (T,) uint32 sorts the stream."""

    levels: tuple[Level, ...]
    positions: NDArray[Any]


def stream_of(
    documents: Sequence[NDArray[Any]], size: int, order: int, ends: Sequence[int]
) -> tuple[NDArray[Any], NDArray[Any]]:
    """The documents as one stream of int32, and where each begins in it (D,) int64.

    `size` is V, `ends` the token that ends a document, or none. After each are `order` - 1 ids PAD, so that
    no n-gram crosses a document's end.
    """
    import numpy as np

    tail = np.array([*(end + 1 for end in ends), *[PAD] * (order - 1)], dtype=np.int32)
    begin = np.array([size + 1], dtype=np.int32)
    parts = [part for each in documents for part in (begin, each.astype(np.int32) + 1, tail)]
    lengths = [1 + len(each) + len(tail) for each in documents]
    starts = np.concatenate([[0], np.cumsum(lengths)[:-1]]).astype(np.int64)
    return np.concatenate(parts), starts


def count(stream: NDArray[Any], size: int, order: int) -> NgramCounts:
    """Every n-gram of the stream (T,) up to `order`, with the counts of Kneser and Ney."""
    import numpy as np

    ranks, positions = _sorted(stream, order)
    positions = positions[np.count_nonzero(stream == PAD) :]  # the smallest id
    found = [_found(stream, ranks[n - 1], positions, n) for n in range(1, order + 1)]
    begins = size + 1
    levels: list[Level] = []
    for n, (first, uses, tokens) in enumerate(found, start=1):
        counts, children = uses, first[:0]
        if n < order:
            counts = _continuations(found[n][0], ranks[n - 1], positions, first)
            counts = np.where(stream[positions[first]] == begins, uses, counts)
            children = np.searchsorted(found[n][0], np.append(first, len(positions)))
        levels.append(Level(*(_narrow(each) for each in (tokens, counts, uses, first, children))))
    return NgramCounts(tuple(levels), _narrow(positions))


def _narrow(values: NDArray[Any]) -> NDArray[Any]:
    import numpy as np

    return np.ascontiguousarray(values, dtype=np.uint32)


def _sorted(stream: NDArray[Any], order: int) -> tuple[list[NDArray[Any]], NDArray[Any]]:
    """For each n the rank (T,) of the n ids from every position on, equal ones alike; the last's order."""
    import numpy as np

    positions = np.argsort(stream, kind="stable")
    ranks = [stream.astype(np.int64)]
    for n in range(2, order + 1):
        following = np.zeros_like(stream)
        following[: 1 - n] = stream[n - 1 :]
        key = ranks[-1] << 32 | following
        positions = np.argsort(key, kind="stable")
        inside = key[positions]
        rank = np.empty_like(key)
        rank[positions] = np.cumsum(np.concatenate([[0], inside[1:] != inside[:-1]]))
        ranks.append(rank)
    return ranks, positions


def _found(
    stream: NDArray[Any], rank: NDArray[Any], positions: NDArray[Any], n: int
) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any]]:
    """The n-grams: where each begins in `positions`, its occurrences and its last token; (K,) each."""
    import numpy as np

    inside = rank[positions]
    begins = np.concatenate([[0], np.flatnonzero(inside[1:] != inside[:-1]) + 1])
    uses = np.diff(np.append(begins, len(positions)))
    last = stream[positions[begins] + n - 1].astype(np.int64)
    whole = last != PAD  # the others stand at a document's end, and are shorter
    return begins[whole], uses[whole], last[whole] - 1


def _continuations(
    longer: NDArray[Any], rank: NDArray[Any], positions: NDArray[Any], first: NDArray[Any]
) -> NDArray[Any]:
    """For each n-gram, how many distinct tokens precede it: the (n + 1)-grams that end with it.

    `longer` and `first` are where the (n + 1)-grams and the n-grams begin in `positions`; `rank` is that of
    the n-grams.
    """
    import numpy as np

    number = np.full(int(rank.max()) + 1, -1)
    number[rank[positions[first]]] = np.arange(len(first))
    return np.bincount(number[rank[positions[longer] + 1]], minlength=len(first))
