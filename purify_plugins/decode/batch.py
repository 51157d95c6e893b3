"""Which rows of a batch are still being written, what they say so far, and how much they may say."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from purify_plugins.canonical_json import jsonable
from purify_plugins.decode.draw_keys import request
from purify_plugins.decode.draw_record import Limit
from purify_plugins.decode.fusion import begin
from purify_plugins.decode.logits import near
from purify_plugins.decode.processors import Shaper
from purify_plugins.decode.provenance import Provenance
from purify_plugins.decode.random_streams import Dice
from purify_plugins.types import Step

if TYPE_CHECKING:
    from purify_plugins.decode.decoder import Decoder
    from purify_plugins.decode.sessions import Pair
    from purify_plugins.errors import PurifyError
    from purify_plugins.sampling import Sampling
    from purify_plugins.types import History, Token


class Batch:
    """The book-keeping that every walk shares.

    `rows` are those that the models read, by their number in the batch; their order is that of all tensors,
    of `going` and of `history`, each row's prompt and answer as penalties read it. `live` are the rows that
    want another token, `state` is the policy's before the first. `walk` is the decoder that draws; steps of
    a batch without one bear no mark, and make no answer. `finished` are the rows whose reader wants no more,
    because a stop string was found: a set that the reader adds to.
    """

    def __init__(
        self,
        decoder: Decoder,
        pair: Pair,
        sampling: Sampling,
        walk: str = "",
        finished: set[int] | None = None,
    ) -> None:
        sampling = replace(sampling)  # a frozen dataclass can be written to; what is recorded is what is used
        policy, slm = decoder.policy, pair.first[1]
        raw = policy.shift_invariant and not decoder.explain
        whole = policy.binds or not near(slm)  # a bound policy knows tokens by their ids
        self.shape = Shaper(sampling, decoder.vocabulary, raw, whole)
        self.dice = Dice(sampling, _requests(decoder, pair, sampling), slm.device)
        self.state = begin(policy, pair.context(sampling.greedy))
        self.prompts = pair.prompts
        self.answers: list[list[int]] = [[] for _ in pair.prompts]
        self.rows = list(range(len(self.answers)))
        self.sampling, self.limits = sampling, _room(decoder, pair, sampling)
        self.eos = frozenset() if sampling.ignore_eos else decoder.vocabulary.eos
        self.live = set(range(len(self.answers)))
        self.pair, self.top = pair, decoder.top
        self.finished = set() if finished is None else finished
        self.errors: dict[int, PurifyError] = {}
        facts = decoder, sampling, self.prompts, self.limits, self.finished, self.errors
        self._origin = Provenance(walk, *facts) if walk else None

    def step(self, thoughts: Sequence[Token | None]) -> Step:
        """Append a column of tokens to the live rows; rows that end with theirs are live no more."""
        full = {self.rows[place] for place in self.pair.full}
        column: list[Token | None] = [None] * len(self.answers)
        for row, token in zip(self.rows, thoughts, strict=True):
            if token is not None and row in self.live:
                column[row] = token
                self.answers[row].append(token.id)
                self._end(row, token.id, row in full)
        return self._origin.mark(tuple(column)) if self._origin else Step(tuple(column), self.prompts)

    def _end(self, row: int, token: int, full: bool) -> None:
        """The row is live no more if this token ends it, or leaves it no room."""
        length, limit = len(self.answers[row]), self.limits[row]
        if full and length < limit.tokens:
            self.limits[row] = Limit(length, "context")
        if token in self.eos or full or length >= limit.tokens:
            self.live.discard(row)

    def end(self) -> None:
        """Rows whose reader wants no more are live no more."""
        self.live -= self.finished

    def fail(self, errors: Mapping[int, PurifyError]) -> None:
        """The rows at these places have broken, and get no more tokens."""
        for place, error in errors.items():
            self.errors[self.rows[place]] = error
            self.live.discard(self.rows[place])

    @property
    def places(self) -> list[int] | None:
        """Each row's own place, a healthy neighbour's for a row that has failed; None: no row has.

        What the models say of a failed row may break whoever reads it, and not every model can drop a row.
        """
        if not self.errors:
            return None
        healthy = next((at for at, goes in enumerate(self.going) if goes), 0)
        return [healthy if row in self.errors else at for at, row in enumerate(self.rows)]

    def drop(self) -> list[int] | None:
        """Let the models go on without the rows that have ended; the places of those that stay.

        None: all stay, or a model cannot go on without one.
        """
        places = [place for place, goes in enumerate(self.going) if goes]
        if len(places) == len(self.rows) or not self.pair.keep(places):
            return None
        self.rows = [self.rows[place] for place in places]
        self.dice.keep(places)
        return places

    @property
    def history(self) -> History:
        return [(self.prompts[row], self.answers[row]) for row in self.rows]

    @property
    def going(self) -> list[bool]:
        """Which rows want another token."""
        return [row in self.live for row in self.rows]

    @property
    def room(self) -> int:
        """How many more tokens some live row may get."""
        return max(self.limits[row].tokens - len(self.answers[row]) for row in self.live)


def _requests(decoder: Decoder, pair: Pair, sampling: Sampling) -> list[bytes]:
    """A digest of what each row asks for: what both models read, and all that shapes or fuses rows."""
    settings = asked(decoder, sampling)
    # The LLM's reading too: its template may show it numbers that the SLM's leaves out.
    return [request(read, settings) for read in zip(*pair.readings, strict=True)]


def asked(decoder: Decoder, sampling: Sampling) -> dict[str, Any]:
    """The settings that draws are keyed by, as JSON.

    Where an answer ends is no part of them: a shorter answer is the beginning of the longer.
    """
    return {
        "sampling": jsonable(replace(sampling, seed=None, max_tokens=1, stop=())),
        "policy": decoder.name_of(decoder.policy),
        "options": decoder.parameters(),
    }


def _room(decoder: Decoder, pair: Pair, sampling: Sampling) -> list[Limit]:
    """How many tokens each row may get: `max_tokens` of the LLM's, or what a model's context leaves."""
    asked = Limit(round(sampling.max_tokens * decoder.vocabulary.per_token), "max_tokens")
    limits = [asked] * len(pair.prompts)
    for source, session in ((decoder.slm, pair.slm), (decoder.llm, pair.llm)):
        if session is not None and source.context_length is not None and session.full is None:
            left = [source.context_length - len(prompt.tokens) for prompt in session.prompts]
            limits = [
                limit if limit.tokens <= n else Limit(max(n, 1), "context")
                for limit, n in zip(limits, left, strict=True)
            ]
    return limits
