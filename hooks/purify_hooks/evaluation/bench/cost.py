"""The cost of one SLM step relative to one LLM step."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import median
from typing import Any

from purify_hooks.evaluation.bench.models import BenchModels, Ids
from purify_hooks.evaluation.bench.settings import Clock

STEPS = 24


def cost_ratio(models: BenchModels, prompts: Sequence[Ids], clock: Clock, steps: int = STEPS) -> float:
    """The median time of a single-token step of the SLM over the LLM's, taken in turn."""
    llm, _ = models.llm.open(prompts)
    slm, _ = models.slm.open(prompts)
    with llm, slm:
        times = [(step(slm, len(prompts), clock), step(llm, len(prompts), clock)) for _ in range(steps)]
    small, large = zip(*times, strict=True)
    return float(median(small) / median(large))


def step(session: Any, rows: int, clock: Clock) -> float:
    """Seconds of one single-token step."""
    import torch

    token = torch.ones((rows, 1), dtype=torch.long)
    began = clock()
    session.extend(token)
    return clock() - began
