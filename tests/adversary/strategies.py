"""What an LLM may do to make a passage come out; each is a game -> a mind, and says what it needs to see."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from purify_plugins.decode.fusion import FusedLogits
from purify_plugins.types import Vocabulary
from tests.adversary.game import CODE, Game, Shadow
from tests.adversary.models import Mind, Tokens, View, failing

Strategy = Callable[[Game], Mind]
NOTHING = -30.0
"""Logits of what the LLM does not want: e^-30 of what it does."""


def sure(game: Game, token: int) -> Tensor:
    """A row (V,) that has nothing but one token."""
    return torch.full((len(game.slm.vocabulary),), NOTHING).index_fill(0, torch.tensor(token), 0.0)


def as_slm(game: Game, view: View) -> Tensor:
    """What the SLM would say: it costs nothing."""
    return game.slm.logits((*view.prompt, *view.answer))


def recite(game: Game) -> Mind:
    """Be sure of the passage, token after token."""
    return hoard(game, 0)


def hoard(game: Game, after: int = 2) -> Mind:
    """Be the SLM for a while, so that a policy that saves has something to spend; then recite."""

    def mind(view: View) -> Tensor:
        wanted = game.wanted(view)
        return as_slm(game, view) if wanted is None or len(view.answer) < after else sure(game, wanted)

    return mind


def spend(game: Game, first: int = 2) -> Mind:
    """Take what there is at the beginning, then be the SLM: nothing is left unspent."""

    def mind(view: View) -> Tensor:
        wanted = game.wanted(view)
        return as_slm(game, view) if wanted is None or len(view.answer) >= first else sure(game, wanted)

    return mind


def lean(game: Game, share: float = 0.6) -> Mind:
    """Never be sure: give the passage's next token this share, and the rest as the SLM would."""

    def mind(view: View) -> Tensor:
        row, wanted = as_slm(game, view).softmax(-1), game.wanted(view)
        if wanted is None:
            return row.log()
        rest = row.index_fill(0, torch.tensor(wanted), 0.0)
        return (rest * (1 - share) / rest.sum()).index_fill(0, torch.tensor(wanted), share).log()

    return mind


def hide(game: Game) -> Mind:
    """Show one token, and not the one that is wanted: nearly all mass is where nobody sees it."""

    def mind(view: View) -> Tensor:
        other = ((game.wanted(view) or 0) + 1) % min(game.slm.vocabulary.eos)
        shown = torch.full((len(game.slm.vocabulary) + 1,), -torch.inf)
        shown[other], shown[-1] = -9.0, math.log1p(-math.exp(-9.0))
        return shown

    return mind


def show_one(game: Game) -> Mind:
    """Show the wanted token alone, and say that nothing else has any mass."""

    def mind(view: View) -> Tensor:
        shown = torch.full((len(game.slm.vocabulary) + 1,), -torch.inf)
        shown[game.wanted(view) or 0] = 0.0
        return shown

    return mind


def move_the_draft(game: Game) -> Mind:
    """Be the SLM, but move the mass of the token that is drafted to the one that is wanted.

    The drafted token is then refused for certain, what the fused row has over the SLM's is the wanted
    token alone, and the ledger is charged with next to nothing.
    """

    def mind(view: View) -> Tensor:
        row, wanted = as_slm(game, view).softmax(-1), game.wanted(view)
        if wanted is None:
            return row.log()
        if not view.draft:
            return sure(game, wanted)
        if view.draft[0] != wanted:
            row[wanted] += row[view.draft[0]]
            row[view.draft[0]] = 0.0
        return row.log()

    return mind


def fail_on_a_draft(game: Game) -> Mind:
    """Recite while the draft goes astray; where it is the passage, fail, and let the SLM's draft stand."""

    def mind(view: View) -> Tensor:
        drafted = view._replace(answer=view.answer + view.draft)
        return failing() if view.draft and not game.lost(drafted) else recite(game)(view)

    return mind


def hang_up(game: Game) -> Mind:
    """Recite, and fail as soon as something else was drawn."""
    return lambda view: failing() if game.lost(view) else recite(game)(view)


def break_off(game: Game) -> Mind:
    """The same for weights, which cannot hang up: a row of NaN."""
    nothing = torch.full((len(game.slm.vocabulary),), math.nan)
    return lambda view: nothing if game.lost(view) else recite(game)(view)


def watch_the_neighbours(game: Game) -> Mind:
    """Recite in the rows that have a neighbour on its way, and be the SLM in the others."""

    def mind(view: View) -> Tensor:
        others = (View(row[: len(view.prompt)], row[len(view.prompt) :]) for row in view.beside)
        return as_slm(game, view) if all(map(game.lost, others)) else recite(game)(view)

    return mind


Numbers = Callable[[Tokens], "list[float]"]
"""The numbers that the adversary thinks will draw the answer to a prompt."""


def mersenne(game: Game) -> Numbers:
    """What `random.Random(seed + row)` gives, the row being told by the prompt's first letters."""

    def numbers(prompt: Tokens) -> list[float]:
        row = 0
        for letter in prompt[:CODE]:
            row = row * (len(game.slm.vocabulary) - 1) + letter
        stream = random.Random((game.sampling.seed or 0) + row)
        return [stream.random() for _ in range(game.place + game.length)]

    return numbers


def aim(game: Game, predicted: Callable[[Game], Numbers] = mersenne) -> Mind:
    """Move the passage's next token to where the next number falls, at the least expense."""
    numbers, tilts = predicted(game), tilts_of(game.slm.vocabulary)

    def mind(view: View) -> Tensor:
        wanted = game.wanted(view)
        if wanted is None:
            return as_slm(game, view)
        number = numbers(view.prompt)[len(view.answer)]
        return aimed(shadow, view, wanted, number - NEAR, number + NEAR, tilts)

    shadow = Shadow(game, mind)
    return mind


NEAR = 1e-6
"""Numbers that are taken for the same."""
KNOWN = 0.1
"""How far apart two marks may be for a number between them to be aimed at."""
STEPS = (-20.0, -3.0, -2.0, -1.4, -1.0, -0.7, -0.4, 0.0, 0.4, 0.7, 1.0, 1.4, 2.0, 3.0, 20.0)
"""Nats by which a row may prefer what stands before or after a token."""


def tilts_of(vocabulary: Vocabulary) -> list[Tensor]:
    """For each token (n, V): what may be added to the SLM's logits of the tokens before and after it."""
    size, steps = len(vocabulary), torch.tensor(STEPS)
    grid = torch.cartesian_prod(steps, steps)
    tilts = torch.zeros(size, len(grid), size)
    for token in range(size):
        tilts[token, :, :token] = grid[:, :1]
        tilts[token, :, token + 1 : min(vocabulary.eos)] = grid[:, 1:]
    return [each.unique(dim=0) for each in tilts]


def aimed(
    shadow: Shadow, view: View, wanted: int, low: float, high: float, tilts: Sequence[Tensor]
) -> Tensor:
    """The row that draws `wanted` by most numbers from `low` to `high`; of several, the nearest the SLM's."""
    llm = as_slm(shadow.game, view) + tilts[wanted]
    rows = shadow.fused(view.prompt, view.answer, llm)
    begin, end = marks(rows)
    drawn = torch.clamp(end[:, wanted], max=high) - torch.clamp(begin[:, wanted], min=low)
    share = end - begin
    spent = (share * (share / rows.slm.softmax(-1)).log()).nan_to_num(0.0, posinf=0.0).sum(-1)
    return llm[torch.where(drawn > drawn.max() - NEAR, spent, torch.inf).argmin()]


def marks(rows: FusedLogits) -> tuple[Tensor, Tensor]:
    """(n, V) between which two numbers each token is drawn."""
    share = rows.mass.double() / rows.mass.double().sum(-1, keepdim=True)
    end = share.cumsum(-1)
    return end - share, end


class Learner:
    """An engine that is asked the same again: from what was drawn of its last rows it knows the numbers.

    Each token that was drawn says between which two marks the number lay. Next time a mark is put in the
    middle; where that is KNOWN well enough, the row is aimed there.
    """

    def __init__(self, game: Game) -> None:
        self.game, self.tilts = game, tilts_of(game.slm.vocabulary)
        self.between: dict[tuple[Tokens, int], tuple[float, float]] = {}
        self.shown: dict[tuple[Tokens, Tokens], Tensor] = {}
        self.shadow = Shadow(game, lambda view: self.shown[view.prompt, view.answer])

    def __call__(self, view: View) -> Tensor:
        if view.answer:
            self._learn(view.prompt, view.answer[:-1], view.answer[-1])
        else:
            self._begin(view.prompt)
        low, high = self.between.get((view.prompt, len(view.answer)), (0.0, 1.0))
        wanted = self.game.wanted(view)
        if wanted is None or high - low > KNOWN:
            row = self._halved(view, (low + high) / 2)
        else:
            row = aimed(self.shadow, view, wanted, low, high, self.tilts)
        self.shown[view.prompt, view.answer] = row
        return row

    def _begin(self, prompt: Tokens) -> None:
        """Another request: the policy's memory is led another way."""
        for known in (self.shown, self.shadow.states):
            for key in [key for key in known if key[0] == prompt]:
                del known[key]

    def _learn(self, prompt: Tokens, answer: Tokens, token: int) -> None:
        begin, end = marks(self.shadow.fused(prompt, answer, self.shown[prompt, answer][None]))
        low, high = self.between.get((prompt, len(answer)), (0.0, 1.0))
        found = max(low, float(begin[0, token])), min(high, float(end[0, token]))
        self.between[prompt, len(answer)] = found

    def _halved(self, view: View, middle: float) -> Tensor:
        """The row in which the first token's share ends nearest the middle."""
        llm = as_slm(self.game, view) + self.tilts[0]
        _, end = marks(self.shadow.fused(view.prompt, view.answer, llm))
        return llm[(end[:, 0] - middle).abs().argmin()]
