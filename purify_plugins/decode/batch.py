"""The book-keeping of a batch that is being decoded: its rows, their answers so far, and their limits."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from copy import copy
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch

from purify_plugins.canonical_json import jsonable, options
from purify_plugins.decode.constraint_mask import kinds
from purify_plugins.decode.draw_keys import request
from purify_plugins.decode.draw_record import Limit
from purify_plugins.decode.fusion import start_state
from purify_plugins.decode.logits import on_cpu
from purify_plugins.decode.marked_streams import MarkedStreams
from purify_plugins.decode.processors import LogitsProcessors
from purify_plugins.decode.provenance import Provenance
from purify_plugins.decode.random_streams import RandomStreams
from purify_plugins.decode.row import seeds_of
from purify_plugins.types import Step

if TYPE_CHECKING:
    from torch import Tensor

    from purify_plugins.decode.decoder import Decoder
    from purify_plugins.decode.sessions import SessionPair
    from purify_plugins.decode.watermark import Watermark
    from purify_plugins.errors import PurifyError
    from purify_plugins.sampling import Sampling
    from purify_plugins.types import History, Token


class Batch:
    """What every decoder keeps of a batch.

    `rows` are those that the models read, by their number in the batch; all tensors, `active` and `history`
    are in their order. `live` are the rows that want another token, `state` is the policy's before the first.
    `walk` is the decoding strategy; steps of a batch without one bear no mark, and make no answer. `finished`
    are the rows that have met a stop string: a set that the reader adds to. `errors` are those of rows that
    failed alone.
    """

    def __init__(
        self,
        decoder: Decoder,
        pair: SessionPair,
        sampling: Sampling,
        walk: str = "",
        finished: set[int] | None = None,
    ) -> None:
        # A copy: a plugin can write even to a frozen dataclass, and what is recorded must be what is used.
        self.sampling = sampling = copy(sampling)
        policy, slm = decoder.policy, pair.first[1]
        raw = policy.shift_invariant and not decoder.explain
        whole = policy.binds or not on_cpu(slm)  # a bound policy knows tokens by their ids
        self.processors = LogitsProcessors(sampling, decoder.vocabulary, raw, whole, decoder.constraints)
        self.state = () if decoder.alone else start_state(policy, pair.context(sampling.greedy))
        self.pair, self.prompts, self.top = pair, pair.prompts, decoder.top
        # The operating system's numbers, those of answers without a seed, are keyed by nothing.
        self.seeds = seeds_of(pair.rows, sampling)
        self.seeded = any(seed is not None for seed in self.seeds)
        keys = _requests(decoder, pair, sampling) if self.seeded else [b""] * len(pair.prompts)
        self.answers: list[list[int]] = [[] for _ in pair.prompts]
        mark = None if decoder.given else decoder.watermark  # see `_marked`
        self.streams = (
            RandomStreams(sampling, keys, slm.device, self.seeds)
            if mark is None
            else _marked(mark, pair, sampling, keys, self.seeds, self.answers)
        )
        self.rows = list(range(len(self.answers)))
        self.live = set(self.rows)
        self.limits = _limits(decoder, pair, sampling)
        self.eos = frozenset() if sampling.ignore_eos else decoder.vocabulary.eos
        self.finished = set() if finished is None else finished
        self.errors: dict[int, PurifyError] = {}
        facts = decoder, sampling, self.seeds, self.prompts, self.limits, self.finished, self.errors
        self._origin = Provenance(walk, *facts) if walk else None

    def step(self, tokens: Sequence[Token | None]) -> Step:
        """Append a column of tokens to the live rows; a row that ends with its token is live no more."""
        full = {self.rows[place] for place in self.pair.context_full}
        column: list[Token | None] = [None] * len(self.answers)
        for place, (row, token) in enumerate(zip(self.rows, tokens, strict=True)):
            if token is None or row not in self.live:
                continue
            if self.streams.marks and self.streams.marked(place, len(self.answers[row])):
                token = token._replace(marked=True)
            column[row] = token
            self.answers[row].append(token.id)
            length, limit = len(self.answers[row]), self.limits[row]
            if row in full and length < limit.tokens:
                self.limits[row] = Limit(length, "context")
            if token.id in self.eos or row in full or length >= limit.tokens:
                self.live.discard(row)
        return self._origin.mark(tuple(column)) if self._origin else Step(tuple(column), self.prompts)

    def retire(self) -> None:
        """End the rows whose answers are as long as they may be, after given tokens have been read."""
        full = {self.rows[place] for place in self.pair.context_full}
        self.live -= {row for row in self.live if len(self.answers[row]) >= self.limits[row].tokens} | full

    def fail(self, errors: Mapping[int, PurifyError]) -> None:
        """Mark the rows at these places as failed; they get no more tokens."""
        for place, error in errors.items():
            self.errors[self.rows[place]] = error
            self.live.discard(self.rows[place])

    @property
    def places(self) -> list[int]:
        """Each row's own place, and a healthy row's for one that has failed.

        A failed row's logits may be NaN, and not every session can drop a row.
        """
        healthy = next((at for at, active in enumerate(self.active) if active), 0)
        return [healthy if row in self.errors else at for at, row in enumerate(self.rows)]

    def drop(self) -> list[int] | None:
        """Drop the rows that have ended from both sessions; the places of those that stay.

        None: all stay, or a session cannot drop rows.
        """
        places = [place for place, active in enumerate(self.active) if active]
        if len(places) == len(self.rows) or not self.pair.select_rows(places):
            return None
        self.rows = [self.rows[place] for place in places]
        self.streams.select_rows(places)
        return places

    @property
    def history(self) -> History:
        """Each row's prompt and answer, as penalties and grammars read them."""
        return [(self.prompts[row], self.answers[row]) for row in self.rows]

    def history_with(self, drafted: Sequence[Tensor]) -> History:
        """`history` with drafted columns (rows, 1) at its end, if a logits processor reads it."""
        if not (drafted and self.processors.reads_history):
            return self.history
        more = torch.cat(list(drafted), dim=1).tolist()
        pairs = zip(self.history, more, strict=True)
        return [(prompt, [*answer, *new]) for (prompt, answer), new in pairs]

    @property
    def active(self) -> list[bool]:
        """Which rows want another token."""
        return [row in self.live for row in self.rows]

    @property
    def remaining(self) -> int:
        """How many more tokens some live row may get."""
        return max(self.limits[row].tokens - len(self.answers[row]) for row in self.live)


def _requests(decoder: Decoder, pair: SessionPair, sampling: Sampling) -> list[bytes]:
    """A digest of what each row asks for: what both models read, and all that processes or fuses rows."""
    keys = settings(decoder, sampling)
    # The LLM's reading too: its template may show it numbers that the SLM's leaves out.
    return [
        request(read, {**keys, "label": row.label} if row.label else keys)
        for row, *read in zip(pair.rows, *pair.readings, strict=True)
    ]


def _marked(
    watermark: Watermark,
    pair: SessionPair,
    sampling: Sampling,
    keys: Sequence[bytes],
    seeds: Sequence[int | None],
    answers: Sequence[Sequence[int]],
) -> MarkedStreams:
    """The rows' random numbers under a watermark, for answers of which no token was drawn before."""
    # What follows tokens that were drawn before is drawn as ever: some of its contexts may have been used in
    # the tokens that it replaces, and a second draw after the same ones would be the first over again.
    read, slm = list(zip(*pair.readings, strict=True)), pair.first[1]
    return MarkedStreams(
        *(sampling, keys, slm.device, seeds),
        watermark=watermark,
        size=slm.shape[-1],
        answers=answers,
        read=read,
    )


def settings(decoder: Decoder, sampling: Sampling) -> dict[str, Any]:
    """The settings that draws are keyed by, as JSON.

    Where an answer ends is no part of them: a shorter answer is the beginning of the longer. What a list of
    constraints holds is none either: with one text more on it, an answer that it does not concern stays.
    """
    return {
        "sampling": jsonable(replace(sampling, seed=None, max_tokens=1, stop=())),
        "policy": decoder.name_of(decoder.policy),
        "options": options(decoder.policy, decoder.name_of),
        **({"constraints": kinds(decoder.constraints)} if decoder.constraints else {}),
    }


def _limits(decoder: Decoder, pair: SessionPair, sampling: Sampling) -> list[Limit]:
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
