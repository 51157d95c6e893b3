"""Worker processes of `purify serve`: started, monitored, replaced when they die, ended together."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, wait
from typing import TYPE_CHECKING, Any

import typer

if TYPE_CHECKING:
    from multiprocessing.context import SpawnProcess

LONGEST_PAUSE = 30.0
"""The longest pause in seconds before a worker that failed to start is restarted; the first is 1 s."""
GRACE = 10.0
"""Seconds that a worker has beyond its own drain before it is killed."""


@dataclass
class WorkerStarted:
    """Sent by a worker once it serves: the text to print."""

    summary: str


@dataclass
class WorkerFailed:
    """Sent by a worker that cannot serve: the reason and the exit code."""

    why: str
    code: int


class WorkerReport:
    """A worker's pipe to its parent; if the parent is gone, the worker ends as on SIGTERM."""

    def __init__(self, line: Connection) -> None:
        self.line = line
        threading.Thread(target=self._watch, daemon=True).start()

    def _watch(self) -> None:
        with suppress(EOFError, OSError):
            self.line.recv()
        os.kill(os.getpid(), signal.SIGTERM)

    def tell(self, what: WorkerStarted | WorkerFailed) -> None:
        self.line.send(what)


@dataclass
class Worker:
    """A worker process and its pipe."""

    process: SpawnProcess
    line: Connection
    ready: bool = False


@dataclass
class Workers:
    """`number` processes that each call `work(report, *arguments)`, `drain` seconds to end an answer."""

    work: Callable[..., None]
    arguments: tuple[Any, ...]
    number: int
    drain: float
    running: list[Worker] = field(default_factory=list)
    stopping: threading.Event = field(default_factory=threading.Event)
    _pause: float = 1.0

    def run(self, told: Callable[[WorkerStarted], None]) -> int:
        """Start one, and the others once it serves; the exit code, when SIGTERM or SIGINT has ended all.

        What keeps the first from starting would keep them all: then none is started.
        """
        caught: list[int] = []
        ours = {
            each: signal.signal(each, lambda number, _: self._stop(caught, number)) for each in STOP_SIGNALS
        }
        try:
            state = self._first_message()
            if isinstance(state, WorkerStarted):
                told(state)
                self._watch()
            if isinstance(state, WorkerFailed):
                typer.echo(f"error: {state.why}", err=True)
                return state.code
            return 130 if signal.SIGINT in caught else 0
        finally:
            self._end()
            for number, handler in ours.items():
                signal.signal(number, handler)

    def _stop(self, caught: list[int], number: int) -> None:
        caught.append(number)
        self.stopping.set()

    def _first_message(self) -> WorkerStarted | WorkerFailed | None:
        """The first worker's message; None if a signal came first."""
        worker = self._start()
        while not self.stopping.is_set():
            wait([worker.line, worker.process.sentinel], timeout=0.2)
            if found := _received(worker):
                return found
            if worker.process.exitcode is not None:
                return WorkerFailed(f"a worker died while it started, with {worker.process.exitcode}", 70)
        return None

    def _start(self) -> Worker:
        context = multiprocessing.get_context("spawn")
        ours, theirs = context.Pipe()
        process = context.Process(target=_run_worker, args=(self.work, theirs, *self.arguments))
        process.start()
        theirs.close()
        worker = Worker(process, ours)
        self.running.append(worker)
        return worker

    def _watch(self) -> None:
        """Keep the number of workers until a signal comes."""
        while not self.stopping.is_set():
            while len(self.running) < self.number:
                self._start()
            wait([each.process.sentinel for each in self.running], timeout=0.2)
            for worker in list(self.running):
                self._update(worker)

    def _update(self, worker: Worker) -> None:
        """Update a worker's state; a dead one is removed, after a pause if it never served."""
        found = _received(worker)
        if worker.ready:
            self._pause = 1.0
        if worker.process.exitcode is None or self.stopping.is_set():
            return
        why = found.why if isinstance(found, WorkerFailed) else f"exit code {worker.process.exitcode}"
        typer.echo(f"worker {worker.process.pid} died ({why}); another takes its place", err=True)
        self.running.remove(worker)
        worker.line.close()
        if not worker.ready:
            self.stopping.wait(self._pause)
            self._pause = min(2 * self._pause, LONGEST_PAUSE)

    def _end(self) -> None:
        """Send SIGTERM to all workers; kill those alive after their drain."""
        for worker in self.running:
            worker.process.terminate()
        until = time.monotonic() + self.drain + GRACE
        for worker in self.running:
            worker.process.join(max(until - time.monotonic(), 0))
            if worker.process.exitcode is None:
                worker.process.kill()
                worker.process.join()
            worker.line.close()
        self.running.clear()


STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT)


def _received(worker: Worker) -> WorkerStarted | WorkerFailed | None:
    """The worker's new message, or None; marks a started worker as ready."""
    with suppress(EOFError, OSError):
        if worker.line.poll():
            found: WorkerStarted | WorkerFailed = worker.line.recv()
            worker.ready |= isinstance(found, WorkerStarted)
            return found
    return None


def _run_worker(work: Callable[..., None], line: Connection, *arguments: Any) -> None:
    with suppress(KeyboardInterrupt):  # the terminal interrupts all processes; the parent reports it
        work(WorkerReport(line), *arguments)
