"""Decoder: the two models, the policy and the options that every decoding strategy reads."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from copy import copy
from dataclasses import KW_ONLY, dataclass, field
from functools import cached_property
from pkgutil import resolve_name
from typing import TYPE_CHECKING, Self

from purify_plugins.decode.draft_length import DraftLengths
from purify_plugins.decode.strategies import DECODERS, RESUMED

if TYPE_CHECKING:
    from purify_plugins.decode.row import Row
    from purify_plugins.decode.strategies import Strategy
    from purify_plugins.decode.watermark import Watermark
    from purify_plugins.policy import FusionPolicy
    from purify_plugins.protocols import Constraint, LogitSource
    from purify_plugins.sampling import Sampling
    from purify_plugins.types import Fallback, Prompt, Steps, Vocabulary


def class_name(policy: FusionPolicy) -> str:
    """The name of a policy that no plugin offers."""
    return type(policy.original).__name__


def lookback(policy: FusionPolicy, vocabulary: Vocabulary) -> int:
    """How many of a prompt's last ids a policy looks back at: as many of the LLM's tokens as it asks for."""
    return round(policy.lookback * vocabulary.per_token)


@dataclass(frozen=True, eq=False, repr=False)
class Decoder:
    """An untrusted LLM and a benign SLM in one vocabulary, and the policy that fuses their rows.

    `policy` is bound to the vocabulary; `name_of` is the name that certificates have for it. `on_llm_failure`
    says what happens when the LLM fails: "refuse" raises, "slm" goes on with the SLM alone. `explain` records
    the LLM's log-probability of each token under every policy, `top` as many of the likeliest tokens of each
    fused row. `alone`: the SLM answers alone, step by step; the LLM is not asked, and nothing is sent to it.
    `constraints` rule tokens out in both models' rows, before the policy. `draft_lengths` are learned by
    decoding; `walk` is the decoding strategy. Answers begin with the tokens `given`, where there are any:
    then it takes a batch of one. `llm_asked`: what the SLM goes on with alone was begun with the LLM.
    `watermark` keys the draws of answers, so that who has its key can find them again.
    """

    llm: LogitSource
    slm: LogitSource
    policy: FusionPolicy
    _: KW_ONLY
    name_of: Callable[[FusionPolicy], str] = class_name
    on_llm_failure: Fallback = "refuse"
    explain: bool = False
    top: int = 0
    alone: bool = False
    constraints: tuple[Constraint, ...] = ()
    draft_lengths: DraftLengths = field(default_factory=DraftLengths)
    walk: Strategy = "lockstep"
    given: tuple[int, ...] = ()
    llm_asked: bool = False
    watermark: Watermark | None = None

    def decode(self, prompts: Sequence[Prompt | Row], sampling: Sampling) -> Steps:
        """The steps of a batch of answers by this decoder's strategy, as they are drawn."""
        steps: Steps
        if self.given:
            [prompt] = prompts
            steps = resolve_name(RESUMED)(self, prompt, self.given, sampling)
        else:
            steps = resolve_name(DECODERS[self.walk])(self, prompts, sampling)
        return steps

    @cached_property
    def vocabulary(self) -> Vocabulary:
        """The vocabulary of the fused model: the SLM's, since that side is trusted."""
        return self.slm.vocabulary

    @cached_property
    def lookback(self) -> int:
        """How many of a prompt's last ids are scored: as many of the LLM's tokens as the policy asks for."""
        return 0 if self.alone else lookback(self.policy, self.vocabulary)

    def for_request(
        self,
        *,
        policy: FusionPolicy | None = None,
        alone: bool = False,
        constraints: Sequence[Constraint] = (),
        given: tuple[int, ...] = (),
        llm_asked: bool = False,
    ) -> Self:
        """A copy for a request: another bound `policy`, the SLM `alone`, more `constraints`.

        It shares models and draft lengths. Answers begin with the tokens `given`; `llm_asked`: for an answer
        that was begun with the LLM, whatever is left of that.
        """
        found = copy(self)
        vars(found).pop("lookback", None)
        vars(found).update(
            policy=self.policy if policy is None else policy,
            alone=self.alone or alone,
            constraints=(*self.constraints, *constraints),
            given=given,
            llm_asked=llm_asked,
        )
        return found
