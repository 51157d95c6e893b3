"""Both models' sessions, opened, advanced and closed together."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from difflib import SequenceMatcher
from functools import partial
from itertools import repeat
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from purify_plugins.decode.row import rows_of
from purify_plugins.errors import NumericError, SourceError
from purify_plugins.policy import Context
from purify_plugins.tokenizers.cross.prompt_scores import PromptScore, shared_symbol_scores
from purify_plugins.tokenizers.template_words import without_template

if TYPE_CHECKING:
    from purify_plugins.decode.decoder import Decoder
    from purify_plugins.decode.row import Row
    from purify_plugins.protocols import Session
    from purify_plugins.types import Prompt, ScoredPrompt

log = logging.getLogger(__name__)


class SessionPair:
    """The LLM's session and the SLM's, reading the same batch; `lookback` prompt tokens are scored.

    A row's LLM may read another prompt than its SLM (`Row.shown`). `prompts` are each row's prompt in the
    shared vocabulary, as the SLM read it; `first` are both models' logits (rows, V) after the prompts. `llm`
    is None from the beginning where the decoder asks the SLM `alone`, and once the LLM has failed and the
    operator allowed the SLM to go on alone. `lost` (rows,) marks single rows in which it has failed: its
    logits there were NaN, +inf, or allowed no token. It never comes back within an answer.
    """

    def __init__(
        self, decoder: Decoder, prompts: Sequence[Prompt | Row], lookback: int | None = None
    ) -> None:
        self.decoder, self.rows = decoder, rows_of(prompts)
        self.lookback = decoder.lookback if lookback is None else lookback
        self._open, self._width = ExitStack(), len(decoder.vocabulary)
        self.llm: Session | None = None
        self.lost = torch.zeros(len(prompts), dtype=torch.bool)
        self._accepted: Tensor | None = None  # answer tokens that both models have read, at the last rewind
        try:
            self.slm, slm = decoder.slm.open([row.prompt for row in self.rows], self.lookback)
            self._open.callback(self.slm.close)
            self.prompts = tuple(prompt.tokens for prompt in self.slm.prompts)
            llm = None if decoder.alone else self._ask(self._open_llm)
            self.first = llm, slm[..., : self._width]
        except BaseException:
            self.close()
            raise

    def _open_llm(self) -> Tensor:
        shown = [row.prompt if row.shown is None else row.shown for row in self.rows]
        self.llm, logits = self.decoder.llm.open(shown, self.lookback)
        self._open.callback(self.llm.close)
        return logits

    def extend(self, tokens: Tensor) -> tuple[Tensor | None, Tensor]:
        """Append tokens (rows, n); both models' logits (rows, n, V) after each."""
        return self.extend_llm(tokens), self.extend_slm(tokens)

    def extend_llm(self, tokens: Tensor) -> Tensor | None:
        """Append tokens (rows, n); the LLM's logits (rows, n, V) after each, None once it has failed."""
        return None if self.llm is None else self._ask(partial(self.llm.extend, tokens))

    def extend_slm(self, tokens: Tensor) -> Tensor:
        """Append tokens (rows, n); the SLM's logits (rows, n, V) after each."""
        # A server's rows have one column more, for the mass of tokens that it does not show.
        return self.slm.extend(tokens)[..., : self._width]

    def each_slm(self, tokens: Tensor) -> Iterator[Tensor]:
        """Append a draft (rows, n); the SLM's logits (rows, V) after each token, read when asked for."""
        columns = self.slm.each(tokens)
        for row in self.slm.extend(tokens).unbind(dim=1) if columns is None else columns:
            yield row[..., : self._width]

    def each_llm(self, tokens: Tensor, active: Callable[[], Tensor]) -> Iterator[Tensor | None]:
        """Append a draft (rows, n); the LLM's logits (rows, V) after each token, None once it has failed.

        Rows that are not `active` (rows,) by then may be broken. An LLM in smaller symbols than its own reads
        only as far as the logits are asked for.
        """
        # Whether the LLM has failed before a token is decided without that token: a model that may choose
        # when to fail, after it has seen what comes next, chooses what is written.
        columns = None if self.llm is None else self.llm.each(tokens)
        columns = self._read_draft(tokens) if columns is None else columns
        while self.llm is not None:
            yield self._ask(partial(next, columns), active)
        yield from repeat(None)

    def _read_draft(self, tokens: Tensor) -> Iterator[Tensor]:
        """The LLM's logits (rows, V) after each token: one pass for all, and a pass each where that fails.

        Each later pass is made only if some row has accepted all that the passes before it read.
        """
        llm = self.llm
        if llm is None:
            return
        try:
            columns = iter(llm.extend(tokens).unbind(dim=1))
        except SourceError:
            if tokens.shape[1] == 1:
                raise
            none = torch.zeros(len(tokens), dtype=torch.long)
            llm.rewind(none if self._accepted is None else self._accepted)
            columns = (llm.extend(column)[:, 0] for column in tokens.split(1, dim=1))
        yield from columns

    def rewind(self, lengths: Tensor) -> None:
        """Both models forget what follows the first `lengths` (rows,) tokens of each answer."""
        self._accepted = lengths
        self.slm.rewind(lengths)
        if self.llm is not None:
            self.llm.rewind(lengths)

    def select_rows(self, rows: Sequence[int]) -> bool:
        """Both models go on with these rows only, if both can; returns whether they do."""
        sessions = [self.slm, *([] if self.llm is None else [self.llm])]
        can = all(session.keeps for session in sessions)
        for session in sessions if can else ():
            session.keep(rows)
        if can:
            self.lost = self.lost[list(rows)]
        return can

    def _ask(
        self, question: Callable[[], Tensor], active: Callable[[], Tensor] | None = None
    ) -> Tensor | None:
        """The LLM's logits; None when it failed and the SLM may go on alone.

        Rows that are not `active` (all are where it is None) may be broken.
        """
        alone = self.decoder.on_llm_failure == "slm"
        try:
            logits = question()
            if alone:
                self._lose(logits, None if active is None else active())
            return logits
        except SourceError as error:
            if not alone:
                raise
            log.warning("the LLM failed, and the SLM goes on alone: %s", error)
            failed, self.llm = self.llm, None
            if failed is not None:
                failed.close()
            return None

    def _lose(self, logits: Tensor, active: Tensor | None) -> None:
        """Mark the rows whose logits (rows, …, V) are broken. Raises NumericError once all rows are."""
        broken = ~torch.isfinite(logits.amax(dim=-1)).reshape(len(logits), -1).all(dim=-1).cpu()
        if active is not None:
            broken &= active.cpu()
        broken &= ~self.lost
        if not bool(broken.any()):
            return
        error = "the LLM returned NaN, +inf or no possible token"
        self.lost = self.lost | broken
        if bool(self.lost.all()):
            raise NumericError(error)
        places = broken.nonzero()[:, 0].tolist()
        log.warning("the LLM failed, and the SLM goes on alone in rows %s of a batch: %s", places, error)

    @property
    def readings(self) -> list[list[tuple[int, ...]]]:
        """Each row's prompt as each model read it."""
        sessions = [self.slm] if self.llm is None else [self.slm, self.llm]
        return [list(session.readings) for session in sessions]

    @property
    def context_full(self) -> set[int]:
        """The rows whose context is used up, by a model in other symbols than its own."""
        sessions = (self.slm, *([] if self.llm is None else [self.llm]))
        return {row for session in sessions for row in session.full or ()}

    def context(self, greedy: bool, lookback: int | None = None) -> Context:
        """The prompts' scores, the last `lookback` (None: all), for a policy's initial state."""
        llm = self.slm.prompts if self.llm is None else self.llm.prompts
        lookback = self.lookback if lookback is None else lookback
        pairs = zip(llm, self.slm.prompts, strict=True)
        none: tuple[list[PromptScore], int] = [], 0
        found = [self._shared(a, b, lookback) if a.logprobs and b.logprobs else none for a, b in pairs]
        shared = [scores for scores, _ in found]
        width = max(map(len, shared))
        padded = [[(0, 0.0, 0.0)] * (width - len(scores)) + scores for scores in shared]
        device, shape = self.first[1].device, (len(shared), width)
        tokens = torch.tensor([[each[0] for each in row] for row in padded], device=device, dtype=torch.long)
        scores = torch.tensor(
            [[each[1:] for each in row] for row in padded], device=device, dtype=torch.float32
        )
        scores = scores.reshape(*shape, 2)
        lengths = torch.tensor([len(scores) for scores in shared], device=device)
        modes = torch.full((len(shared),), greedy, device=device)
        turns = torch.tensor([turn for _, turn in found], device=device)
        return Context(scores[..., 0], scores[..., 1], lengths, modes, tokens.reshape(shape), turns)

    def _shared(self, llm: ScoredPrompt, slm: ScoredPrompt, lookback: int) -> tuple[list[PromptScore], int]:
        """The scores of the text that both read, without a template's, and how many are of the last turn."""
        vocabulary, symbols = self.decoder.vocabulary, llm.spelled and slm.spelled
        if not symbols:
            llm, slm = llm.last(lookback), slm.last(lookback)
        one, other = without_template(llm, vocabulary), without_template(slm, vocabulary)
        if symbols:
            scores = shared_symbol_scores(one.prompt, other.prompt, vocabulary)
        else:
            scores = shared_scores(one.prompt, other.prompt)
        scores = scores[max(len(scores) - lookback, 0) :]
        return scores, min(one.turn, other.turn, len(scores))

    def close(self) -> None:
        """Close both sessions."""
        self._open.close()


def shared_scores(llm: ScoredPrompt, slm: ScoredPrompt) -> list[PromptScore]:
    """The scored prompt tokens that both models read, with their log-probabilities.

    Their templates may differ: these are the tokens that stand in both renderings, in order.
    """
    llm_tokens = llm.tokens[len(llm.tokens) - len(llm.logprobs) :]
    slm_tokens = slm.tokens[len(slm.tokens) - len(slm.logprobs) :]
    if llm_tokens == slm_tokens:
        return list(zip(llm_tokens, llm.logprobs, slm.logprobs, strict=True))
    blocks = SequenceMatcher(None, llm_tokens, slm_tokens, autojunk=False).get_matching_blocks()
    return [
        (llm_tokens[block.a + i], llm.logprobs[block.a + i], slm.logprobs[block.b + i])
        for block in blocks
        for i in range(block.size)
    ]
