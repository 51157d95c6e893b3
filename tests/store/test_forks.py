"""Processes that are forked while another thread records or signs."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
from pathlib import Path
from threading import Thread
from typing import Any

import pytest

from purify_plugins.store.places import records_at
from purify_plugins.store.sqlite import _transaction
from purify_plugins.store.store import CertificateStore
from tests.store.test_store import KINDS

ROOT = Path(__file__).parent.parent.parent
FORKED = """
import os, signal, sys, threading, warnings
from contextlib import ExitStack
from pathlib import Path
from purify_plugins.errors import PurifyError
from purify_plugins.signing.keys import HeldKey
from purify_plugins.signing.signer import Signer
from purify_plugins.store.places import records_at
from purify_plugins.store.store import CertificateStore, event
from tests.test_certificate import answer

warnings.simplefilter("ignore")  # Python 3.12 warns of every fork in a process with threads
folder = Path(sys.argv[1])
records = [records_at(kind, folder) for kind in ("sqlite:answers.db", "answers")]
stores = [CertificateStore(each) for each in records]
signer, certificate = Signer([HeldKey.new()], folder / "log"), answer(length=2).certificate
held, end = threading.Event(), threading.Event()


def hold():
    with ExitStack() as all_of_them:
        for each in (records[0]._open(), records[1]._held(), stores[0]._state.lock, signer._lock):
            all_of_them.enter_context(each)
        held.set()
        end.wait()


holding = threading.Thread(target=hold)
holding.start()
held.wait()
freed, told = os.pipe()
child = os.fork()
if not child:
    signal.alarm(60)
    os.read(freed, 1)
    for store in stores:
        store.add(signer.signed(certificate))
    os._exit(0)
end.set()
holding.join()
for store in stores:
    store.add(signer.signed(certificate))  # while the child lives
os.write(told, b"x")
_, status = os.waitpid(child, 0)
print([os.waitstatus_to_exitcode(status), *(len(list(each.records())) for each in records)])
"""


@pytest.mark.skipif(os.name != "posix", reason="Windows has no fork")
def test_a_process_forked_while_others_hold_the_locks_waits_for_nobody_and_keeps_none(tmp_path: Path) -> None:
    """The child waited for ever for threads that it does not have; a directory's lock stayed taken by it."""
    command = [sys.executable, "-c", FORKED, str(tmp_path)]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=200, cwd=ROOT)
    assert ran.stdout == "[0, 2, 2]\n", ran.stderr


@pytest.mark.parametrize("kind", KINDS)
def test_an_abandoned_answer_may_be_collected_where_its_thread_holds_the_lock(
    kind: str, tmp_path: Path
) -> None:
    store = CertificateStore(records_at(kind, tmp_path))

    def collected() -> None:
        with store._state.lock:
            store.unfinished(3)

    thread = Thread(target=collected, daemon=True)
    thread.start()
    thread.join(60)
    assert not thread.is_alive()
    assert [each.event for each in store.records.records()] == ["unfinished"]


class Interrupted(sqlite3.Connection):
    """Ctrl-C comes while a transaction is begun, which may have waited for another process's."""

    def execute(self, statement: str, *given: Any) -> sqlite3.Cursor:
        found = super().execute(statement, *given)
        if statement.startswith("BEGIN"):
            raise KeyboardInterrupt
        return found


def test_an_interrupt_leaves_no_transaction_open(tmp_path: Path) -> None:
    """Every later one would have been refused, and other processes locked out."""
    connection = sqlite3.connect(tmp_path / "a.db", isolation_level=None, factory=Interrupted)
    try:
        with pytest.raises(KeyboardInterrupt), _transaction(connection):
            raise AssertionError("unreachable")
        assert not connection.in_transaction
    finally:
        connection.close()
