"""`allowance`: nats are reserved before an answer, settled after it, and no crash loses them."""

from __future__ import annotations

import json
import math
import os
import signal
import sqlite3
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from purify_hooks.stages import allowance
from purify_hooks.stages.allowance import Allowance, Reservation, beginning, cost
from purify_hooks.stages.spending import KEPT, Spending
from purify_plugins import ConfigError, RefusedError
from purify_plugins.stages.request import Request
from purify_plugins.types import Certificate, Completion
from tests.stages.program import request


def answer(spent: float, added: float = 0.0) -> Completion:
    body = json.dumps({"ledger": {"spent": str(spent), "added": str(added)}})
    return Completion("", (), "eos", (), Certificate(body))


@pytest.fixture
def stage(tmp_path: Path) -> Allowance:
    return Allowance(30, store=str(tmp_path / "a.sqlite"), reserve=10)


def asked(stage: Allowance, user: str = "ada") -> Request:
    return stage.answer(request(about={"user": user}))


def settle(found: Request, spent: float, added: float = 0.0) -> None:
    [check] = found.checks
    check.fresh().released(answer(spent, added))


def test_an_answer_is_charged_before_it_is_drawn_and_settled_by_its_ledger(stage: Allowance) -> None:
    found = asked(stage)
    assert stage.left("ada") == 20
    settle(found, 1.5, 0.5)
    assert stage.left("ada") == 28
    assert stage.left("bob") == 30


def test_where_it_is_spent_the_slm_answers_alone_and_is_not_charged(stage: Allowance) -> None:
    for _ in range(3):
        assert not asked(stage).slm_only
    alone = asked(stage)
    assert alone.slm_only
    assert not alone.checks
    assert stage.left("ada") == 0
    assert not asked(stage, "bob").slm_only


def test_on_empty_may_refuse(tmp_path: Path) -> None:
    stage = Allowance(10, store=str(tmp_path / "a.sqlite"), on_empty="refuse", reserve=10)
    asked(stage)
    with pytest.raises(RefusedError, match="10 nats a day are spent") as refused:
        asked(stage)
    assert refused.value.key == "allowance"


def test_what_is_left_over_is_asked_for_again(stage: Allowance) -> None:
    for _ in range(12):
        settle(asked(stage), 1.0)
    assert stage.left("ada") == 18


def test_an_answer_likelier_under_the_slm_gives_nothing_back(stage: Allowance) -> None:
    assert cost(answer(-4.0, 0.7)) == pytest.approx(0.7)


def test_an_answer_that_costs_more_than_was_reserved_is_charged_in_full(stage: Allowance) -> None:
    settle(asked(stage), 25.0)
    assert stage.left("ada") == 5
    assert asked(stage).slm_only


def test_what_is_never_settled_stays_charged(stage: Allowance) -> None:
    asked(stage)
    assert Allowance(30, store=stage.store, reserve=10).left("ada") == 20


def test_without_a_reserve_a_tenth_is_charged(tmp_path: Path) -> None:
    stage = Allowance(50, store=str(tmp_path / "a.sqlite"))
    asked(stage)
    assert stage.left("ada") == 45


def test_requests_of_no_user_share_one(stage: Allowance) -> None:
    stage.answer(request())
    stage.answer(request(about={"conversation": "x"}))
    assert stage.left() == 10


def test_the_slm_alone_costs_nothing(stage: Allowance) -> None:
    given = request(about={"user": "ada"}).alone()
    assert stage.answer(given) is given
    assert stage.left("ada") == 30


@pytest.mark.parametrize(
    ("per", "began"),
    [
        ("hour", "2026-11-26T15:00"),
        ("day", "2026-11-26T00:00"),
        ("week", "2026-11-23T00:00"),
        ("month", "2026-11-01T00:00"),
    ],
)
def test_a_period_begins_in_utc(per: Any, began: str) -> None:
    now = datetime(2026, 11, 26, 15, 42, 7, 9, UTC)  # a Thursday
    assert beginning(per, now) == datetime.fromisoformat(began).replace(tzinfo=UTC)


def test_the_next_day_begins_anew(stage: Allowance, monkeypatch: pytest.MonkeyPatch) -> None:
    class Clock(datetime):
        at = datetime(2026, 11, 26, 23, 59, tzinfo=UTC)

        @classmethod
        def now(cls, tz: Any = None) -> Any:
            return cls.at

    monkeypatch.setattr(allowance, "datetime", Clock)
    for _ in range(3):
        asked(stage)
    assert asked(stage).slm_only
    Clock.at = datetime(2026, 11, 27, 0, 0, tzinfo=UTC)
    assert stage.left("ada") == 30
    assert not asked(stage).slm_only


def test_charges_are_kept_longer_than_a_month_and_no_longer(tmp_path: Path) -> None:
    spending = Spending(str(tmp_path / "a.sqlite"))
    spending.prepare()
    spending.reserve("ada", 1, 9, 0, now=100.0)
    spending.reserve("ada", 1, 9, 0, now=100.0 + 32 * 86400)
    assert spending.spent("ada", 0) == 2
    spending.reserve("bob", 1, 9, 0, now=101.0 + KEPT)
    assert spending.spent("ada", 0) == 1


# Threads, processes, and the kill that comes between


def test_threads_never_reserve_more_than_there_is(tmp_path: Path) -> None:
    stage = Allowance(100, store=str(tmp_path / "a.sqlite"), reserve=5)
    with ThreadPoolExecutor(16) as pool:
        found = [*pool.map(lambda _: asked(stage), range(64))]
    assert sum(not each.slm_only for each in found) == 20
    assert stage.left("ada") == 0


CHILD = """
import sys
from purify_hooks.stages.allowance import Allowance
from purify_plugins.stages.request import Request

stage = Allowance(100, store=sys.argv[1], reserve=5)
for _ in range(20):
    print(int(stage.answer(Request("x", about={"user": "ada"})).slm_only), flush=True)
if sys.argv[2] == "wait":
    sys.stdin.read()
"""


def child(store: str, end: str = "") -> subprocess.Popen[str]:
    arguments = [sys.executable, "-c", CHILD, store, end]
    return subprocess.Popen(arguments, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def test_processes_never_reserve_more_than_there_is(tmp_path: Path) -> None:
    store = str(tmp_path / "a.sqlite")
    outputs = [each.communicate(timeout=120)[0] for each in [child(store) for _ in range(3)]]
    assert "".join(outputs).split().count("0") == 20


def test_a_killed_process_leaves_its_reservations_charged_and_the_store_usable(tmp_path: Path) -> None:
    stage = Allowance(100, store=str(tmp_path / "a.sqlite"), reserve=5)
    killed = child(stage.store, "wait")
    assert killed.stdout is not None
    for _ in range(7):
        killed.stdout.readline()
    os.kill(killed.pid, signal.SIGKILL)
    killed.wait(timeout=60)
    killed.stdout.close()
    assert killed.stdin is not None
    killed.stdin.close()
    assert stage.left("ada") <= 65  # seven were told of, and none was settled
    assert stage.left("bob") == 100
    settle(asked(stage, "bob"), 1.0)
    assert stage.left("bob") == 99


def test_a_writer_that_is_killed_within_its_write_has_written_nothing(tmp_path: Path) -> None:
    stage = Allowance(100, store=str(tmp_path / "a.sqlite"), reserve=5)
    code = (
        "import sqlite3, sys, time\n"
        "database = sqlite3.connect(sys.argv[1], isolation_level=None)\n"
        "database.execute('BEGIN IMMEDIATE')\n"
        "database.execute(\"INSERT INTO charges VALUES ('x', 'ada', 1e12, 50, 0)\")\n"
        "print('begun', flush=True)\n"
        "time.sleep(600)\n"
    )
    arguments = [sys.executable, "-c", code, stage.store]
    with subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True) as writer:
        assert writer.stdout is not None
        assert writer.stdout.readline() == "begun\n"
        writer.kill()
    began = time.monotonic()
    assert not asked(stage).slm_only
    assert stage.left("ada") == 95
    assert time.monotonic() - began < 20  # its lock is gone with it


# What goes wrong


def test_a_store_that_fails_refuses(stage: Allowance) -> None:
    with sqlite3.connect(stage.store) as database:
        database.execute("DROP TABLE charges")
    with pytest.raises(RefusedError, match="store failed") as refused:
        asked(stage)
    assert refused.value.key == "allowance"
    assert stage.store not in str(refused.value)


@pytest.mark.parametrize(
    ("keys", "why"),
    [
        ({"nats": 0}, "above 0"),
        ({"nats": math.inf}, "above 0"),
        ({"nats": 20, "reserve": -1}, "at least 0"),
        ({"nats": 5, "reserve": 6}, "give more nats"),
        ({"nats": 20, "per": "year"}, "'hour', 'day'"),
        ({"nats": 20, "on_empty": "llm"}, "'slm', 'refuse'"),
        ({"nats": 20, "store": "no/such/folder/a.sqlite"}, "cannot be written"),
        ({"nats": 20, "store": ""}, "path"),
    ],
)
def test_a_bad_option_is_an_error_when_it_is_made(
    keys: dict[str, Any], why: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError, match=why):
        Allowance(**keys)


def test_a_file_that_is_no_database_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "a.sqlite").write_text("x" * 5000)
    with pytest.raises(ConfigError, match="cannot be written"):
        Allowance(20, store=str(tmp_path / "a.sqlite"))


def test_certificates_state_the_allowance_and_neither_the_store_nor_the_user(stage: Allowance) -> None:
    assert stage.public() == {"nats": 30, "per": "day", "on_empty": "slm", "reserve": 10}
    [check] = asked(stage).checks
    assert isinstance(check, Reservation)
    assert check.judged() == {"reserved": 10.0}
    assert stage.choices == 1


def test_the_reservation_holds_nothing_back(stage: Allowance) -> None:
    [check] = asked(stage).checks
    assert check.window == 0
    assert check.clear("any text", last=False) == 8
