"""Attack the calibrated rule on the real pair: `python docs/real_attacks.py [--slms slm] [--items 4]`.

Writes the tables of docs/real-models.md that say what adaptive attacks get out: suite `adaptive` on the twin,
the same texts recited by an LLM that knows them in every form, and how full the guarantee's ledger was.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, NamedTuple

import typer
from frontier import calibrated
from real_models import PAGE, SLMS

from purify_hooks.evaluation.eval.derived import read_questions
from purify_hooks.evaluation.eval.diluted import FORMS
from purify_hooks.evaluation.eval.model_pair import ModelPair
from purify_hooks.evaluation.eval.page import fill_region
from purify_hooks.evaluation.eval.page import made as facts
from purify_hooks.evaluation.eval.reciter import Reciter
from purify_hooks.evaluation.eval.suites.adaptive import ATTACKS, PLAIN, Adaptive
from purify_hooks.evaluation.eval.suites.base import Items, Samples, SuiteSettings, texts
from purify_hooks.evaluation.eval.systems import ALONE, System, systems_for
from purify_hooks.evaluation.table import Table
from purify_hooks.evaluation.testbed.real.cache import made
from purify_hooks.policies.balanced import Balanced
from purify_plugins.decode.forced_text import Likelihood
from purify_plugins.plugin.manager import load_plugins

SURE = (0.99, 0.5)
"""How sure the LLM is that knows every text in every form."""
MODES = ("greedy", "sampled")


class Outcome(NamedTuple):
    """What came of attacks on one pair: samples by system and mode, fullest ledgers in nats."""

    samples: Mapping[str, Mapping[str, Samples]]
    ledgers: Mapping[str, float]


@dataclass(frozen=True)
class Attacked:
    """The suite, the pair, and the policies that are attacked."""

    suite: Adaptive
    pair: ModelPair
    systems: Sequence[System]

    def outcome(self, items: Items) -> Outcome:
        """What comes of these texts, which both models read once."""
        every = (*ALONE, *self.systems)
        scores = self.pair.scores(every, texts(items))
        found = self.suite.judged(self.pair, items, [(*each[: len(ALONE)], *each) for each in scores])
        return Outcome(
            {system.key: samples for system, samples in zip(every, found, strict=True)},
            {
                system.key: self._fullest(system, [(each[at], each[1]) for each in scores])
                for at, system in enumerate(self.systems, len(ALONE))
            },
        )

    def _fullest(self, system: System, scores: Sequence[tuple[Likelihood, Likelihood]]) -> float:
        """The most that any run of tokens put into the guarantee's ledger, in nats."""
        policy = self.pair.policy(system)
        assert isinstance(policy, Balanced)
        return max(policy.fullest(zip(ours.logprobs, slm.logprobs, strict=True)) for ours, slm in scores)

    def reciting(self, items: Items, sure: float) -> Outcome:
        """The same of an LLM that knows these texts."""
        known = {each.prompt: each.tokens for each in texts(items) if isinstance(each.prompt, tuple)}
        return replace(self, pair=replace(self.pair, llm=Reciter(self.pair.slm, known, sure))).outcome(items)

    def budgets(self, outcome: Outcome) -> str:
        """How full each policy's ledger was, of what the guarantee allows."""
        told = []
        for system in self.systems:
            policy, fullest = self.pair.policy(system), outcome.ledgers[system.key]
            assert isinstance(policy, Balanced)
            held = "held" if fullest <= policy.budget + 1e-3 else "BROKEN"
            told.append(f"`{system.label}` {fullest:.1f} of {policy.budget:g}, {held}")
        return "; ".join(told)


def cell(outcome: Outcome, key: str, attack: str) -> str:
    """Share of tokens greedily and drawn, and the longest run: the SLM's own, or above the SLM's."""
    greedy, drawn = (
        100 * sum(each.value for each in found) / len(found)
        for found in (outcome.samples[key][mode][attack] for mode in MODES)
    )
    runs, slm = (outcome.samples[name]["greedy"][f"{attack}_run"] for name in (key, "slm"))
    most = max(
        one.value - (0 if key in ("llm", "slm") else other.value)
        for one, other in zip(runs, slm, strict=True)
    )
    return (
        f"{greedy:.0f} / {drawn:.0f}, {most:.0f}"
        if key in ("llm", "slm")
        else f"{greedy:.0f} / {drawn:.0f}, {most:+.0f}"
    )


def wholes(outcome: Outcome, key: str, harm: str) -> str:
    """The share that comes out whole in the worst way, greedily and drawn, in per cent."""
    found = [outcome.samples[key][mode][harm] for mode in MODES]
    return " / ".join(f"{100 * sum(each.value for each in every) / len(every):.0f}" for every in found)


def attack_rows(outcome: Outcome, keys: Sequence[str]) -> Iterator[tuple[str, ...]]:
    """A row for each way of asking, then what comes out whole."""
    for attack in ATTACKS:
        if attack in outcome.samples["slm"]["greedy"]:
            yield attack, *(cell(outcome, key, attack) for key in keys)
    for harm in ("passages", "secrets", "payloads"):
        if outcome.samples["slm"]["greedy"].get(harm):
            yield f"whole {harm}, worst way", *(wholes(outcome, key, harm) for key in keys)


def attacked(home: Path, slm: str, items: int | None) -> str:
    """What comes of every attack beside one SLM."""
    ours, table, _ = calibrated(str(home / "llm"), str(home / slm), home / f"calibrated-{slm}.toml")
    plugins = load_plugins()
    pair = ModelPair.load(str(home / "llm"), dict(table), plugins)
    suite = Adaptive(read_questions(home / "attacks.json"), SuiteSettings(items=items))
    [balanced] = [each for each in systems_for(plugins, ("balanced",)) if not each.alone]
    attacked = Attacked(suite, pair, (balanced, ours))
    asked = suite.asked(pair)
    twin = attacked.outcome(asked)
    keys = [system.key for system in (*ALONE, *attacked.systems)]
    labels = ["twin alone", "SLM alone", *(system.label for system in attacked.systems)]
    blocks = [Table("The twin", ("asked", *labels), list(attack_rows(twin, keys))).markdown]
    diluted = {name: asked[name] for name in asked if name.split()[0] in (PLAIN, *FORMS)}
    for sure in SURE:
        told = attacked.reciting(diluted, sure)
        title = f"An LLM that knows every text in every form, and gives each next token {sure:g}"
        blocks.append(Table(title, ("asked", *labels), list(attack_rows(told, keys))).markdown)
        blocks.append(f"The ledger of the guarantee at its fullest: {attacked.budgets(told)}.")
    blocks.insert(1, f"The ledger of the guarantee at its fullest: {attacked.budgets(twin)}.")
    return "\n\n".join(blocks) + "\n"


def main(
    slms: Annotated[str, typer.Option(help="SLMs to attack beside, with commas.")] = ",".join(SLMS),
    items: Annotated[int | None, typer.Option(help="At most so many passages, secrets and contexts.")] = None,
) -> None:
    """Write the attacks' regions of the page anew."""
    home = made(lambda text: typer.echo(text, err=True))
    named = f" --items {items}" if items else ""
    for slm in slms.split(","):
        told = f"`python docs/real_attacks.py --slms {slm}{named}`, {'; '.join(facts().values())}:"
        fill_region(PAGE, f"attacks-{slm}", f"{told}\n\n{attacked(home, slm, items)}")


if __name__ == "__main__":
    typer.run(main)
