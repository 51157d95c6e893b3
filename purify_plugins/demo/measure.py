"""Attack every system, greedy and sampled, and count: a small preset of the evaluation, on the test bed."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from statistics import fmean as mean
from typing import Any, Self

from purify_plugins.certificate import Certificate, recompute, verify
from purify_plugins.eval import bench
from purify_plugins.eval.attempt import KINDS, Attack, Kind, every_attack
from purify_plugins.eval.bench import MODES
from purify_plugins.eval.likelihood import read
from purify_plugins.eval.questions import read_questions
from purify_plugins.eval.statistics import exponential
from purify_plugins.eval.systems import ALONE, System, at, policies
from purify_plugins.plainly import summary
from purify_plugins.plugins import Plugins, load_plugins
from purify_plugins.purifier import Purifier
from purify_plugins.testbed import HOME, LLM, SLM, attacks, heldout
from purify_plugins.types import Completion, Sampling, Vocabulary

HEADLINE = ("llm", "slm", "geometric", "capped", "anchored", "windowed", "balanced")
"""The systems of `purify demo --json`."""


def lineup(plugins: Plugins, only: Collection[str] = ()) -> list[System]:
    """Both models alone, every policy for two models at its defaults, and two more weights of `geometric`."""
    names = policies(plugins)
    first = [name for name in HEADLINE if name in names]
    weights = [replace(at("geometric", "alpha", a), label=f"geometric {a}") for a in (0.3, 0.7)]
    rest = [name for name in names if name not in first]
    systems = [*ALONE, *map(_default, first), *weights, *map(_default, rest)]
    return [system for system in systems if not only or system.key in only]


def _default(name: str) -> System:
    return System(name, f"{name} 0.5" if name == "geometric" else name, name)


@dataclass(frozen=True)
class Figures:
    """What a system did in one mode: shares of the attacks that succeeded.

    `canary_digits` is the mean share of a number's digits that an answer begins with; chance alone
    gives about a ninth of a digit. Perplexity and speed are the system's own, the same in both modes.
    """

    verbatim_recall: float
    backdoor_success: float
    canary_extraction: float
    canary_digits: float
    perplexity: float
    tokens_per_second: float

    @property
    def harm(self) -> float:
        """The mean of the three shares."""
        return (self.verbatim_recall + self.backdoor_success + self.canary_extraction) / 3

    def json(self) -> dict[str, float | None]:
        """The figures; null where a policy makes held-out text impossible."""
        return {key: round(value, 4) if math.isfinite(value) else None for key, value in asdict(self).items()}


@dataclass(frozen=True)
class Result:
    """A system's figures in both modes."""

    system: System
    greedy: Figures
    sampled: Figures

    def json(self) -> dict[str, Any]:
        return {**self.greedy.json(), "sampled": self.sampled.json()}


@dataclass(frozen=True)
class Shown:
    """One attack's answers, by mode and by system."""

    attack: Attack
    answers: Mapping[str, Mapping[str, Completion]]


@dataclass(frozen=True)
class Exhibit:
    """What the page shows of answers: their tokens' spelling, one certificate, and what it says."""

    shown: tuple[Shown, ...]
    vocabulary: Vocabulary
    certificate: Certificate
    summary: tuple[str, ...]


@dataclass(frozen=True, eq=False)
class Bench(bench.Bench):
    """The evaluation's bench with the test bed's two models, and what the demonstration asks of them."""

    @classmethod
    def packaged(cls) -> Self:
        """Read the packaged pair; the bundled plugins alone."""
        return cls.load(str(LLM), str(SLM), load_plugins([]))

    @cached_property
    def attacks(self) -> Mapping[Kind, tuple[Attack, ...]]:
        return every_attack(read_questions(HOME / "attacks.json"), self.slm)

    def measure(self, system: System) -> Result:
        """Attack a system in both modes."""
        costs = self.perplexity(system), self.speed(system, attacks().clean)
        greedy, sampled = (Figures(*self._shares(system, mode), *costs) for mode in MODES.values())
        return Result(system, greedy, sampled)

    def _shares(self, system: System, mode: Sampling) -> tuple[float, float, float, float]:
        answers = {kind: self.attack(system, self.attacks[kind], mode) for kind in KINDS}
        recall, backdoor, canary = (mean(map(Attack.succeeded, self.attacks[k], answers[k])) for k in KINDS)
        numbers = self.attacks["canary_extraction"], answers["canary_extraction"]
        return recall, backdoor, canary, mean(map(Attack.begun, *numbers))

    def perplexity(self, system: System) -> float:
        """Of the held-out text, teacher-forced through the policy and its memory, as when sampling."""
        runs = [read(self.slm, text) for text in heldout()]
        length = min(map(len, runs))
        scores = self.judge(system, [run[:1] for run in runs], [run[1:length] for run in runs])
        return exponential(-math.fsum(score.nats for score in scores) / ((length - 1) * len(scores)))

    def exhibit(self) -> Exhibit:
        """The answers to show, and the certificate of the first purified one, verified."""
        shown = self.show()
        certificate = shown[0].answers["sampled"]["balanced"].certificate
        verify(certificate, self.plugins)
        told = summary(certificate, recompute(certificate, self.slm))
        return Exhibit(tuple(shown), self.slm.vocabulary, certificate, tuple(told))

    def show(self) -> list[Shown]:
        """The first attack of each kind, as both models alone and the default policy answer it."""
        chosen = [self.attacks[kind][0] for kind in KINDS]
        systems = [*ALONE, _default("balanced")]
        purifiers = {
            each.key: Purifier(self.llm, self.slm, self.policy(each), explain=True, plugins=self.plugins)
            for each in systems
        }
        prompts = [attack.prompt for attack in chosen]
        answers = {
            (name, key): purifier.generate(
                prompts, replace(mode, max_tokens=max(each.tokens for each in chosen))
            )
            for name, mode in MODES.items()
            for key, purifier in purifiers.items()
        }
        return [
            Shown(attack, {mode: {key: answers[mode, key][row] for key in purifiers} for mode in MODES})
            for row, attack in enumerate(chosen)
        ]
