"""The LLM's server drafts, the SLM reads the draft in one pass, and every token is drawn here.

The law is lockstep's, whatever the server sends: each token is drawn from the fused row with this
machine's own randomness, and the draft only says which row comes next. Where it has the same token,
reading goes on; where it has not, the rest of it is forgotten, and the server is asked anew. Nothing is
ever accepted by the probability that a server reports.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from purify_plugins.decode.batch import Batch
from purify_plugins.decode.sessions import Pair
from purify_plugins.decode.speculative import Column, Draft, Walk

if TYPE_CHECKING:
    from purify_plugins.decode.decoder import Decoder
    from purify_plugins.decode.fusion import Rows
    from purify_plugins.sampling import Sampling
    from purify_plugins.types import Prompt, Steps

LONGEST = 16
"""Drafted tokens that the SLM reads in one pass."""


def readahead(decoder: Decoder, prompts: Sequence[Prompt], sampling: Sampling) -> Steps:
    """Yield one Step per column of tokens, as the server's draft comes in; closing it frees both sessions.

    Raises PromptError before the first token, SourceError whenever a model fails.
    """
    with Pair(decoder, prompts) as pair:
        batch = Batch(decoder, pair, sampling, "readahead")
        walk = ReadAhead(decoder, pair, batch, batch.sampling)
        yield from walk.steps()


class ReadAhead(Walk):
    """A walk whose drafts are the server's."""

    @torch.inference_mode()
    def cycle(self) -> list[Column]:
        """Take what the server has drafted so far, and draw along it; one column per token."""
        unread = [] if self.pending is None else [self.pending]
        known = self._read(unread)[0]
        drafted = self._drafted() if known is not None else []
        first = [] if unread else [self.pair.first[1]]
        new = [*unread, *drafted]
        read = self.pair.ask_slm(torch.cat(new, dim=1)).unbind(dim=1) if new else ()
        more = self.pair.ask_llm(torch.cat(drafted, dim=1)) if drafted else None
        llm = [known, *(more.unbind(dim=1) if more is not None else ())]
        return self._verify(Draft(drafted if more is not None else [], [*first, *read], llm))

    def _drafted(self) -> list[Tensor]:
        """The server's draft as columns (rows, 1), no longer than there is room for."""
        session: Any = self.pair.llm
        if session is None:
            return []
        live = {place for place, goes in enumerate(self.batch.going) if goes}
        tokens = session.read_ahead(min(LONGEST, self.batch.room - 1), live)
        return list(torch.tensor(tokens, device=self.device).long().split(1, dim=1)) if tokens[0] else []

    def _decide(
        self, rows: Rows, guess: Tensor | None, going: Tensor, luck: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """Each row's token, drawn, and whether the draft has it too."""
        tokens = rows.draw(None if luck is None else luck[:, 0])
        return tokens, torch.zeros_like(going) if guess is None else tokens == guess[:, 0]

    def _used(self, tokens: int, drafted: int) -> int:
        """One random number a token."""
        return tokens
