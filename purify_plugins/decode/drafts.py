"""Draft providers: where drafted tokens come from, and which of them are accepted.

`SlmDrafts`: the SLM drafts, and the LLM reads the draft in one pass. A drafted token is accepted if it is the
fused row's arg-max (greedy), or with probability min(1, fused/slm) (sampling); a rejected one is replaced by
a draw from what the fused row has over the SLM's. Where the text repeats itself, it is copied instead
(`LookUp`), and verified as a server's draft is. `ServerDrafts`: the LLM's server drafts, and the SLM reads
the draft in one pass. Every token is drawn from the fused row with this machine's own random numbers, and a
drafted token is accepted if it is the one drawn: nothing rests on a probability that a server reports.
Either way tokens have lockstep's distribution. With a watermark the SLM's draft and the token that is drawn
in its place take part in one race (`MarkedStreams`): a drafted token is accepted if it is the one drawn.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from functools import partial
from time import perf_counter
from typing import TYPE_CHECKING, Generic, TypeVar

import torch
from torch import Tensor

from purify_plugins.decode.draft_size import DraftSize
from purify_plugins.decode.fusion import fuse
from purify_plugins.decode.logits import argmax, on_cpu
from purify_plugins.decode.look_up import LookUp, symbols_before
from purify_plugins.decode.random_streams import inverse_cdf
from purify_plugins.errors import PurifyError

if TYPE_CHECKING:
    from purify_plugins.decode.batch import Batch
    from purify_plugins.decode.decoder import Decoder
    from purify_plugins.decode.fusion import FusedLogits, Places
    from purify_plugins.decode.sessions import SessionPair
    from purify_plugins.types import History

Logits = TypeVar("Logits")
LONGEST_SERVER_DRAFT = 16
"""Drafted tokens that the SLM reads in one pass."""


@dataclass(frozen=True)
class DraftRows:
    """Drafted tokens, and both models' logits around them.

    `tokens` are n columns (rows, 1); `slm` and `llm` hold n + 1 logits (rows, V): before the first token and
    after every one, or None once the LLM has failed. `undrafted` are, by the position in the draft, the
    places of rows for which drafting a token failed.
    """

    tokens: Sequence[Tensor]
    slm: Sequence[Tensor] | LazyLogits[Tensor]
    llm: Sequence[Tensor | None] | LazyLogits[Tensor | None]
    undrafted: Mapping[int, Sequence[int]] = field(default_factory=dict)


class LazyLogits(Generic[Logits]):
    """A sequence of logits (rows, V) that are computed when they are indexed."""

    def __init__(self, known: Sequence[Logits], more: Iterator[Logits]) -> None:
        self._known, self._more = list(known), more

    def __getitem__(self, at: int) -> Logits:
        # A row after the last accepted token is never asked for: a model in smaller symbols than its own, or
        # an LLM that failed on the draft, then reads no further than the answer goes.
        while len(self._known) <= at:
            self._known.append(next(self._more))
        return self._known[at]


class Drafts(ABC):
    """A draft provider, for one batch; `active` are the rows (rows,) that verification is still with."""

    walk: str
    """The strategy's name, as certificates record it."""
    clock: Callable[[], float] = staticmethod(perf_counter)
    """What columns are timed by (s)."""

    def __init__(
        self, decoder: Decoder, pair: SessionPair, batch: Batch, active: Callable[[], Tensor]
    ) -> None:
        self.decoder, self.pair, self.batch, self.active = decoder, pair, batch, active

    @abstractmethod
    def drafted(self, pending: Tensor | None) -> AbstractContextManager[DraftRows]:
        """A draft after the `pending` tokens (rows, 1), which neither model has read; None: the prompts.

        Its verification runs inside the context.
        """

    @abstractmethod
    def decide(
        self, rows: FusedLogits, drafted: Tensor | None, active: Tensor, uniforms: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """Each row's token (rows,), and whether it is the `drafted` one (rows, 1): (rows,) bool.

        Without a drafted token it is a bonus token, after a draft that was accepted whole. `uniforms`
        (rows, n) are the numbers in [0, 1) that an active row uses next; None when greedy.
        """

    @abstractmethod
    def uniforms_used(self, tokens: int, drafted: int) -> int:
        """How many random numbers a row used that got so many tokens from a draft of this length."""

    def would_accept(self, rows: FusedLogits, tokens: Tensor) -> Tensor:
        """How likely the provider's own draft would have been accepted (rows,) where it drafted nothing.

        `tokens` (rows,) were drawn there. Without an estimate it is 0, and `observe` ignores it.
        """
        return torch.zeros(len(tokens), dtype=torch.bool, device=tokens.device)

    def observe(self, position: int, tried: float, accepted: float) -> None:  # noqa: B027  # optional
        """Learn how many rows tried the drafted token at this position, and how many accepted it.

        Where none was drafted, `accepted` is how many would have accepted the SLM's own.
        """

    def verified(self, columns: int, seconds: float) -> None:  # noqa: B027  # optional
        """Learn how many columns were verified, and the time of those after the first (s)."""

    def rows_dropped(self) -> None:  # noqa: B027  # optional
        """Called when rows have ended and the batch is smaller."""

    def read_llm(self, tokens: Sequence[Tensor], pending: Tensor | None) -> LazyLogits[Tensor | None]:
        """The LLM's logits before the first drafted token and after each of `tokens`, columns (rows, 1)."""
        known = [self.pair.first[0]] if pending is None else []
        more = self.pair.each_llm(torch.cat(list(tokens), dim=1), self.active) if tokens else iter(())
        return LazyLogits(known, more)


class SlmDrafts(Drafts):
    """Drafts of the SLM, as long as pays best, and copies of the text so far."""

    walk = "speculative"

    def __init__(
        self, decoder: Decoder, pair: SessionPair, batch: Batch, active: Callable[[], Tensor]
    ) -> None:
        super().__init__(decoder, pair, batch, active)
        self.rows_dropped()

    def rows_dropped(self) -> None:
        batch = self.batch
        self.length = self.decoder.draft_lengths.of(batch.sampling, len(batch.rows), batch.seeded)
        self.clock = self.length.clock
        self.look_up, self.copied = self._look_up(), False

    def _look_up(self) -> LookUp | None:
        """For a row that is alone in its batch; a seeded answer must not depend on what is beside it."""
        batch = self.batch
        if len(batch.rows) > 1 or self.length.fixed is not None or batch.streams.marks:
            return None
        [row] = batch.rows
        read = symbols_before(self.pair.rows[row], batch.prompts[row], self.decoder.vocabulary)
        return LookUp(read, self.length.unit)

    def _repeated(self) -> list[int]:
        """What followed where the text ended like this before."""
        batch = self.batch
        return self.look_up.draft(batch.answers[batch.rows[0]], batch.remaining - 1) if self.look_up else []

    def _copy(self, pending: Tensor | None, symbols: Sequence[int]) -> DraftRows:
        """The symbols as a draft, which each model reads in one pass.

        In smaller symbols than its own a model reads only as far as they are accepted: an SLM may have no
        token for one that is copied.
        """
        first = self.pair.first[1]
        tokens = list(torch.tensor([symbols], device=first.device).split(1, dim=1))
        new, before = ([], [first]) if pending is None else ([pending], [])
        read = LazyLogits(before, self.pair.each_slm(torch.cat([*new, *tokens], dim=1)))
        return DraftRows(tokens, read, self.read_llm([*new, *tokens], pending))

    @contextmanager
    def drafted(self, pending: Tensor | None) -> Iterator[DraftRows]:
        repeated = self._repeated()
        self.copied = bool(repeated)
        if repeated:
            yield self._copy(pending, repeated)
            return
        if pending is None and not self.length.fixed:
            yield self._draft(pending, 0)  # both models have read the prompts: the first token needs no draft
            return
        with self.length.timed(self.length.length(self.batch.remaining - 1)) as length:
            yield self._draft(pending, length)

    def _draft(self, pending: Tensor | None, length: int) -> DraftRows:
        """Let the SLM draft `length` tokens; it reads the last only if the row after it is asked for."""
        unread = [] if pending is None else [pending]
        slm = [self._step(pending) if pending is not None else self.pair.first[1]]
        tokens: list[Tensor] = []
        undrafted: dict[int, list[int]] = {}
        self.size = DraftSize(self.length, length, self.pair.slm, self.batch.remaining - 1)
        while self.size.goes_on(tokens):
            if tokens:
                slm.append(self._step(tokens[-1]))
            tokens.append(self._next(slm[-1], tokens, undrafted)[:, None])
        rows = LazyLogits(slm, self._after(tokens))
        return DraftRows(tokens, rows, self.read_llm([*unread, *tokens], pending), undrafted)

    def _after(self, tokens: Sequence[Tensor]) -> Iterator[Tensor]:
        """The SLM's logits after the last of the draft's tokens, which it has not read."""
        for token in tokens[-1:]:
            yield self.pair.extend_slm(token)[:, 0]

    def _step(self, tokens: Tensor) -> Tensor:
        """The SLM's logits (rows, V) after tokens (rows, 1)."""
        with self.length.stepping():
            return self.pair.extend_slm(tokens)[:, 0]

    def _next(self, logits: Tensor, tokens: Sequence[Tensor], undrafted: dict[int, list[int]]) -> Tensor:
        """The SLM's own next token (rows,), by the sampling settings.

        A failed draft does not fail its row, which is drawn from the fused row there: see `undrafted`.
        """
        batch = self.batch
        draw = partial(self._draw, logits, batch.history_with(tokens), batch.streams.for_draft(tokens))
        try:
            return draw(batch.places if batch.errors else None)
        except PurifyError:
            found = [torch.zeros(1, dtype=torch.long, device=logits.device) for _ in batch.rows]
            failed = undrafted[len(tokens)] = []
            for place in range(len(found)):
                try:
                    found[place] = draw([place])
                except PurifyError:
                    failed.append(place)
            return torch.cat(found)

    def _draw(self, logits: Tensor, history: History, uniforms: Tensor | None, places: Places) -> Tensor:
        """The SLM's own next tokens of the rows at these places; the arg-max without `uniforms` (rows,)."""
        if places is not None:
            places = list(places)
            logits, history = logits[places], [history[place] for place in places]
            uniforms = None if uniforms is None else uniforms[places]
        processors = self.batch.processors
        if uniforms is None:
            return processors.likeliest(logits, history)
        return fuse(self.decoder.policy, processors, None, logits, (), history).draw(uniforms)

    def decide(
        self, rows: FusedLogits, drafted: Tensor | None, active: Tensor, uniforms: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        if drafted is None or uniforms is None or self.batch.streams.marks or self.copied:
            return _drawn(rows, drafted, active, uniforms)
        return accept(rows, drafted[:, 0], active, uniforms)

    def would_accept(self, rows: FusedLogits, tokens: Tensor) -> Tensor:
        if self.batch.sampling.greedy:
            return rows.ids(argmax(rows.slm)) == tokens
        if self.batch.streams.marks:
            return rows.coupled(tokens)
        # Σ min(fused, slm) is the acceptance rate, and the mean of min(1, slm/fused) over fused draws.
        logprobs = rows.logprobs(tokens)
        return (logprobs[:, 1] - logprobs[:, 2]).exp().clamp(max=1.0)

    def uniforms_used(self, tokens: int, drafted: int) -> int:
        if self.batch.streams.marks or self.copied:
            return tokens
        return tokens + (0 < tokens <= drafted)  # one a token, and one more to replace a rejected one

    def observe(self, position: int, tried: float, accepted: float) -> None:
        if not self.copied:
            self.size.observe(position, tried, accepted)
        elif self.look_up and tried:
            self.look_up.observe(position, accepted)

    def verified(self, columns: int, seconds: float) -> None:
        # A draft in smaller symbols is read as far as it is accepted, by the LLM too: whole cycles are timed.
        if not self.copied:
            self.length.verified(columns, 0.0 if self.length.unit > 1 else seconds)


class ServerDrafts(Drafts):
    """Drafts of the LLM's server, which streams its own continuation with a row for every token."""

    walk = "readahead"

    @contextmanager
    def drafted(self, pending: Tensor | None) -> Iterator[DraftRows]:
        unread = [] if pending is None else [pending]
        known = self.read_llm(unread, pending)[0]
        tokens = self._streamed() if known is not None else []
        first = [self.pair.first[1]] if pending is None else []
        new = [*unread, *tokens]
        read = self.pair.extend_slm(torch.cat(new, dim=1)).unbind(dim=1) if new else ()
        more = self.pair.extend_llm(torch.cat(tokens, dim=1)) if tokens else None
        llm = [known, *(() if more is None else more.unbind(dim=1))]
        yield DraftRows([] if more is None else tokens, [*first, *read], llm)

    def _streamed(self) -> list[Tensor]:
        """The server's draft so far, as columns (rows, 1), at most what the live rows may still get."""
        session, batch = self.pair.llm, self.batch
        if session is None:
            return []
        live = {place for place, active in enumerate(batch.active) if active}
        tokens = session.read_ahead(min(LONGEST_SERVER_DRAFT, batch.remaining - 1), live)
        device = self.pair.first[1].device
        return list(torch.tensor(tokens, device=device).long().split(1, dim=1)) if tokens[0] else []

    def decide(
        self, rows: FusedLogits, drafted: Tensor | None, active: Tensor, uniforms: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        return _drawn(rows, drafted, active, uniforms)

    def uniforms_used(self, tokens: int, drafted: int) -> int:
        return tokens


def _drawn(
    rows: FusedLogits, drafted: Tensor | None, active: Tensor, uniforms: Tensor | None
) -> tuple[Tensor, Tensor]:
    """Each row's token, drawn from the fused row, and whether it is the `drafted` one."""
    tokens = rows.draw(None if uniforms is None else uniforms[:, 0])
    return tokens, torch.zeros_like(active) if drafted is None else tokens == drafted[:, 0]


def accept(rows: FusedLogits, drafted: Tensor, active: Tensor, uniforms: Tensor) -> tuple[Tensor, Tensor]:
    """Accept each token (rows,), drawn from the SLM's row, with probability min(1, fused/slm).

    A rejected one becomes a draw from what the fused row has over the SLM's. Together that is a draw from the
    fused row (Leviathan et al. 2023). Inactive rows keep what they have. `uniforms` (rows, 2): numbers in
    [0, 1), one to decide with and one to draw with.
    """
    logprobs = rows.logprobs(drafted)
    accepted = ~active | (uniforms[:, 0] < (logprobs[:, 2] - logprobs[:, 1]).exp())
    rejected = ~accepted
    # On an accelerator, finding out which rows were rejected costs more than drawing for all of them.
    at = rejected.nonzero()[:, 0] if on_cpu(rejected) else torch.arange(len(rejected), device=rejected.device)
    if len(at):
        other = rows.ids(inverse_cdf(rows.excess(at), uniforms[at, 1]))
        drafted = drafted.index_copy(0, at, torch.where(accepted[at], drafted[at], other))
    return drafted, accepted
