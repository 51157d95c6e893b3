"""Measure systems side by side: the models are too small to keep two cores busy one system at a time."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from functools import cache
from multiprocessing import get_context

from purify_plugins.demo.measure import Bench, Exhibit, Result, System

MOST = 4
"""Processes at most; each reads both models."""


@contextmanager
def hired() -> Iterator[ProcessPoolExecutor]:
    """Processes that can `measure` and `exhibit`; leaving early ends their work."""
    workers = min(os.cpu_count() or 1, MOST)
    pool = ProcessPoolExecutor(workers, mp_context=get_context("spawn"), initializer=_prepare)
    try:
        yield pool
    finally:
        pool.shutdown(cancel_futures=True)


def _prepare() -> None:
    """One thread a process; Ctrl-C is the parent's to handle."""
    import torch
    from transformers.utils import logging

    signal.signal(signal.SIGINT, signal.SIG_IGN)
    logging.disable_progress_bar()
    torch.set_num_threads(1)


@cache
def _bench() -> Bench:
    return Bench.load()


def measure(system: System) -> Result:
    """A system's figures, from a process that keeps its models."""
    return _bench().measure(system)


def exhibit() -> Exhibit:
    """The answers to show, likewise."""
    return _bench().exhibit()
