"""Detection of a watermark in tokens: how likely a text that the key had no part in looks as marked."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from purify_plugins.decode.watermark import Watermark, race_of
from purify_plugins.utils.sequences import new_contexts

SHORTEST = 32
"""The fewest places of a part of a text that is looked at by itself."""


@dataclass(frozen=True)
class Detection:
    """The result of a test: `p_value` bounds the probability that an unmarked text scores as high.

    `places` are the places that a mark can be in: each context once. `score` is the sum of their scores, 1
    each on average without a mark. `part` are the first and the last token, exclusive, of the most marked
    part.
    """

    p_value: float
    places: int
    score: float
    part: tuple[int, int]


def detect(watermark: Watermark, tokens: Sequence[int]) -> Detection:
    """Test whether draws of this watermark's key made some of these tokens.

    At each place whose context is new, the drawn token's exponential number E scores -log(1 - exp(-E)): that
    is again exponential for a text that the key had no part in, and larger where the token won its race. The
    sum over n places has a Gamma(n) distribution, exactly. The whole text and its parts, of half its length,
    a quarter and so on, are tested; half of the error goes to the whole, the rest to the parts alike.
    """
    places = new_contexts(tokens, watermark.context)
    scores = [_score(race_of(watermark.seed(context), tokens[place])) for place, context in places]
    if not scores:
        return Detection(1.0, 0, 0.0, (0, 0))
    sums = [0.0]
    for score in scores:
        sums.append(sums[-1] + score)
    parts = list(_parts(len(scores)))
    tested = [(upper_tail(len(scores), sums[-1]), 0, len(scores))]
    tested += [
        (upper_tail(end - start, sums[end] - sums[start]) * len(parts), start, end) for start, end in parts
    ]
    least, start, end = min(tested)
    first, last = places[start][0] - watermark.context, places[end - 1][0] + 1
    return Detection(min(1.0, 2 * least if parts else least), len(scores), sums[-1], (first, last))


def _score(exponential: float) -> float:
    return -math.log(-math.expm1(-exponential))


def _parts(count: int) -> Iterator[tuple[int, int]]:
    """Overlapping parts of so many places, each half as long as the last, down to `SHORTEST`."""
    length = count // 2
    while length >= SHORTEST:
        for start in range(0, count - length + 1, max(length // 2, 1)):
            yield start, start + length
        length //= 2


def upper_tail(count: int, total: float) -> float:
    """P(Gamma(count) >= total): that `count` exponential numbers add up to so much. At least 1e-300."""
    if total <= count - 1:  # a bound: the tail is above a third there
        return 1.0
    # A Gamma(n) tail is a Poisson sum of n terms, which grow up to the last: added from there.
    term, ratio = 1.0, 1.0
    for at in range(count - 1, 0, -1):
        ratio *= at / total
        term += ratio
        if ratio < 1e-17 * term:
            break
    logarithm = (count - 1) * math.log(total) - total - math.lgamma(count) + math.log(term)
    return max(math.exp(min(logarithm, 0.0)), 1e-300) if logarithm > -690 else 1e-300
