"""The SLM drafts, the LLM reads the draft in one pass, and only what the fused row allows is kept.

The law is lockstep's. A drafted token is kept if it is the fused row's arg-max (greedy), or with
probability min(1, fused/slm) (sampling), a refused one being replaced by a draw from what the fused
row has over the SLM's; after a draft that is kept whole comes one more token, drawn from the fused
row too. The policy's state moves over kept tokens only, and no drawn token is ever dropped.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import pairwise
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

from purify_plugins.decode.batch import Batch
from purify_plugins.decode.draft_length import DraftLength
from purify_plugins.decode.fusion import Rows, choose, fuse, only, table
from purify_plugins.decode.isolation import Places, apart, forward_at, fuse_at, noted
from purify_plugins.decode.logits import near
from purify_plugins.decode.random_streams import pick
from purify_plugins.decode.sessions import Pair
from purify_plugins.errors import PurifyError
from purify_plugins.threat import require_draftable

if TYPE_CHECKING:
    from purify_plugins.decode.decoder import Decoder
    from purify_plugins.sampling import Sampling
    from purify_plugins.types import History, Prompt, Steps, Token

Column = list["Token | None"]


class Draft(NamedTuple):
    """What a cycle starts from: the SLM's tokens, and both models' logits around them.

    `tokens` are n columns (rows, 1); `llm` holds n + 1 logits (rows, V): before the first token and
    after every one, or None once the LLM has failed; `slm` lacks those after the last.
    """

    tokens: Sequence[Tensor]
    slm: Sequence[Tensor]
    llm: Sequence[Tensor | None] | Unfolding


class Unfolding:
    """A sequence whose items are made when they are looked at."""

    def __init__(self, known: Sequence[Tensor | None], more: Iterator[Tensor | None]) -> None:
        self._known, self._more = list(known), more

    def __getitem__(self, at: int) -> Tensor | None:
        while len(self._known) <= at:
            self._known.append(next(self._more))
        return self._known[at]


def speculative(decoder: Decoder, prompts: Sequence[Prompt], sampling: Sampling) -> Steps:
    """Yield one Step per column of tokens, several to a pass of the LLM; closing it frees both sessions.

    Raises PromptError before the first token, SourceError whenever a model fails, ConfigError for an LLM
    whose engine must see no draft.
    """
    require_draftable(decoder.llm.engine)
    with Pair(decoder, prompts) as pair:
        batch = Batch(decoder, pair, sampling, "speculative")
        walk = Walk(decoder, pair, batch, batch.sampling)
        yield from walk.steps()


class Walk:
    """One batch's walk: what both models have read, and the token that neither has yet."""

    def __init__(self, decoder: Decoder, pair: Pair, batch: Batch, sampling: Sampling) -> None:
        self.policy, self.pair, self.batch = decoder.policy, pair, batch
        self.greedy, self.state = sampling.greedy, batch.state
        self._pace: Callable[[int], DraftLength] = partial(decoder.draft_lengths.of, sampling)
        self.pace = self._pace(len(batch.rows))
        self.device = pair.first[1].device
        self.pending: Tensor | None = None
        self.blind: dict[int, list[int]] = {}  # draft position -> rows without a draft token there
        self.drawn = False  # whether any token has been
        self.eos = torch.tensor(sorted(self.batch.eos), dtype=torch.long, device=self.device)
        self.going = torch.tensor(batch.going, device=self.device)  # the rows that the walk is still with

    def steps(self) -> Steps:
        """One Step per column, cycle after cycle, until no row is live."""
        while self.batch.live:
            try:
                columns = self.cycle()
            except PurifyError:
                if self.drawn:  # whoever reads must know, or would have it drawn again
                    yield self.batch.step([None] * len(self.batch.rows))
                raise
            for column in columns:
                yield self.batch.step(column)
                self.batch.end()
                if not self.batch.live:
                    return
            self.settle()

    @torch.inference_mode()
    def cycle(self) -> list[Column]:
        """Draft, read the draft, and keep what the fused rows allow; one column per kept token.

        The first token needs no draft: both models have read the prompts.
        """
        if self.pending is None and not self.pace.fixed:
            return self._verify(self._draft(0))
        with self.pace.timed(self.pace.length(self.batch.room - 1)) as length:
            return self._verify(self._draft(length))

    def settle(self) -> None:
        """Both models forget rows that ended, and what was not kept; the last kept token is still unread."""
        if places := self.batch.drop():
            self.state = only(places, self.state)
            self.pace = self._pace(len(places))
        self.going = torch.tensor(self.batch.going, device=self.device)
        answers = [self.batch.answers[row] for row in self.batch.rows]
        # A row that failed before its first token, and that a model cannot drop, goes on with any.
        self.pending = torch.tensor([(answer or [0])[-1:] for answer in answers], device=self.device)
        self.pair.rewind(torch.tensor([max(len(answer) - 1, 0) for answer in answers]))

    def _draft(self, length: int) -> Draft:
        """Let the SLM write `length` tokens, then the LLM read them.

        The SLM reads its own last token only if somebody asks what comes after it.
        """
        unread = [] if self.pending is None else [self.pending]
        self.blind = {}
        slm = [self.pair.ask_slm(unread[0])[:, 0] if unread else self.pair.first[1]]
        drafted: list[Tensor] = []
        while len(drafted) < length:
            if drafted:
                slm.append(self.pair.ask_slm(drafted[-1])[:, 0])
            drafted.append(self._guess(slm[-1], drafted)[:, None])
        return Draft(drafted, slm, self._read([*unread, *drafted]))

    def _read(self, tokens: list[Tensor]) -> Unfolding:
        """The LLM's logits before the first drafted token and after each."""
        known = [self.pair.first[0]] if self.pending is None else []
        return Unfolding(known, self._each(tokens) if tokens else iter(()))

    def _each(self, tokens: list[Tensor]) -> Iterator[Tensor | None]:
        return self.pair.each_llm(torch.cat(tokens, dim=1), lambda: self.going)

    def _guess(self, logits: Tensor, drafted: Sequence[Tensor]) -> Tensor:
        """The SLM's own next token (rows,), by the sampling settings."""
        inputs = logits, self._history(drafted), self.batch.dice.roll()
        try:
            return self._guessed(*inputs, self.batch.places)
        except PurifyError:
            return self._one_by_one(partial(self._guessed, *inputs), len(drafted))

    def _one_by_one(self, guessed: Callable[[Places], Tensor], at: int) -> Tensor:
        """Draft a token (rows,) for each row by itself. A row for which that raises is marked in `blind`.

        A failed draft does not fail the row: its token is drawn from the fused row, as without a draft.
        """
        guesses = [torch.zeros(1, dtype=torch.long, device=self.device) for _ in self.batch.rows]
        self.blind[at] = []
        for place in range(len(guesses)):
            try:
                guesses[place] = guessed([place])
            except PurifyError:
                self.blind[at].append(place)
        return torch.cat(guesses)

    def _guessed(self, logits: Tensor, history: History, luck: Tensor | None, places: Places) -> Tensor:
        """The SLM's own next tokens of the rows at these places; the arg-max without `luck` (rows,)."""
        if places is not None:
            places = list(places)
            logits, history = logits[places], [history[place] for place in places]
            luck = None if luck is None else luck[places]
        if luck is None:
            return self.batch.shape.likeliest(logits, history)
        return fuse(self.policy, self.batch.shape, None, logits, (), history).draw(luck)

    def _history(self, drafted: Sequence[Tensor]) -> History:
        """Prompts and answers with the draft so far, if anybody looks at them."""
        if not (drafted and self.batch.shape.looks_back):
            return self.batch.history
        new = torch.cat(list(drafted), dim=1).tolist()
        return [
            (prompt, [*answer, *more]) for (prompt, answer), more in zip(self.batch.history, new, strict=True)
        ]

    def _verify(self, draft: Draft) -> list[Column]:
        """Walk along the draft until every row has refused a token or got one more.

        All that the host must know crosses over in one piece. So on an accelerator the walk goes to the
        draft's end, whoever is still going; where looking costs nothing it ends with the last row.
        """
        self.going = torch.tensor(self.batch.going, device=self.device)
        room, luck = self._room(), self.batch.dice.look(len(draft.tokens) + 1)
        tables: list[Tensor] = []
        for at, guess in enumerate([*draft.tokens, None]):
            try:
                rows = self._fuse(draft, at)
                self.going = self._healthy(self.going)
                tokens, kept = self._decided(rows, at, guess, None if luck is None else luck[:, at:])
                self.drawn = True
                ends = torch.isin(tokens, self.eos) | (room <= at + 1)
                flags = torch.stack([self.going, self.going & kept & ends], dim=-1)
                tables.append(torch.cat([table(rows, tokens, self.greedy, self.batch.top), flags], dim=-1))
                self.going = self.going & ~ends  # what is past a row's end cannot break it
                self._move(tokens, rows)
            except PurifyError:
                if not self.batch.live or bool(self._healthy(self.going).any()):
                    raise
                break  # the last that were going have failed; the others have their tokens
            self.going = self._healthy(self.going & kept)
            if near(self.going) and not bool(self.going.any()):
                break
        return self._written(torch.stack(tables).tolist(), len(draft.tokens))

    def _room(self) -> Tensor:
        """How many more tokens each row may get (rows,)."""
        limits, answers = self.batch.limits, self.batch.answers
        left = [limits[row].tokens - len(answers[row]) for row in self.batch.rows]
        return torch.tensor(left, device=self.device)

    def _move(self, tokens: Tensor, rows: Rows) -> None:
        """The policy's state after these tokens, of the rows that go on."""
        if self.state and not (near(self.going) and not bool(self.going.any())):
            moved = partial(forward_at, self.policy, self.state, tokens, rows)
            going = self.going
            self.state = choose(going, apart(self.batch, self._goes, moved), self.state)

    def _written(self, tables: list[list[list[float]]], drafted: int) -> list[Column]:
        """The columns that any row reached; the pace and the dice learn what became of the draft."""
        columns: list[Column] = [
            noted(self.batch, [row[:-2] for row in rows], [bool(row[-2]) for row in rows]) for rows in tables
        ]
        ended = [sum(bool(row[-1]) for row in rows) for rows in tables]
        columns = [column for column in columns if any(column)]
        reached = [sum(map(bool, column)) for column in [*columns, ()]]
        for at, (tried, kept) in enumerate(pairwise(reached[: drafted + 1])):
            self.pace.observe(at, max(tried - ended[at], kept), kept)  # an end that was guessed says nothing
        if not self.greedy:
            lengths = [sum(map(bool, row)) for row in zip(*columns, strict=True)]
            self.batch.dice.use([self._used(length, drafted) for length in lengths])
        return columns

    def _used(self, tokens: int, drafted: int) -> int:
        """How many random numbers a row took: one a token, and one more to replace a refused guess."""
        return tokens + (0 < tokens <= drafted)

    def _fuse(self, draft: Draft, at: int) -> Rows:
        """The fused column after the draft's first `at` tokens."""
        slm = draft.slm[at] if at < len(draft.slm) else self.pair.ask_slm(draft.tokens[-1])[:, 0]
        llm, history = self._looked_at(draft.llm[at]), self._history(draft.tokens[:at])
        inputs = self.policy, self.batch.shape, llm, slm, self.state, history, self.going, self.pair.lost
        return apart(self.batch, self._goes, partial(fuse_at, *inputs))

    def _goes(self) -> list[bool]:
        """Which rows the walk is still with."""
        return [bool(goes) for goes in self.going.tolist()]

    def _healthy(self, going: Tensor) -> Tensor:
        """The rows that are `going` (rows,) and have not failed."""
        if not self.batch.errors:
            return going
        healthy = [row not in self.batch.errors for row in self.batch.rows]
        return going & torch.tensor(healthy, device=going.device)

    def _looked_at(self, llm: Tensor | None) -> Tensor | None:
        """The LLM's logits (rows, V), 0 where nobody looks: after a refused token a row may be broken."""
        if llm is None or len(llm) == 1 or (near(self.going) and bool(self.going.all())):
            return llm
        return torch.where(self.going[:, None].to(llm.device), llm, 0.0)

    def _decided(
        self, rows: Rows, at: int, guess: Tensor | None, luck: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """`_decide`, except that rows without a draft token here (`blind`) are drawn from the fused row."""
        tokens, kept = self._decide(rows, guess, self.going, luck)
        if blind := self.blind.get(at):
            tokens, kept = tokens.clone(), kept.clone()
            tokens[blind], kept[blind] = rows.draw(None if luck is None else luck[:, 0])[blind], False
        return tokens, kept

    def _decide(
        self, rows: Rows, guess: Tensor | None, going: Tensor, luck: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """Each row's token, and whether it is its guess (rows, 1), so that the walk may go on.

        `luck` (rows, n) are the numbers that a row still going uses next; none when greedy.
        """
        if guess is None or luck is None:
            tokens = rows.draw(None if luck is None else luck[:, 0])
            return tokens, torch.zeros_like(going) if guess is None else tokens == guess[:, 0]
        return accept(rows, guess[:, 0], going, luck)


def accept(rows: Rows, guess: Tensor, going: Tensor, luck: Tensor) -> tuple[Tensor, Tensor]:
    """Keep each guess (rows,), drawn from the SLM's row, with probability min(1, fused/slm).

    A refused guess becomes a draw from what the fused row has over the SLM's. Together that is a draw
    from the fused row. Rows that are not `going` keep what they have. `luck` (rows, 2): numbers in
    [0, 1), one to decide with and one to draw with.
    """
    logprobs = rows.logprobs(guess)
    kept = ~going | (luck[:, 0] < (logprobs[:, 2] - logprobs[:, 1]).exp())
    refused = _all_where(~kept)
    if len(refused):
        other = rows.named(pick(rows.excess(refused), luck[refused, 1]))
        guess = guess.index_copy(0, refused, torch.where(kept[refused], guess[refused], other))
    return guess, kept


def _all_where(flags: Tensor) -> Tensor:
    """The places (n,) of the rows that are flagged; on an accelerator of all, which it costs more to ask."""
    return flags.nonzero()[:, 0] if near(flags) else torch.arange(len(flags), device=flags.device)
