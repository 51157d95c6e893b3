"""Measure systems side by side: the models are too small to keep two cores busy one system at a time."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from functools import cache

from purify_plugins.demo.measure import Bench, Exhibit, Result
from purify_plugins.eval import workers
from purify_plugins.eval.systems import System


@contextmanager
def hired() -> Iterator[ProcessPoolExecutor]:
    """Processes that can `measure` and `exhibit`; leaving early ends their work."""
    with workers.hired() as pool:
        yield pool


@cache
def _bench() -> Bench:
    return Bench.packaged()


def measure(system: System) -> Result:
    """A system's figures, from a process that keeps its models."""
    return _bench().measure(system)


def exhibit() -> Exhibit:
    """The answers to show, likewise."""
    return _bench().exhibit()
