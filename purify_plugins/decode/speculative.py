"""Speculative decoding: draft several tokens, verify them together, keep those that the fused rows accept.

One verify loop serves both draft providers of `drafts.py`. The policy's state advances over accepted tokens
only, and no drawn token is ever dropped.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing
from functools import partial
from itertools import pairwise
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from purify_plugins.decode.batch import Batch
from purify_plugins.decode.drafts import ServerDrafts, SlmDrafts
from purify_plugins.decode.fusion import advance_state, fuse, select, where_rows
from purify_plugins.decode.isolation import isolate, records
from purify_plugins.decode.logits import on_cpu
from purify_plugins.decode.loop import lockstep
from purify_plugins.decode.sessions import SessionPair
from purify_plugins.decode.token_records import to_host
from purify_plugins.errors import PurifyError
from purify_plugins.threat import require_draftable

if TYPE_CHECKING:
    from purify_plugins.decode.decoder import Decoder
    from purify_plugins.decode.drafts import DraftRows, Drafts
    from purify_plugins.decode.fusion import FusedLogits
    from purify_plugins.decode.row import Row
    from purify_plugins.sampling import Sampling
    from purify_plugins.types import Prompt, Steps, Token

Column = list["Token | None"]


def speculative(decoder: Decoder, prompts: Sequence[Prompt | Row], sampling: Sampling) -> Steps:
    """Yield one Step per column of tokens, several to a pass of the LLM, which reads the SLM's drafts.

    Closing it frees both sessions. Raises PromptError before the first token, SourceError whenever a model
    fails, ConfigError for an LLM whose engine must see no draft.
    """
    require_draftable(decoder.llm.engine)
    return _decode(decoder, prompts, sampling, SlmDrafts)


def readahead(decoder: Decoder, prompts: Sequence[Prompt | Row], sampling: Sampling) -> Steps:
    """Yield one Step per column of tokens, as the server's draft comes in; closing it frees both sessions.

    Raises PromptError before the first token, SourceError whenever a model fails.
    """
    return _decode(decoder, prompts, sampling, ServerDrafts)


def _decode(
    decoder: Decoder, prompts: Sequence[Prompt | Row], sampling: Sampling, provider: type[Drafts]
) -> Steps:
    if decoder.alone:  # there is no LLM to read a draft
        yield from lockstep(decoder, prompts, sampling)
        return
    with closing(SessionPair(decoder, prompts)) as pair:
        batch = Batch(decoder, pair, sampling, provider.walk)
        yield from VerifyLoop(decoder, pair, batch, provider).steps()


class VerifyLoop:
    """Draft, verify, rewind; `pending` (rows, 1) are the tokens that neither model has read yet.

    `active` (rows,) bool are the rows that verification is still with, `state` is the policy's.
    """

    def __init__(self, decoder: Decoder, pair: SessionPair, batch: Batch, provider: type[Drafts]) -> None:
        self.policy, self.pair, self.batch = decoder.policy, pair, batch
        self.greedy, self.state = batch.sampling.greedy, batch.state
        self.device = pair.first[1].device
        self.pending: Tensor | None = None
        self.drawn = False  # whether any token has been
        self.eos = torch.tensor(sorted(batch.eos), dtype=torch.long, device=self.device)
        self.active = torch.tensor(batch.active, device=self.device)
        self.drafts = provider(decoder, pair, batch, lambda: self.active)

    def steps(self) -> Steps:
        """One Step per column, cycle after cycle, until no row is live."""
        batch = self.batch
        while batch.live:
            try:
                columns = self.draft_and_verify()
            except PurifyError:
                if self.drawn:  # the reader must see that something was drawn, or would have it drawn again
                    yield batch.step([None] * len(batch.rows))
                raise
            for column in columns:
                yield batch.step(column)
                batch.live -= batch.finished
                if not batch.live:
                    return
            self.rewind_to_accepted()

    @torch.inference_mode()
    def draft_and_verify(self) -> list[Column]:
        """One cycle; a column of tokens for each position of the draft that any row reached."""
        with self.drafts.drafted(self.pending) as draft:
            return self._verify(draft)

    def rewind_to_accepted(self) -> None:
        """Drop rows that ended, and what was rejected; the last token of each row stays unread."""
        batch = self.batch
        if places := batch.drop():
            self.state = select(places, self.state)
            self.drafts.rows_dropped()
        self.active = torch.tensor(batch.active, device=self.device)
        answers = [batch.answers[row] for row in batch.rows]
        # A row that failed before its first token, and that a model cannot drop, goes on with any token.
        self.pending = torch.tensor([(answer or [0])[-1:] for answer in answers], device=self.device)
        self.pair.rewind(torch.tensor([max(len(answer) - 1, 0) for answer in answers]))

    def _verify(self, draft: DraftRows) -> list[Column]:
        """Verify the draft left to right, until every row has rejected a token or gained a bonus token."""
        # One device-to-host copy a cycle: on an accelerator, where reading `active` would cost another one at
        # each position, the whole draft is verified. Rows that are not active any more are computed along
        # with the others, and not recorded.
        self.active = torch.tensor(self.batch.active, device=self.device)
        remaining, uniforms = self._remaining(), self.batch.streams.peek(len(draft.tokens) + 1)
        tables: list[Tensor] = []
        ended: list[float] = []  # the time at the end of each column
        for at in range(len(draft.tokens) + 1):
            try:
                rows = self._fuse(draft, at)
                self.active = self._healthy(self.active)
                numbers = self.batch.streams.for_column(uniforms, at, draft.tokens[:at])
                tokens, accepted = self._decide(rows, draft, at, numbers)
                self.drawn = True
                would = self.drafts.would_accept(rows, tokens) if at == len(draft.tokens) else accepted
                ends = torch.isin(tokens, self.eos) | (remaining <= at + 1)
                flags = torch.stack([self.active, self.active & accepted & ends, would], dim=-1)
                tables.append(torch.cat([to_host(rows, tokens, self.greedy, self.batch.top), flags], dim=-1))
                self.active = (
                    self.active & ~ends
                )  # a row that has ended cannot fail by what its draft says after
                self._advance(tokens, rows)
            except PurifyError:
                if not self.batch.live or bool(self._healthy(self.active).any()):
                    raise
                break  # the last active rows have failed; the others have their tokens
            self.active = self._healthy(self.active & accepted)
            ended.append(self.drafts.clock())
            if on_cpu(self.active) and not bool(self.active.any()):
                break
        # On an accelerator every column of a draft is verified, and the host has not waited for any.
        varying = ended[-1] - ended[0] if ended and on_cpu(self.active) else 0.0
        self.drafts.verified(len(tables), varying)
        return self._accepted(torch.stack(tables).tolist(), len(draft.tokens))

    def _remaining(self) -> Tensor:
        """How many more tokens each row may get (rows,)."""
        limits, answers = self.batch.limits, self.batch.answers
        left = [limits[row].tokens - len(answers[row]) for row in self.batch.rows]
        return torch.tensor(left, device=self.device)

    def _fuse(self, draft: DraftRows, at: int) -> FusedLogits:
        """The fused column after the draft's first `at` tokens."""
        slm, llm = draft.slm[at], draft.llm[at]
        history = self.batch.history_with(draft.tokens[:at])
        # After a rejected token the LLM's row may be broken: an inactive row is 0, unless all are active.
        if llm is not None and len(llm) > 1 and not (on_cpu(self.active) and bool(self.active.all())):
            llm = torch.where(self.active[:, None].to(llm.device), llm, 0.0)
        inputs = (
            self.policy,
            self.batch.processors,
            llm,
            slm,
            self.state,
            history,
            self.active,
            self.pair.lost,
        )
        return isolate(self.batch, partial(fuse, *inputs), self._flags)

    def _decide(
        self, rows: FusedLogits, draft: DraftRows, at: int, uniforms: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """Each row's token, and whether it is the drafted one; rows without a drafted token draw one."""
        drafted = draft.tokens[at] if at < len(draft.tokens) else None
        tokens, accepted = self.drafts.decide(rows, drafted, self.active, uniforms)
        if undrafted := list(draft.undrafted.get(at, ())):
            tokens, accepted = tokens.clone(), accepted.clone()
            tokens[undrafted] = rows.draw(None if uniforms is None else uniforms[:, 0])[undrafted]
            accepted[undrafted] = False
        return tokens, accepted

    def _advance(self, tokens: Tensor, rows: FusedLogits) -> None:
        """Advance the policy's state over these tokens, of the active rows."""
        if self.state and not (on_cpu(self.active) and not bool(self.active.any())):
            active, moved = self.active, partial(advance_state, self.policy, self.state, tokens, rows)
            self.state = where_rows(active, isolate(self.batch, moved, self._flags), self.state)

    def _flags(self) -> list[bool]:
        return [bool(active) for active in self.active.tolist()]

    def _healthy(self, active: Tensor) -> Tensor:
        """The rows that are `active` (rows,) and have not failed."""
        if not self.batch.errors:
            return active
        healthy = [row not in self.batch.errors for row in self.batch.rows]
        return active & torch.tensor(healthy, device=active.device)

    def _accepted(self, tables: list[list[list[float]]], drafted: int) -> list[Column]:
        """The columns that any row reached; drafts and random streams learn what became of the draft."""
        batch = self.batch
        columns: list[Column] = [
            records(batch, [row[:-3] for row in rows], [bool(row[-3]) for row in rows]) for rows in tables
        ]
        ended = [sum(bool(row[-2]) for row in rows) for rows in tables]
        would = [row[-1] for row in (tables[drafted] if len(tables) > drafted else ()) if row[-3]]
        columns = [column for column in columns if any(column)]
        reached = [sum(map(bool, column)) for column in [*columns, ()]]
        for at, (tried, kept) in enumerate(pairwise(reached[: drafted + 1])):
            # Of a row that ended here nothing says whether its next drafted token would have been accepted.
            self.drafts.observe(at, max(tried - ended[at], kept), kept)
        if would:
            self.drafts.observe(drafted, len(would), sum(would))
        if not self.greedy:
            lengths = [sum(map(bool, row)) for row in zip(*columns, strict=True)]
            batch.streams.consume([self.drafts.uniforms_used(length, drafted) for length in lengths])
        return columns
