"""Worker processes of `purify serve`: started, monitored, replaced when they die, ended together."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, wait
from typing import Any

import typer

from purify_plugins.cli.worker_reload import Decision, Offer, Tried, Worker, agree, note
from purify_plugins.errors import PurifyError

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
    """A worker's pipe to its parent; if the parent is gone, the worker ends as on SIGTERM.

    `attempt` tries what the parent offers; it returns what takes it over, and raises what is wrong with it.
    """

    def __init__(self, line: Connection) -> None:
        self.line = line
        self.attempt: Callable[[Any], Callable[[], None]] | None = None
        self._tried: tuple[int, Callable[[], None]] | None = None
        threading.Thread(target=self._watch, daemon=True).start()

    def _watch(self) -> None:
        try:
            with suppress(EOFError, OSError):
                while True:
                    self._heard(self.line.recv())
        finally:  # whatever it was: a worker that reads no more would never end, and is replaced
            os.kill(os.getpid(), signal.SIGTERM)

    def _heard(self, message: Offer | Decision) -> None:
        if isinstance(message, Offer):
            self.tell(Tried(message.number, self._try(message)))
        elif message.taken and self._tried and self._tried[0] == message.number:
            self._tried[1]()
        else:
            self._tried = None

    def _try(self, offer: Offer) -> str:
        """Why an offer cannot be taken over; "": it can."""
        try:
            assert self.attempt is not None, "a worker is offered something only once it serves"
            self._tried = offer.number, self.attempt(offer.content)
        except (Exception, SystemExit) as error:  # of a model or a plugin: this worker goes on as it is
            kind = "" if isinstance(error, PurifyError) else type(error).__name__
            return " ".join(f"{kind} {error}".split())
        return ""

    def tell(self, what: WorkerStarted | WorkerFailed | Tried) -> None:
        self.line.send(what)


@dataclass
class Workers:
    """`number` processes that each call `work(report, *arguments)`, `drain` seconds to end an answer."""

    work: Callable[..., None]
    arguments: tuple[Any, ...]
    number: int
    drain: float
    hangup: Callable[[], bool] = lambda: False
    """Whether SIGHUP has come since it was last called."""
    renew: Callable[[Workers], None] = lambda _: None
    """Called when SIGHUP has come."""
    running: list[Worker] = field(default_factory=list)
    _caught: list[int] = field(default_factory=list)
    _pause: float = 1.0
    _resumes: float = 0.0
    _offers: int = 0

    def run(self, told: Callable[[WorkerStarted], None]) -> int:
        """Start one, and the others once it serves; the exit code, when SIGTERM or SIGINT has ended all.

        What keeps the first from starting would keep them all: then none is started.
        """
        # Nothing with a lock: a second signal would interrupt its holder, and wait for it for ever.
        ours = {
            each: signal.signal(each, lambda number, _: self._caught.append(number)) for each in STOP_SIGNALS
        }
        try:
            state = self._first_message()
            if isinstance(state, WorkerStarted):
                told(state)
                self._watch()
            if isinstance(state, WorkerFailed):
                typer.echo(f"error: {state.why}", err=True)
                return state.code
            return 130 if signal.SIGINT in self._caught else 0
        finally:
            self._end()
            for number, handler in ours.items():
                signal.signal(number, handler)

    def stopping(self) -> bool:
        """Whether SIGTERM or SIGINT has come."""
        return bool(self._caught)

    def _first_message(self) -> WorkerStarted | WorkerFailed | None:
        """The first worker's message; None if a signal came first."""
        worker = self._start()
        while not self.stopping():
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
        with _without_hangup():
            process.start()
        theirs.close()
        worker = Worker(process, ours)
        self.running.append(worker)
        return worker

    def _watch(self) -> None:
        """Keep the number of workers until a signal comes."""
        while not self.stopping():
            while len(self.running) < self.number and time.monotonic() >= self._resumes:
                self._start()
            wait([each.process.sentinel for each in self.running], timeout=0.2)
            for worker in list(self.running):
                self._update(worker)
            if self.hangup():
                self.renew(self)

    def offer(self, content: Any, arguments: tuple[Any, ...]) -> str:
        """Have all workers take over `content`, and later ones begin with `arguments`; "", or why none does.

        One that is still starting is started anew afterwards: it has read what was valid before.
        """
        for worker in [each for each in self.running if not each.ready]:
            worker.process.kill()
            worker.process.join()
            worker.line.close()
            self.running.remove(worker)
        self._offers += 1
        why = agree(self.running, self._offers, content, self.stopping)
        if not why:
            self.arguments = arguments
        return why

    def _update(self, worker: Worker) -> None:
        """Update a worker's state; a dead one is removed, and the next waits a pause if it never served."""
        found = _received(worker)
        if worker.ready:
            self._pause = 1.0
        if worker.process.exitcode is None or self.stopping():
            return
        why = found.why if isinstance(found, WorkerFailed) else f"exit code {worker.process.exitcode}"
        note(f"worker {worker.process.pid} died ({why}); another takes its place")
        self.running.remove(worker)
        worker.line.close()
        if not worker.ready:
            self._resumes = time.monotonic() + self._pause
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


@contextmanager
def _without_hangup() -> Iterator[None]:
    """SIGHUP is held back in this block, and in a process started in it for ever: it is the parent's."""
    if sys.platform == "win32":  # which has none
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGHUP})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


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
