"""The evaluation plugin: suites that measure protection and cost, and the commands that run them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from purify_plugins.plugin.hookspecs import hookimpl


@hookimpl
def purify_commands() -> Mapping[str, str]:
    return {
        "eval": "purify_hooks.evaluation.eval.command:evaluation",
        "tune": "purify_hooks.evaluation.eval.tune_command:tune",
        "bench": "purify_hooks.evaluation.bench.command:bench",
        "demo": "purify_hooks.evaluation.demo.command:demo",
        "report": "purify_hooks.evaluation.pair_report.command:report",
    }


@hookimpl
def purify_suites() -> Mapping[str, Callable[..., Any]]:
    from purify_hooks.evaluation.eval.suites.adaptive import Adaptive
    from purify_hooks.evaluation.eval.suites.backdoor import Backdoors
    from purify_hooks.evaluation.eval.suites.baseline import Baseline
    from purify_hooks.evaluation.eval.suites.context import ContextSecrets
    from purify_hooks.evaluation.eval.suites.copying import Copying
    from purify_hooks.evaluation.eval.suites.delayed import DelayedAttack
    from purify_hooks.evaluation.eval.suites.forgetting import Forgetting
    from purify_hooks.evaluation.eval.suites.grounding import Grounding
    from purify_hooks.evaluation.eval.suites.knowledge import Knowledge
    from purify_hooks.evaluation.eval.suites.memorisation import Memorisation
    from purify_hooks.evaluation.eval.suites.pii import PersonalData
    from purify_hooks.evaluation.eval.suites.private import PrivateData
    from purify_hooks.evaluation.eval.suites.requests import Requests
    from purify_hooks.evaluation.eval.suites.takedown import Takedowns
    from purify_hooks.evaluation.eval.suites.utility import Utility
    from purify_hooks.evaluation.eval.suites.written import Written

    return {
        "memorisation": Memorisation,
        "backdoor": Backdoors,
        "pii": PersonalData,
        "late": DelayedAttack,
        "knowledge": Knowledge,
        "utility": Utility,
        "vetting": Baseline,
        "adaptive": Adaptive,
        "written": Written,
        "requests": Requests,
        "private": PrivateData,
        "context": ContextSecrets,
        "copying": Copying,
        "forgetting": Forgetting,
        "takedown": Takedowns,
        "grounding": Grounding,
    }
