"""A ledger of sureness: limits runs of tokens that only the LLM is sure of."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import accumulate
from typing import TYPE_CHECKING, ClassVar, Self

from purify_plugins.canonical_json import ADDED_LATER
from purify_plugins.errors import ConfigError
from purify_plugins.policy import Context, FusionPolicy, State
from purify_plugins.types import Guarantee, Token, Vocabulary

from ._base import below, drawn, ledger, require, scaled, slack
from ._capping import fuse_capped
from ._code import MOST, CodeSigns, code_tokens
from ._gap import followed_gap, gap_share, hedged, posterior, slow_average
from ._numbers import (
    DIGIT,
    NumberTokens,
    ids_tensor,
    in_last_number,
    number_caps,
    number_tokens,
    parts_of_numbers,
)

if TYPE_CHECKING:
    from torch import Tensor

NATS = "a number of nats, 0 or more"
FROM = "0 (every token has the gap), or nats from 0.001"
LARGEST_GAP = math.log(10)  # nats a token: with more, a digit that the LLM alone knows would cost nothing


@dataclass(frozen=True)
class Balanced(FusionPolicy):
    """Close on what the LLM alone is sure of, token after token; leave what it only leans to.

    r = min(λ p_llm, e^c p_slm) with c = max(0, budget - level). A token adds log p_llm/p_slm, less
    `doubt` times the LLM's own surprise -log p_llm (r for p_llm where r is larger), less the gap; what
    it takes off is at most `drain`. The level runs over the prompt's last tokens too, between 0 and
    twice the budget: a text known by heart shuts the LLM out until something else has been said. Gap and
    hedge begin anew with each turn of a chat.

    The gap is what the SLM is worse by on ordinary text. It begins at `gap`; with a `memory` it follows
    the text, between 0 and `gap_limit`; with `gap_from` a token that the SLM is sure of has less of it, so
    that easy words do not pay for others. With a `hedge` r is mixed with p_slm, by how well either model
    predicts the text. A `numbers` budget bounds what one number may take. With an `opening` the budget is no
    more than that many nats above the level's own average: a run that begins suddenly has less; in code it is
    `opening_in_code` where that is less. Neither is without a `memory`.

    Guarantee "passage", for draws and whatever the LLM does: over every run of tokens
    Σ (1 + doubt) log r - log p_slm - g ≤ budget, with g = max(gap, gap_limit), so a run of n tokens that
    the SLM gives probability q has at most (e^(budget + g n) q)^(1/(1 + doubt)); N spellings of one text,
    q in all, at most N^(doubt/(1 + doubt)) times as much together. In a number Σ log r/p_slm ≤ numbers,
    where a digit counts ln 10 at most.
    Source: this project (docs, "the ledger of sureness").
    """

    name: ClassVar[str] = "balanced"
    guarantee: ClassVar[Guarantee] = "passage"
    lookback: ClassVar[int] = 32

    budget: float = 5.0
    doubt: float = 1.0
    drain: float = 3.0
    gap: float = 0.0
    """Nats a token that the SLM is worse by on ordinary text, and which are not counted."""
    gap_limit: float = 0.0
    """The most that the gap may become where it follows the text, in nats; at most ln 10."""
    memory: float = 0.0
    """Over how many tokens the gap is averaged as it follows the text; 0: it stays as it is."""
    hedge: float = 0.0
    """The chance, at each token, that the other model becomes the better one; 0: r is not mixed."""
    numbers: float = math.inf
    """The most nats that one number may take, the prompt's part included; inf: numbers are as other text."""
    opening: float = field(default=math.inf, metadata=ADDED_LATER)
    """The most nats by which the limit may be above the level's average; inf: the limit is the budget."""
    opening_in_code: float = field(default=math.inf, metadata=ADDED_LATER)
    """The opening where the last tokens, prompt included, are code by their signs; inf: as elsewhere."""
    gap_from: float = field(default=0.0, metadata=ADDED_LATER)
    """Nats of the SLM's surprisal from which a token has all of the gap, below in proportion; 0: all."""
    digits: tuple[int, ...] = field(default=(), repr=False)
    """The tokens that write numbers, which `bind` fills in; not an option to set by hand."""
    lengths: tuple[int, ...] = field(default=(), repr=False)
    """How many digits each of these tokens has, which `bind` fills in; not an option to set by hand."""
    joiners: tuple[int, ...] = field(default=(), repr=False)
    """The tokens that stand inside numbers, which `bind` fills in; not an option to set by hand."""
    signs: tuple[int, ...] = field(default=(), repr=False)
    """The tokens that have signs of code, which `bind` fills in; not an option to set by hand."""

    def __post_init__(self) -> None:
        require(self, "budget", lambda budget: 0 <= budget < math.inf, NATS)
        require(self, "doubt", lambda doubt: 0 <= doubt < math.inf, "a finite number, 0 or more")
        require(self, "drain", lambda drain: 0 <= drain < math.inf, NATS)
        most = f"a number of nats from 0 to ln 10 ({LARGEST_GAP:.4f})"
        require(self, "gap", lambda gap: 0 <= gap <= LARGEST_GAP, most)
        require(self, "gap_limit", lambda gap: 0 <= gap <= LARGEST_GAP, most)
        require(self, "memory", lambda memory: memory == 0 or 1 <= memory < math.inf, "0, or 1 token or more")
        require(self, "hedge", lambda hedge: 0 <= hedge <= 0.5, "a share from 0 to 0.5")
        require(self, "numbers", lambda numbers: numbers >= 0, f"{NATS} (inf: numbers are as other text)")
        require(self, "opening_in_code", lambda opening: opening >= 0, f"{NATS} (inf: as elsewhere)")
        require(self, "gap_from", lambda least: least == 0 or 1e-3 <= least < math.inf, FROM)
        require(self, "opening", lambda opening: opening >= 0, f"{NATS} (inf: none)")
        self._require_memory()

    def _require_memory(self) -> None:
        """Raise ConfigError for what follows the text where nothing does."""
        set_ = {
            "gap_limit": self.gap_limit > 0,
            "opening": self.opening < math.inf,
            "opening_in_code": self.tells_code,
        }
        idle = [name for name, given in set_.items() if given]
        if idle and not self.memory:
            raise ConfigError(
                f"balanced: {idle[0]} goes by an average over the text, and with memory = 0 there is none; "
                f"set memory to some tokens (a calibration sets 16), or leave {idle[0]} out"
            )

    @property
    def largest_gap(self) -> float:
        """The most nats that a token's gap can be: g in the guarantee."""
        return max(self.gap, self.gap_limit)

    @property
    def binds(self) -> bool:
        """Whether there is something for numbers or code alone, whose tokens must be known."""
        return self.counts_numbers or self.tells_code

    @property
    def counts_numbers(self) -> bool:
        """Whether there is a budget for numbers."""
        return self.numbers < math.inf

    @property
    def tells_code(self) -> bool:
        """Whether code has an opening of its own."""
        return self.opening_in_code < math.inf

    def bind(self, vocabulary: Vocabulary) -> Self:
        """The same policy, with the tokens of this vocabulary that write numbers, and those of code."""
        if not self.binds:
            return self
        return replace(self, **number_tokens(vocabulary)._asdict(), signs=code_tokens(vocabulary))

    @property
    def _number(self) -> NumberTokens:
        return NumberTokens(self.digits, self.lengths, self.joiners)

    def allowance(self, tokens: int, surprisal: float) -> float:
        """The most nats by which a passage that costs the SLM `surprisal` may be likelier than under it."""
        doubted = self.doubt and self.doubt * surprisal  # a surprisal may be infinite
        return (self.budget + self.largest_gap * tokens + doubted) / (1 + self.doubt)

    def tightened(self, factor: float) -> Self:
        """All that may be given away times this factor: with a smaller `drain` it opens again no sooner."""
        names = ("budget", "drain", "gap", "gap_limit", "numbers", "opening", "opening_in_code")
        return scaled(self, factor, *names)

    def in_symbols(self, per_token: float) -> Self:
        """The same strictness in symbols, `per_token` of a token: `drain` more of budget and opening.

        A run that begins inside a token lacks what the token's first symbols took off, at most `drain`.
        What is said of a token, its gap and a change of the better model, is shared out among its symbols,
        of which the sure ones are parts of words: each has its share of the gap. Nor do single signs say
        whether a text is code: it has the opening of other text.
        """
        return replace(
            self,
            budget=self.budget + self.drain,
            opening=self.opening + self.drain,
            opening_in_code=math.inf,
            gap_from=0.0,
            gap=self.gap / per_token,
            gap_limit=self.gap_limit / per_token,
            memory=self.memory * per_token,
            hedge=self.hedge / per_token,
        )

    def holds(self, steps: Sequence[Token]) -> bool:
        """Whether an answer's recorded steps keep this budget in every run of them.

        The numbers' budget is checked too where the policy is bound to a vocabulary.
        """
        most = self.budget + (1 + self.doubt) * slack(steps)
        spent = self.fullest((step.fused, step.slm) for step in steps if step.fused > -math.inf)
        kept = spent <= most and all(below(step, self.budget) for step in steps)
        return kept and max(self._in_numbers(steps), default=0.0) <= self.numbers + slack(steps)

    def fullest(self, tokens: Iterable[tuple[float, float]]) -> float:
        """The most that (1 + doubt) log r - log p_slm - g adds up to over any run of tokens, in nats.

        Of each token the log-probability under the fused row, and the SLM's.
        """
        taken = (
            (1 + self.doubt) * fused - slm - self.largest_gap * self._share(slm) for fused, slm in tokens
        )
        return max(accumulate(taken, lambda run, token: max(run, 0.0) + token, initial=0.0))

    def _share(self, slm: float) -> float:
        """The share of the gap that a token of this log-probability has."""
        return min(-slm / self.gap_from, 1.0) if self.gap_from else 1.0

    def _in_numbers(self, steps: Sequence[Token]) -> Iterable[float]:
        """What the number under way has taken from the LLM, in nats, after each token that belongs to one."""
        worth = {token: DIGIT * length for token, length in zip(self.digits, self.lengths, strict=True)}
        joiners = frozenset(self.joiners)
        spent = 0.0
        for step in steps:
            spent += min(max(step.ratio, 0.0), worth.get(step.id, 0.0))
            spent = spent if step.id in worth or step.id in joiners else 0.0
            yield spent

    def start(self, context: Context) -> State:
        """Each answer's level, gap, SLM's weight, usual level, code, what its number took: (rows,) each.

        All but the weight and the share of code are in nats.
        """
        *_, (level, gap, weight, usual, code, spent) = self.reading(context)
        return level, gap, weight, usual, code, self._begun(context, spent)

    def _begun(self, context: Context, spent: Tensor) -> Tensor:
        """What the number at the prompt's end took already, (rows,): an earlier answer may have begun it.

        A number at the end of another turn is another one.
        """
        import torch

        if not self.counts_numbers or context.tokens is None:
            return spent
        taken = (context.llm - context.slm).nan_to_num(nan=0.0).clamp(min=0.0)
        columns = torch.arange(context.llm.shape[1], device=context.tokens.device)
        tokens = torch.where(columns < self._others(context)[:, None], -1, context.tokens)
        return in_last_number(tokens, taken, self.digits, self.joiners, spent)

    def _others(self, context: Context) -> Tensor:
        """How many columns (rows,) of the scores come before the turn that the answer goes on with."""
        own = context.lengths if context.turn is None else context.turn
        return context.llm.shape[1] - own.to(context.llm.device)

    def reading(self, context: Context) -> Iterator[State]:
        """The state before each of the prompt's tokens, and after the last."""
        import torch

        level, gap, weight, usual, code, spent = (
            ledger(context, each) for each in (0.0, self.gap, self.hedge, 0.0, MOST, 0.0)
        )
        padding = context.llm.shape[1] - context.lengths.to(level.device)
        # How well the models know a user's words tells nothing of the answer.
        others = self._others(context)
        yield level, gap, weight, usual, code, spent
        for at, (llm, slm) in enumerate(zip(context.llm.unbind(-1), context.slm.unbind(-1), strict=True)):
            level = self._risen(level, gap, llm, slm)  # padding adds nothing to a level of nothing
            followed = self._followed(gap, weight, llm, slm)
            gap, weight = (
                torch.where(at < others, *pair) for pair in zip((gap, weight), followed, strict=True)
            )
            usual = self._averaged(usual, level)
            if self.tells_code and context.tokens is not None:
                code = torch.where(at < padding, code, self._coded(code, context.tokens[:, at]))
            yield level, gap, weight, usual, code, spent

    def limit(self, usual: Tensor, code: Tensor | None = None) -> Tensor:
        """The level (rows,) at which nothing is left to the LLM, where it was `usual` (rows,) on average.

        `code` is the share (rows,) of the last tokens that have signs of code.
        """
        import torch

        limit = (usual + self.opening).clamp(max=self.budget)
        if code is None or not self.tells_code:
            return limit
        return torch.where(code > MOST, limit.minimum(usual + self.opening_in_code), limit)

    def fuse(self, llm: Tensor, slm: Tensor, state: State) -> Tensor:
        level, _, weight, usual, code, spent = state
        cap = (self.limit(usual, code) - level).clamp(min=0.0)
        if self.counts_numbers:
            caps = number_caps(cap, (self.numbers - spent).clamp(min=0.0), self.lengths)
            capped = fuse_capped(llm, slm, cap, (ids_tensor(self.digits, str(slm.device)), caps))
        else:
            capped = fuse_capped(llm, slm, cap)
        return hedged(capped, slm, weight) if self.hedge else capped

    def advance(self, state: State, tokens: Tensor, llm: Tensor, slm: Tensor, fused: Tensor) -> State:
        import torch

        level, gap, weight, usual, code, spent = state
        theirs, ours = drawn(llm, tokens), drawn(slm, tokens)
        sure = torch.maximum(theirs, drawn(fused, tokens))
        level = self._risen(level, gap, sure, ours)
        spent = self._numbered(spent, tokens, sure - ours, llm.shape[-1]) if self.counts_numbers else spent
        followed, usual = self._followed(gap, weight, theirs, ours), self._averaged(usual, level)
        return level, *followed, usual, self._coded(code, tokens), spent

    def _coded(self, code: Tensor, tokens: Tensor) -> Tensor:
        """The share of code (rows,) after these tokens (rows,)."""
        return self._code_signs.followed(code, tokens) if self.tells_code else code

    @cached_property
    def _code_signs(self) -> CodeSigns:
        return CodeSigns(self.signs)

    def _averaged(self, usual: Tensor, level: Tensor) -> Tensor:
        """The level's slow average (rows,) after a token that left it at `level` (rows,)."""
        if self.opening == self.opening_in_code == math.inf:
            return usual
        return slow_average(usual, level, self.memory)

    def _followed(self, gap: Tensor, weight: Tensor, llm: Tensor, slm: Tensor) -> tuple[Tensor, Tensor]:
        """The gap and the SLM's weight after a token of these log-probabilities, all (rows,)."""
        if self.memory:
            share = gap_share(slm, self.gap_from)
            gap = followed_gap(gap, llm, slm, self.memory, self.gap_limit, share)
        return gap, posterior(weight, llm, slm, self.hedge) if self.hedge else weight

    def _numbered(self, spent: Tensor, tokens: Tensor, taken: Tensor, size: int) -> Tensor:
        """What the number under way took, (rows,) as all else; `size` is that of the vocabulary."""
        writes, stands = parts_of_numbers(self._number, size, str(tokens.device))
        more = taken.nan_to_num(nan=0.0).clamp(min=0.0).minimum(writes[tokens])
        return (spent + more) * stands[tokens]

    def _risen(self, level: Tensor, gap: Tensor, sure: Tensor, slm: Tensor) -> Tensor:
        """The level after a token of these log-probabilities, all (rows,)."""
        rise = ((1 + self.doubt) * sure - slm).nan_to_num(nan=0.0, posinf=math.inf, neginf=-math.inf)
        gap = gap * gap_share(slm, self.gap_from)
        return (level + (rise - gap).clamp(min=-self.drain)).clamp(0.0, 2 * self.budget)
