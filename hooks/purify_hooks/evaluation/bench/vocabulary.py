"""The cost of fusing and choosing a token, without models: all work that grows with the vocabulary.

The decoder is timed between two sources that play back prepared rows. The floor is the time
to read both rows once.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import pairwise
from statistics import median
from time import perf_counter
from typing import Any

import torch
from torch import Tensor

from purify_hooks.evaluation.bench.settings import POLICIES, Clock, Progress, silent
from purify_hooks.evaluation.eval.sources import Playback
from purify_plugins.decode.loop import lockstep
from purify_plugins.plugin.manager import Plugins
from purify_plugins.purifier import Purifier
from purify_plugins.sampling import Sampling
from purify_plugins.types import ScoredPrompt, Vocabulary

SIZES = {"32k": 1 << 15, "128k": 1 << 17, "256k": 1 << 18}
STEPS = 40
PROMPT = tuple(range(1, 9))


def vocabulary_work(
    plugins: Plugins, progress: Progress = silent, steps: int = STEPS, clock: Clock = perf_counter
) -> dict[str, Any]:
    """Milliseconds a token for every size, policy and way of choosing, on one core."""
    with threads(1):
        return {name: _size(plugins, name, size, progress, steps, clock) for name, size in SIZES.items()}


def _size(
    plugins: Plugins, name: str, size: int, progress: Progress, steps: int, clock: Clock
) -> dict[str, Any]:
    progress(f"choosing among {name} tokens")
    first, second = zipf(size, 1), zipf(size, 2)
    llm, slm = playing(size, first), playing(size, second)
    found: dict[str, Any] = {"floor_ms": 1e3 * floor(first, second, clock)}
    for policy in POLICIES:
        purifier = Purifier(llm, slm, plugins.policy(policy), plugins=plugins)
        times = {mode: seconds(purifier, draw, steps, clock) for mode, draw in draws(steps).items()}
        found[policy] = {f"{mode}_ms": 1e3 * time for mode, time in times.items()}
    return found


def draws(steps: int) -> Mapping[str, Sampling]:
    """The ways of choosing that are timed."""
    return {
        "greedy": Sampling(max_tokens=steps, temperature=0),
        "sampled": Sampling(max_tokens=steps),
        "top_p": Sampling(max_tokens=steps, top_p=0.9),
    }


def seconds(purifier: Purifier, sampling: Sampling, steps: int, clock: Clock) -> float:
    """The median time from one token to the next."""
    walk = lockstep(purifier, [PROMPT], sampling)
    moments = [clock() for _ in walk]
    times = [after - before for before, after in pairwise(moments)]
    return median(times[steps // 4 :])


def floor(llm: Sequence[Tensor], slm: Sequence[Tensor], clock: Clock) -> float:
    """The median time to read one row of each once."""
    times = []
    for left, right in list(zip(llm, slm, strict=True)) * 5:
        began = clock()
        left.sum()
        right.sum()
        times.append(clock() - began)
    return median(times)


def zipf(size: int, seed: int, rows: int = 8) -> list[Tensor]:
    """Logits (1, size) with a Zipf-like tail, rank^-1.5, and noise.

    The ranks are the same for every seed, so that two such models mostly agree.
    """
    shared, own = torch.Generator().manual_seed(0), torch.Generator().manual_seed(seed)
    ranks = [torch.randperm(size, generator=shared) for _ in range(rows)]
    return [(-1.5 * (rank + 1.0).log() + 0.5 * torch.randn(size, generator=own))[None] for rank in ranks]


def playing(size: int, rows: Sequence[Tensor]) -> Playback:
    """A source that plays back prepared rows (1, V) in turn, at no cost."""
    tokens = tuple(index.to_bytes(3, "big") for index in range(size))
    prompt = ScoredPrompt(PROMPT, (-1.0,) * (len(PROMPT) - 1))
    vocabulary = Vocabulary(tokens, frozenset(), name="played")
    return Playback(vocabulary, lambda start, _: rows[(start - 1) % len(rows)][:, None], [prompt])


@contextmanager
def threads(number: int | None) -> Iterator[None]:
    """Let torch use `number` threads, and then as many as before; None changes nothing."""
    before = torch.get_num_threads()
    torch.set_num_threads(number or before)
    try:
        yield
    finally:
        torch.set_num_threads(before)
