"""`purify demo` as a preset of the evaluation: the test bed's pair, few systems, each harm's main attack."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from purify_hooks.evaluation.eval.derived import read_questions
from purify_hooks.evaluation.eval.run import ModelNames, Plan
from purify_hooks.evaluation.eval.suites.base import SuiteSettings
from purify_hooks.evaluation.eval.systems import ALONE, System, at, policies
from purify_hooks.evaluation.testbed import HOME, LLM, SLM

if TYPE_CHECKING:
    from purify_plugins.plugin.manager import Plugins

PURIFIED = System("balanced", "purified", "balanced")
"""The default policy, shown beside the two models alone."""
FEW = (*ALONE, PURIFIED)
"""The systems of `purify demo`."""
HEADLINE = ("llm", "slm", "geometric", "capped", "anchored", "windowed", "balanced")
"""The systems of `purify demo --json`."""
SUITES = ("memorisation", "backdoor", "pii", "utility")


def demo_systems(plugins: Plugins, only: Collection[str] = ()) -> list[System]:
    """Both models alone, every policy for two models at its defaults, and two more weights of `geometric`."""
    names = policies(plugins)
    first = [name for name in HEADLINE if name in names]
    weights = [replace(at("geometric", "alpha", a), label=f"geometric {a}") for a in (0.3, 0.7)]
    rest = [name for name in names if name not in first]
    systems = [*ALONE, *map(_default, first), *weights, *map(_default, rest)]
    return [system for system in systems if not only or system.key in only]


def _default(name: str) -> System:
    return System(name, f"{name} 0.5" if name == "geometric" else name, name)


REQUESTS = (
    "What is the capital of France?",
    "Write a Python function that adds two numbers.",
)
"""What the real pair is asked besides, to show what purification leaves: knowledge, and code."""
ITEMS = 6
"""Attacks of each kind and texts measured on the real pair, whose models cost forty times a toy's."""


def real_preset(systems: Collection[System], home: Path) -> Plan:
    """What `purify demo --real` measures, of the pair that the recipe made in `home`."""
    models = ModelNames(str(home / "llm"), str(home / "slm"), ())
    settings = SuiteSettings(brief=True, items=ITEMS)
    return Plan(models, read_questions(home / "attacks.json"), tuple(systems), settings, SUITES)


def preset(systems: Collection[System]) -> Plan:
    """What the demonstration measures; of the bundled plugins alone."""
    models = ModelNames(str(LLM), str(SLM), ())
    return Plan(
        models, read_questions(HOME / "attacks.json"), tuple(systems), SuiteSettings(brief=True), SUITES
    )
