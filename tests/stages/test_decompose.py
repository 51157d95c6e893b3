"""`decompose`: the SLM alone writes sub-questions; their fused answers stand before the question."""

from __future__ import annotations

from typing import Any

import pytest

from purify_hooks.stages.decompose import Decompose
from purify_plugins import ConfigError, Grammar
from purify_plugins.stages.request import Request
from purify_plugins.stages.stage import Draft
from tests.stages.program import Script, answered, request, toys


def write(asked: Request) -> Draft:
    if asked.slm_only:
        return answered(
            asked, f"1. first of {asked.text[:5]}?\n2. second of {asked.text[:5]}?\n\n- third?\nfourth?"
        )
    return answered(asked, f"<answer to {asked.text}>")


def test_sub_questions_are_written_alone_answered_together_and_composed() -> None:
    asked = Script(write)
    found = asked.run(Decompose(), request("Where is it?"))
    assert isinstance(found, Request)  # streamed
    [alone], parts = asked.turns
    assert alone.slm_only
    assert "Where is it?" in alone.text
    assert [each.text for each in parts] == ["first of Where?", "second of Where?", "third?"]
    assert not any(each.slm_only for each in parts)
    for each in parts:
        assert f"<answer to {each.text}>" in found.text
    assert found.text.endswith("Where is it?")


@pytest.mark.parametrize("width", [1, 2, 4])
def test_width_is_the_most_sub_questions(width: int) -> None:
    asked = Script(write)
    asked.run(Decompose(width=width), request())
    assert [len(turn) for turn in asked.turns] == [1, width]
    assert f"at most {width}" in asked.turns[0][0].text


def test_depth_decomposes_the_sub_questions_too_each_level_in_one_batch() -> None:
    asked = Script(write)
    found = asked.run(Decompose(width=2, depth=2), request("Where is it?"))
    assert isinstance(found, Request)
    assert [len(turn) for turn in asked.turns] == [1, 2, 4, 2]
    assert [turn[0].slm_only for turn in asked.turns] == [True, True, False, False]
    assert "<answer to first of first?>" in asked.turns[3][0].text
    assert asked.turns[3][0].text.endswith("first of Where?")


def test_a_question_that_is_not_decomposed_is_answered_as_it_is() -> None:
    asked = request()
    assert Script(lambda each: answered(each, "\n \n- \n")).run(Decompose(), asked) is asked


def test_what_the_answer_must_look_like_binds_no_sub_answer_but_the_last_one() -> None:
    asked = Script(write)
    shaped = request().sampled(grammar=Grammar("regex", "[a-z]+"), stop=("\n",))
    found = asked.run(Decompose(), shaped)
    assert isinstance(found, Request)
    assert found.sampling == shaped.sampling
    assert all(each.sampling.grammar is None and not each.sampling.stop for each in asked.asked)


@pytest.mark.parametrize("keys", [{"width": 0}, {"depth": 0}, {"width": 2.5}])
def test_a_bad_option_is_an_error_when_it_is_made(keys: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match="whole number"):
        Decompose(**keys)


def test_toys_answer_it() -> None:
    found = Script(toys).run(Decompose(), request())
    assert isinstance(found, Request)
    assert Decompose().choices == 1
