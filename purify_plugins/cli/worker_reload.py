"""A change that all workers take over, or none: offered, tried by each, then decided."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from typing import TYPE_CHECKING, Any

import typer

if TYPE_CHECKING:
    from multiprocessing.context import SpawnProcess

LOADING = 600.0
"""Seconds that workers have to try an offer: they may load models."""


@dataclass
class Worker:
    """A worker process and its pipe."""

    process: SpawnProcess
    line: Connection
    ready: bool = False


@dataclass
class Offer:
    """Sent to a worker: something to try, without taking it over yet."""

    number: int
    content: Any


@dataclass
class Decision:
    """Sent to a worker: whether it takes over what it has tried."""

    number: int
    taken: bool


@dataclass
class Tried:
    """Sent by a worker: why it cannot take over an offer; "": it can."""

    number: int
    why: str


def note(line: str) -> None:
    """Say on standard error what happened; a service whose reader there has gone goes on without."""
    with suppress(OSError):
        typer.echo(line, err=True)


def agree(workers: Sequence[Worker], number: int, content: Any, stopping: Callable[[], bool]) -> str:
    """Offer `content` to all workers; "" if all have taken it over, else why none has."""
    for worker in workers:
        _send(worker.line, Offer(number, content))
    why = _first_objection(workers, number, stopping)
    for worker in workers:
        _send(worker.line, Decision(number, not why))
    return why


def _send(line: Connection, message: Any) -> None:
    with suppress(OSError):  # it has died: the worker that takes its place begins with what was decided
        line.send(message)


def _first_objection(workers: Sequence[Worker], number: int, stopping: Callable[[], bool]) -> str:
    waited, until = list(workers), time.monotonic() + LOADING
    while waited:
        if stopping():
            return "the gateway is shutting down"
        if time.monotonic() > until:
            return f"a worker has not tried it within {LOADING:g} s"
        wait([each.line for each in waited] + [each.process.sentinel for each in waited], timeout=0.2)
        for worker in list(waited):
            found = _reply(worker, number)
            if found is not None and found.why:
                return found.why
            if found is not None:
                waited.remove(worker)
            elif worker.process.exitcode is not None:
                return f"a worker died while it tried, with {worker.process.exitcode}"
    return ""


def _reply(worker: Worker, number: int) -> Tried | None:
    """The worker's answer to this offer; what it has said of others is passed over."""
    with suppress(EOFError, OSError):
        while worker.line.poll():
            found = worker.line.recv()
            if isinstance(found, Tried) and found.number == number:
                return found
    return None
