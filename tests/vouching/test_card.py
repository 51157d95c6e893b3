"""A provenance card: begun from a model's files, filled in by a person, and of that model alone."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from jsonschema_rs import validator_for

from purify_hooks.cards.skeleton import skeleton
from purify_hooks.local.source import LocalSource
from purify_plugins import ConfigError, ModelError, Purifier, Sampling
from purify_plugins.canonical_json import model_digest
from purify_plugins.certificates import Pins, read, recompute, verify
from purify_plugins.errors import MismatchError
from purify_plugins.plugin.manager import load_plugins
from purify_plugins.testbed import LLM, SLM, SLM_1024
from purify_plugins.types import Certificate, Completion
from purify_plugins.vouching.card import examine_card, read_card
from purify_plugins.vouching.card_form import card_schema
from tests.signing.issuing import purify
from tests.vouching.vouchers import copied, filled, load, write

ROOT = Path(__file__).parent.parent.parent


@pytest.fixture(scope="module")
def content() -> dict[str, Any]:
    """The SLM's card, filled in."""
    return filled({"model": SLM})


@pytest.fixture
def card(tmp_path: Path, content: dict[str, Any]) -> Path:
    """The same, as a file."""
    return write(tmp_path / "card.json", content)


def table(card: Path, model: Path = SLM) -> dict[str, Any]:
    return {"model": str(model), "card": str(card)}


def certificate(card: Path) -> Certificate:
    [answer] = Purifier.load(LLM, table(card)).generate("Once upon a time", Sampling(max_tokens=3, seed=1))
    assert isinstance(answer, Completion)
    return answer.certificate


def test_a_card_s_digest_stands_in_certificates_and_its_file_can_be_compared(card: Path) -> None:
    found, plugins = certificate(card), load_plugins([])
    told = found.body["models"]["slm"]
    assert told["card"] == {"sha256": hashlib.sha256(card.read_bytes()).hexdigest()}
    assert json.loads(card.read_text("utf-8"))["model"]["sha256"] == model_digest(told["files"])
    verify(read(found.text), plugins, Pins(slm_card=card.read_bytes()))
    recompute(read(found.text), LocalSource.load(SLM))
    for other, said in (
        ({"slm_card": b"{}"}, "and the file you gave"),
        ({"llm_card": b"{}"}, "names no prov"),
    ):
        with pytest.raises(MismatchError, match=said):
            verify(read(found.text), plugins, Pins(**other))


def test_without_a_card_nothing_is_said_of_one() -> None:
    for source in (load({"model": str(SLM)}), LocalSource.load(SLM)):
        assert source.identity().keys().isdisjoint({"card", "signature"})


def test_purify_verify_says_the_card_in_words_and_compares_it(card: Path, tmp_path: Path) -> None:
    file, digest = tmp_path / "certificate.json", hashlib.sha256(card.read_bytes()).hexdigest()
    file.write_text(certificate(card).text, "utf-8")
    said = purify("verify", file).output
    assert f"has SHA-256 {digest}: ask for the card, and compare it with --slm-card FILE." in said
    fine = purify("verify", file, "--slm-card", card)
    assert fine.exit_code == 0
    assert "and the same: the SLM's provenance card" in fine.output
    card.write_text(card.read_text("utf-8") + "\n")
    assert purify("verify", file, "--slm-card", card).exit_code == 1
    assert purify("verify", file, "--slm-card", tmp_path / "gone").exit_code == 3


def test_a_card_of_another_model_is_refused(card: Path, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"the card is of another model: .* differs"):
        load(table(card, SLM_1024))
    model = copied(tmp_path)
    (model / "a.jinja").write_text("{{ 1 }}")
    with pytest.raises(ModelError, match=r"a\.jinja differs \(1 of 7 files\)"):
        load(table(card, model))


def test_a_card_with_another_vocabulary_is_refused(card: Path) -> None:
    body = json.loads(card.read_text("utf-8"))
    body["model"]["vocabulary"] = "0" * 64
    with pytest.raises(ModelError, match="the card's vocabulary is not that of"):
        load(table(write(card, body)))


def test_an_n_gram_model_may_have_a_card(tmp_path: Path) -> None:
    from purify_hooks.ngram.build import BuildOptions, build

    (tmp_path / "text.txt").write_text("the king had a horse. " * 30)
    build(BuildOptions([tmp_path / "text.txt"], str(SLM), tmp_path / "grams", 3), lambda *_: None)
    grams = {"source": "ngram", "model": str(tmp_path / "grams")}
    file = write(tmp_path / "card.json", filled(grams))
    assert load({**grams, "card": str(file)}).identity()["card"]


def test_the_skeleton_says_what_the_files_say(tmp_path: Path) -> None:
    model = copied(tmp_path)
    (model / "README.md").write_text("---\nlicense: apache-2.0  # theirs\ndatasets:\n- a/b\n- c\n---\n# x\n")
    made = skeleton(load({"model": str(model)}), model)
    assert made["licence"] == {"name": "apache-2.0", "source": "README.md"}
    assert [each["name"] for each in made["training_data"]] == ["a/b", "c"]
    assert made["model"]["parameters"] == LocalSource.load(SLM).parameters
    (model / "README.md").unlink()
    settings = json.loads((model / "config.json").read_text("utf-8"))
    (model / "LICENSE").write_text("\n  MIT License\n\nCopyright")
    assert skeleton(load({"model": str(model)}), model)["licence"]["name"] == "MIT License"
    (model / "config.json").write_text(json.dumps({**settings, "license": "mit"}))
    assert skeleton(load({"model": str(model)}), model)["licence"] == {"name": "mit", "source": "config.json"}


def test_the_command_begins_a_card_says_what_to_fill_in_and_checks_it(
    tmp_path: Path, content: dict[str, Any]
) -> None:
    file = tmp_path / "card.json"
    begun = purify("slm", "card", SLM, "--out", file)
    assert begun.exit_code == 0, begun.output
    assert "training_data.0.name is empty" in begun.output
    assert purify("slm", "card", "--check", file).exit_code == 2
    write(file, {**content, "model": json.loads(file.read_text("utf-8"))["model"]})
    checked = purify("slm", "card", "--check", file, SLM, "--json")
    assert json.loads(checked.stdout) == {
        "valid": True,
        "sha256": hashlib.sha256(file.read_bytes()).hexdigest(),
        "model": model_digest(LocalSource.load(SLM).files),
        "compared": True,
    }
    assert purify("slm", "card", "--check", file, SLM_1024).exit_code == 1


def test_the_schema_is_shipped_as_it_is_and_takes_what_we_take(card: Path) -> None:
    shipped = ROOT / "purify_plugins" / "vouching" / "card.schema.json"
    assert json.loads(shipped.read_text("utf-8")) == card_schema()
    assert json.loads(purify("slm", "card", "--schema").stdout) == card_schema()
    validator, body = validator_for(card_schema()), json.loads(card.read_text("utf-8"))
    assert validator.is_valid(body)
    assert not validator.is_valid({**body, "checks": []})


EDITS: dict[str, tuple[Callable[[dict[str, Any]], Any], str]] = {
    "format": (lambda body: body.update(format="card/2"), "is no provenance card"),
    "missing": (lambda body: body.pop("licence"), "licence is missing"),
    "empty": (lambda body: body["checks"][0].update(by=" "), "checks.0.by is empty"),
    "none": (lambda body: body.update(training_data=[]), "training_data is empty"),
    "unknown": (lambda body: body.update(licens="x"), "licens is no field of a card"),
    "day": (lambda body: body["vouched_by"].update(on="today"), "vouched_by.on: must be a day, such as"),
    "number": (lambda body: body["vouched_by"].update(name=3), "vouched_by.name: should be a valid string"),
    "digest": (lambda body: body["model"].update(sha256="ab"), "model.sha256: string should match pattern"),
    "files": (lambda body: body["model"]["files"].update(x="0" * 64), "is not the digest of files"),
    "parameters": (lambda body: body["model"].update(parameters=0), "model.parameters: should be greater"),
}


@pytest.mark.parametrize("edit", EDITS)
def test_a_card_that_is_not_filled_is_refused_and_the_field_is_named(edit: str, card: Path) -> None:
    body = json.loads(card.read_text("utf-8"))
    EDITS[edit][0](body)
    with pytest.raises(ConfigError, match=EDITS[edit][1]):
        load(table(write(card, body)))


def test_all_that_is_wrong_in_a_card_is_listed(card: Path) -> None:
    body = json.loads(card.read_text("utf-8"))
    body.pop("licence")
    body["checks"][0].update(on="soon", by="")
    assert len(examine_card(json.dumps(body).encode(), "card")[1]) == 3
    for content in (b"{", b"[]", b"\xff", b'{"format": "purify-card/1", "format": "purify-card/1"}'):
        with pytest.raises(ConfigError, match=r"the card 'x' is no JSON|is no provenance card"):
            read_card(content, "x")
