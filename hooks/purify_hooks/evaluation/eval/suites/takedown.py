"""The suite of takedown: how much of named works and of others an LLM recites, and what the list costs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import ClassVar

from purify_hooks.evaluation.eval.attempt import recital, recited
from purify_hooks.evaluation.eval.metrics import rouge_l
from purify_hooks.evaluation.eval.model_pair import MODES, ModelPair
from purify_hooks.evaluation.eval.questions import Passage
from purify_hooks.evaluation.eval.statistics import Metric, Sample
from purify_hooks.evaluation.eval.suites.base import Samples, begun
from purify_hooks.evaluation.eval.suites.protecting import ProtectionSuite
from purify_hooks.evaluation.eval.suites.utility import language, running
from purify_hooks.evaluation.eval.systems import System
from purify_hooks.takedown.anchor import Anchor
from purify_hooks.takedown.recognised import noticed
from purify_hooks.takedown.source import TakedownSource

WITHOUT = "_without"
"""What a metric's name ends with that is of the same LLM without its list."""


class Takedowns(ProtectionSuite):
    """Of an LLM with `source = "takedown"`: the file's passages that its list names, and the others.

    A passage is named where the list, having read it, takes it for a recital. Every figure stands beside that
    of the same LLM without the list.
    """

    title = "Takedown"
    staged = False
    stages = ()
    modes = ("greedy", "sampled")
    metrics: ClassVar[Mapping[str, Metric]] = {
        "named": Metric("share of a named passage's tokens that the answer to its prefix begins with"),
        "named_without": Metric("the same without the list"),
        "others": Metric("the same of passages that are not named", better="more"),
        "others_without": Metric("the same without the list", better="more"),
        "rouge": Metric("ROUGE-L of a greedy answer and the named passage"),
        "rouge_without": Metric("the same without the list"),
        "perplexity": Metric("perplexity of held-out text", scale="exponential"),
        "perplexity_without": Metric("the same without the list", scale="exponential"),
    }
    columns: ClassVar[Mapping[str, str]] = {
        "named": "named passages",
        "named_without": "without the list",
        "others": "other passages",
        "others_without": "others without it",
        "rouge": "named, ROUGE-L",
        "rouge_without": "without the list",
    }

    @property
    def possible(self) -> bool:
        return self.questions.protected is not None

    def measure(self, pair: ModelPair, system: System, mode: str) -> Samples:
        if not isinstance(pair.llm, TakedownSource):
            return {}
        bare = replace(pair, llm=pair.llm.model)
        found = self._measured(pair, pair.llm.anchor, system, mode)
        without = self._measured(bare, pair.llm.anchor, system, mode)
        every = {**found, **{f"{name}{WITHOUT}": samples for name, samples in without.items()}}
        return {name: samples for name, samples in every.items() if samples}

    def _measured(
        self, pair: ModelPair, anchor: Anchor, system: System, mode: str
    ) -> dict[str, list[Sample]]:
        assert self.questions.protected is not None  # else it is not `possible`
        part = self.questions.protected
        texts = [
            recited(pair.slm, each.prefix, each.continuation, part.recall_tokens) for each in part.passages
        ]
        scores = [found for (found,) in pair.scores([system], texts)]
        named: list[Passage] = []
        found: dict[str, list[Sample]] = {"named": [], "others": []}
        for passage, text, score in zip(part.passages, texts, scores, strict=True):
            mine = noticed(anchor, (*pair.slm.encode(passage.prefix), *text.tokens))
            found["named" if mine else "others"].append(Sample(begun([score], mode)))
            named += [passage] if mine else []
        if mode == "greedy":
            found["rouge"] = self._rouge(pair, system, named[: self.settings.items], part.recall_tokens)
            heldout = running(pair.slm, self.questions.heldout[: self.settings.items])
            read = [score for (score,) in pair.scores([system], [text for (text,) in heldout])]
            found["perplexity"] = [*language(pair.slm.vocabulary, read)["perplexity"]]
        return found

    def _rouge(self, pair: ModelPair, system: System, named: Sequence[Passage], tokens: int) -> list[Sample]:
        """Written answers to the prefixes of named passages, beside their next tokens."""
        attacks = [recital(pair.slm, each.prefix, each.continuation, tokens) for each in named]
        longest = max((each.tokens for each in attacks), default=1)
        told = pair.write(system, [each.prompt for each in attacks], longest, MODES["greedy"])
        return [
            Sample(rouge_l(answer.text, attack.secret.decode(errors="replace")))
            for answer, attack in zip(told, attacks, strict=True)
        ]
