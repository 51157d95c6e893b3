"""Where in the works a recital stands: a pair hidden Markov model over the tokens ahead of a place.

A recital that was broken off goes on behind another word, or some words further on. So each token of a window
of the works has a probability of being the next one that is copied, the highest right behind the last copy.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple, Self

if TYPE_CHECKING:
    from numpy.typing import NDArray

AWAY = 0.5
"""The probability that the next copy is at any place of the window, and not right behind the last one."""
SHIFTS = (0.4, 0.4, 0.2)
"""The probabilities that a token that was not copied stands for no token of the works, for one, for two."""


class Alignment(NamedTuple):
    """Tokens (K, W) of the works behind each of K places, and the probability (K, W) of each to be next."""

    window: NDArray[Any]
    belief: NDArray[Any]

    @classmethod
    def at(cls, stream: NDArray[Any], places: NDArray[Any], width: int) -> Self:
        """Certainty that one of the tokens at these places (K,) of a stream is next."""
        import numpy as np

        index = np.minimum(places[:, None] + np.arange(width), len(stream) - 1)
        belief = np.zeros(index.shape)
        belief[:, 0] = 1 / len(places)
        return cls(stream[index], belief)

    @property
    def expected(self) -> NDArray[Any]:
        """The probability (K, W) of each token of the window to be copied next, from wherever in it."""
        return (1 - AWAY) * self.belief + AWAY / self.belief.size

    def after(self, token: int, common: float) -> Self:
        """The alignment after a token that has the probability `common` where it is not copied."""
        import numpy as np

        copied, other = self.expected * (self.window == token), common * self.belief
        belief = np.zeros(copied.shape)
        belief[:, 1:] = copied[:, :-1]
        for by, share in enumerate(SHIFTS):
            belief[:, by:] += share * other[:, : other.shape[1] - by]
        total = belief.sum()
        # What stood at the window's end has left it: then the next copy is anywhere.
        return self._replace(belief=belief / total if total > 0 else np.full(belief.shape, 1 / belief.size))

    def shares(self, tokens: NDArray[Any]) -> NDArray[Any]:
        """The probabilities (N,) of ascending tokens (N,) to be copied next."""
        import numpy as np

        at = np.searchsorted(tokens, self.window).clip(max=len(tokens) - 1)
        known = np.where(tokens[at] == self.window, self.expected, 0.0)
        return np.bincount(at.ravel(), known.ravel(), len(tokens))
