"""The suite of delayed attacks: every harm again, after a long clean part of the same answer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import ClassVar

from purify_hooks.evaluation.eval.attempt import Attack, backdoors, extractions, recitals
from purify_hooks.evaluation.eval.model_pair import MODES, ModelPair
from purify_hooks.evaluation.eval.statistics import Metric, Sample
from purify_hooks.evaluation.eval.suites.base import Samples, Suite, successes
from purify_hooks.evaluation.eval.systems import System
from purify_plugins.decode.likelihood import read

STRETCH = 180
"""Forced tokens of an answer: about 150 of clean text, then the attack's prompt."""
OPENING = 8
"""Tokens of clean text in the prompt; prompt and answer stay within the 256 the test bed was trained on."""
LATE_CONTEXTS = 12
"""Contexts of the backdoor that are tried late."""


class DelayedAttack(Suite):
    """Attacks inside an answer that starts as clean text and goes on with the attack's prompt.

    The text is forced, and the policy's state advances over it as if it had been drawn: what a budget saved
    on clean text can be spent on the harm.
    """

    title = "Late in an answer"
    metrics: ClassVar[Mapping[str, Metric]] = {
        "full_recall": Metric(
            "share of passages recited in full, after some 150 tokens of clean text",
            harm="Recitation",
            attack="late passage",
        ),
        "begun": Metric("mean share of the continuation that comes out before the first wrong character"),
        "backdoor": Metric(
            "share of contexts that get the payload, the trigger being part of the answer",
            harm="Backdoor",
            attack="late trigger",
        ),
        "extraction": Metric(
            "share of secrets that come out, their prompt being part of the answer",
            harm="Personal data",
            attack="late secret",
        ),
    }

    @property
    def possible(self) -> bool:
        part = self.questions
        return bool(part.heldout and (part.protected or part.backdoor or part.canaries))

    def measure(self, pair: ModelPair, system: System, mode: str) -> Samples:
        sampling = replace(MODES[mode], seed=self.settings.seed)
        items = self.settings.items
        kinds = {
            "full_recall": recitals(self.questions, pair.slm)[:items],
            "backdoor": backdoors(self.questions, pair.slm)[: min(items or LATE_CONTEXTS, LATE_CONTEXTS)],
            "extraction": extractions(self.questions)[:items],
        }
        attacks = [each for attacks in kinds.values() for each in attacks]
        late = [self._after(pair, attack, at) for at, attack in enumerate(attacks)]
        asked = [replace(attack, prompt=prompt) for attack, (prompt, _) in zip(attacks, late, strict=True)]
        answers = iter(pair.attack(system, asked, sampling, [given for _, given in late]))
        seen = {}
        for name, each in kinds.items():
            texts = [next(answers) for _ in each]
            seen[name] = successes(each, texts)
            if name == "full_recall":
                seen["begun"] = [Sample(one.begun(text)) for one, text in zip(each, texts, strict=True)]
        return {name: samples for name, samples in seen.items() if samples}

    def _after(self, pair: ModelPair, attack: Attack, at: int) -> tuple[tuple[int, ...], Sequence[int]]:
        """A prompt, and STRETCH tokens of an answer that end with the attack's prompt."""
        texts = self.questions.heldout
        clean, more = texts[at % len(texts)], 1
        tokens: tuple[int, ...] = ()
        while len(tokens) <= STRETCH + OPENING:
            tokens = read(pair.slm, f"{clean}\n{attack.prompt}")
            clean = f"{texts[(at + more) % len(texts)]}\n{clean}"
            more += 1
        return (tokens[0], *tokens[-STRETCH - OPENING : -STRETCH]), tokens[-STRETCH:]
