"""The whole measurement, as one JSON object."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from statistics import median
from typing import Any

from purify_hooks.evaluation.bench.anchoreddecode_baseline import anchoreddecode
from purify_hooks.evaluation.bench.counting import Counting
from purify_hooks.evaluation.bench.designs import Decoding, Design, WritingTask, designs
from purify_hooks.evaluation.bench.models import BenchModels, batches, load
from purify_hooks.evaluation.bench.settings import CLOCKS, MODES, BenchSettings, Progress, silent
from purify_hooks.evaluation.bench.timing import (
    DesignTimes,
    by_round,
    cost_ratio,
    faster,
    first_token,
    per_second,
    time_rounds,
    warm,
)
from purify_hooks.evaluation.eval.statistics import Spread
from purify_plugins.decode.loop import lockstep
from purify_plugins.decode.speculative import speculative
from purify_plugins.plugin.manager import Plugins, load_plugins

RATIOS = {
    "speculative_vs_llm": ("speculative", "llm"),
    "speculative_vs_assisted": ("speculative", "assisted"),
    "lockstep_vs_llm": ("lockstep", "llm"),
    "naive_vs_llm": ("naive", "llm"),
    "assisted_vs_llm": ("assisted", "llm"),
    "peer_vs_llm": ("anchoreddecode", "llm"),
    "anchored_vs_llm": ("anchored", "llm"),
    "anchored_vs_peer": ("anchored", "anchoreddecode"),
}
LENGTHS = range(7)
"""Draft lengths that a sweep holds fixed."""


@dataclass(frozen=True)
class Designs:
    """The designs that are compared, our own purifier, and a note on designs that are left out."""

    purifier: Counting
    designs: Mapping[str, Design]
    note: str


def designs_for(settings: BenchSettings, models: BenchModels, plugins: Plugins) -> Designs:
    """The designs that support this batch size and policy."""
    policy = plugins.policy(settings.policy, settings.parameters)
    purifier = Counting(models.llm, models.slm, policy, plugins=plugins)
    found = designs(models, purifier)
    if settings.batch > 1:
        found.pop("assisted")  # transformers assists single answers only
    others, note = anchoreddecode(models, plugins)
    return Designs(purifier, {**found, **others}, note)


def run_bench(
    settings: BenchSettings, progress: Progress = silent, *, sweeping: bool = False, extras: bool = True
) -> dict[str, Any]:
    """Measure everything; `sweeping` adds fixed draft lengths, `extras` the rest."""
    from purify_hooks.evaluation.bench.cross_tokenizer import cross_tokenizer
    from purify_hooks.evaluation.bench.memory import memory
    from purify_hooks.evaluation.bench.vocabulary import threads, vocabulary_work

    plugins = load_plugins(settings.plugins)
    with threads(settings.threads):
        progress("reading both models")
        models = load(settings, plugins)
        compared = designs_for(settings, models, plugins)
        found = _facts(settings, models, compared)
        [first, *_] = next(batches(models, settings))
        found["cost_ratio"] = cost_ratio(models, first, CLOCKS[settings.clock])
        for mode in MODES:
            found[mode] = _mode(settings, models, compared, mode, progress)
        found["sweep"] = sweep(settings, models, plugins, progress) if sweeping else None
    ours = [name for name in compared.designs if not name.startswith("anchored")]
    found["vocabulary"] = vocabulary_work(plugins, progress, clock=CLOCKS[settings.clock]) if extras else None
    found["memory"] = memory(settings, ours, progress) if extras else None
    with threads(settings.threads):
        crossed = extras and not settings.llm
        found["another_tokenizer"] = cross_tokenizer(settings, models, plugins, progress) if crossed else None
    return found


def _facts(settings: BenchSettings, models: BenchModels, compared: Designs) -> dict[str, Any]:
    """The settings, models, versions and machine."""
    import torch
    import transformers

    from purify_hooks.evaluation.eval.page import load, machine, today
    from purify_plugins.canonical_json import jsonable

    return {
        **asdict(settings),
        "title": settings.title,
        "policy": {"name": settings.policy, **jsonable(compared.purifier.policy)},
        "threads": torch.get_num_threads(),
        "model_parameters": {"llm": models.llm.parameters, "slm": models.slm.parameters},
        "versions": {"torch": torch.__version__, "transformers": transformers.__version__},
        "date": today(),
        "machine": ", ".join(filter(None, (machine(), load()))),
        "peer": compared.note or None,
    }


def _mode(
    settings: BenchSettings, models: BenchModels, compared: Designs, mode: str, progress: Progress
) -> dict[str, Any]:
    """Measure every design in one mode."""
    laps = _run(settings, models, compared.designs, [compared.purifier], mode, progress)
    counts = compared.purifier.draft_lengths.counts[mode == "greedy"]
    written = settings.tokens * len(laps["speculative"])
    return {
        **ratios(laps),
        "acceptance": counts.share,
        "tokens_per_cycle": written / counts.cycles,
        "passes_per_token": counts.cycles / written,
        "tokens_per_second": {name: speed(settings, laps, name) for name in laps},
        "first_token_ms": {name: _milliseconds(first_token(laps[name])) for name in laps},
    }


def _run(
    settings: BenchSettings,
    models: BenchModels,
    compared: Mapping[str, Design],
    purifiers: list[Counting],
    mode: str,
    progress: Progress,
) -> DesignTimes:
    """Warm up every design, reset the counts, then time the rounds."""
    [first, *_] = next(batches(models, settings))
    progress(f"{mode}: warming up")
    warm(compared, WritingTask(first, settings.tokens, MODES[mode]))
    for purifier in purifiers:
        purifier.draft_lengths.counts[mode == "greedy"].reset()
    rounds, clock = batches(models, settings), CLOCKS[settings.clock]
    return time_rounds(
        compared, rounds, settings.tokens, MODES[mode], lambda text: progress(f"{mode}, {text}"), clock
    )


def ratios(laps: DesignTimes) -> dict[str, Any]:
    """Every ratio of median speeds, and its quartiles."""
    found: dict[str, Spread | None] = {name: faster(laps, *pair) for name, pair in RATIOS.items()}
    spreads = {name: [each.low, each.high] for name, each in found.items() if each}
    return {**{name: each and each.middle for name, each in found.items()}, "quartiles": spreads}


def speed(settings: BenchSettings, laps: DesignTimes, name: str) -> float:
    """Tokens a second, all rows together, of the median round."""
    return per_second(laps[name], settings.tokens * settings.batch)


def _milliseconds(seconds: float | None) -> float | None:
    return None if seconds is None else 1e3 * seconds


def sweep(
    settings: BenchSettings, models: BenchModels, plugins: Plugins, progress: Progress
) -> dict[str, Any]:
    """The adaptive draft length beside fixed ones and lockstep, each mode's best decoder named."""
    policy = plugins.policy(settings.policy, settings.parameters)
    pinned: dict[str, int | None] = {"adaptive": None, **{str(length): length for length in LENGTHS}}
    purifiers = {
        name: Counting(models.llm, models.slm, policy, plugins=plugins, fixed=fixed)
        for name, fixed in pinned.items()
    }
    compared: dict[str, Design] = {name: Decoding(each, speculative) for name, each in purifiers.items()}
    compared["lockstep"] = Decoding(purifiers["adaptive"], lockstep)
    return {mode: _swept(_run(settings, models, compared, [], mode, progress)) for mode in MODES}


def _swept(laps: DesignTimes) -> dict[str, Any]:
    """Speeds relative to lockstep, and the adaptive length relative to the best of the others."""
    against = {name: faster(laps, name, "lockstep") for name in laps}
    speeds = {name: each.middle for name, each in against.items() if each}
    seconds = {name: by_round(each) for name, each in laps.items()}
    adaptive = seconds.pop("adaptive")
    rounds = range(len(adaptive))
    ratios = [seconds[_best(seconds, at)][at] / adaptive[at] for at in rounds]
    best = min(seconds, key=lambda name: sum(seconds[name]))
    return {"vs_lockstep": speeds, "best": best, "adaptive_vs_best": median(ratios)}


def _best(seconds: Mapping[str, Sequence[float]], at: int) -> str:
    """The fastest decoder by all other rounds, since picking by this round would favour a lucky one."""
    others = {name: sum(times) - times[at] for name, times in seconds.items()}
    alone = {name: times[at] for name, times in seconds.items()}
    found = others if any(others.values()) else alone
    return min(found, key=lambda name: found[name])
