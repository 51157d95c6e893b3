"""`purify slm suggest`: the catalogue's facts have a form, and an LLM's tokenizer finds its family."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from purify_hooks.suggest import catalogue
from purify_hooks.suggest.candidates import candidates
from purify_hooks.suggest.catalogue import PROVENANCE, read_catalogue
from purify_hooks.suggest.llm import UntrustedModel, look_at
from purify_plugins.cli import app
from purify_plugins.testbed import LLM, SLM, SLM_1024
from tests.remote.real_servers import write_gguf

ROOT = Path(__file__).parents[2]
FAMILIES, MODELS = read_catalogue()


def purify(*arguments: object) -> Result:
    return CliRunner().invoke(app, ["slm", "suggest", *(str(each) for each in arguments)])


def test_every_fact_of_the_catalogue_has_its_form() -> None:
    assert max(Counter(each.model for each in MODELS).values()) == 1
    for each in MODELS:
        assert each.tokenizer in FAMILIES
        assert each.provenance in PROVENANCE
        assert each.parameters > 10_000_000
        assert each.licence
        assert each.data
        assert each.checked
    assert {len(each.sha256) for each in FAMILIES.values()} == {0, 64}
    assert {each.tokenizer for each in MODELS} == FAMILIES.keys()


def test_one_tokenizer_has_one_digest_whatever_was_added_or_trained(tmp_path: Path) -> None:
    """The toy LLM and SLM share a tokenizer; a copy with tokens added later is still that tokenizer."""
    shutil.copytree(LLM, tmp_path / "llm")
    file = tmp_path / "llm" / "tokenizer.json"
    said = json.loads(file.read_text("utf-8"))
    added = {"id": 2048, "content": "<tool>", "special": True, "normalized": False}
    said["added_tokens"].append({**added, "single_word": False, "lstrip": False, "rstrip": False})
    file.write_text(json.dumps(said), "utf-8")
    found = [look_at(str(folder)) for folder in (LLM, SLM, tmp_path / "llm")]
    assert len({each.digest for each in found}) == 1
    assert [each.tokens for each in found] == [2048, 2048, 2049]
    assert found[0].parameters == 3_049_920
    assert look_at(str(SLM_1024)).digest != found[0].digest


def test_without_a_candidate_nothing_stands_above(tmp_path: Path) -> None:
    """A path with a space could not be pasted, and "one of the above" was said where there is none."""
    shutil.copytree(LLM, tmp_path / "my llm")
    said = purify(tmp_path / "my llm").stdout
    assert "No model of the catalogue is smaller than this LLM." in said
    assert "above" not in said
    assert f"--tokenizer '{tmp_path / 'my llm'}' --out anchor" in said


def test_a_gguf_file_has_the_digest_of_its_directory(tmp_path: Path) -> None:
    """The directory that holds it names it too, and the file is named as it can be named again."""
    file, known = write_gguf(LLM, tmp_path / "toy.gguf"), look_at(str(LLM))
    for name in (str(file), str(tmp_path)):
        found = look_at(name)
        assert found == (name, known.tokens, known.digest, known.parameters)
    shutil.copy(file, tmp_path / "other.gguf")
    assert "holds 2 GGUF files (other.gguf, toy.gguf); name one of them" in purify(tmp_path).stderr


def of_family(key: str, parameters: int | None = 10**12) -> UntrustedModel:
    return UntrustedModel("llm", 1, FAMILIES[key].sha256, parameters)


def test_a_known_tokenizer_meets_its_family_in_tokens_and_all_others_in_bytes() -> None:
    found = candidates(of_family("llama-3"))
    assert found[0].published.model == "jacquelinehe/tinycomma-1.8b-llama3-tokenizer"
    assert [each.meets for each in found] == ["tokens"] + ["bytes"] * (len(MODELS) - 1)
    ranks = [PROVENANCE.index(each.published.provenance) for each in found[1:]]
    assert ranks == sorted(ranks)


def test_two_tokenizers_that_are_not_recorded_may_be_one() -> None:
    found = candidates(UntrustedModel("llm", 1, "0" * 64, None))
    unknown = {each.family.name for each in found if each.meets == "unknown"}
    assert unknown == {each.name for each in FAMILIES.values() if not each.sha256}
    assert all(each.relative_cost is None for each in found)


def test_models_larger_than_the_llm_are_left_out_and_cost_is_by_size() -> None:
    found = candidates(of_family("smollm2", 1_710_000_000))
    assert max(each.published.parameters for each in found) <= 1_710_000_000
    small = next(each for each in found if "135M" in each.published.model)
    assert small.relative_cost == pytest.approx(134_515_008 / 1_710_000_000)
    assert small.memory == {"float32": 4 * 134_515_008, "bfloat16": 2 * 134_515_008}


def shown(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, digest: str) -> None:
    """A catalogue with one model, whose tokenizer has this digest, as if it were published."""
    model: dict[str, Any] = vars(MODELS[0]) | {
        "model": "someone/toy",
        "parameters": 900_000,
        "tokenizer": "toy",
    }
    said = {
        "tokenizers": {"toy": {"name": "toy, 2,048 tokens", "used_by": "toys", "sha256": digest}},
        "models": [model],
    }
    (tmp_path / "catalogue.json").write_text(json.dumps(said), "utf-8")
    monkeypatch.setattr(catalogue.read_catalogue, "__defaults__", (tmp_path / "catalogue.json",))


def test_a_candidate_is_shown_with_what_matters(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    shown(monkeypatch, tmp_path, look_at(str(LLM)).digest)
    found = purify(LLM)
    assert found.exit_code == 0, found.output
    for words in (
        "2,048 tokens, 3,049,920 parameters",
        "someone/toy: 1 M parameters",
        "Apache-2.0",
        "Common Pile",
        "in the LLM's tokens",
        "about 0.3 of the LLM's time",
        "purify slm build TEXTS",
    ):
        assert words in found.stdout
    (told,) = json.loads(purify(LLM, "--json").stdout)["candidates"]
    assert (told["meets"], told["at_hand"]) == ("tokens", "")
    assert told["memory"] == {"float32": 3_600_000, "bfloat16": 1_800_000}


@pytest.mark.parametrize("digest", ["known", ""])
def test_a_model_in_the_hub_s_cache_is_said_to_be_at_hand_and_its_tokenizer_read(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, digest: str
) -> None:
    from huggingface_hub import constants

    place = tmp_path / "hub" / "models--someone--toy"
    (place / "refs").mkdir(parents=True)
    (place / "refs" / "main").write_text("abc", "utf-8")
    shutil.copytree(SLM, place / "snapshots" / "abc")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    shown(monkeypatch, tmp_path, digest and look_at(str(LLM)).digest)
    (told,) = json.loads(purify(LLM, "--json").stdout)["candidates"]
    assert told["at_hand"] == str(place / "snapshots" / "abc")
    assert told["meets"] == "tokens"


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("some/model", "could not be had from the hub"),
        ("http://localhost:8080/v1", "is a server, which is not asked; give the directory, hub id or GGUF"),
        ("./nowhere", "there is no model directory './nowhere'"),
        ("empty", "has no tokenizer"),
        ("notes.txt", "give a model's directory, a hub id or a GGUF file"),
        ("broken.gguf", "is damaged"),
    ],
)
def test_what_is_no_llm_is_refused_in_one_sentence(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, name: str, words: str
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    (tmp_path / "notes.txt").write_text("notes", "utf-8")
    (tmp_path / "broken.gguf").write_text("not at all", "utf-8")
    found = purify(name)
    assert found.exit_code in (1, 2)
    assert words in found.stderr
    assert found.stderr.count("\n") == 1


def test_the_page_lists_every_model() -> None:
    page = (ROOT / "docs" / "choose-an-slm.md").read_text("utf-8")
    assert all(each.model in page for each in MODELS)
