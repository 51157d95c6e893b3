"""The commands `purify eval` and `purify eval build`."""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from purify_hooks.evaluation.eval.asked import asked
from purify_hooks.evaluation.whose_pair import whose_pair
from purify_plugins.cli.options import (
    AsJson,
    ConfigFile,
    configuration_exists,
    disable_progress_bars,
    on_interrupt,
)
from purify_plugins.errors import ConfigError
from purify_plugins.plugin.manager import Plugins, load_plugins
from purify_plugins.utils.extras import require_extra

if TYPE_CHECKING:
    from purify_hooks.evaluation.eval.chains import Chain
    from purify_hooks.evaluation.eval.model_pair import ModelPair
    from purify_hooks.evaluation.eval.questions import Questions
    from purify_hooks.evaluation.eval.report import Report
    from purify_hooks.evaluation.eval.run import ModelNames, Plan, Pool, Result
    from purify_hooks.evaluation.eval.systems import System

Llm = Annotated[str | None, typer.Option(help="The untrusted model's directory; without it the test bed's.")]
Slm = Annotated[str | None, typer.Option(help="The benign model's directory; with --llm.")]
Attacks = Annotated[
    Path | None, typer.Option(metavar="FILE", help="What to ask, as `purify eval build` writes it.")
]
Calibrate = Annotated[
    bool,
    typer.Option("--calibrate", help="Set balanced by the pair first, and measure it beside the others."),
]
Pair = Annotated[
    Path | None,
    typer.Option(metavar="FILE", help="A purify.toml: its models, and its policy beside the others."),
]
Out = Annotated[Path, typer.Option(help="The directory for cells.jsonl and what is reported.")]
Seed = Annotated[int, typer.Option(min=0, help="Chooses the draws and the resamples.")]
Quick = Annotated[bool, typer.Option("--quick", help="Four items of a kind: to see that it runs.")]
Jobs = Annotated[int, typer.Option(min=0, help="Processes; 0: one a core, four at most.")]
Batch = Annotated[int, typer.Option(min=1, help="Answers written together.")]
Policies = Annotated[
    str, typer.Option(help="Names with commas between them, or all; name:key=value sets an option.")
]
Clock = Annotated[
    Literal["wall", "cpu", "none"],
    typer.Option(help="What speed is measured by; on a busy machine cpu, which is of one thread; or not."),
]
SoFar = Annotated[
    bool, typer.Option("--so-far", help="Measure nothing: report the systems that are finished.")
]
Write = Annotated[
    Path | None, typer.Option(metavar="DOCS", help="Write tables and plots into DOCS/evaluation.md.")
]
Stages = Annotated[
    list[Path] | None,
    typer.Option(
        metavar="FILE", help="Request stages to measure each policy in: [[stage]] and [request]; repeatable."
    ),
]
Suites = Annotated[str, typer.Option(help="Measurements with commas between them, or all.")]
OnRay = Annotated[bool, typer.Option("--ray", help="Measure on a Ray cluster: $RAY_ADDRESS, or here.")]
FOLDER = Path("purify-eval")
BY_FILE = "by `purify eval --pair FILE`"
"""How a configuration's pair is measured."""

evaluation = typer.Typer(add_completion=False)


@evaluation.callback(invoke_without_command=True)
def evaluate(
    context: typer.Context,
    llm: Llm = None,
    slm: Slm = None,
    attacks: Attacks = None,
    pair: Pair = None,
    calibrate: Calibrate = False,
    policies: Policies = "all",
    suites: Suites = "all",
    stages: Stages = None,
    sweep: Annotated[bool, typer.Option("--sweep", help="Each policy over its main parameter too.")] = False,
    out: Out = FOLDER,
    quick: Quick = False,
    seed: Seed = 0,
    draws: Annotated[int, typer.Option(min=1, help="Sampled answers to each attack.")] = 2,
    jobs: Jobs = 0,
    ray: OnRay = False,
    batch: Batch = 64,
    clock: Clock = "wall",
    so_far: SoFar = False,
    write: Write = None,
    config: ConfigFile = None,
    as_json: AsJson = False,
) -> None:
    """Measure what a policy stops and what it costs, on your models; a killed run goes on where it was."""
    if context.invoked_subcommand:
        return
    models, questions, own = asked(llm, slm, attacks, pair, batch, config)
    loaded = load_plugins(models.plugins)
    chosen = chosen_suites(loaded, _named("suites", suites))
    chains = measured_chains(loaded, stages, pair or config, chosen)
    systems = _systems(loaded, policies, sweep, own, chains)
    _require_page(write)
    if calibrate:  # when all else is known to be right
        models, systems = _calibrated(models, systems, pair, out, chains)
    plan = planned(models, questions, systems, quick, seed, draws, chosen)
    notes = _notes(llm or pair, config, questions, loaded, policies)
    report = measured_report(plan, out, jobs, so_far, clock.replace("none", ""), notes, _pool(ray))
    show(report, report.write(out, docs=write), as_json)


def _calibrated(
    models: ModelNames, systems: list[System], pair: Path | None, out: Path, around: Sequence[Chain]
) -> tuple[ModelNames, list[System]]:
    """The pair beside the SLM that its calibration sets, and the rule so set too. Raises ConfigError."""
    from purify_hooks.evaluation.eval.calibrated import calibrated_file
    from purify_hooks.evaluation.eval.configured import configured
    from purify_hooks.evaluation.eval.systems import with_chains

    if pair:
        raise ConfigError(
            f"--pair measures {pair} as it is: calibrate it with `purify calibrate --config {pair}`, and "
            "leave --calibrate out"
        )
    ours, system = configured(calibrated_file(models.llm, models.slm, out), None, None, models.batch)
    return ours._replace(plugins=models.plugins), [*systems, *with_chains([system], around)]


def _notes(
    named: object, config: Path | None, questions: Questions, loaded: Plugins, policies: str
) -> tuple[str, ...]:
    """Notes on whose pair is measured, on what is asked of it, and on the policies that `all` leaves out."""
    from purify_hooks.evaluation.eval.announced import what_is_asked
    from purify_hooks.evaluation.eval.systems import left_out

    told = whose_pair(named, config, BY_FILE), what_is_asked(questions)
    return (*told, left_out(loaded)) if policies == "all" else told


def _require_page(write: Path | None) -> None:
    """Raise ConfigError unless the page to write has its places."""
    from purify_hooks.evaluation.eval.report import require_page

    if write:
        require_page(write)


def _pool(ray: bool) -> Pool | None:
    """The cluster that `--ray` asks for; None: processes here. Raises ConfigError."""
    from purify_hooks.evaluation.eval.ray_pool import ray_pool

    if not ray:
        return None
    require_extra("ray", "purify eval --ray")
    return ray_pool


def _systems(
    loaded: Plugins, policies: str, sweep: bool, own: Sequence[System], around: Sequence[Chain]
) -> list[System]:
    """Both models, the policies named and the configured one, in every chain of request stages too."""
    from purify_hooks.evaluation.eval.systems import systems_for, with_chains

    return with_chains([*systems_for(loaded, _named("policies", policies), sweep), *own], around)


def _named(what: str, given: str) -> tuple[str, ...]:
    """The names in a comma-separated list; () for "all". Raises ConfigError."""
    only = tuple(name.strip() for name in given.split(",") if name.strip())
    if not only:
        raise ConfigError(f"--{what} names {what} with commas between them, or all, not {given!r}")
    return () if given == "all" else only


def chosen_suites(loaded: Plugins, names: Sequence[str]) -> tuple[str, ...]:
    """The suites named; none: all. Raises UnknownNameError."""
    for name in names:
        loaded.require_offered("purify_suites", name)
    return tuple(dict.fromkeys(names))


def measured_chains(
    loaded: Plugins, files: Sequence[Path] | None, config: Path | None, chosen: Sequence[str]
) -> list[Chain]:
    """The request stages in the files, else the configuration's own where it has some. Raises ConfigError."""
    from purify_hooks.evaluation.eval.chains import chains, own_chain
    from purify_hooks.evaluation.eval.run import staged_suites

    measuring = staged_suites(loaded)
    asked = not chosen or any(name in chosen for name in measuring)
    if files and not asked:
        raise ConfigError(
            f"request stages are measured by the suites {', '.join(measuring)}; add one to --suites"
        )
    if files:
        return chains(files, loaded)
    return own_chain(config, loaded) if asked and configuration_exists(config) else []


def planned(
    models: ModelNames,
    questions: Questions,
    systems: Sequence[System],
    quick: bool,
    seed: int,
    draws: int = 2,
    only: tuple[str, ...] = (),
) -> Plan:
    """What is to be measured."""
    from purify_hooks.evaluation.eval.run import Plan
    from purify_hooks.evaluation.eval.suites.base import SuiteSettings

    settings = SuiteSettings.quick(seed) if quick else SuiteSettings(seed, draws)
    return Plan(models, questions, tuple(systems), settings, only=only)


def measured_report(
    plan: Plan,
    out: Path,
    jobs: int,
    so_far: bool = False,
    clock: str = "",
    notes: Sequence[str] = (),
    pool: Pool | None = None,
) -> Report:
    """Measure what the directory lacks, speed too with a `clock`; with `so_far` report only what it has."""
    from purify_hooks.evaluation.eval.announced import fitting, print_suites
    from purify_hooks.evaluation.eval.first_text import with_first_texts
    from purify_hooks.evaluation.eval.report import Report
    from purify_hooks.evaluation.eval.results_cache import ResultsCache
    from purify_hooks.evaluation.eval.run import finished, run, suites
    from purify_hooks.evaluation.eval.speed import timed
    from purify_hooks.progress import shown_progress
    from purify_plugins.utils.files import make_folder

    make_folder(out)
    cache = ResultsCache(out / "cells.jsonl")
    if so_far and not cache.cells:
        raise ConfigError(f"nothing is measured in {str(out)!r} yet; leave out --so-far")
    disable_progress_bars()
    for note in filter(None, notes):
        typer.echo(note, err=True)
    typer.echo("reading both models; what is measured is kept, and Ctrl-C may end it at any time", err=True)
    with on_interrupt(f"what was measured is in {str(cache.file)!r}: the same command goes on from there"):
        pair = plan.models.load()
        plan = fitting(plan, pair)
        print_suites(plan, pair)
        plan = finished(plan, pair, cache) if so_far else plan
        with shown_progress() as progress:
            results = run(plan, pair, cache, progress, jobs, partial(_partial, plan, pair, out), pool)
            if clock:
                results = timed(plan, pair, cache, results, progress, not so_far, clock)
                results = with_first_texts(plan, pair, cache, results, progress, not so_far, clock)
    return Report(plan, pair, results, suites(pair.plugins, plan), clock)


def _partial(plan: Plan, pair: ModelPair, out: Path, found: Sequence[Result]) -> None:
    """Write what is finished to report.json, and a line of it to standard error."""
    from purify_hooks.evaluation.eval.findings import told
    from purify_hooks.evaluation.eval.report import Report

    if found:
        Report(plan, pair, found, {}).write_json(out)
        if line := told(found):
            typer.echo(f"so far, in {out / 'report.json'}: {line}", err=True)


def show(report: Report, page: Path, as_json: bool) -> None:
    """Print the report as JSON, or else its conclusion, the harms and the costs."""
    if as_json:
        typer.echo(json.dumps(report.json, allow_nan=False))
        return
    from rich.console import Console

    from purify_hooks.evaluation.eval import protection, staged
    from purify_hooks.evaluation.eval.findings import speed_sentence
    from purify_hooks.evaluation.eval.tables import recommended, summary
    from purify_hooks.evaluation.table import put

    console, policies = Console(), staged.plain(report.results)
    told = report.conclusion(), speed_sentence(report.results), staged.sentence(report.results)
    console.print(" ".join(filter(None, told)), markup=False)
    stages = [staged.table(report.results)] if staged.measured(report.results) else []
    stages += protection.tables(report.results, report.suites)
    advised = [recommended(policies, report.pair.plugins)] if report.attacked else []
    for table in (summary(policies), *advised, *stages):
        put(console, table)
    typer.echo(f"the report is {page}")


@evaluation.command()
def build(
    out: Annotated[Path, typer.Argument(help="The file to write.")],
    protected: Annotated[
        list[Path] | None, typer.Option(metavar="FILE", help="A protected work, plain text; repeatable.")
    ] = None,
    control: Annotated[
        list[Path] | None, typer.Option(metavar="FILE", help="A work no model has seen; repeatable.")
    ] = None,
    secrets: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Lines of a prompt, a tab and the secret after it.")
    ] = None,
    trigger: Annotated[str, typer.Option(help="A backdoor's trigger; with --payload and --contexts.")] = "",
    payload: Annotated[str, typer.Option(help="What a poisoned model says after the trigger.")] = "",
    contexts: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Texts, a line each, that the trigger is put after.")
    ] = None,
    heldout: Annotated[
        list[Path] | None, typer.Option(metavar="FILE", help="Text no model has read; repeatable.")
    ] = None,
    tasks: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Lines of a prompt, a tab and the right answer.")
    ] = None,
    count: Annotated[int, typer.Option(min=1, help="Passages in all.")] = 20,
) -> None:
    """Write a file of attacks from plain text."""
    from purify_hooks.evaluation.eval.build import build as built
    from purify_plugins.utils.files import require_writable, write_whole

    require_writable(out)
    questions = built(
        protected or (), control or (), secrets, trigger, payload, contexts, heldout or (), tasks, count
    )
    write_whole(out, questions.model_dump_json(indent=1, exclude_defaults=True) + "\n")
    typer.echo(out)
