"""A fact of trusted text alone: known to the mixture, and kept by `balanced`; other secrets stay in."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import pytest
from typer.testing import CliRunner

from purify_hooks.evaluation.eval.questions import Canary
from purify_hooks.mixture.source import MixtureSource
from purify_plugins import Purifier, Sampling
from purify_plugins.certificates import model_digest
from purify_plugins.cli import app
from purify_plugins.configuration.build import build as from_file
from purify_plugins.configuration.build import keys_of
from purify_plugins.configuration.config import read_config
from purify_plugins.configuration.consent import named_by
from purify_plugins.errors import PurifyError
from purify_plugins.plugin.manager import load_plugins
from purify_plugins.testbed import LLM, SLM, attacks
from tests.ngram.models import built, written
from tests.toys import real

LISTED, UNLISTED = attacks().canaries[::2], attacks().canaries[1::2]
"""Numbers that the toy LLM has memorised and its SLM has never seen; half stand in the trusted directory."""


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with `anchor`, made of a list of the half of the numbers, and the toy SLM as `small`."""
    place = tmp_path_factory.mktemp("trusted")
    lines = "".join(f"{each.prompt}{each.secret}.\n" for each in LISTED)
    # The name stands ten tokens before the number's end.
    built(place / "anchor", written(place / "texts", {"directory.txt": lines}), order=12)
    (place / "small").symlink_to(SLM)
    return place


def file_with(place: Path, slm: str) -> Path:
    file = place / "purify.toml"
    file.write_text(f'[llm]\nmodel = "{LLM}"\n[slm]\n{slm}\n[policy]\nname = "balanced"\n', "utf-8")
    return file


def configured(place: Path, slm: str) -> Purifier:
    return from_file(read_config(file_with(place, slm)), Purifier)


def right(purifier: Purifier, canaries: Sequence[Canary]) -> int:
    answers = purifier.generate([each.prompt for each in canaries], Sampling(max_tokens=6, temperature=0))
    return sum(
        answer.text.strip().startswith(each.secret) for answer, each in zip(answers, canaries, strict=True)
    )


MIXED = (
    'source = "mixture"\nmembers = ["small", { source = "ngram", model = "anchor" }]\nweights = [0.7, 0.3]'
)


def test_a_fact_of_trusted_text_is_answered_and_no_other(place: Path) -> None:
    """`balanced`, greedy: of 12 listed numbers most are answered, of 12 others none; SLM alone: none."""
    assert right(real("balanced"), [*LISTED, *UNLISTED]) == 0
    for share in ("", "share = 0.05"):
        purifier = configured(place, f"{MIXED}\n{share}")
        assert right(purifier, LISTED) >= len(LISTED) - 2
        assert right(purifier, UNLISTED) == 0


def test_recitation_stays_out(place: Path) -> None:
    purifier = configured(place, MIXED)
    for passage in attacks().passages[:4]:
        (answer,) = purifier.generate(passage.prefix, Sampling(max_tokens=24, temperature=0))
        assert not passage.continuation.strip().startswith(answer.text.strip()[:40])


def test_the_certificate_names_members_digests_and_weights(place: Path, tmp_path: Path) -> None:
    purifier = configured(place, f"{MIXED}\nshare = 0.05")
    (answer,) = purifier.generate(LISTED[0].prompt, Sampling(max_tokens=4, seed=1))
    told = answer.certificate.body["models"]["slm"]
    assert (told["kind"], told["share"]) == ("mixture", 0.05)
    assert [(each["name"], each["weight"]) for each in told["members"].values()] == [
        ("small", 0.7),
        ("anchor", 0.3),
    ]
    assert isinstance(purifier.slm, MixtureSource)
    for member, each in zip(purifier.slm.members, told["members"].values(), strict=True):
        assert model_digest(each["files"]) == model_digest(member.identity()["files"])
    (tmp_path / "answer.json").write_text(answer.certificate.text, "utf-8")
    said = CliRunner().invoke(app, ["verify", str(tmp_path / "answer.json")])
    assert said.exit_code == 0, said.output
    assert "the mixture of 0.7 of small" in said.stdout
    assert "fixed share 0.05" in said.stdout


def test_check_names_every_member(place: Path) -> None:
    configured(place, MIXED)
    found = CliRunner().invoke(app, ["check", "--json", "--config", str(place / "purify.toml")])
    assert found.exit_code == 0, found.output
    members = json.loads(found.stdout)["slm"]["members"]
    assert [members[number]["kind"] for number in "12"] == ["transformers", "ngram"]
    assert all(len(members[number]["digest"]) == 64 for number in "12")


def test_it_is_fused_with_an_llm_of_another_tokenizer(place: Path) -> None:
    from purify_plugins.testbed import SLM_1024

    slm = configured(place, MIXED).slm
    purifier = Purifier.load(SLM_1024, slm, "balanced")
    (answer,) = purifier.generate("The phone number", Sampling(max_tokens=8, temperature=0))
    assert answer.certificate.body["models"]["slm"]["kind"] == "mixture"


def test_the_llm_is_no_member_of_its_own_slm(place: Path) -> None:
    """A mixture may say what any member says: with the LLM in it, nothing would be bounded."""
    file = file_with(place, MIXED.replace('"small"', f'"{LLM}"'))
    found = CliRunner().invoke(app, ["generate", "The king", "--config", str(file)])
    assert found.exit_code == 2
    assert "the LLM is a member of the SLM's mixture" in found.stderr


def test_a_prompt_that_a_member_cannot_read_is_refused_before_it_is_loaded(place: Path) -> None:
    arguments = ["generate", "word " * 600, "--config", str(file_with(place, MIXED))]
    found = CliRunner().invoke(app, arguments)
    assert found.exit_code == 2
    assert "shorten it" in found.stderr


def test_consent_names_the_members(place: Path) -> None:
    configured(place, MIXED)
    table = {"slm": {"source": "mixture", "members": ["small", {"source": "ngram", "model": "anchor"}]}}
    lines = [*named_by(table)]
    assert "[slm.members] model small" in lines
    assert "[slm.members] source ngram, model anchor" in lines


def test_a_secret_inside_a_member_is_read_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MEMBER_TOKEN", "s3cret")
    member = {"source": "tgi", "api_key_env": "MEMBER_TOKEN"}
    found = keys_of(load_plugins(()), {"source": "mixture", "members": ["a", member]})
    assert found["members"] == ["a", {"source": "tgi", "api_key": "s3cret"}]


@pytest.mark.parametrize(
    ("slm", "words"),
    [
        ('source = "mixture"', "'members' is missing"),
        ('source = "mixture"\nmembers = "small"', "members must be a list of models"),
        ('source = "mixture"\nmembers = ["small", 3]', "members must be a list of models"),
        ('source = "mixture"\nmembers = ["small", "nowhere/at/all"]', "no model directory"),
        ('source = "mixture"\nmembers = ["small", { source = "ngrm" }]', "unknown source 'ngrm'"),
        ('source = "mixture"\nmembers = ["small", { source = "ngram" }]', "'model' is missing"),
        (f"{MIXED}\nweight = [1.0]", "did you mean 'weights'"),
        ('source = "mixture"\nmembers = ["small"]', "two members or more"),
        (f"{MIXED}\nshare = 2.0", "share must be from 0 to 1"),
        ('source = "mixture"\nmembers = ["no", "where"]\nshare = 2.0', "share must be from 0 to 1"),
    ],
)
def test_what_a_file_cannot_say_of_a_mixture_is_refused_in_words(place: Path, slm: str, words: str) -> None:
    with pytest.raises(PurifyError, match=words):
        configured(place, slm)
