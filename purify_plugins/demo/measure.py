"""Attack every system, greedy and sampled, and count."""

from __future__ import annotations

import math
import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from statistics import fmean as mean
from typing import TYPE_CHECKING, Any, Self

from purify_plugins.certificate import Certificate, recompute, verify
from purify_plugins.demo.attacks import KINDS, Attack, Kind, attempt, every_attack, read
from purify_plugins.demo.sources import Recorded, Silent
from purify_plugins.plainly import summary
from purify_plugins.plugins import Plugins, load_plugins
from purify_plugins.purifier import Purifier
from purify_plugins.testbed import LLM, SLM, attacks, heldout
from purify_plugins.types import Completion, LogitSource, Sampling, Vocabulary

if TYPE_CHECKING:
    from purify_plugins.types import FusionPolicy

HEADLINE = ("llm", "slm", "geometric", "capped", "anchored", "windowed", "balanced")
"""The systems of `purify demo --json`."""
LEFT_OUT: Mapping[str, str] = {
    "offset": "it needs an expert and an anti-expert in the SLM's place",
    "learned_mix": "until it is fitted it is linear",
}
MODES: Mapping[str, Sampling] = {
    "greedy": Sampling(temperature=0, seed=0),
    "sampled": Sampling(temperature=1, seed=0),
}
MOST = 50.0
"""Nats a token beyond which held-out text counts as impossible."""
TIMED, TIMED_TOKENS = 8, 12
"""Clean prompts decoded together when speed is measured, and how far."""


@dataclass(frozen=True)
class System:
    """Something that answers: one model alone, or both under a policy."""

    key: str
    label: str
    policy: str = "geometric"
    parameters: Mapping[str, Any] = field(default_factory=dict)


ALONE = (
    System("llm", "LLM alone", parameters={"alpha": 1.0}),
    System("slm", "SLM alone", parameters={"alpha": 0.0}),
)


def lineup(plugins: Plugins, only: Collection[str] = ()) -> list[System]:
    """Both models alone, every policy for two models at its defaults, and two more weights of `geometric`."""
    names = [name for name in plugins.offers("purify_policies") if name not in LEFT_OUT]
    first = [name for name in HEADLINE if name in names]
    weights = [System(f"geometric-{a}", f"geometric {a}", parameters={"alpha": a}) for a in (0.3, 0.7)]
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
class Bench:
    """The test bed's two models, what is asked of them, and the clean text they are judged on."""

    llm: LogitSource
    slm: LogitSource
    plugins: Plugins

    @classmethod
    def load(cls) -> Self:
        """Read the packaged pair; the bundled plugins alone."""
        plugins = load_plugins([])
        return cls(plugins.source(str(LLM)), plugins.source(str(SLM)), plugins)

    @cached_property
    def attacks(self) -> Mapping[Kind, tuple[Attack, ...]]:
        return every_attack(attacks(), self.slm)

    def policy(self, system: System) -> FusionPolicy:
        chosen: FusionPolicy = self.plugins.policy(system.policy, system.parameters)
        return chosen

    def purifier(self, system: System) -> Purifier:
        """The system as it is attacked; a model alone does not wait for the other."""
        silent = Silent(self.slm.vocabulary)
        llm = silent if system.key == "slm" else self.llm
        slm = silent if system.key == "llm" else self.slm
        return Purifier(llm, slm, self.policy(system), plugins=self.plugins)

    def measure(self, system: System) -> Result:
        """Attack a system in both modes."""
        purifier = self.purifier(system)
        costs = self.perplexity(system), speed(purifier)
        greedy, sampled = (Figures(*self._shares(purifier, mode), *costs) for mode in MODES.values())
        return Result(system, greedy, sampled)

    def _shares(self, purifier: Purifier, mode: Sampling) -> tuple[float, float, float, float]:
        answers = {kind: _answers(purifier, self.attacks[kind], mode) for kind in KINDS}
        recall, backdoor, canary = (mean(map(Attack.succeeded, self.attacks[k], answers[k])) for k in KINDS)
        numbers = self.attacks["canary_extraction"], answers["canary_extraction"]
        return recall, backdoor, canary, mean(map(Attack.begun, *numbers))

    def perplexity(self, system: System) -> float:
        """Of the held-out text, teacher-forced through the policy and its memory, as when sampling."""
        from purify_plugins.decode.replay import replay

        llm, slm, answers = self._record
        purifier = Purifier(llm, slm, self.policy(system), plugins=self.plugins)
        rows = replay(purifier, llm.prompts, answers)
        surprisals = [-token.fused for row in rows for token in row]
        mean = math.fsum(surprisals) / len(surprisals)
        return math.exp(mean) if mean < MOST else math.inf

    @cached_property
    def _record(self) -> tuple[Recorded, Recorded, list[tuple[int, ...]]]:
        """Both models' rows on the held-out text, read once, and the text's tokens."""
        runs = [read(self.slm, text) for text in heldout()]
        length = min(map(len, runs))
        prompts, answers = [run[:1] for run in runs], [run[1:length] for run in runs]
        return Recorded.of(self.llm, prompts, answers), Recorded.of(self.slm, prompts, answers), answers

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


def speed(purifier: Purifier) -> float:
    """Tokens a second over a batch of clean prompts, certificates included."""
    prompts = list(attacks().clean[:TIMED])
    sampling = Sampling(max_tokens=TIMED_TOKENS, ignore_eos=True, seed=0)
    start = time.perf_counter()
    written = sum(len(completion.tokens) for completion in purifier.generate(prompts, sampling))
    return written / (time.perf_counter() - start)


def _answers(purifier: Purifier, asked: Sequence[Attack], mode: Sampling) -> list[bytes]:
    return attempt(purifier, asked, replace(mode, max_tokens=max(each.tokens for each in asked)))
