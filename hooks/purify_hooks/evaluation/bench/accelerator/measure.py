"""Measure a preset: every vocabulary and batch, every design, and what is done outside both models."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, replace
from time import perf_counter
from typing import Any

import torch

from purify_hooks.evaluation.bench.accelerator.pair import Preset, grown_pair
from purify_hooks.evaluation.bench.accelerator.policy_times import policy_times
from purify_hooks.evaluation.bench.counting import Counting
from purify_hooks.evaluation.bench.designs import (
    Assisted,
    Decoding,
    Design,
    Generating,
    Stopwatch,
    WritingTask,
)
from purify_hooks.evaluation.bench.models import BenchModels, batches
from purify_hooks.evaluation.bench.settings import MODES, BenchSettings, Progress
from purify_hooks.evaluation.bench.timing import first_token, lap, per_second, time_rounds, warm
from purify_plugins.decode.loop import lockstep
from purify_plugins.decode.speculative import speculative
from purify_plugins.plugin.manager import Plugins, load_plugins

MB = 1e6
WARM = 2
"""Untimed answers of each design: a draft's every new length may be compiled."""


def finished() -> float:
    """The wall's clock, once the device has done what it was asked."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return perf_counter()


class CompiledGenerating(Generating):
    """transformers' `generate` with its static cache, for which it compiles the model on an accelerator."""

    def configured(self, task: WritingTask) -> Any:
        config = super().configured(task)
        config.cache_implementation = "static"
        return config


class Timed:
    """A model's call, which counts its seconds."""

    def __init__(self, model: Any) -> None:
        self.inner, self.seconds = model, 0.0

    @property
    def config(self) -> Any:
        return self.inner.config

    def __call__(self, *inputs: Any, **options: Any) -> Any:
        began = finished()
        try:
            return self.inner(*inputs, **options)
        finally:
            self.seconds += finished() - began


def measured(preset: Preset, settings: BenchSettings, device: str, progress: Progress) -> dict[str, Any]:
    """Everything, as one JSON object."""
    plugins = load_plugins(settings.plugins)
    found: dict[str, Any] = {**_facts(settings, device), "preset": asdict(preset), "cells": []}
    for size in preset.vocabularies:
        progress(f"making the pair with {size} tokens")
        models = grown_pair(preset, size, device, plugins)
        found["model_parameters"] = {
            side: each.model.num_parameters() for side, each in zip(("llm", "slm"), models, strict=False)
        }
        for batch in preset.batches:
            here = replace(settings, batch=batch, prompts=batch)
            found["cells"].append(_cell(models, here, plugins, device, size, progress))
        found.setdefault("policies", []).extend(policy_times(plugins, size, preset, device, finished))
        del models
        _free()
    return found


def _facts(settings: BenchSettings, device: str) -> dict[str, Any]:
    import transformers

    from purify_hooks.evaluation.eval.page import machine, today

    card = torch.cuda.get_device_name() if device.startswith("cuda") else machine()
    versions = {"torch": torch.__version__, "transformers": transformers.__version__}
    policy = {"policy": settings.policy, "parameters": dict(settings.parameters)}
    sizes = {"tokens": settings.tokens, "rounds": settings.rounds}
    return {**policy, **sizes, "device": card, "versions": versions, "date": today()}


def _cell(
    models: BenchModels,
    settings: BenchSettings,
    plugins: Plugins,
    device: str,
    size: int,
    progress: Progress,
) -> dict[str, Any]:
    """One vocabulary and batch: every design in both modes."""
    cell: dict[str, Any] = {"vocabulary": size, "batch": settings.batch, "modes": {}}
    compared, sources = _designs(models, settings, plugins)
    for mode, temperature in MODES.items():

        def shown(text: str, mode: str = mode) -> None:
            progress(f"{size} tokens, batch {settings.batch}, {mode}, {text}")

        [first, *_] = next(batches(models, settings))
        task = WritingTask(first, settings.tokens, temperature)
        shown("warming up")
        for _ in range(WARM):
            warm(compared, task)
        rounds = batches(models, settings)
        laps = time_rounds(compared, rounds, settings.tokens, temperature, shown, finished)
        cell["modes"][mode] = {
            name: {
                "tokens_per_second": per_second(times, settings.tokens * settings.batch),
                "first_token_ms": 1e3 * (first_token(times) or 0.0),
                **_shares(compared[name], sources.get(name), task),
                "memory_mb": _memory(compared[name], task, device),
            }
            for name, times in laps.items()
        }
    return cell


def _designs(
    models: BenchModels, settings: BenchSettings, plugins: Plugins
) -> tuple[dict[str, Design], dict[str, BenchModels]]:
    """The designs by name, and the sources of those whose passes can be timed."""
    found: dict[str, Design] = {"llm": Generating(models), "llm, compiled": CompiledGenerating(models)}
    if settings.batch == 1:
        found["assisted"] = Assisted(models)
    sources: dict[str, BenchModels] = {}
    for ending, compiled in {"": False, ", compiled": True}.items():
        pair = BenchModels(models.llm.twin(compiled), models.slm.twin(compiled))
        purifier = Counting(
            pair.llm, pair.slm, plugins.policy(settings.policy, dict(settings.parameters)), plugins=plugins
        )
        for name, walk in {"lockstep": lockstep, "speculative": speculative}.items():
            found[name + ending], sources[name + ending] = Decoding(purifier, walk), pair
    return found, sources


def _shares(design: Design, pair: BenchModels | None, task: WritingTask) -> dict[str, Any]:
    """Milliseconds a token of one more answer in either model and outside both; None if untimed."""
    if pair is None:
        return {"llm_ms": None, "slm_ms": None, "outside_ms": None, "outside": None}
    with timed_forwards(pair) as (llm, slm):
        whole = lap(design, "shares", 0, task, finished).seconds
    each = 1e3 / task.tokens
    outside = max(whole - llm() - slm(), 0.0)
    times = {"llm_ms": llm() * each, "slm_ms": slm() * each, "outside_ms": outside * each}
    return {**times, "outside": outside / whole}


@contextmanager
def timed_forwards(pair: BenchModels) -> Iterator[list[Any]]:
    """Time every pass of both models; yields a function for each, which tells the seconds so far."""
    kept = []
    told = []
    for source in (pair.llm, pair.slm):
        model = source.local_model
        before = {"forward": model.forward, "compiled": model.compiled}
        timers = {name: Timed(forward.model) for name, forward in before.items()}
        vars(model).update({name: before[name].of(timers[name]) for name in before})
        kept.append((model, before))
        told.append(lambda timers=timers: sum(each.seconds for each in timers.values()))
    try:
        yield told
    finally:
        for model, before in kept:
            vars(model).update(before)


def _memory(design: Design, task: WritingTask, device: str) -> float | None:
    """What one more answer adds at most to the device's memory, in megabytes; None off CUDA."""
    if not device.startswith("cuda"):
        return None
    _free()
    before = torch.cuda.memory_allocated()
    torch.cuda.reset_peak_memory_stats()
    design(task, Stopwatch())
    return (torch.cuda.max_memory_allocated() - before) / MB


def _free() -> None:
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
