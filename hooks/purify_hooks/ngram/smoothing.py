"""Interpolated modified Kneser-Ney: discounts of one order, and the terms of a probability.

Chen and Goodman, "An empirical study of smoothing techniques for language modeling" (TR-10-98, Harvard 1998),
section 3.2, equations 24 to 26: three discounts for each order, for counts of 1, 2 and more.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from numpy.typing import NDArray

ESTIMATOR = "interpolated modified Kneser-Ney (three discounts an order; Chen and Goodman 1998)"
FALLBACK = (0.5, 1.0, 1.5)
"""Discounts where counts of counts allow no estimate, as in KenLM's `--discount_fallback`."""


class Discounted(NamedTuple):
    """What follows a context at one order, discounted: `shares` (K,) float64 of its K continuations.

    `backoff` is the weight of the next shorter context, `total` the sum of the counts: the shares and the
    back-off weight sum to 1.
    """

    shares: NDArray[Any]
    backoff: float
    total: float


def discounts(counts: NDArray[Any]) -> tuple[float, float, float]:
    """The discounts of one order for counts of 1, 2 and 3 or more, from how many n-grams have 1 to 4.

    Y = n1 / (n1 + 2 n2), D1 = 1 - 2 Y n2 / n1, D2 = 2 - 3 Y n3 / n2, D3 = 3 - 4 Y n4 / n3. Where one is
    undefined, or not between 0 and its count, all three are `FALLBACK`.
    """
    import numpy as np

    n1, n2, n3, n4 = (int(n) for n in np.bincount(np.minimum(counts, 5), minlength=5)[1:5])
    if not (n1 and n2 and n3):
        return FALLBACK
    y = n1 / (n1 + 2 * n2)
    found = (1 - 2 * y * n2 / n1, 2 - 3 * y * n3 / n2, 3 - 4 * y * n4 / n3)
    return found if all(0 < each <= most for most, each in enumerate(found, start=1)) else FALLBACK


def discounted(counts: NDArray[Any], by: Sequence[float]) -> Discounted:
    """Discount the counts (K,) of a context's continuations; K is at least 1."""
    import numpy as np

    taken = np.array([0.0, *by])[np.minimum(counts, 3)]
    total = float(counts.sum(dtype=np.float64))
    return Discounted((counts - taken) / total, float(taken.sum()) / total, total)
