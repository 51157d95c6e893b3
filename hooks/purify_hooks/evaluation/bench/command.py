"""The command `purify bench`."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from purify_hooks.evaluation.whose_pair import whose_pair
from purify_plugins.cli.options import (
    AsJson,
    ConfigFile,
    disable_progress_bars,
    named_plugins,
    on_interrupt,
)
from purify_plugins.verifying.wanted import key_value

if TYPE_CHECKING:
    from purify_hooks.evaluation.bench.settings import BenchSettings, Progress

LLM = Annotated[str | None, typer.Option(help="The LLM's directory; without it the test bed's, widened.")]
SLM = Annotated[str | None, typer.Option(help="The SLM's directory; with --llm.")]
Policy = Annotated[str, typer.Option(help="The fusion policy; see `purify policies`.")]
Fields = Annotated[
    list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="A field of the policy; repeatable.")
]
Batch = Annotated[int, typer.Option(min=1, help="Answers written together.")]
Tokens = Annotated[int, typer.Option(min=2, help="Tokens of each answer.")]
Rounds = Annotated[int, typer.Option(min=1, help="Rounds; medians and quartiles are over these.")]
Prompts = Annotated[int, typer.Option(min=1, help="Answers a round by each design, at least.")]
Threads = Annotated[
    int | None, typer.Option(min=1, max=1024, help="Threads for torch; as many as it likes otherwise.")
]
Clock = Annotated[
    Literal["wall", "cpu"],
    typer.Option(help="Time that passes, or that is computed: on a busy machine cpu, with --threads 1."),
]
Sweep = Annotated[bool, typer.Option("--sweep", help="Fixed draft lengths too, beside the adaptive one.")]
Extras = Annotated[
    bool, typer.Option(help="Memory, the vocabulary's share of the work, and an SLM with another tokenizer.")
]
Preset = Annotated[
    str | None,
    typer.Option(
        metavar="NAME", help="gpu: the test bed's pair widened to 7 and 1 billion parameters, on --device."
    ),
]
Device = Annotated[str, typer.Option(help="Of a preset: cuda, cuda:1, mps or cpu.")]
Write = Annotated[
    Path | None, typer.Option(metavar="DOCS", help="Write the tables and the plot into DOCS/performance.md.")
]


def bench(
    llm: LLM = None,
    slm: SLM = None,
    policy: Policy = "geometric",
    fields: Fields = None,
    batch: Batch = 1,
    tokens: Tokens = 48,
    rounds: Rounds = 5,
    prompts: Prompts = 4,
    threads: Threads = None,
    clock: Clock = "wall",
    sweep: Sweep = False,
    extras: Extras = True,
    preset: Preset = None,
    device: Device = "cuda",
    write: Write = None,
    config: ConfigFile = None,
    as_json: AsJson = False,
) -> None:
    """Measure what purification costs, beside the LLM alone and what else one would do."""
    from purify_hooks.evaluation.bench.settings import BenchSettings

    fixed, chosen = dict(map(key_value, fields or ())), named_plugins(config)
    settings = BenchSettings(llm, slm, policy, fixed, batch, tokens, rounds, prompts, threads, clock, chosen)
    _check(settings)
    if preset:
        _preset(preset, settings, device, write, as_json)
    else:
        whose = whose_pair(llm, config, "with --llm and --slm", ", its LLM widened")
        _bench(settings, whose, sweep, extras, write, as_json)


def _bench(
    settings: BenchSettings, whose: str, sweep: bool, extras: bool, write: Path | None, as_json: bool
) -> None:
    """Say `whose` pair the settings name, and measure it; print it, or write it into the page too."""
    from purify_hooks.evaluation.bench import report

    if write:
        report.require_page(write)
    if whose:
        typer.echo(whose, err=True)
    disable_progress_bars()
    from purify_hooks.evaluation.bench.run import run_bench  # imports torch, after all that may be wrong

    with shown_progress() as progress, on_interrupt("nothing is kept of a measurement that is not whole"):
        found = run_bench(settings, progress, sweeping=sweep, extras=extras)
    if write:
        report.write(found, write)
    if as_json:
        typer.echo(json.dumps(found))
    else:
        report.show(found)


def _check(settings: BenchSettings) -> None:
    """Raise PurifyError for what cannot be measured, before anything is loaded."""
    from purify_plugins.configuration.preflight import require_two
    from purify_plugins.plugin.manager import load_plugins

    plugins = load_plugins(settings.plugins)
    plugins.policy(settings.policy, settings.parameters)
    settings.require_both()
    if settings.llm:
        require_two(plugins, settings.llm, settings.slm)


def _preset(name: str, settings: BenchSettings, device: str, write: Path | None, as_json: bool) -> None:
    """Measure a preset. Raises ConfigError for models named beside it, and for a device that is not here."""
    from purify_hooks.evaluation.bench.accelerator.command import run_preset
    from purify_hooks.local.preflight import find_device
    from purify_plugins.errors import ConfigError

    if settings.llm:
        raise ConfigError("a preset brings a pair of its own; leave out --llm and --slm, or the preset")
    disable_progress_bars()
    find_device(device)
    with shown_progress() as progress, on_interrupt("nothing is kept of a measurement that is not whole"):
        run_preset(name, settings, device, progress, write, as_json)


@contextmanager
def shown_progress() -> Iterator[Progress]:
    """What is being measured, on standard error: a line that changes; without a terminal, a line each."""
    from rich.console import Console

    console = Console(stderr=True)
    if not console.is_terminal:
        yield lambda text: typer.echo(text, err=True)
        return
    status: Any
    with console.status("loading") as status:
        yield status.update
