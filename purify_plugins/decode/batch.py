"""Which rows of a batch are still being written, what they say so far, and how much they may say."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING

from purify_plugins.decode.dice import Dice
from purify_plugins.decode.sampling import Shaper
from purify_plugins.decode.weights import near
from purify_plugins.types import Step

if TYPE_CHECKING:
    from purify_plugins.decode.pair import Pair
    from purify_plugins.purifier import Purifier
    from purify_plugins.types import Sampling, Token


class Batch:
    """The book-keeping that every walk shares.

    `state` is the policy's before the first token; `live` are the rows that want another token;
    `history` is each row's prompt and answer, as penalties read it.
    """

    def __init__(self, purifier: Purifier, pair: Pair, sampling: Sampling) -> None:
        policy, slm = purifier.policy, pair.first[1]
        raw = bool(getattr(policy, "shift_invariant", False)) and not purifier.explain
        whole = hasattr(policy, "bind") or not near(slm)  # a bound policy knows tokens by their ids
        self.shape = Shaper(sampling, purifier.vocabulary, raw, whole)
        self.dice = Dice(sampling, len(pair.prompts), slm.device)
        self.state = policy.start(pair.context(sampling.greedy))
        self.prompts = pair.prompts
        self.answers: list[list[int]] = [[] for _ in pair.prompts]
        self.history = list(zip(self.prompts, self.answers, strict=True))
        self.limits = _room(purifier, pair, sampling)
        self.eos = frozenset() if sampling.ignore_eos else purifier.vocabulary.eos
        self.live = set(range(len(self.answers)))
        self.pair, self.top = pair, purifier.top

    def step(self, thoughts: Sequence[Token | None]) -> Step:
        """Append a column of tokens to the live rows; rows that end with theirs are live no more."""
        full = self.pair.full
        column = tuple(thought if row in self.live else None for row, thought in enumerate(thoughts))
        for row, token in enumerate(column):
            if token is not None:
                self.answers[row].append(token.id)
                if token.id in self.eos or len(self.answers[row]) >= self.limits[row] or row in full:
                    self.live.discard(row)
        return Step(column, self.prompts)

    def end(self, rows: Collection[int] | None) -> None:
        """Rows whose reader has had enough: a stop string was found."""
        self.live.difference_update(rows or ())

    @property
    def going(self) -> list[bool]:
        """Which rows want another token."""
        return [row in self.live for row in range(len(self.answers))]

    @property
    def room(self) -> int:
        """How many more tokens some live row may get."""
        return max(self.limits[row] - len(self.answers[row]) for row in self.live)


def _room(purifier: Purifier, pair: Pair, sampling: Sampling) -> list[int]:
    """How many tokens each row may get: `max_tokens` of the LLM's, or what a model's context leaves."""
    limits = [round(sampling.max_tokens * purifier.vocabulary.per_token)] * len(pair.prompts)
    for source, session in ((purifier.slm, pair.slm), (purifier.llm, pair.llm)):
        if session is not None and source.context_length is not None and not hasattr(session, "full"):
            left = [source.context_length - len(prompt.tokens) for prompt in session.prompts]
            limits = [min(limit, n) for limit, n in zip(limits, left, strict=True)]
    return limits
