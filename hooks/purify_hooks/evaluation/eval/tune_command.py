"""The command `purify tune`: a policy's number, or a cascade's calibration, set by what it does."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from purify_hooks.evaluation.eval.asked import models_and_questions
from purify_hooks.evaluation.eval.command import (
    BY_FILE,
    FOLDER,
    Attacks,
    Batch,
    Jobs,
    Llm,
    Out,
    Quick,
    Seed,
    Slm,
    measured_report,
    planned,
)
from purify_hooks.evaluation.whose_pair import whose_pair
from purify_plugins.cli.options import AsJson, ConfigFile
from purify_plugins.errors import ConfigError, UnknownNameError
from purify_plugins.plugin.manager import load_plugins
from purify_plugins.utils.files import make_folder
from purify_plugins.verifying.wanted import key_value

if TYPE_CHECKING:
    from purify_hooks.evaluation.eval.questions import Questions
    from purify_hooks.evaluation.eval.run import ModelNames, Result
    from purify_hooks.evaluation.eval.systems import System
    from purify_hooks.evaluation.eval.tune import Tuned
    from purify_hooks.stages.tuning import TunedCascade


Policy = Annotated[str | None, typer.Argument(help="The policy to tune.")]
Protection = Annotated[float, typer.Option(min=0, max=1, help="1 less the worst harm that is left.")]
Parameter = Annotated[str, typer.Option(help="Its number to tune; without it the main one.")]
Fixed = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Another option, held fixed; repeatable."),
]
Rounds = Annotated[int, typer.Option(min=0, help="Settings tried beyond the first ones.")]
FittedStage = Annotated[str, typer.Option(help="A stage to fit in place of a policy: cascade.")]
Answers = Annotated[
    Path | None,
    typer.Option(metavar="FILE", help="With --stage: JSON Lines of prompts and right answers."),
]
Recall = Annotated[
    float, typer.Option(min=0.01, max=1, help="With --stage: the share of bad answers to escalate.")
]
After = Annotated[int, typer.Option(min=0, help="With --stage: the tokens that decide; 0: all.")]


def tune(
    policy: Policy = None,
    protection: Protection = 0.95,
    parameter: Parameter = "",
    options: Fixed = None,
    rounds: Rounds = 3,
    stage: FittedStage = "",
    answers: Answers = None,
    recall: Recall = 0.95,
    after: After = 0,
    llm: Llm = None,
    slm: Slm = None,
    attacks: Attacks = None,
    out: Out = FOLDER,
    quick: Quick = False,
    seed: Seed = 0,
    jobs: Jobs = 0,
    batch: Batch = 64,
    config: ConfigFile = None,
    as_json: AsJson = False,
) -> None:
    """Find the setting of a policy that reaches a stated protection at the least cost; or fit a stage."""
    if stage:
        found = _cascade(stage, policy, answers, recall, after, (llm, slm, config), out)
        typer.echo(json.dumps(found.facts) if as_json else _cascade_text(found, out))
        return
    if policy is None:
        raise ConfigError("`purify tune` needs POLICY: the policy to tune, or --stage cascade")
    from purify_hooks.evaluation.eval.tune import tune as tuned

    models, questions = _with_harms(*models_and_questions(llm, slm, attacks, batch, config))

    def measure(systems: Sequence[System]) -> list[Result]:
        plan = planned(models, questions, systems, quick, seed)
        return list(measured_report(plan, out, jobs, notes=[whose_pair(llm, config, BY_FILE)]).results)

    fixed = dict(map(key_value, options or ()))
    best = tuned(load_plugins(models.plugins), policy, protection, measure, rounds, parameter, fixed)
    typer.echo(json.dumps(_tuning_json(best)) if as_json else _tuning_text(best))


# A policy


def _with_harms(models: ModelNames, questions: Questions) -> tuple[ModelNames, Questions]:
    """The two. Raises ConfigError where nothing is asked that must not come out."""
    from purify_hooks.evaluation.eval.announced import what_is_asked

    if what_is_asked(questions):
        raise ConfigError(
            "a setting is found by what it stops: name that with --attacks; `purify eval build` writes such "
            "a file"
        )
    return models, questions


def _tuning_json(found: Tuned) -> dict[str, object]:
    from purify_hooks.evaluation.eval.findings import perplexity, worst

    settings = [
        {
            found.parameter: each.system.parameters[found.parameter],
            "worst_harm": round(worst(each), 4),
            "perplexity": round(perplexity(each), 4),
        }
        for each in found.tried
    ]
    best = found.best.system.parameters if found.best else None
    return {"parameter": found.parameter, "protection": found.protection, "best": best, "tried": settings}


def _tuning_text(found: Tuned) -> str:
    from purify_hooks.evaluation.eval.findings import perplexity, worst

    lines = [
        f"{each.system.label}: worst harm {worst(each):.0%}, perplexity {perplexity(each):.1f}"
        for each in sorted(found.tried, key=lambda each: each.system.parameters[found.parameter])
    ]
    if found.best is None:
        return "\n".join(
            [*lines, f"no setting reaches a protection of {found.protection:.0%}; try another policy"]
        )
    setting = found.best.system.parameters[found.parameter]
    ratio = perplexity(found.best) / perplexity(found.llm)
    return "\n".join(
        [
            *lines,
            f"set {found.parameter} = {setting:g} in [policy]: perplexity is {ratio:.2f} times the LLM's",
        ]
    )


# A cascade


def _cascade(
    stage: str,
    policy: str | None,
    answers: Path | None,
    recall: float,
    after: int,
    models: tuple[str | None, str | None, Path | None],
    out: Path,
) -> TunedCascade:
    """Fit the calibration of a cascade, and write it to `out`. Raises ConfigError."""
    from purify_hooks.stages.tuning import asked, read_examples, tuned
    from purify_plugins.cli.options import ModelOptions, configured, load_pair, prepared
    from purify_plugins.utils.files import write_whole

    if stage != "cascade":
        raise UnknownNameError("stage to tune", stage, ["cascade"])
    if policy is not None:
        raise ConfigError(f"tune the policy {policy!r} or the stage {stage!r}, not both")
    if answers is None:
        raise ConfigError(
            "--stage cascade needs --answers FILE: prompts with the right answers, as JSON Lines"
        )
    questions, examples = read_examples(answers, after)
    make_folder(out)
    if questions:
        llm, slm, config = models
        purifier = load_pair(prepared(configured(ModelOptions(llm, slm, config=config))))
        examples += asked(purifier, questions, after)
    found = tuned(examples, recall, after)
    write_whole(out / "cascade.json", found.calibration.text)
    return found


def _cascade_text(found: TunedCascade, out: Path) -> str:
    return (
        f"of {found.answers} answers by the SLM alone {found.good:.0%} are good; by calibrations fitted to "
        f"others, sure = {found.sure:g} escalates {found.escalated:.0%} of all and {found.recall:.0%} of "
        f"those that are not good\nexpected calibration error {found.error:.3f}, uncalibrated "
        f'{found.uncalibrated:.3f}\n\n[[stage]]\nname = "cascade"\nsure = {found.sure:g}\n'
        + (f"after = {found.calibration.after}\n" if found.calibration.after else "")
        + f'calibration = "{(out / "cascade.json").as_posix()}"'
    )
