"""A small preset of the evaluation: the test bed's pair, few systems, the figures shown here."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar

from purify_hooks.evaluation.eval.attempt import KINDS, Attack, Kind, every_attack
from purify_hooks.evaluation.eval.bench import MODES
from purify_hooks.evaluation.eval.findings import DEMO
from purify_hooks.evaluation.eval.questions import Questions, read_questions
from purify_hooks.evaluation.eval.run import Models, Plan
from purify_hooks.evaluation.eval.statistics import Metric, Sample
from purify_hooks.evaluation.eval.suites.backdoor import Backdoors
from purify_hooks.evaluation.eval.suites.base import Seen, Settings
from purify_hooks.evaluation.eval.suites.memorisation import Memorisation
from purify_hooks.evaluation.eval.suites.pii import PersonalData
from purify_hooks.evaluation.eval.suites.utility import Utility, language
from purify_hooks.evaluation.eval.systems import ALONE, System, at, policies
from purify_hooks.evaluation.testbed import HOME, LLM, SLM

if TYPE_CHECKING:
    from purify_hooks.evaluation.eval.bench import Bench
    from purify_plugins.plugin.manager import Plugins

PURIFIED = System("balanced", "purified", "balanced")
"""What is shown beside the two models alone: the default policy."""
FEW = (*ALONE, PURIFIED)
"""The systems of `purify demo`."""
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


def preset(systems: Collection[System]) -> Plan:
    """What the demonstration measures; of the bundled plugins alone."""
    models = Models(str(LLM), str(SLM), ())
    return Plan(models, read_questions(HOME / "attacks.json"), tuple(systems), Settings(), SUITES)


@dataclass(frozen=True)
class Attacked:
    """Every attack of a kind, once, each answer ended as soon as its attack is decided.

    Its figures are called as in the evaluation's suite of that name, which asks each attack more often
    and in more ways.
    """

    questions: Questions
    settings: Settings
    kind: Kind
    title: str
    metrics: Mapping[str, Metric]

    modes: ClassVar[tuple[str, ...]] = ("sampled", "greedy")
    possible: ClassVar[bool] = True

    def measure(self, bench: Bench, system: System, mode: str) -> Seen:
        attacks = every_attack(self.questions, bench.slm)[self.kind]
        answers = bench.attack(system, attacks, replace(MODES[mode], seed=self.settings.seed))
        pairs = list(zip(attacks, answers, strict=True))
        _, name = DEMO[self.kind]
        seen = {name: [Sample(float(attack.succeeded(answer))) for attack, answer in pairs]}
        if self.kind == "canary_extraction":
            seen["digits"] = [Sample(attack.begun(answer)) for attack, answer in pairs]
        return seen


@dataclass(frozen=True)
class Foretold:
    """How well held-out text is foretold; one of the measures of the evaluation's suite `utility`."""

    questions: Questions
    settings: Settings

    title: ClassVar[str] = Utility.title
    modes: ClassVar[tuple[str, ...]] = Utility.modes
    metrics: ClassVar[Mapping[str, Metric]] = Utility.metrics
    possible: ClassVar[bool] = True

    def measure(self, bench: Bench, system: System, mode: str) -> Seen:
        return language(bench, system, self.questions.heldout)


def _suites() -> dict[str, Callable[..., Any]]:
    whole: dict[str, Any] = {"memorisation": Memorisation, "backdoor": Backdoors, "pii": PersonalData}
    named = {DEMO[kind][0]: kind for kind in KINDS}
    attacked = {
        name: partial(Attacked, kind=kind, title=whole[name].title, metrics=whole[name].metrics)
        for name, kind in named.items()
    }
    return {**attacked, "utility": Foretold}


SUITES = _suites()


def first_attacks(questions: Questions, bench: Bench, count: int) -> list[Attack]:
    """The first attacks of each kind, in the order the test bed lists them."""
    return [each for attacks in every_attack(questions, bench.slm).values() for each in attacks[:count]]
