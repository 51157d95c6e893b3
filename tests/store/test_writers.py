"""Several processes that record at once, and processes that are killed while they do."""

from __future__ import annotations

import statistics
import subprocess
import sys
import time
from pathlib import Path

import pytest

from purify_plugins import Sampling
from purify_plugins.store.checking import check
from purify_plugins.store.places import records_at
from purify_plugins.store.records import Query
from purify_plugins.store.store import CertificateStore, expire
from tests.store.test_store import KINDS
from tests.toys import real

ROOT = Path(__file__).parent.parent.parent
PROCESSES, EACH = 4, 40


def writer(kind: str, folder: Path, count: int, name: str) -> subprocess.Popen[str]:
    """A process of its own that records so many certificates."""
    place = kind.replace("answers", str(folder / "answers"))
    command = [sys.executable, "-m", "tests.store.writer", place, str(count), name]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT)


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_several_processes_write_one_chain_and_lose_nothing(kind: str, tmp_path: Path) -> None:
    """While one of them drops what is old, again and again, and one reads."""
    running = [writer(kind, tmp_path, EACH, str(at)) for at in range(PROCESSES)]
    records = records_at(kind, tmp_path)
    while any(each.poll() is None for each in running):
        expire(records, 1)
        assert check(records.records()).dropped == 0
        time.sleep(0.01)
    for each in running:
        assert each.communicate()[0].split() == [str(number) for number in range(EACH)]
    assert check(records.records()).answers == PROCESSES * EACH
    assert len({each.certificate for each in records.search(Query())}) == PROCESSES * EACH


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_a_killed_process_loses_at_most_what_it_was_writing(kind: str, tmp_path: Path) -> None:
    written = 0
    for number, seconds in enumerate((0.0, 0.013, 0.05, 0.11)):
        process = writer(kind, tmp_path, 100_000, str(number))
        assert process.stdout
        process.stdout.readline()
        time.sleep(seconds)
        process.kill()
        told = 1 + len(process.communicate()[0].split())
        records = records_at(kind, tmp_path)
        found = check(records.records()).records
        assert written + told <= found <= written + told + 1
        written = found
    CertificateStore(records).add(real("balanced").generate("A", max_tokens=2, errors="raise")[0].certificate)
    assert check(records.records()).records == written + 1


@pytest.mark.slow
@pytest.mark.alone
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("keep", ["digests", "certificates"])
def test_a_record_takes_less_than_a_millisecond(kind: str, keep: str, tmp_path: Path) -> None:
    """The median over records of answers of 200 tokens, the parsing of their certificates included."""
    [answer] = real("balanced").generate(
        "The king", Sampling(max_tokens=200, ignore_eos=True), errors="raise"
    )
    store = CertificateStore(records_at(kind, tmp_path), keep=keep)  # type: ignore[arg-type]  # of two literals
    medians = []
    for _ in range(3):  # the least: a busy disk slows a stretch
        seconds = []
        for _ in range(70):
            made = type(answer.certificate)(answer.certificate.text)  # not parsed yet
            begun = time.perf_counter()
            store.add(made)
            seconds.append(time.perf_counter() - begun)
        medians.append(statistics.median(seconds))
    print(f"{kind} {keep}: {1e3 * min(medians):.3f} ms")
    assert min(medians) < 1e-3
