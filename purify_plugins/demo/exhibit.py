"""The answers that are shown: the first attack of each kind, put to each model alone and to both."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from purify_plugins.demo.preset import FEW, PURIFIED, first_attacks
from purify_plugins.eval.bench import MODES
from purify_plugins.eval.run import Plan, bench_of

if TYPE_CHECKING:
    from purify_plugins.certificate import Certificate
    from purify_plugins.eval.attempt import Attack
    from purify_plugins.eval.bench import Bench
    from purify_plugins.types import Completion, Vocabulary


@dataclass(frozen=True)
class Shown:
    """One attack and its answers, by system."""

    attack: Attack
    answers: Mapping[str, Completion]


@dataclass(frozen=True)
class Exhibit:
    """One mode's answers, their tokens' spelling, and the first purified one's certificate, verified."""

    mode: str
    shown: tuple[Shown, ...]
    vocabulary: Vocabulary
    summary: tuple[str, ...]

    @property
    def certificate(self) -> Certificate:
        return self.shown[0].answers[PURIFIED.key].certificate


def exhibit(plan: Plan, mode: str) -> Exhibit:
    """The answers to show, from a process that keeps its models."""
    from purify_plugins.certificate import recompute, verify
    from purify_plugins.plainly import summary

    bench = bench_of(plan.models)
    shown = answered(plan, bench, mode)
    certificate = shown[0].answers[PURIFIED.key].certificate
    verify(certificate, bench.plugins)
    told = summary(certificate, recompute(certificate, bench.slm))
    return Exhibit(mode, shown, bench.slm.vocabulary, tuple(told))


def answered(plan: Plan, bench: Bench, mode: str) -> tuple[Shown, ...]:
    """What each system answers to the first attack of each kind."""
    from purify_plugins.purifier import Purifier

    attacks = first_attacks(plan.questions, bench)
    prompts = [attack.prompt for attack in attacks]
    longest = max(attack.tokens for attack in attacks)
    sampling = replace(MODES[mode], max_tokens=longest, seed=plan.settings.seed)
    answers = {
        each.key: Purifier(
            bench.llm, bench.slm, bench.policy(each), explain=True, plugins=bench.plugins
        ).generate(prompts, sampling, errors="raise")
        for each in FEW
    }
    return tuple(
        Shown(attack, {key: rows[row] for key, rows in answers.items()}) for row, attack in enumerate(attacks)
    )
