"""Processes of one thread each: small models do not keep several cores busy one batch at a time."""

from __future__ import annotations

import os
import signal
import sys
import warnings
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from multiprocessing import active_children, get_context, parent_process
from threading import Thread

from purify_plugins.decode.draw_keys import adopt, secret
from purify_plugins.errors import PurifyError

MOST = 4
"""Processes at most; each reads both models."""


@contextmanager
def worker_pool(count: int = 0) -> Iterator[ProcessPoolExecutor]:
    """`count` processes, 0: one a core. Left early, by an error or Ctrl-C, it ends them in mid-work."""
    workers = count or min(os.cpu_count() or 1, MOST)
    others = set(active_children())
    pool = ProcessPoolExecutor(workers, get_context("spawn"), _prepare, (secret(),))
    try:
        with _unheard(signal.SIGINT):
            for _ in range(workers):
                pool.submit(os.getpid)  # each starts one process, which inherits what is not heard
        yield pool
    except BrokenProcessPool as error:
        advice = "free some memory, or measure with fewer processes (`purify eval --jobs 1`)"
        raise PurifyError(
            f"a process that was measuring has died, probably for want of memory; {advice}"
        ) from error
    except BaseException:
        # A task may run for a minute, and the user who pressed Ctrl-C waits for the prompt.
        for process in set(active_children()) - others:
            process.terminate()
        raise
    finally:
        pool.shutdown(cancel_futures=True)


@contextmanager
def _unheard(number: signal.Signals) -> Iterator[None]:
    """Hold a signal back, in the processes started meanwhile for good: Ctrl-C is the parent's to handle."""
    if not hasattr(signal, "pthread_sigmask"):  # Windows; there `_prepare` sees to it, a moment later
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {number})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _prepare(known: bytes) -> None:
    """One thread a process, and its parent's secret.

    Ctrl-C is the parent's to handle, and nobody outlives a parent that is killed.
    """
    if not sys.warnoptions:  # as in the parent
        warnings.simplefilter("ignore")
    import torch
    from transformers.utils import logging

    adopt(known)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    Thread(target=_leave_with_parent, daemon=True).start()
    logging.disable_progress_bar()
    torch.set_num_threads(1)


def _leave_with_parent() -> None:
    parent = parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)
