"""What is said before a measurement: which policies and suites it leaves out, and why."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import typer

from purify_hooks.evaluation.eval.run import measures, suites
from purify_plugins.errors import ConfigError

if TYPE_CHECKING:
    from purify_hooks.evaluation.eval.model_pair import ModelPair
    from purify_hooks.evaluation.eval.questions import Questions
    from purify_hooks.evaluation.eval.run import Plan


def fitting(plan: Plan, pair: ModelPair) -> Plan:
    """The plan without policies that cannot be bound to this vocabulary, which are named on standard error.

    Raises ConfigError where none is left.
    """
    unfit = {each.key: why for each in plan.systems if not each.alone and (why := pair.unfit(each))}
    systems = tuple(each for each in plan.systems if each.key not in unfit)
    if all(each.alone for each in systems) and unfit:
        raise ConfigError("; ".join(unfit.values()))
    for name, why in unfit.items():
        typer.echo(f"left out: {name} ({why})", err=True)
    return replace(plan, systems=systems)


def print_suites(plan: Plan, pair: ModelPair) -> None:
    """Print the suites that run, and of each chain of request stages those that do not concern it.

    Raises ConfigError where the questions have nothing for any of them.
    """
    asked = suites(pair.plugins, plan)
    if not asked:
        raise ConfigError(f"the questions hold nothing that {', '.join(plan.only) or 'any suite'} asks")
    typer.echo(f"measuring {', '.join(asked)}", err=True)
    for chain in {each.chain.name: each.chain for each in plan.systems if each.chain}.values():
        left = [name for name, suite in asked.items() if not measures(suite, chain)]
        if left:
            typer.echo(
                f"not of {chain.name}: {', '.join(left)}, which measure other stages or none", err=True
            )


def what_is_asked(questions: Questions) -> str:
    """That no harm is asked for, and how to name one; "" where some is."""
    if questions.protected or questions.backdoor or questions.canaries:
        return ""
    return (
        "no --attacks: what the LLM knows and what purifying costs is measured, and nothing of what must not "
        "come out; `purify eval build` makes a file of that from your own works, secrets or triggers"
    )
