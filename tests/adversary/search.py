"""The strongest weights there are, found by dynamic programming over the policy's own memory.

On a tiny vocabulary every answer can be walked through. After each, the LLM may choose among many rows, and
each choice leads the policy to a state of its own. Backwards from the end, the row with which the event is
likeliest is chosen: with these rows no function of the tokens does better.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from purify_plugins.decode.fusion import advance_state, fuse
from purify_plugins.decode.processors import LogitsProcessors
from purify_plugins.policy import State
from purify_plugins.testing import no_context
from tests.adversary.game import CONTEXT, Game
from tests.adversary.models import Tokens, View

SHARES = (0.02, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.999, 1 - 1e-6)
"""What a row may give to one token; the rest of it is the SLM's."""


class Plan(NamedTuple):
    """What to do after an answer: of the rows (m, V) which is `chosen` (n,), for each of n states.

    `then` are the plans for the answers that are a token longer; they have m states for each of these.
    """

    rows: Tensor
    chosen: Tensor
    then: Mapping[int, Plan | None]


class Search:
    """The weights under which the answers of `event`, all equally long, are likeliest together."""

    def __init__(self, game: Game, event: Collection[Tokens]) -> None:
        self.game, self.event = game, frozenset(event)
        self.length = len(next(iter(self.event)))
        self.shape = LogitsProcessors(game.sampling, game.slm.vocabulary)
        self.table: dict[Tokens, Tensor] = {}
        worth, plan = self._best((), game.chosen.start(no_context(1)))
        self.probability = float(worth[0])
        self._note((), plan, 0)

    def mind(self, view: View) -> Tensor:
        """The row that was found to be best after this answer, and the SLM's after any that is lost."""
        return self.table.get(view.answer, self.game.slm.logits((*view.prompt, *view.answer)))

    def _best(self, answer: Tokens, state: State) -> tuple[Tensor, Plan | None]:
        """The event's probability (n,) from `answer` on, for each of n states, and how to come by it."""
        count = len(state[0])
        if len(answer) == self.length:
            return torch.full((count,), float(answer in self.event), dtype=torch.float64), None
        useful = sorted({each[len(answer)] for each in self.event if each[: len(answer)] == answer})
        rows = choices(self.game, answer, useful)
        llm, slm = rows.repeat(count, 1), self.game.slm.logits((*CONTEXT, *answer))
        states = tuple(each.repeat_interleave(len(rows), dim=0) for each in state)
        history = [(CONTEXT, answer)] * len(llm)
        fused = fuse(self.game.chosen, self.shape, llm, slm.expand_as(llm), states, history)
        worth, then = torch.zeros(len(llm), dtype=torch.float64), {}
        for token in useful:
            tokens = torch.full((len(llm),), token)
            after = advance_state(self.game.chosen, states, tokens, fused)
            best, then[token] = self._best((*answer, token), after)
            worth += fused.logprobs(tokens)[:, 2].double().exp() * best
        best, chosen = worth.view(count, len(rows)).max(dim=1)
        return best, Plan(rows, chosen, then)

    def _note(self, answer: Tokens, plan: Plan | None, state: int) -> None:
        """Write down the choices that follow from each other, beginning with the first state."""
        if plan:
            chosen = int(plan.chosen[state])
            self.table[answer] = plan.rows[chosen]
            for token, then in plan.then.items():
                self._note((*answer, token), then, state * len(plan.rows) + chosen)


def choices(game: Game, answer: Tokens, useful: Sequence[int]) -> Tensor:
    """(m, V) the rows among which the LLM chooses: the SLM's, and each share for each useful token."""
    slm = game.slm.logits((*CONTEXT, *answer)).softmax(-1)
    rows = [slm]
    for token in useful:
        rest = slm.index_fill(0, torch.tensor(token), 0.0)
        rest /= rest.sum()
        rows += [(rest * (1 - share)).index_fill(0, torch.tensor(token), share) for share in SHARES]
    return torch.stack(rows).log()
