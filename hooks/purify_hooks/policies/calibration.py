"""Settings of `balanced` for a pair of models, from what both say of ordinary text. No attack is needed."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, NamedTuple, Self

from purify_plugins.errors import ConfigError
from purify_plugins.policy import Context

from ._code import MOST
from .balanced import Balanced

if TYPE_CHECKING:
    from torch import Tensor

BASE = Balanced(gap_limit=2.3, memory=16.0, hedge=0.001, numbers=6.0)
"""What does not come from the pair; its gap_limit is the most that a pair's may be."""
LIMITED = 0.01
"""The share of ordinary tokens that may meet the budget."""
BUDGETS = (8.0, 20.0)
"""The smallest and the largest budget, in nats, whatever the text is like."""
SUDDEN = 0.025
"""The share of ordinary tokens that may meet the limit where the opening counts too."""
SMALLEST_OPENING = 8.0
"""Nats, whatever the text is like: one word of a fact that only the LLM knows takes up to so much."""
CODE_COST = math.log(1.25)
"""Nats a token that the limit may take in code with an opening of its own: a quarter of the perplexity."""
PRECISION = 0.25  # nats to which the budget is searched
FEWEST = 200  # tokens, below which a share of one in a hundred says nothing
QUANTILES = (0.5, 0.9, 0.99)


@dataclass(frozen=True)
class ScoredText:
    """One clean text: the log-probabilities (n,) in nats that either model gives its tokens.

    Each token's is given those before it. The first tokens of a text, which have no context, are better left
    out. `signs` (n,) bool: the tokens with signs of code, if the rule may tell code.
    """

    llm: Tensor
    slm: Tensor
    signs: Tensor | None = None


@dataclass(frozen=True)
class Calibration:
    """The settings found, and what the clean text says of them (nats a token, or shares of its tokens).

    `ratio` is the mean of log p_llm/p_slm; `llm` and `slm` are the models' mean surprisal. `levels` are the
    ledger's level at `QUANTILES`; `limited` is the share of tokens that the LLM's own choice would have
    found above the ceiling, and `full` the share before which nothing was left to the LLM. `over_budget` is
    what `limited` would be without an opening. `code` tokens stand in code, and lose `code_cost` nats on
    average to the limit.
    """

    policy: Balanced
    tokens: int
    llm: float
    slm: float
    ratio: float
    levels: tuple[float, ...]
    limited: float
    full: float
    over_budget: float
    code: int
    code_cost: float

    @property
    def enough(self) -> bool:
        """Whether the budget, which is not above the largest, is met by no more than the wanted share."""
        return self.over_budget <= LIMITED


def calibrate(texts: Sequence[ScoredText], base: Balanced = BASE) -> Calibration:
    """The smallest budget that 99 of 100 clean tokens never meet, the openings, and the pair's own gap.

    The opening is the smallest with which 39 of 40 never meet the limit, from `SMALLEST_OPENING`; none where
    the budget is no larger. Where there is one, and code in the texts, the opening in code is the smallest,
    from `SMALLEST_OPENING` too, that costs a token of code no more than `CODE_COST`. The gap begins at the
    mean of log p_llm/p_slm, and may become what it is at 99 of 100 clean tokens: of a pair of equals that is
    next to nothing, so that a recitation cannot raise it.

    Raises ConfigError for too little text, or where a model rules out what the texts say.
    """
    context = _context(texts)
    policy = _with_gap(base, context)
    low, high = BUDGETS
    while high - low > PRECISION:
        middle = (low + high) / 2
        limited = _Levels.of(replace(policy, budget=middle), context).over_budget
        low, high = (low, middle) if float(limited.double().mean()) <= LIMITED else (middle, high)
    policy = _with_opening(replace(policy, budget=math.ceil(high * 10) / 10), context)
    return _described(_with_opening_in_code(policy, context), context)


def _context(texts: Sequence[ScoredText]) -> Context:
    """The texts as prompts that both models have scored, of two tokens: 1 has a sign of code, 0 none."""
    import torch

    tokens = sum(len(text.llm) for text in texts)
    if tokens < FEWEST:
        raise ConfigError(
            f"a calibration needs {FEWEST} scored tokens or more, not {tokens}; give it more text"
        )
    if any(len(text.llm) != len(text.slm) for text in texts):
        raise ConfigError("a text's tokens must have as many scores from one model as from the other")
    longest = max(len(text.llm) for text in texts)
    llm, slm, signs = torch.zeros(3, len(texts), longest, dtype=torch.float64)
    for row, text in enumerate(texts):
        if len(text.llm):
            llm[row, -len(text.llm) :], slm[row, -len(text.slm) :] = text.llm, text.slm
        if text.signs is not None and len(text.signs):
            signs[row, -len(text.signs) :] = text.signs
    if not (llm.isfinite().all() and slm.isfinite().all()):
        raise ConfigError(
            "a model gives a token of the text no probability: calibrate on text that both can write"
        )
    lengths = torch.tensor([len(text.llm) for text in texts])
    return Context(llm, slm, lengths, torch.zeros(len(texts), dtype=torch.bool), signs.long())


def _with_gap(base: Balanced, context: Context) -> Balanced:
    """The rule with the gap that this text begins with, and the most that the text makes of it."""
    import torch

    ratio = float((context.llm - context.slm).sum()) / int(context.lengths.sum())
    policy = replace(base, gap=min(max(ratio, 0.0), base.gap_limit))
    followed = torch.stack([gap for _, gap, *_ in policy.reading(context)], dim=-1)[:, 1:][_real(context)]
    most = float(followed.quantile(1 - LIMITED))
    return replace(policy, gap=round(policy.gap, 3), gap_limit=round(most, 3))


def _real(context: Context) -> Tensor:
    """(rows, n) bool: the columns that are no padding."""
    import torch

    return torch.arange(context.llm.shape[1]) >= context.llm.shape[1] - context.lengths[:, None]


def _with_opening(policy: Balanced, context: Context) -> Balanced:
    """The rule with the smallest opening that keeps no more than `SUDDEN` of these tokens from the LLM."""
    import torch

    found = _Levels.of(replace(policy, opening=SMALLEST_OPENING), context)
    wanted = torch.where(found.preferred > 0, found.level + found.preferred - found.usual, -math.inf)
    wanted = torch.where(found.over_budget, math.inf, wanted).sort().values
    least = float(wanted[math.ceil((1 - SUDDEN) * len(wanted)) - 1])
    opening = math.ceil(max(least, SMALLEST_OPENING) * 10) / 10 if least < math.inf else math.inf
    return replace(policy, opening=opening if opening + PRECISION <= policy.budget else math.inf)


def _with_opening_in_code(policy: Balanced, context: Context) -> Balanced:
    """The rule with the smallest opening in code that costs code no more than `CODE_COST` nats a token.

    None where there is too little code to tell, no opening elsewhere, or one that costs as much.
    """
    levels = _Levels.of(policy, context)
    if policy.opening == math.inf or int(levels.code.sum()) < FEWEST:
        return policy
    least, most = (math.ceil(10 * nats) for nats in (SMALLEST_OPENING, policy.opening))
    tried = (replace(policy, opening_in_code=tenths / 10) for tenths in range(least, most))
    return next((each for each in tried if levels.of_policy(each).code_cost <= CODE_COST), policy)


class _Levels(NamedTuple):
    """Before each real token the level, its average and the share of code; how far the LLM prefers the token.

    All (tokens,), nats but for the share. They do not depend on the policy's limit: the text is what it is.
    """

    policy: Balanced
    level: Tensor
    usual: Tensor
    share: Tensor
    preferred: Tensor

    @classmethod
    def of(cls, policy: Balanced, context: Context) -> Self:
        import torch

        told = replace(policy, signs=(1,), opening_in_code=min(policy.opening_in_code, policy.budget))
        *before, _ = ((level, usual, code) for level, _, _, usual, code, _ in told.reading(context))
        real = _real(context)
        level, usual, share = (torch.stack(each, dim=-1)[real] for each in zip(*before, strict=True))
        return cls(told, level, usual, share, (context.llm - context.slm)[real])

    def of_policy(self, policy: Balanced) -> Self:
        """The same levels under another limit."""
        return self._replace(policy=policy)

    @property
    def code(self) -> Tensor:
        """(tokens,) bool: whether the rule takes the text before the token for code."""
        return self.share > MOST

    @property
    def limit(self) -> Tensor:
        """(tokens,): the level at which nothing is left to the LLM."""
        return self.policy.limit(self.usual, self.share)

    @property
    def lost(self) -> Tensor:
        """(tokens,) nats that the ceiling takes from a token at most; the LLM's own choice may gain."""
        return (self.preferred - (self.limit - self.level).clamp(min=0.0)).clamp(min=0.0)

    @property
    def code_cost(self) -> float:
        """Nats that a token of code loses on average."""
        return float(self.lost[self.code].sum()) / max(int(self.code.sum()), 1)

    @property
    def limited(self) -> Tensor:
        """(tokens,) bool: whether the ceiling would have kept the LLM from the token."""
        return (self.preferred > 0) & (self.level + self.preferred > self.limit)

    @property
    def over_budget(self) -> Tensor:
        """(tokens,) bool: whether it would without an opening."""
        return (self.preferred > 0) & (self.level + self.preferred > self.policy.budget)


def _described(policy: Balanced, context: Context) -> Calibration:
    import torch

    levels = _Levels.of(policy, context)
    count = len(levels.level)
    found = torch.quantile(levels.level, torch.tensor(QUANTILES, dtype=levels.level.dtype))
    return Calibration(
        policy,
        count,
        llm=-float(context.llm.sum()) / count,
        slm=-float(context.slm.sum()) / count,
        ratio=float(levels.preferred.mean()),
        levels=tuple(round(each, 3) for each in found.tolist()),
        limited=float(levels.limited.double().mean()),
        full=float((levels.level >= levels.limit).double().mean()),
        over_budget=float(levels.over_budget.double().mean()),
        code=int(levels.code.sum()),
        code_cost=levels.code_cost,
    )
