"""Every way to an answer records its certificate, once, before the answer is whole."""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import Callable
from pathlib import Path

import pytest

from purify_plugins import Purifier, SourceError, StoreError, activate, deactivate
from purify_plugins.configuration.config import read_config
from purify_plugins.configuration.tenants import Tenant
from purify_plugins.plugin.manager import load_plugins
from purify_plugins.store.checking import check
from purify_plugins.store.places import records_at
from purify_plugins.store.records import Query
from purify_plugins.store.sqlite import SqliteRecords
from purify_plugins.store.store import CertificateStore
from purify_plugins.testbed import LLM, SLM
from purify_plugins.types import Chunk
from tests.adapters.gateways import serving, stubs
from tests.toys import BYTES, Failing

PLUGINS = load_plugins([])


@pytest.fixture
def store(tmp_path: Path) -> CertificateStore:
    return CertificateStore(records_at("sqlite:answers.db", tmp_path))


def recorded(store: CertificateStore) -> list[str]:
    return [each.facts["answer"] for each in store.records.search(Query())]


def digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


WAYS: dict[str, Callable[[Purifier], list[str]]] = {
    "generate": lambda purifier: [each.text for each in purifier.generate(["a", "b"], max_tokens=4)],
    "stream": lambda purifier: ["".join(each.text for each in purifier.stream("a", max_tokens=4))],
    "agenerate": lambda purifier: [
        asyncio.run(purifier.agenerate("a", max_tokens=4, errors="raise"))[0].text
    ],
    "stages": lambda purifier: [
        each.text
        for each in purifier.replace(
            stages=[PLUGINS.make("purify_stages", "ensemble", {"n": 3, "select": "slm"})]
        ).generate("a", max_tokens=4, errors="raise")
    ],
}


@pytest.mark.parametrize("way", WAYS)
def test_each_answer_is_recorded_once_and_no_draft_is(way: str, store: CertificateStore) -> None:
    texts = WAYS[way](stubs().replace(store=store))
    assert sorted(recorded(store)) == sorted(map(digest, texts))
    assert all(texts)


def test_an_answer_that_failed_is_not_recorded(store: CertificateStore) -> None:
    purifier = stubs(Failing(BYTES, at=2), walk="lockstep").replace(store=store)
    with pytest.raises(SourceError):
        purifier.generate("a", max_tokens=4)
    assert not recorded(store)


def test_text_of_an_answer_that_its_reader_left_or_that_failed_is_told(store: CertificateStore) -> None:
    answer = stubs().replace(store=store.of("ada")).stream("a", max_tokens=40)
    first = next(each for each in answer if each.text)
    answer.close()
    [left] = store.records.records()
    assert (left.event, left.facts["bytes"], left.facts["tenant"]) == (
        "unfinished",
        len(first.text.encode()),
        "ada",
    )
    failing = stubs(Failing(BYTES, at=3), walk="lockstep").replace(store=store)
    with pytest.raises(SourceError):
        [*failing.stream("a", max_tokens=40)]
    assert [each.event for each in store.records.records()][-1] == "unfinished"


def test_no_answer_is_whole_without_its_record_and_the_next_begins_no_token(store: CertificateStore) -> None:
    purifier, records = stubs().replace(store=store), store.records
    assert isinstance(records, SqliteRecords)
    purifier.generate("a", max_tokens=4)
    records.close()
    moved = records.file.rename(records.file.with_name("elsewhere.db"))
    begun: list[Chunk] = []
    with pytest.raises(StoreError, match="check that it is there"):
        begun.extend(purifier.stream("a", max_tokens=4))
    with pytest.raises(StoreError, match="check that it is there"):
        next(purifier.stream("a", max_tokens=4))
    moved.rename(records.file)
    purifier.generate("a", max_tokens=4, errors="raise")
    _, lost, _ = records.records()
    assert (lost.event, lost.facts["answers"]) == ("unrecorded", 1)


def test_a_disk_that_is_nearly_full_begins_no_answer(
    store: CertificateStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    purifier = stubs().replace(store=store)
    monkeypatch.setattr("purify_plugins.store.records.ROOM", 1 << 62)
    with pytest.raises(StoreError, match="make room there"):
        next(purifier.stream("a", max_tokens=4))
    warning = CertificateStore(store.records, on_error="warn")
    assert purifier.replace(store=warning).generate("a", max_tokens=4, errors="raise")


def test_the_gateway_records_whose_an_answer_is_and_says_503_where_it_cannot(store: CertificateStore) -> None:
    keys = {name: f"{name}-{'0' * 40}" for name in ("ada", "bob")}
    tenants = tuple(Tenant(name, (digest(key),)) for name, key in keys.items())
    ask = {"inputs": "hello", "parameters": {"max_new_tokens": 5}}
    with serving(stubs().replace(store=store), tenants=tenants) as served:
        for name in ("ada", "bob", "ada"):
            assert served.post("/generate", ask, headers={"Authorization": f"Bearer {keys[name]}"}).is_success
        assert [each.facts["tenant"] for each in store.records.search(Query())] == ["ada", "bob", "ada"]
        headers = {"Authorization": f"Bearer {keys['ada']}"}
        broken = store.records
        assert isinstance(broken, SqliteRecords)
        broken.close()
        broken.file.rename(broken.file.with_name("gone.db"))
        for path, body in (
            ("/generate", ask),
            ("/generate_stream", ask),
            ("/v1/completions", {"prompt": "a"}),
        ):
            found = served.post(path, body, headers=headers)
            assert found.status_code in (200, 503), found.text
            assert "record of this answer cannot be written" in found.text
        assert str(broken.file) not in found.text
        assert "purify_answers_without_record 1.0" in served.client.get("/metrics").text


def test_a_configuration_names_the_store_and_every_option_of_it_has_an_effect(tmp_path: Path) -> None:
    file = tmp_path / "purify.toml"
    table = '[certificate]\nstore = "kept"\nkeep = "certificates"\nretention = "184d"\non_error = "warn"'
    file.write_text(f'[llm]\nmodel = "{LLM}"\n[slm]\nmodel = "{SLM}"\n{table}', "utf-8")
    purifier = Purifier.from_config(file)
    assert purifier.store is not None
    assert (purifier.store.retention, purifier.store.on_error) == (184, "warn")
    [answer] = purifier.generate("The king", max_tokens=4, errors="raise")
    [record] = records_at("kept", tmp_path, new=False).search(Query())
    assert (record.certificate, record.document) == (answer.certificate.digest, answer.certificate.issued)
    files = {side: answer.certificate.body["models"][side]["files"] for side in ("llm", "slm")}
    assert record.facts["models"].keys() == files.keys()
    assert json.dumps(answer.certificate.body["prompt"]) not in json.dumps(record.facts)
    assert read_config(file).certificate["store"] == "kept"


def test_a_purified_program_s_answers_are_recorded(tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    file = tmp_path / "purify.toml"
    file.write_text(
        f'[llm]\nmodel = "{LLM}"\n[slm]\nmodel = "{SLM}"\n[certificate]\nstore = "sqlite:answers.db"', "utf-8"
    )
    activate(file)
    try:
        pipeline = transformers.pipeline("text-generation", model=str(LLM))
        pipeline("The king", max_new_tokens=4, do_sample=True)
    finally:
        deactivate()
    assert check(records_at("sqlite:answers.db", tmp_path).records()).answers == 1
