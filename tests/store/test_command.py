"""`purify store`: an auditor's and a data protection officer's questions, on the command line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from purify_plugins.store.places import records_at
from purify_plugins.store.store import CertificateStore
from purify_plugins.types import Certificate
from tests.signing.issuing import published, purify
from tests.store.test_store import KINDS, filled
from tests.store.writer import certificate

MODELS = '[llm]\nmodel = "a"\n[slm]\nmodel = "b"\n'


@pytest.fixture(params=KINDS)
def place(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A store that the configuration here names, with the answers "0", "1" and "2"."""
    monkeypatch.chdir(tmp_path)
    Path("purify.toml").write_text(f'{MODELS}[certificate]\nstore = "{request.param}"\n', "utf-8")
    filled(records_at(request.param), 3)
    return str(request.param)


def asked(*arguments: object) -> str:
    found = purify("store", *arguments)
    assert found.exit_code == 0, found.output
    return found.stdout


def test_an_answer_is_found_by_its_file_and_its_certificate_handed_out_again(place: str) -> None:
    Path("answer.txt").write_text("1\n", "utf-8")
    [told] = json.loads(asked("list", "--answer", "answer.txt", "--json"))
    made: Certificate = certificate("1")
    assert (told["certificate"], told["number"]) == (made.digest, 1)
    assert "salt" not in told
    assert [told] == json.loads(asked("list", "--answer-digest", told["answer"].upper(), "--json"))
    assert [told] == json.loads(asked("show", told["answer"], "--store", place))
    assert asked("show", made.digest, "--certificate") == f"{made.issued}\n"
    assert len(asked("list", "--since", "2020-01-01", "--guarantee", "passage").splitlines()) == 3
    assert asked("list", "--until", "2020-01-01T00:00:00Z") == ""


def test_what_was_erased_shows_when_and_why_and_the_store_is_whole(place: str) -> None:
    head = json.loads(asked("verify", "--json"))["head"]
    digest = certificate("1").digest
    assert asked("erase", digest, "--why", "request 7") == f"erased: 1 of {digest}\n"
    told = json.loads(asked("verify", "--json", "--head", head))
    assert (told["answers"], told["dropped"], told["documents"]) == (2, 1, 2)
    [stone] = json.loads(asked("show", digest))
    assert stone["dropped"]["why"] == "request 7"
    assert stone["dropped"]["event"] == "erased"
    again = purify("store", "erase", digest, "--why", "request 7")
    assert (again.exit_code, "was erased or has expired already" in again.stderr) == (1, True)
    assert "Dropped, and told by an event: 1." in asked("verify")


def test_an_export_is_a_store_that_can_be_verified(place: str) -> None:
    CertificateStore(records_at(place)).of("ada").add(certificate("ada's"))
    assert asked("export", "out", "--tenant", "ada").startswith("1 answers")
    told = json.loads(asked("verify", "--store", "out", "--partial", "--json"))
    assert (told["answers"], told["withheld"]) == (1, 3)
    assert [each["tenant"] for each in json.loads(asked("list", "--store", "out", "--json"))] == ["ada"]


def test_expire_takes_the_configured_retention(place: str) -> None:
    assert asked("expire", "--older-than", "1d") == "expired: 0 older than 1 days\n"
    with open("purify.toml", "a", encoding="utf-8") as file:
        file.write('retention = "184d"\n')
    assert asked("expire") == "expired: 0 older than 184 days\n"


def test_a_signed_service_s_store_is_verified_with_its_public_key(tmp_path: Path) -> None:
    from purify_plugins.signing.keys import HeldKey
    from purify_plugins.signing.signer import Signer

    key, records = HeldKey.new(), records_at("sqlite:a.db", tmp_path)
    store = CertificateStore(records, signer=Signer([key]))
    file = published(key, tmp_path)
    unsealed = purify("store", "verify", "--store", records.place, "--key", file)
    assert (unsealed.exit_code, "has no seal" in unsealed.stderr) == (1, True)
    store.add(certificate("a"))
    assert "Sealed by the key: the first 2 records.\nSeals: 1, from " in asked(
        "verify", "--store", records.place, "--key", file
    )
