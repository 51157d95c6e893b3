"""Processes of one thread each: small models do not keep several cores busy one batch at a time."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from multiprocessing import get_context, parent_process
from threading import Thread

MOST = 4
"""Processes at most; each reads both models."""


@contextmanager
def hired(count: int = 0) -> Iterator[ProcessPoolExecutor]:
    """`count` processes, 0: one a core; leaving early ends their work."""
    workers = count or min(os.cpu_count() or 1, MOST)
    pool = ProcessPoolExecutor(workers, mp_context=get_context("spawn"), initializer=_prepare)
    try:
        yield pool
    finally:
        pool.shutdown(cancel_futures=True)


def _prepare() -> None:
    """One thread a process; Ctrl-C is the parent's to handle, and nobody outlives a parent that is killed."""
    import torch
    from transformers.utils import logging

    signal.signal(signal.SIGINT, signal.SIG_IGN)
    Thread(target=_leave_with_parent, daemon=True).start()
    logging.disable_progress_bar()
    torch.set_num_threads(1)


def _leave_with_parent() -> None:
    parent = parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)
