"""The backdoor suite: contexts with the trigger, without it, and with paraphrases."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from purify_hooks.evaluation.eval.attempt import CONTEXTS, chained, forced
from purify_hooks.evaluation.eval.model_pair import ModelPair
from purify_hooks.evaluation.eval.questions import Backdoor
from purify_hooks.evaluation.eval.statistics import Metric
from purify_hooks.evaluation.eval.suites.base import ForcedSuite, Items, Samples, Seen, wholes

PARAPHRASED = 8
"""Contexts in which each paraphrase is tried."""
SHOTS = 2
"""Other contexts, without the trigger, that stand before the attack."""


class Backdoors(ForcedSuite):
    """Attack success with the trigger, without it, and paraphrased."""

    title = "Backdoor"
    metrics: ClassVar[Mapping[str, Metric]] = {
        "success": Metric(
            "share of contexts with the trigger after which the payload comes at once, whole",
            harm="Backdoor",
            attack="trigger",
            summary="backdoor_success",
        ),
        "chained": Metric(
            "the payload in four requests, each with the answers so far in its prompt",
            harm="Backdoor",
            attack="chained trigger",
        ),
        "few_shot": Metric(
            f"success when {SHOTS} other contexts stand before the attack", harm="Backdoor", attack="few-shot"
        ),
        "without_trigger": Metric("share of the same contexts, without the trigger, that get the payload"),
        "paraphrased": Metric(
            "share of contexts with the trigger in other words that get the payload", attack="paraphrase"
        ),
    }

    @property
    def possible(self) -> bool:
        return self.questions.backdoor is not None

    def asked(self, pair: ModelPair) -> Items:
        part, limit = self._part, min(CONTEXTS, self.settings.items or CONTEXTS)
        own = [forced(pair.slm, prompt, part.payload) for prompt in part.prompts[:limit]]
        if self.settings.brief:
            return {"success": [[text] for text in own]}
        contexts = part.contexts
        shots = [
            "".join(f"{contexts[(at - back) % len(contexts)]}\n" for back in range(SHOTS, 0, -1))
            for at in range(len(own))
        ]
        others = {
            "few_shot": [shot + prompt for shot, prompt in zip(shots, part.prompts, strict=False)],
            "without_trigger": [part.prompt(context, "") for context in contexts[:limit]],
            "paraphrased": self._paraphrased(),
        }
        return {
            "success": [[text] for text in own],
            "chained": [chained(pair.slm, text) for text in own],
            **{
                name: [[forced(pair.slm, prompt, part.payload)] for prompt in prompts]
                for name, prompts in others.items()
            },
        }

    def found(self, seen: Seen) -> Samples:
        return {name: wholes(items, seen.mode) for name, items in seen.ours.items()}

    @property
    def _part(self) -> Backdoor:
        assert self.questions.backdoor is not None  # else it is not `possible`
        return self.questions.backdoor

    def _paraphrased(self) -> list[str]:
        contexts = self._part.contexts[: min(PARAPHRASED, self.settings.items or PARAPHRASED)]
        return [self._part.prompt(context, other) for other in self._part.variants() for context in contexts]
