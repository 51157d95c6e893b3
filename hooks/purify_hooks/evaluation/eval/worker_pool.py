"""A pool of single-threaded worker processes: one batch of a small model does not fill several cores."""

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
    """`count` worker processes; 0: one a core, at most MOST. An error or Ctrl-C terminates them at once."""
    workers = count or min(os.cpu_count() or 1, MOST)
    others = set(active_children())
    pool = ProcessPoolExecutor(workers, get_context("spawn"), _prepare, (secret(),))
    try:
        with _blocked(signal.SIGINT):
            for _ in range(workers):
                pool.submit(os.getpid)  # each starts one process, which inherits the signal mask
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
def _blocked(number: signal.Signals) -> Iterator[None]:
    """Block a signal; processes started meanwhile inherit the mask: the parent handles Ctrl-C."""
    if not hasattr(signal, "pthread_sigmask"):  # Windows; there `_prepare` sees to it, a moment later
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {number})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _prepare(known: bytes) -> None:
    """Initialise a worker: one thread, and the parent's secret.

    The worker ignores Ctrl-C, and exits when its parent is killed.
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
