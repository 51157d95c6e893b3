"""Processes that serve together: real ones, of work that takes no time."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from purify_plugins.cli.workers import WorkerFailed, WorkerReport, Workers, WorkerStarted

pytestmark = pytest.mark.slow  # starting Python a dozen times


def serves(report: WorkerReport, folder: Path) -> None:
    """Work that leaves a file for as long as it goes on, until SIGTERM."""
    ended: list[int] = []
    signal.signal(signal.SIGTERM, lambda number, _: ended.append(number))
    file = folder / str(os.getpid())
    file.touch()
    report.tell(WorkerStarted("summary"))
    while not ended:
        time.sleep(0.02)
    file.unlink()


def fails(report: WorkerReport, folder: Path) -> None:
    (folder / str(os.getpid())).touch()
    report.tell(WorkerFailed("there is no such model", 7))
    raise SystemExit(7)


def eventually(condition: Callable[[], Any], seconds: float = 60.0) -> Any:
    end = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < end
        time.sleep(0.02)
    return found


def run(workers: Workers, meanwhile: Callable[[], None]) -> tuple[int, list[WorkerStarted]]:
    """The exit code and what was told, where `meanwhile` goes on in a thread and SIGTERM follows it."""
    told: list[WorkerStarted] = []
    failed: list[BaseException] = []

    def act() -> None:
        try:
            meanwhile()
        except BaseException as error:  # told to the main thread, which waits for the signal
            failed.append(error)
        os.kill(os.getpid(), signal.SIGTERM)

    thread = threading.Thread(target=act)
    thread.start()
    code = workers.run(told.append)
    thread.join()
    assert not failed
    return code, told


def pids(folder: Path) -> set[int]:
    return {int(file.name) for file in folder.iterdir()}


def test_a_worker_that_dies_is_replaced_and_sigterm_ends_all(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    gone: list[int] = []

    def meanwhile() -> None:
        first = eventually(lambda: found if len(found := pids(tmp_path)) == 2 else None)
        gone.append(min(first))
        os.kill(gone[0], signal.SIGKILL)
        (tmp_path / str(gone[0])).unlink()
        eventually(lambda: len(pids(tmp_path)) == 2 and gone[0] not in pids(tmp_path))

    code, told = run(Workers(serves, (tmp_path,), 2, 5.0), meanwhile)
    assert (code, told) == (0, [WorkerStarted("summary")])
    assert f"worker {gone[0]} died (exit code -9); another takes its place" in capsys.readouterr().err
    assert pids(tmp_path) == set()


def test_what_keeps_the_first_from_starting_is_told_once_and_no_other_is_started(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    told: list[WorkerStarted] = []
    assert Workers(fails, (tmp_path,), 8, 5.0).run(told.append) == 7
    assert told == []
    assert capsys.readouterr().err == "error: there is no such model\n"
    assert len(pids(tmp_path)) == 1


def leads(report: WorkerReport, folder: Path) -> None:
    """Work that has workers of its own."""
    report.tell(WorkerStarted("leads"))
    Workers(serves, (folder,), 2, 5.0).run(lambda _: None)


def test_workers_end_when_whoever_started_them_is_gone(tmp_path: Path) -> None:
    """Killed, it can tell them nothing; they held the port for ever."""

    def meanwhile() -> None:
        eventually(lambda: len(pids(tmp_path)) == 2)
        os.kill(workers.running[0].process.pid or 0, signal.SIGKILL)
        eventually(lambda: not pids(tmp_path))

    workers = Workers(leads, (tmp_path,), 1, 5.0)
    run(workers, meanwhile)
