"""What a text's own tokens say of the next one: an exact model with nothing in it but that text.

Source: a cache language model (Kuhn and De Mori, 1990) whose contexts of every length back off to shorter
ones, as in Bell, Cleary and Witten, "Text Compression" (1990), chapter 6 (PPM).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import NamedTuple

LONGEST = 6
"""Tokens of context that are looked for at most."""
PRIOR = (0.02, 0.03, 0.1, 0.3)
"""How likely the copyist is right, to begin with, after a match of no token, one, two, and three or more."""
CONFIRMED = (0.15, 0.4, 0.7)
"""The same where one token alone has followed the longest match, twice or more."""
WORTH = 4.0
"""How many tokens' experience that is worth."""
MOST = 0.9
"""The copyist's weight at most: the model keeps a tenth."""
SEEN = 256
"""Earlier places of the last token that are looked at, the latest ones: they bound the work of a token."""


class Prediction(NamedTuple):
    """The copyist's distribution over the next token, and its weight in a mixture.

    A token of the text has the chance `even`, and what it has in `more` besides; together they sum to 1.
    Before the first token there is none, and the weight is 0. `kind` is the kind of match, a place in
    `PRIOR` and `CONFIRMED` joined.
    """

    even: float
    more: Mapping[int, float]
    kind: int
    weight: float


class Predicted(NamedTuple):
    """What was predicted of a token that came: its chance, the copyist's weight, and the trust before it."""

    chance: float
    weight: float
    kind: int
    trust: tuple[float, float]


class Copyist:
    """Predicts each token of a text by what followed the same tokens earlier in it.

    With n_k(v) the times that v followed the last k tokens, n_k their sum and d_k the number of different v,
    p_k(v) = (n_k(v) + d_k p_{k-1}(v)) / (n_k + d_k), up to the longest match; p_0 is even over the distinct
    tokens so far (Witten and Bell's estimate). The weight is the mean chance that it gave to the tokens that
    came after such a match, `PRIOR` and `CONFIRMED` to begin with. All of it is a function of the text alone.
    """

    def __init__(self, tokens: Sequence[int] = ()) -> None:
        self.tokens: list[int] = []
        self.steps: list[Predicted] = []
        self._after: dict[int, list[int]] = {}  # of each token the places that follow it, in order
        self.distinct: Counter[int] = Counter()  # and how often each has been read
        self._trust = [
            (prior * WORTH, WORTH) for prior in PRIOR + CONFIRMED
        ]  # the sum of chances, and their number
        self._next: Prediction | None = None
        for token in tokens:
            self.read(token)

    def read(self, token: int) -> None:
        """Go on with a token."""
        said = self.prediction()
        chance = said.more.get(token, 0.0) + (said.even if token in self.distinct else 0.0)
        trust = self._trust[said.kind]
        self.steps.append(Predicted(chance, said.weight, said.kind, trust))
        if self.tokens:
            self._trust[said.kind] = (trust[0] + chance, trust[1] + 1)
            self._after.setdefault(self.tokens[-1], []).append(len(self.tokens))
        self.tokens.append(token)
        self.distinct[token] += 1
        self._next = None

    def forget(self, length: int) -> None:
        """Go back to the text's first `length` tokens."""
        while len(self.tokens) > length:
            token, step = self.tokens.pop(), self.steps.pop()
            self.distinct[token] -= 1
            if not self.distinct[token]:
                del self.distinct[token]
            if self.tokens:
                self._after[self.tokens[-1]].pop()
                self._trust[step.kind] = step.trust
            self._next = None

    def prediction(self) -> Prediction:
        """What it says of the next token."""
        if self._next is None:
            self._next = self._predicted()
        return self._next

    def _predicted(self) -> Prediction:
        if not self.tokens:
            return Prediction(0.0, {}, 0, 0.0)
        places = self._after.get(self.tokens[-1], [])[-SEEN:]
        lengths = [self._match(place) for place in places]
        more, left, counts = dict[int, float](), 1.0, Counter[int]()
        for length in range(1, max(lengths, default=0) + 1):
            counts = Counter(
                self.tokens[place] for place, same in zip(places, lengths, strict=True) if same >= length
            )
            total = counts.total() + len(counts)
            more = {
                token: (counts[token] + len(counts) * more.get(token, 0.0)) / total
                for token in more.keys() | counts
            }
            left *= len(counts) / total
        kind = min(max(lengths, default=0), len(PRIOR) - 1)
        if len(counts) == 1 and counts.total() > 1:
            kind += len(PRIOR) - 1
        right, met = self._trust[kind]
        return Prediction(left / len(self.distinct), more, kind, min(right / met, MOST))

    def _match(self, place: int) -> int:
        """How many tokens before a place are the text's last ones, at most `LONGEST`."""
        text, end = self.tokens, len(self.tokens)
        length = 1
        while length < min(LONGEST, place) and text[place - length - 1] == text[end - length - 1]:
            length += 1
        return length
