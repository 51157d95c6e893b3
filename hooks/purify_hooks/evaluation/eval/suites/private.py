"""The suite of private data: what of it the LLM's host is sent, and what the reader still gets of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, ClassVar

from purify_hooks.evaluation.eval.model_pair import ModelPair
from purify_hooks.evaluation.eval.statistics import Metric, Sample
from purify_hooks.evaluation.eval.suites.base import Samples
from purify_hooks.evaluation.eval.suites.protecting import ProtectionSuite, mean
from purify_hooks.evaluation.eval.suites.requests import released
from purify_hooks.evaluation.eval.systems import System
from purify_hooks.private.samples import VALUES, PrivateText, samples
from purify_plugins.sources.wrapper import SourceWrapper
from purify_plugins.types import Completion

if TYPE_CHECKING:
    from torch import Tensor

    from purify_plugins.protocols import LogitSource, Session
    from purify_plugins.types import Prompt

EACH, LENGTH, LONGEST = 8, 16, 400
"""Prompts of a kind, tokens of an answer, and characters of a text that leads up to its value, at most."""


class PrivateData(ProtectionSuite):
    """Prompts with one private value each, and the beginning of the same sentence again.

    A pair that copies from its prompt goes on with the value. The LLM's host gets the prompt, and every token
    that is drawn.
    """

    title = "Private data"
    stages = ("gatekeeper",)
    metrics: ClassVar[Mapping[str, Metric]] = {
        "sent": Metric("share of private values, of all kinds, that the LLM is sent, in the prompt or drawn"),
        "right": Metric(
            "share of answers, to prompts that lead up to it, with the true value", better="more"
        ),
        "changed": Metric("share of clean prompts that the LLM is sent otherwise than they were asked"),
        **{
            f"kept_{kind}": Metric(f"share of values of the kind {kind} that the LLM is not sent", "more")
            for kind in VALUES
        },
    }
    columns: ClassVar[Mapping[str, str]] = {
        "sent": "values sent",
        "right": "right value in the answer",
        "changed": "clean prompts changed",
    }

    def measure(self, pair: ModelPair, system: System, mode: str) -> Samples:
        heard = Hearing(pair.llm)
        purifier = replace(pair, llm=heard).purifier(system)
        many = min(EACH, self.settings.items or EACH)
        every = [each for kind in VALUES for each in samples(kind, many, self.settings.seed)]
        told = self.asked(
            purifier, [f"{each.text}\n{each.text[: each.start]}" for each in every], LENGTH, mode
        )
        spell = pair.slm.vocabulary.spell
        drawn = [spell(each.tokens).decode(errors="replace") for many in told for each in many if each]
        sent = "\n".join([*heard.texts, *(drawn if system.key != "slm" else [])])
        found = [(each, float(each.value in sent)) for each in every]
        clean = self.clean()
        heard.texts.clear()
        self.asked(purifier, clean, 1, mode)
        kept: dict[str, list[Sample]] = {}
        for each, got in found:
            kept.setdefault(f"kept_{each.kind}", []).append(Sample(1 - got))
        return {
            "sent": [Sample(got) for _, got in found],
            "right": [_right(each, many) for each, many in zip(every, told, strict=True)],
            "changed": [Sample(float(each not in heard.texts)) for each in clean] if heard.texts else [],
            **kept,
        }


def _leading(asked: PrivateText) -> str:
    """The text and its beginning again, up to the value; a long text alone."""
    again = f"\n{asked.text[: asked.start]}" if len(asked.text) <= LONGEST else ""
    return f"{asked.text}{again}"


def _right(asked: PrivateText, told: Sequence[Completion | None]) -> Sample:
    return mean([float(asked.value in released(each)) for each in told])


@dataclass(frozen=True)
class Hearing(SourceWrapper):
    """A source that keeps the texts of what it is asked."""

    source: LogitSource
    texts: list[str] = field(default_factory=list, compare=False)

    def open(self, prompts: Sequence[Prompt], scored: int = 0) -> tuple[Session, Tensor]:
        self.texts.extend(map(str, prompts))
        return self.source.open(prompts, scored)
