"""`cascade`: what the SLM is sure of never reaches the LLM."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy
import pytest
from hypothesis import given
from hypothesis import strategies as some

from purify_hooks.stages.cascade import Cascade
from purify_hooks.stages.confidence import ConfidenceCalibration, features, fit, isotonic, slm_digest
from purify_plugins import ConfigError
from purify_plugins.stages.request import Request
from purify_plugins.stages.stage import Draft
from purify_plugins.testing import ToySource
from purify_plugins.types import FinishReason
from tests.stages.program import BYTES, Script, answered, request, token, toys


def script(*logprobs: float, reason: FinishReason = "eos") -> Script:
    return Script(lambda asked: answered(asked, "Paris", logprobs, reason))


def test_a_sure_answer_of_the_slm_alone_is_released() -> None:
    asked = script(-0.01, -0.02)
    found = asked.run(Cascade(), request())
    assert isinstance(found, Draft)
    assert [each.slm_only for each in asked.asked] == [True]
    assert found.request is asked.asked[0]


def test_an_unsure_one_is_asked_of_the_fused_model_and_streamed() -> None:
    given = request()
    assert script(-0.3, -0.2).run(Cascade(), given) is given


@pytest.mark.parametrize(("sure", "alone"), [(0.5, True), (0.7, False), (1, False)])
def test_sure_is_the_least_confidence(sure: float, alone: bool) -> None:
    found = script(math.log(0.6)).run(Cascade(sure=sure), request())
    assert isinstance(found, Draft) is alone


@pytest.mark.parametrize("logprobs", [(), (math.nan,), (-math.inf,)])
def test_an_answer_without_figures_is_not_sure(logprobs: tuple[float, ...]) -> None:
    assert isinstance(script(*logprobs).run(Cascade(sure=1e-9), request()), Request)


def test_after_decides_on_the_first_tokens_and_then_streams_the_slm() -> None:
    asked = script(-0.01, reason="length")
    found = asked.run(Cascade(after=4), request())
    assert isinstance(found, Request)
    assert found.slm_only
    assert found.sampling.max_tokens == request().sampling.max_tokens
    assert asked.asked[0].sampling.max_tokens == 4


@pytest.mark.parametrize(("after", "reason"), [(4, "eos"), (12, "length"), (99, "length")])
def test_an_answer_that_ended_within_them_is_released_as_it_is(after: int, reason: FinishReason) -> None:
    asked = script(-0.01, reason=reason)
    assert isinstance(asked.run(Cascade(after=after), request()), Draft)
    assert asked.asked[0].sampling.max_tokens == min(after, 12)


def test_a_toy_is_sure_enough_or_not() -> None:
    assert isinstance(Script(toys).run(Cascade(sure=1e-6), request()), Draft)
    assert isinstance(Script(toys).run(Cascade(sure=1.0), request()), Request)


@pytest.mark.parametrize(
    ("keys", "why"),
    [
        ({"sure": 0}, "above 0"),
        ({"sure": 1.1}, "at most 1"),
        ({"sure": "much"}, "above 0"),
        ({"after": -1}, "tokens"),
        ({"calibration": "no-such-file.json"}, "cannot read"),
        ({"calibration": 3}, "path"),
    ],
)
def test_a_bad_option_is_an_error_when_it_is_made(keys: dict[str, Any], why: str) -> None:
    with pytest.raises(ConfigError, match=why):
        Cascade(**keys)


# Features and their calibration


def test_the_worst_window_of_eight_tokens_is_found() -> None:
    logprobs = [-0.1] * 20 + [-2.0] * 8 + [-0.1] * 20
    found = features([token(each) for each in logprobs])
    assert found["worst"] == pytest.approx(-2.0)
    assert found["logprob"] == pytest.approx(sum(logprobs) / 48)
    assert found["length"] == pytest.approx(math.log(48))
    assert "entropy" not in found


def test_a_short_answer_is_one_window() -> None:
    assert features([token(-1.0), token(-3.0)])["worst"] == pytest.approx(-2.0)


def test_entropy_is_of_the_recorded_tokens_and_the_rest_together() -> None:
    top = ((1, math.log(0.5)), (2, math.log(0.25)))
    expected = -(0.5 * math.log(0.5) + 2 * 0.25 * math.log(0.25))
    assert features([token(-1.0, top)])["entropy"] == pytest.approx(expected)


@given(some.lists(some.tuples(some.floats(-5, 5), some.booleans()), min_size=1, max_size=30))
def test_isotonic_knots_rise_and_keep_the_mean(pairs: list[tuple[float, bool]]) -> None:
    scores = numpy.array([score for score, _ in pairs])
    good = numpy.array([float(each) for _, each in pairs])
    knots, chances = isotonic(scores, good)
    assert (numpy.diff(knots) >= 0).all()
    assert (numpy.diff(chances) > 0).all()
    assert 0 <= chances[0] <= chances[-1] <= 1


def test_knots_of_equal_scores_do_not_fall_by_rounding() -> None:
    good = numpy.array([0.0] * 3 + [1.0] * 7)
    for score in numpy.linspace(0.1, 9.7, 400):
        knots, _ = isotonic(numpy.full(10, score), good)
        assert (numpy.diff(knots) >= 0).all()


def test_isotonic_pools_what_falls() -> None:
    knots, chances = isotonic(numpy.array([1.0, 2, 3, 4]), numpy.array([0.0, 1, 0, 1]))
    assert knots.tolist() == [1, 2.5, 4]
    assert chances.tolist() == [0, 0.5, 1]


def fitted(after: int = 0, slm: str = "") -> ConfidenceCalibration:
    """Answers whose chance of being good rises with their mean log-probability, as it does in the figures."""
    draw = numpy.random.default_rng(0)
    logprobs = draw.uniform(-2, 0, 2000)
    rows = numpy.column_stack([logprobs, 2 * logprobs, draw.uniform(1, 3, 2000)])
    good = (draw.uniform(size=2000) < numpy.exp(logprobs)).astype(float)
    return fit(("logprob", "worst", "length"), rows, good, after, slm)


def test_the_calibrated_chance_is_the_share_that_is_good() -> None:
    """Here P(good) is exp(mean log-probability), drawn 2,000 times."""
    calibration = fitted()
    for logprob in (-1.5, -0.7, -0.2):
        found = calibration.chance({"logprob": logprob, "worst": 2 * logprob, "length": 2.0})
        assert found == pytest.approx(math.exp(logprob), abs=0.08)


def test_a_calibrated_cascade_reads_its_file(tmp_path: Path) -> None:
    file = tmp_path / "cascade.json"
    file.write_text(fitted().text, "utf-8")
    stage = Cascade(sure=0.5, calibration=str(file))
    assert stage.remarks() == ()
    draft = answered(request(), "x", (-0.2,) * 8)
    assert stage.confidence(draft) != pytest.approx(draft.confidence, abs=1e-3)
    assert isinstance(script(*[-1.9] * 8).run(stage, request()), Request)
    assert isinstance(script(*[-0.01] * 8).run(stage, request()), Draft)


def test_a_calibration_of_another_slm_is_refused_when_the_pair_is_loaded(tmp_path: Path) -> None:
    slm, other = ToySource(BYTES, 2), ToySource(BYTES, 3)
    file = tmp_path / "cascade.json"
    file.write_text(fitted(slm=slm_digest(slm.identity())).text, "utf-8")
    stage = Cascade(calibration=str(file))
    assert stage.bind(slm) == stage
    with pytest.raises(ConfigError, match="another SLM"):
        stage.bind(other)
    assert Cascade().bind(other) == Cascade()


def test_without_a_calibration_it_says_so() -> None:
    [remark] = Cascade().remarks()
    assert "uncalibrated" in remark
    assert "purify tune --stage cascade" in remark


def test_a_calibration_of_other_tokens_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "cascade.json"
    file.write_text(fitted(after=32).text, "utf-8")
    assert Cascade(after=32, calibration=str(file))
    with pytest.raises(ConfigError, match="after = 32, not 0"):
        Cascade(calibration=str(file))


@pytest.mark.parametrize("change", [{"format": "other"}, {"weights": [1]}, {"extra": 1}, {"scores": "x"}])
def test_what_is_no_calibration_is_refused(change: dict[str, Any], tmp_path: Path) -> None:
    file = tmp_path / "cascade.json"
    file.write_text(json.dumps({**json.loads(fitted().text), **change}), "utf-8")
    with pytest.raises(ConfigError, match="no calibration of a cascade"):
        Cascade(calibration=str(file))
    file.write_text("[]", "utf-8")
    with pytest.raises(ConfigError, match="no calibration of a cascade"):
        Cascade(calibration=str(file))


def test_a_feature_that_is_not_recorded_is_an_error() -> None:
    calibration = fit(("entropy",), numpy.array([[0.0], [1.0]]), numpy.array([1.0, 0.0]))
    with pytest.raises(ConfigError, match="set top"):
        calibration.chance({"logprob": -1.0})
