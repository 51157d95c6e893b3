"""`never`: no answer holds a denied text, on any way, and no certificate shows the list."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from purify_hooks.stages.cascade import Cascade
from purify_hooks.stages.ensemble import Ensemble
from purify_hooks.stages.never import Never
from purify_plugins import ConfigError, Purifier, Sampling
from purify_plugins.stages import Stage
from purify_plugins.testing import StageConformance, ToySource, byte_vocabulary
from tests.stages.program import request
from tests.toys import real

BYTES = byte_vocabulary()
LETTERS = ("a", "e", "i", "o", "u")
SETTINGS = Sampling(max_tokens=100, seed=3)


def purifier(*stages: Stage) -> Purifier:
    pair = ToySource(BYTES, 1), ToySource(BYTES, 2)
    return Purifier.load(*pair, "geometric", stages=stages).replace(sampling=SETTINGS)


def text(*stages: Stage) -> str:
    [answer] = purifier(*stages).generate("x", errors="raise")
    return answer.text


def test_a_denied_text_is_in_no_answer_and_was_in_one_without() -> None:
    assert set(LETTERS) & set(text().casefold())
    assert not set(LETTERS) & set(text(Never(LETTERS)).casefold())


def test_any_case_may_be_switched_off() -> None:
    answers = purifier(Never(LETTERS, any_case=False)).generate(["x"] * 4, errors="raise")
    written = "".join(answer.text for answer in answers)
    assert not set(LETTERS) & set(written)
    assert set("AEIOU") & set(written)


@pytest.mark.parametrize(
    "others", [(Cascade(1e-6),), (Cascade(1.0),), (Ensemble(),), (Ensemble(select="aggregate"),)]
)
def test_what_other_stages_ask_for_is_constrained_alike(others: tuple[Stage, ...]) -> None:
    for chain in ((Never(LETTERS), *others), (*others, Never(LETTERS))):
        assert not set(LETTERS) & set(text(*chain).casefold())


def test_a_file_has_more_texts_one_a_line(tmp_path: Path) -> None:
    (tmp_path / "names.txt").write_text("e\n\n  i \n", "utf-8")
    stage = Never(("a",), file=str(tmp_path / "names.txt"))
    assert stage.texts == ("a", "e", "i")
    assert not set("aei") & set(text(stage).casefold())


def test_words_are_ruled_out_with_real_tokens() -> None:
    plain = real().replace(sampling=Sampling(max_tokens=40, seed=1))
    prompts = ["The king had", "Once upon a time"]
    words = sorted({word for each in plain.generate(prompts, errors="raise") for word in each.text.split()})
    denied = [word for word in words if word.isalpha() and len(word) > 2][:5]
    assert denied
    for answer in plain.replace(stages=[Never(tuple(denied))]).generate(prompts, errors="raise"):
        assert not [word for word in denied if word.casefold() in answer.text.casefold()]


def test_the_ledger_adds_nothing_and_the_certificate_does_not_show_the_texts(tmp_path: Path) -> None:
    (tmp_path / "secret-names.txt").write_text("ada lovelace\n", "utf-8")
    stage = Never(("grace hopper",), file=str(tmp_path / "secret-names.txt"))
    [answer] = purifier(stage).generate("x", errors="raise")
    for secret in ("ada lovelace", "grace hopper", "secret-names"):
        assert secret not in answer.certificate.text
    [entry] = answer.certificate.body["stages"]
    assert entry["parameters"]["texts"]["count"] == 2
    assert answer.certificate.body["ledger"]["choices"] == 1
    assert json.loads(json.dumps(stage.public()))["any_case"] is True


def test_rows_of_a_batch_share_one_constraint() -> None:
    stage = Never(("x",))
    assert stage.answer(request()).never[0] is stage.answer(request("y")).never[0]


@pytest.mark.parametrize(
    ("keys", "why"),
    [
        ({}, "give `texts`"),
        ({"texts": "name"}, "a list of texts"),
        ({"texts": [" "]}, "none of them blank"),
        ({"texts": ["x"], "any_case": 1}, "true or false"),
        ({"file": "gone.txt"}, "cannot read"),
    ],
)
def test_a_bad_option_is_an_error_when_it_is_made(keys: dict[str, Any], why: str) -> None:
    with pytest.raises(ConfigError, match=why):
        Never(**keys)


class TestNever(StageConformance):
    def stage(self) -> Stage:
        return Never(("never this", "nor that"))
