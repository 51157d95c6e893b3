"""`purify tune --stage cascade`: a calibration from answers, and the `sure` that has the wanted recall."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy
import pytest
from typer.testing import CliRunner

from purify_hooks.stages.cascade import Cascade
from purify_hooks.stages.tuning import Example, Question, calibration_error, logged, read_examples, tuned
from purify_plugins import ConfigError
from purify_plugins.cli import app

COLUMNS = ["id", "slm", "slm_only"]


def examples(number: int = 400, seed: int = 0) -> list[Example]:
    """Answers that are good with a chance of (mean log-probability)², which the geometric mean is not."""
    draw = numpy.random.default_rng(seed)
    found = []
    for logprob in draw.uniform(-1, 0, number):
        good = bool(draw.uniform() < (1 + logprob) ** 2)
        found.append(Example({"logprob": logprob, "worst": 2 * logprob, "length": 2.0}, good))
    return found


def certificate(*logprobs: float, alone: bool = True) -> dict[str, Any]:
    models = {"slm": {"name": "small", "engine": "in-process", "trusted": True}}
    steps = [[0, str(each), alone] for each in logprobs]
    return {"columns": COLUMNS, "steps": steps, "models": models}


@pytest.mark.parametrize("recall", [0.5, 0.8, 0.95, 1])
def test_sure_has_the_wanted_recall_on_answers_not_fitted_to(recall: float) -> None:
    found = tuned(examples(), recall)
    assert recall <= found.recall <= recall + 0.1
    assert found.escalated >= found.recall * (1 - found.good)


def test_a_higher_recall_escalates_more() -> None:
    low, high = tuned(examples(), 0.6), tuned(examples(), 0.95)
    assert low.sure < high.sure
    assert low.escalated < high.escalated


def test_calibration_lowers_the_error_on_answers_not_fitted_to() -> None:
    found = tuned(examples(), 0.9)
    assert found.error < found.uncalibrated / 2


def test_the_recall_holds_on_fresh_answers() -> None:
    found = tuned(examples(), 0.9)
    fresh = [each for each in examples(2000, seed=1) if not each.good]
    escalated = [found.calibration.chance(each.features) < found.sure for each in fresh]
    assert sum(escalated) / len(fresh) == pytest.approx(0.9, abs=0.06)


def test_too_few_answers_of_a_kind_are_an_error() -> None:
    with pytest.raises(ConfigError, match="10 that are and 10 that are not"):
        tuned([each for each in examples() if each.good], 0.9)


def test_answers_of_two_models_are_an_error() -> None:
    others = [Example(each.features, each.good, "other") for each in examples()]
    with pytest.raises(ConfigError, match="2 SLMs"):
        tuned([*examples(), *others], 0.9)


def test_the_expected_calibration_error_is_as_it_is_defined() -> None:
    chances, good = numpy.array([0.95, 0.95, 0.15, 0.15]), numpy.array([1.0, 0.0, 0.0, 0.0])
    assert calibration_error(chances, good) == pytest.approx((2 * 0.45 + 2 * 0.15) / 4)


@pytest.mark.parametrize(
    ("text", "good"),
    [
        ("It is PARIS.", True),
        ("in paris, france", True),
        ("Parisian", False),
        ("", False),
        ("Lutetia!", True),
    ],
)
def test_a_good_answer_holds_a_right_one_as_whole_words(text: str, good: bool) -> None:
    assert Question("?", ("Paris", "Lutetia")).good(text) is good


def test_a_file_may_hold_questions_and_certificates(tmp_path: Path) -> None:
    lines = [
        {"prompt": "Where?", "answer": "Here"},
        {"prompt": "Where?", "answer": ["Here", "there"]},
        {"certificate": certificate(-1.0, -3.0), "good": True},
        {"certificate": json.dumps(certificate(-1.0, -3.0)), "good": False},
        {"certificate": {"drafts": [{"role": "released", "certificate": certificate(-2.0)}]}, "good": True},
    ]
    file = tmp_path / "a.jsonl"
    file.write_text("\n\n".join(map(json.dumps, lines)), "utf-8")
    questions, found = read_examples(file, 0)
    assert questions[1] == Question("Where?", ("Here", "there"))
    assert [each.good for each in found] == [True, False, True]
    assert found[0].features["logprob"] == pytest.approx(-2)
    assert logged(certificate(-1.0, -3.0), True, after=1).features["logprob"] == pytest.approx(-1)


@pytest.mark.parametrize(
    "line",
    [
        '{"prompt": "x"}',
        '{"prompt": "x", "answer": "…"}',
        '{"prompt": "x", "answer": []}',
        "[1]",
        "no json",
        json.dumps({"certificate": certificate(-1.0), "good": 1}),
        json.dumps({"certificate": certificate(-1.0, alone=False), "good": True}),
        json.dumps({"certificate": certificate(), "good": True}),
        json.dumps({"certificate": {}, "good": True}),
    ],
)
def test_a_line_of_another_form_is_named(line: str, tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text(f"\n{line}\n", "utf-8")
    with pytest.raises(ConfigError, match="line 2: a line is"):
        read_examples(tmp_path / "a.jsonl", 0)


# The command


def purify(*arguments: str) -> Any:
    return CliRunner().invoke(app, arguments)


def write_log(path: Path) -> None:
    """A log of certificates of the SLM alone."""
    lines = [
        {"certificate": certificate(*[each.features["logprob"]] * 9), "good": each.good}
        for each in examples()
    ]
    path.write_text("\n".join(map(json.dumps, lines)), "utf-8")


def test_the_command_writes_what_the_stage_reads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write_log(Path("log.jsonl"))
    result = purify("tune", "--stage", "cascade", "--answers", "log.jsonl", "--recall", "0.9", "--out", "fit")
    assert result.exit_code == 0, result.output
    assert '[[stage]]\nname = "cascade"\nsure = 0.' in result.stdout
    stage = Cascade(calibration="fit/cascade.json")
    assert stage.remarks() == ()


def test_json_has_the_figures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write_log(Path("log.jsonl"))
    result = purify("tune", "--stage", "cascade", "--answers", "log.jsonl", "--after", "4", "--json")
    found = json.loads(result.stdout)
    assert found["answers"] == 400
    assert found["recall"] >= 0.95
    assert Cascade(after=4, calibration="purify-eval/cascade.json")


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        ("", "needs POLICY"),
        ("--stage cascade", "--answers FILE"),
        ("--stage cascad --answers x", "did you mean 'cascade'?"),
        ("balanced --stage cascade --answers x", "not both"),
        ("--stage cascade --answers gone", "cannot read 'gone'"),
    ],
)
def test_wrong_arguments_are_told(
    arguments: str, why: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    result = purify("tune", *arguments.split())
    assert result.exit_code == 2
    assert why in " ".join(result.stderr.split())
