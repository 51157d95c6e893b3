"""The base class of suites that measure what single request stages protect, beside the same pair without."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, ClassVar, TypeVar

from purify_hooks.evaluation.eval.model_pair import MODES
from purify_hooks.evaluation.eval.statistics import Metric, Sample
from purify_hooks.evaluation.eval.suites.base import Suite
from purify_hooks.evaluation.eval.suites.requests import answers
from purify_plugins.types import Completion, Prompt

if TYPE_CHECKING:
    from purify_hooks.evaluation.eval.chains import Chain
    from purify_hooks.evaluation.eval.model_pair import ModelPair
    from purify_hooks.evaluation.eval.systems import System
    from purify_plugins.purifier import Purifier

S = TypeVar("S")
CLEAN, TOKENS = 24, 32
"""Clean prompts, and tokens of each of their answers, at most."""
FALSE = Metric("share of clean prompts that are refused or fail, or whose answer is blocked before its end")


class ProtectionSuite(Suite):
    """What readers, and the LLM's host, get with one of `stages` and without.

    It runs where a chain has such a stage, on the same policies without it too. `columns` are the metrics of
    the report's table and picture, which are shares, and their names there.
    """

    asked_for = True
    staged = True
    stages: ClassVar[tuple[str, ...]]
    columns: ClassVar[Mapping[str, str]]

    def concerns(self, chain: Chain | None) -> bool:
        return chain is None or any(name in self.stages for name in chain.names)

    def stage(self, pair: ModelPair, system: System, kind: type[S]) -> S | None:
        """The system's stage of a class; None without one."""
        made = system.chain.made(pair.plugins) if system.chain else ()
        return next((each.bind(pair.slm) for each in made if isinstance(each, kind)), None)

    def asked(
        self, purifier: Purifier, prompts: Sequence[Prompt], tokens: int, mode: str
    ) -> list[list[Completion | None]]:
        """Each prompt's answers, of which a sampled one has several; None for one that failed."""
        sampling = replace(MODES[mode], max_tokens=tokens, seed=self.settings.seed)
        every = list(prompts) * (1 if sampling.greedy else self.settings.draws)
        found = answers(purifier, every, sampling)
        return [found[at :: len(prompts)] for at in range(len(prompts))]

    def clean(self) -> list[str]:
        """Harmless prompts."""
        prompts = self.questions.clean.prompts if self.questions.clean else []
        return prompts[: min(CLEAN, self.settings.items or CLEAN)]

    def refused(self, purifier: Purifier, mode: str) -> list[Sample]:
        """Which clean prompts are refused."""
        every = self.asked(purifier, self.clean(), TOKENS, mode)
        return [
            mean(float(each is None or each.finish_reason == "refused") for each in told) for told in every
        ]


def mean(values: Iterator[float] | Sequence[float]) -> Sample:
    """One item's sample: the mean over its answers."""
    found = list(values)
    return Sample(sum(found) / len(found))


def auroc(high: Sequence[float], low: Sequence[float]) -> float:
    """The probability that a score of `high` is above one of `low`; ties count half."""
    above = sum((one > other) + (one == other) / 2 for one in high for other in low)
    return above / (len(high) * len(low))
