"""The store of certificates: a chain that nothing leaves untold, over both kinds of place."""

from __future__ import annotations

import json
import logging
import resource
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from purify_plugins.errors import ConfigError, StoreAlteredError, StoreError
from purify_plugins.signing.keys import HeldKey
from purify_plugins.signing.signer import Signer
from purify_plugins.store import folder as folder_module
from purify_plugins.store import sqlite as sqlite_module
from purify_plugins.store.checking import check
from purify_plugins.store.folder import exported
from purify_plugins.store.places import records_at
from purify_plugins.store.record import Entry, StoreRecord
from purify_plugins.store.records import Query, Records, answer_digests
from purify_plugins.store.store import CertificateStore, entry, erase, expire
from purify_plugins.types import Certificate
from tests.store.writer import certificate

KINDS = ("sqlite:answers.db", "answers")


@pytest.fixture(params=KINDS)
def records(request: pytest.FixtureRequest, tmp_path: Path) -> Records:
    return records_at(request.param, tmp_path)


def filled(records: Records, count: int = 5) -> list[Certificate]:
    made = [certificate(str(at)) for at in range(count)]
    for each in made:
        CertificateStore(records, keep="certificates").add(each)
    return made


def content(place: Path) -> bytes:
    """Every byte that lies anywhere below a directory."""
    return b"".join(each.read_bytes() for each in sorted(place.rglob("*")) if each.is_file())


def test_every_certificate_is_found_by_what_is_known_of_it(records: Records) -> None:
    made = filled(records)
    first = made[0].body
    for query in (
        Query(digest=made[0].digest),
        Query(digest=first["answer"]["sha256"]),
        Query(answers=answer_digests(b"0\n")),
    ):
        assert [each.certificate for each in records.search(query)] == [made[0].digest]
    [model] = {each.facts["models"]["llm"] for each in records.search(Query(digest=made[1].digest))}
    assert [each.number for each in records.search(Query(model=model))] == [1]
    for query in (Query(), Query(policy="balanced"), Query(guarantee="passage"), Query(since="2020-01-01")):
        assert [each.number for each in records.search(query)] == [0, 1, 2, 3, 4]
    for query in (Query(policy="minimum"), Query(guarantee="path"), Query(until="2020"), Query(tenant="a")):
        assert not [*records.search(query)]
    assert check(records.records()).answers == 5


def test_by_default_a_record_holds_digests_and_nothing_of_a_text(records: Records, tmp_path: Path) -> None:
    CertificateStore(records).add(made := certificate("a secret"))
    [record] = records.records()
    kept = {"issued", "answer", "document", "signed", "models", "policy", "guarantee", "adversary"}
    assert record.facts.keys() == kept | {"log_ratio", "tokens", "tenant", "salt", "kept"}
    assert record.document is None
    assert made.text.encode() not in content(tmp_path)
    CertificateStore(records, keep="certificates").add(made)
    assert [each.document for each in records.records()] == [None, made.text]


def test_what_is_erased_lies_nowhere_any_more_and_its_tombstone_says_when_and_why(
    records: Records, tmp_path: Path
) -> None:
    made = filled(records)
    answer = made[2].body["answer"]["sha256"]
    [before] = records.search(Query(digest=answer))
    assert erase(records, answer, "request 7") == 1
    left = content(tmp_path)
    for gone in (answer, str(before.facts["salt"]), before.facts["models"]["llm"]):
        assert gone.encode() not in left
    [stone] = [each for each in records.records() if each.dropped is not None]
    assert (stone.certificate, stone.content, stone.document) == (made[2].digest, None, None)
    told = [*records.records()][stone.dropped or 0].facts
    assert (told["event"], told["why"], told["numbers"]) == ("erased", "request 7", [[2, 2]])
    found = check(records.records())
    assert (found.answers, found.dropped, found.documents, found.unfinished) == (4, 1, 4, [])
    assert erase(records, answer, "again") == 0
    CertificateStore(records).add(made[2])
    assert erase(records, made[2].digest, "by the certificate's digest") == 1


def _aged(records: Records, made: Certificate, days: int) -> None:
    when = (datetime.now(UTC) - timedelta(days=days)).strftime("%Y-%m-%dT%H:%M:%SZ")
    new = entry(made)
    records.append([new._replace(content={**new.content, "issued": when})])


def test_retention_drops_what_is_older_and_leaves_the_chain_whole(records: Records) -> None:
    for at, days in enumerate((400, 185, 183, 300, 1)):
        _aged(records, certificate(str(at)), days)
    assert expire(records, 184) == 3
    assert [each.number for each in records.search(Query())] == [2, 4]
    found = check(records.records())
    assert (found.answers, found.dropped, found.events["expired"]) == (2, 3, 1)
    assert [*records.records()][-1].facts["numbers"] == [[0, 1], [3, 3]]
    assert expire(records, 184) == 0


def test_a_service_drops_what_is_old_once_a_day(records: Records, monkeypatch: pytest.MonkeyPatch) -> None:
    class AtOnce:
        def __init__(self, target: Callable[[], None], **_: object) -> None:
            self.start = target

    monkeypatch.setattr("purify_plugins.store.store.Thread", AtOnce)
    store = CertificateStore(records, retention=184)
    _aged(records, certificate("old"), 185)
    _aged(records, certificate("recent"), 1)
    store.add(certificate("new"))
    assert check(records.records()).dropped == 1
    _aged(records, certificate("older"), 200)
    store.add(certificate("newer"))
    assert check(records.records()).dropped == 1
    monkeypatch.setattr("purify_plugins.store.store.now", lambda: "2040-01-01T00:00:00Z")
    store.add(certificate("a day later"))
    assert check(records.records()).dropped == 2


# Edits


def _columns(place: Path) -> Iterator[Callable[[], None]]:
    """Single edits of an SQLite store by somebody who can write to its file."""
    edits = [
        "UPDATE record SET content = replace(content, 'passage', 'path') WHERE number = 1",
        "UPDATE record SET content = replace(content, '1.5', '0.5') WHERE number = 4",
        "UPDATE record SET certificate = replace(certificate, substr(certificate, 1, 1), 'g')",
        "UPDATE record SET content_sha256 = replace(content_sha256, substr(content_sha256, 1, 1), 'g')",
        "UPDATE record SET previous = replace(previous, '0', '1') WHERE number = 0",
        "UPDATE record SET document = document || ' ' WHERE number = 3",
        "UPDATE record SET content = NULL, document = NULL WHERE number = 1",
        "UPDATE record SET content = NULL, document = NULL, dropped = 4 WHERE number = 1",
        "UPDATE record SET dropped = 4 WHERE number = 1",
        "UPDATE record SET number = 99 WHERE number = 4",
        "DELETE FROM record WHERE number = 0",
        "DELETE FROM record WHERE number = 3",
    ]
    for edit in edits:

        def apply(edit: str = edit) -> None:
            with sqlite3.connect(place / "answers.db") as connection:
                for [name] in connection.execute("SELECT name FROM sqlite_master WHERE type = 'trigger'"):
                    connection.execute(f"DROP TRIGGER {name}")
                assert connection.execute(edit).rowcount
            connection.close()

        yield apply


def _lines(place: Path) -> Iterator[Callable[[], None]]:
    """Single edits of a store in a directory."""
    [file] = place.glob("answers/*.jsonl")
    whole = file.read_bytes()
    lines = whole.splitlines(keepends=True)
    gone = json.loads(lines[2])
    cut = {name: value for name, value in gone.items() if name not in ("content", "document")}
    changed = [
        whole.replace(b"passage", b"path", 1),
        whole.replace(b'"tokens":8', b'"tokens":9', 1),
        whole.replace(b'"number":2', b'"number":3', 1),
        b"".join([*lines[:1], *lines[2:]]),
        b"".join([lines[1], lines[0], *lines[2:]]),
        b"".join(lines[1:]),
        b"".join([*lines[:3], lines[2], *lines[3:]]),
        whole.replace(lines[2], json.dumps({**cut, "content": None}).encode() + b"\n"),
        whole.replace(b'{"certificate"', b'{ "certificate"', 1),
        whole.replace(b"1.5000", b"1.5001", 1),
        whole.replace(b"\n", b"\n\n", 1),
        b"\xff" + whole,
    ]
    for data in changed:
        assert data != whole
        yield lambda data=data: file.write_bytes(data) and None  # type: ignore[misc]  # mypy infers no lambda here
        file.write_bytes(whole)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("at", range(12))
def test_a_single_edit_is_found(kind: str, at: int, tmp_path: Path) -> None:
    filled(records_at(kind, tmp_path))
    edits = _columns(tmp_path) if kind.startswith("sqlite") else _lines(tmp_path)
    [edit] = [each for number, each in enumerate(edits) if number == at]
    check(records_at(kind, tmp_path).records())
    edit()
    with pytest.raises(StoreAlteredError):
        check(records_at(kind, tmp_path).records())


@pytest.mark.parametrize(
    "statement",
    [
        "DELETE FROM record",
        "UPDATE record SET content = '{}' WHERE number = 1",
        "UPDATE record SET content = NULL, document = NULL, dropped = 1 WHERE number = 1",
        "UPDATE record SET dropped = NULL",
        "INSERT INTO record VALUES (7, '', '', '', '{}', NULL, NULL)",
        "INSERT OR REPLACE INTO record VALUES (2, '', '', '', '{}', NULL, NULL)",
    ],
)
def test_sqlite_itself_refuses_all_but_to_append(statement: str, tmp_path: Path) -> None:
    filled(records_at("sqlite:a.db", tmp_path))
    with sqlite3.connect(tmp_path / "a.db") as connection, pytest.raises(sqlite3.IntegrityError):
        connection.execute(statement)
    connection.close()
    check(records_at("sqlite:a.db", tmp_path).records())


def test_a_head_that_was_noted_shows_that_the_end_was_cut_off(tmp_path: Path) -> None:
    records = records_at("answers", tmp_path)
    filled(records)
    noted = check(records.records()).head
    check(records.records(), head=noted)
    [file] = (tmp_path / "answers").glob("*.jsonl")
    file.write_bytes(b"".join(file.read_bytes().splitlines(keepends=True)[:-1]))
    check(records.records())
    with pytest.raises(StoreAlteredError, match="the hash that you noted"):
        check(records.records(), head=noted)


def test_a_key_seals_the_store_so_that_others_cannot_write_it_anew(records: Records, tmp_path: Path) -> None:
    key, other = HeldKey.new(), HeldKey.new()
    store = CertificateStore(records, signer=Signer([key]))
    for at in range(3):
        store.add(certificate(str(at)))
    store.close()
    store.close()
    found = check(records.records(), [key.public])
    assert (found.events["sealed"], found.sealed) == (2, 5)
    with pytest.raises(StoreAlteredError, match="not of that key"):
        check(records.records(), [other.public])
    forged = records_at("forged", tmp_path)
    for each in records.records():
        changed = {**each.facts, "guarantee": "path"} if each.certificate else each.facts
        forged.append([entry(certificate("x"))._replace(certificate=each.certificate, content=changed)])
    check(forged.records())
    with pytest.raises(StoreAlteredError, match="of other records than"):
        check(forged.records(), [key.public])


def test_the_last_seal_is_over_the_record_that_came_last(
    records: Records, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whichever of two threads comes back from its place first."""
    key = HeldKey.new()
    store = CertificateStore(records, signer=Signer([key]))
    store.add(certificate("0"))  # which the day's seal is over
    append, later = records.append, [certificate("2")]

    def overtaken(entries: Sequence[Entry]) -> list[StoreRecord]:
        made = append(entries)
        while later:
            store.add(later.pop())
        return made

    monkeypatch.setattr(records, "append", overtaken)
    store.add(certificate("1"))
    store.close()
    found = check(records.records(), [key.public])
    assert (found.answers, found.sealed) == (3, 5)


def test_a_store_written_anew_without_its_seals_shows_only_later_ones(
    records: Records, tmp_path: Path
) -> None:
    key, made = HeldKey.new(), [certificate(str(at)) for at in range(3)]
    _aged(records, made[0], 9)
    CertificateStore(records, signer=Signer([key])).add(made[1])
    old = check(records.records(), [key.public])
    forged = records_at("forged", tmp_path)
    _aged(forged, made[2], 9)
    CertificateStore(forged, signer=Signer([key])).add(made[1])
    new = check(forged.records(), [key.public])
    assert new.seals >= old.seals  # the key signs what it finds, and its seals say when
    with pytest.raises(StoreAlteredError, match="the hash that you noted"):
        check(forged.records(), [key.public], head=old.head)


def test_a_drop_that_no_seal_is_over_is_counted(records: Records) -> None:
    key = HeldKey.new()
    store, made = CertificateStore(records, signer=Signer([key])), certificate("a")
    store.add(made)
    erase(records, made.digest, "by somebody without the key")
    assert check(records.records(), [key.public]).unsealed_drops == 1
    assert check(records.records()).unsealed_drops == 0
    store.add(certificate("b"))
    store.close()
    assert check(records.records(), [key.public]).unsealed_drops == 0


def test_a_clock_that_is_years_ahead_empties_no_store(
    records: Records, caplog: pytest.LogCaptureFixture
) -> None:
    store = CertificateStore(records, retention=184)
    for days in (1500, 1400):
        _aged(records, certificate(str(days)), days)
    store._drop_old()
    assert "the clock may be wrong" in caplog.text
    assert check(records.records()).dropped == 0
    _aged(records, certificate("yesterday"), 1)
    store._drop_old()
    assert check(records.records()).dropped == 2


def test_a_kept_certificate_that_was_taken_out_is_found(tmp_path: Path) -> None:
    filled(records_at("sqlite:a.db", tmp_path))
    with sqlite3.connect(tmp_path / "a.db") as connection:
        connection.execute("DROP TRIGGER never_changed")
        connection.execute("UPDATE record SET document = NULL WHERE number = 2")
    connection.close()
    with pytest.raises(StoreAlteredError, match="that record 2 kept is gone"):
        check(records_at("sqlite:a.db", tmp_path).records())


@pytest.mark.parametrize("edit", ["content = X'7b7d'", "certificate = X'00'", "document = X'00'"])
def test_a_value_of_another_kind_is_an_edit_and_no_crash(edit: str, tmp_path: Path) -> None:
    filled(records_at("sqlite:a.db", tmp_path))
    with sqlite3.connect(tmp_path / "a.db") as connection:
        connection.execute("DROP TRIGGER never_changed")
        connection.execute(f"UPDATE record SET {edit} WHERE number = 2")
    connection.close()
    with pytest.raises(StoreAlteredError, match="record 2 is no record of a store"):
        check(records_at("sqlite:a.db", tmp_path).records())


def test_a_content_that_is_no_object_is_an_edit_though_its_hash_is_right(records: Records) -> None:
    filled(records, 1)
    records.append([entry(certificate("x"))._replace(content=[])])  # type: ignore[arg-type]  # a forger's
    with pytest.raises(StoreAlteredError, match="record 1 is no record of a store"):
        check(records.records())


def test_what_a_reader_keeps_in_the_log_goes_with_the_next_drop(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    records = records_at("sqlite:a.db", tmp_path)
    answer = filled(records)[2].body["answer"]["sha256"]
    reader = records.records()
    next(reader)
    assert erase(records, answer, "request 7") == 1
    assert "since somebody reads the store" in caplog.text
    assert answer.encode() in content(tmp_path)
    reader.close()  # type: ignore[attr-defined]  # a generator
    assert erase(records, answer, "request 7") == 0
    assert answer.encode() not in content(tmp_path)


def test_an_export_withholds_what_was_not_asked_for_and_is_still_a_chain(
    records: Records, tmp_path: Path
) -> None:
    for tenant in ("ada", "bob", "ada"):
        CertificateStore(records).of(tenant).add(certificate(tenant))
    lines, shown = exported(records.records(), Query(tenant="ada"))
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "2026-01-01.jsonl").write_bytes(lines)
    out = records_at("out", tmp_path, new=False)
    assert shown == 2
    assert b"bob" not in lines
    found = check(out.records(), partial=True)
    assert (found.withheld, found.answers, found.head) == (1, 2, check(records.records()).head)
    with pytest.raises(StoreAlteredError, match="--partial"):
        check(out.records())


# When it cannot be written


@contextmanager
def _full(records: Records) -> Iterator[None]:
    """No room for another record."""
    if isinstance(records, sqlite_module.SqliteRecords):
        with records._open() as connection:
            pages = connection.execute("PRAGMA page_count").fetchone()[0]
            connection.execute(f"PRAGMA max_page_count = {pages}")
        yield
        with records._open() as connection:
            connection.execute("PRAGMA max_page_count = 1000000")
        return
    assert isinstance(records, folder_module.FolderRecords)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    [file] = records.folder.glob("*.jsonl")
    resource.setrlimit(resource.RLIMIT_FSIZE, (file.stat().st_size + 40, limits[1]))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, limits)


def _large(at: int) -> Certificate:
    """Larger than a page, as one that is kept whole."""
    made = certificate(f"large {at}")
    return replace(made, envelope="x" * 9000)


def test_a_full_disk_refuses_answers_and_the_next_record_tells_how_many(records: Records) -> None:
    store = CertificateStore(records, keep="certificates")
    store.add(_large(0))
    with _full(records):
        for at in (1, 2):
            with pytest.raises(StoreError, match="make room"):
                store.add(_large(at))
    store.require_ready()
    store.add(_large(3))
    _, lost, last = records.records()
    assert (lost.event, lost.facts["answers"], lost.facts["on_error"]) == ("unrecorded", 2, "refuse")
    assert last.certificate == _large(3).digest
    assert store.unrecorded == 2
    check(records.records())


def test_where_a_warning_is_enough_the_answer_is_handed_out(
    records: Records, caplog: pytest.LogCaptureFixture
) -> None:
    store = CertificateStore(records, keep="certificates", on_error="warn")
    store.add(_large(0))
    with _full(records), caplog.at_level(logging.WARNING, "purify.store"):
        store.add(_large(1))
    assert "handed out without a record" in caplog.text
    store.add(_large(2))
    assert [each.event for each in records.records()] == ["", "unrecorded", ""]


def test_a_file_that_is_moved_away_under_a_service_takes_no_record(tmp_path: Path) -> None:
    store = CertificateStore(records_at("sqlite:a.db", tmp_path))
    store.add(certificate("a"))
    moved = (tmp_path / "a.db").rename(tmp_path / "moved.db")
    with pytest.raises(StoreError, match="moved or replaced while it was in use"):
        store.add(certificate("b"))
    (tmp_path / "a.db").write_bytes(moved.read_bytes())
    with pytest.raises(StoreError, match="moved or replaced while it was in use"):
        store.add(certificate("b"))
    moved.rename(tmp_path / "a.db")
    store.add(certificate("c"))
    assert [each.event for each in store.records.records()] == ["", "unrecorded", ""]
    assert store.unrecorded == 2


def test_a_store_that_another_holds_is_waited_for_so_long_and_no_longer(
    records: Records, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for module in (sqlite_module, folder_module):
        monkeypatch.setattr(module, "WAIT", 0.1)
    kind = records.place.startswith("sqlite")
    filled(records, 1)
    other = records_at(KINDS[0] if kind else KINDS[1], tmp_path)
    if kind:
        assert isinstance(other, sqlite_module.SqliteRecords)
        with other._open() as connection:
            connection.execute("BEGIN IMMEDIATE")
            with pytest.raises(StoreError, match="end that one"):
                CertificateStore(records_at(KINDS[0], tmp_path)).add(certificate("b"))
            connection.execute("ROLLBACK")
    else:
        assert isinstance(other, folder_module.FolderRecords)
        with other._held(), pytest.raises(StoreError, match="end that one"):
            CertificateStore(records).add(certificate("b"))
    CertificateStore(records).add(certificate("b"))
    check(records.records())


def test_a_line_that_was_being_written_is_cut_off_by_the_next(tmp_path: Path) -> None:
    filled(records_at("answers", tmp_path), 2)
    [file] = (tmp_path / "answers").glob("*.jsonl")
    with file.open("ab") as opened:
        opened.write(b'{"certificate":"12')
    assert check(records_at("answers", tmp_path).records()).records == 2
    filled(records_at("answers", tmp_path), 1)
    assert check(records_at("answers", tmp_path).records()).records == 3


def test_a_clock_that_was_put_back_begins_no_earlier_file(tmp_path: Path) -> None:
    records = records_at("answers", tmp_path)
    filled(records, 1)
    [file] = (tmp_path / "answers").glob("*.jsonl")
    file.rename(file.with_name("2199-01-01.jsonl"))
    filled(records, 1)
    assert [each.name for each in (tmp_path / "answers").glob("*.jsonl")] == ["2199-01-01.jsonl"]
    assert check(records.records()).records == 2


def test_a_drop_that_was_interrupted_is_told_and_is_finished_by_doing_it_again(tmp_path: Path) -> None:
    records = records_at("answers", tmp_path)
    made = filled(records, 2)
    [file] = (tmp_path / "answers").glob("*.jsonl")
    before = file.read_bytes()
    erase(records, made[0].digest, "request 7")
    event = file.read_bytes().splitlines(keepends=True)[-1]
    file.write_bytes(before + event)
    assert check(records.records()).unfinished == [0]
    assert erase(records, made[0].digest, "request 7") == 1
    assert check(records.records()).unfinished == []


@pytest.mark.parametrize(
    "named", ["", "sqlite:", "postgres://there/db", "sqlite:x.toml", "sqlite:no/a.db", "f"]
)
def test_what_is_no_place_for_a_store_is_refused(named: str, tmp_path: Path) -> None:
    (tmp_path / "f").write_text("a file", "utf-8")
    (tmp_path / "x.toml").write_text("no database" * 99, "utf-8")
    with pytest.raises((ConfigError, StoreError)):
        records_at(named, tmp_path)


def test_another_program_s_database_is_left_alone(tmp_path: Path) -> None:
    with sqlite3.connect(tmp_path / "theirs.db") as connection:
        connection.execute("CREATE TABLE record (number INTEGER)")
    connection.close()
    with pytest.raises(ConfigError, match="but no store"):
        records_at("sqlite:theirs.db", tmp_path)
