"""What the policies' arithmetic takes on a device, as it is and compiled into one kernel by torch."""

from __future__ import annotations

from collections.abc import Callable
from statistics import median
from typing import Any

import torch

from purify_hooks.evaluation.bench.accelerator.pair import Preset
from purify_hooks.evaluation.bench.settings import POLICIES, Clock
from purify_hooks.evaluation.bench.vocabulary import zipf
from purify_plugins.plugin.manager import Plugins
from purify_plugins.policy import Context, FusionPolicy

STEPS = 20


def policy_times(
    plugins: Plugins, size: int, preset: Preset, device: str, clock: Clock
) -> list[dict[str, Any]]:
    """For each policy and batch: milliseconds of `fuse` on rows of `size` tokens, and compiled."""
    return [
        {"vocabulary": size, "batch": rows, "policy": name, **_times(policy, size, rows, device, clock)}
        for name, policy in ((name, plugins.policy(name)) for name in POLICIES)
        for rows in preset.batches
    ]


def _times(policy: FusionPolicy, size: int, rows: int, device: str, clock: Clock) -> dict[str, float]:
    llm, slm = (torch.cat(zipf(size, seed, rows)).log_softmax(-1).to(device) for seed in (1, 2))
    state = policy.start(_nothing_read(rows, device))
    compiled = torch.compile(policy.fuse)
    with torch.inference_mode():
        expected, fused = policy.fuse(llm, slm, state), compiled(llm, slm, state)
        assert torch.allclose(expected.exp(), fused.exp(), atol=1e-5)
        return {
            "fuse_ms": _milliseconds(lambda: policy.fuse(llm, slm, state), clock),
            "compiled_ms": _milliseconds(lambda: compiled(llm, slm, state), clock),
        }


def _milliseconds(work: Callable[[], Any], clock: Clock) -> float:
    times = []
    for _ in range(STEPS):
        began = clock()
        work()
        times.append(clock() - began)
    return 1e3 * median(times)


def _nothing_read(rows: int, device: str) -> Context:
    """The context of answers whose prompts were not scored."""
    nothing = torch.zeros(rows, 0, device=device)
    lengths = torch.zeros(rows, dtype=torch.long)
    return Context(nothing, nothing, lengths, torch.zeros(rows, dtype=torch.bool))
