"""A token after 512 costs about what it costs after 32, whatever the architecture.

`pytest -n 0 -m "slow and alone" -s tests/test_speed.py` prints the table of docs/performance.md.
"""

from __future__ import annotations

import time
from itertools import pairwise

import pytest
import torch

from purify_hooks.local.source import LocalSource
from purify_plugins import Sampling
from tests.toys import pair
from tests.zoo import ZOO, of_the_zoo

WIDTH = 128
NEAR, FAR, SPAN = 32, 512, 24
MOST = 1.5


@pytest.mark.slow
@pytest.mark.alone
@pytest.mark.parametrize("kind", ZOO)
def test_a_token_after_512_costs_about_what_it_costs_after_32(kind: str) -> None:
    """A renamed argument made every token a reading of the whole text: 69 ms after 32, 168 after 256."""
    source = of_the_zoo(kind, WIDTH)
    costs(source, NEAR)  # what is made at the first call is made
    spent = costs(source, FAR + SPAN)
    for _ in range(2):  # the least of three readings: another process slows a stretch of one, seldom of all
        if at(spent, FAR) <= MOST * at(spent, NEAR):
            break
        spent = [min(each) for each in zip(spent, costs(source, FAR + SPAN), strict=True)]
    near, far = at(spent, NEAR), at(spent, FAR)
    print(
        f"\n| {kind} | {source.session.cache_state} | {1e3 * near:.1f} | {1e3 * far:.1f} | {far / near:.2f} |"
    )
    assert far <= MOST * near


def at(spent: list[float], place: int) -> float:
    """Seconds a token takes around this place: the lower quartile, for whatever else the machine does."""
    return sorted(spent[place - SPAN // 2 : place + SPAN // 2])[SPAN // 4]


def costs(source: LocalSource, tokens: int) -> list[float]:
    """Seconds of processor time of each token in lockstep, both models being this one, on one thread."""
    purifier, threads = pair(source, source, "geometric", walk="lockstep"), torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        ends = [
            time.thread_time()
            for _ in purifier.stream((5, 6, 7), Sampling(max_tokens=tokens, seed=0, ignore_eos=True))
        ]
    finally:
        torch.set_num_threads(threads)
    return [end - start for start, end in pairwise(ends)]
