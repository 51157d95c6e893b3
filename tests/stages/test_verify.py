"""`verify`: an answer is released when another agrees, or a pattern accepts it; else it is refused."""

from __future__ import annotations

from itertools import count
from typing import Any

import pytest

from purify_hooks.stages.verify import Verify
from purify_plugins import ConfigError, RefusedError
from purify_plugins.stages.stage import Draft
from tests.stages.program import Script, answered, request, toys


def script(*texts: str) -> Script:
    """Answers these texts, one after another, and the last one for ever."""
    at = count()
    return Script(lambda asked: answered(asked, texts[min(next(at), len(texts) - 1)]))


def released(stage: Verify, *texts: str) -> str:
    found = script(*texts).run(stage, request())
    assert isinstance(found, Draft)
    return found.text


def test_the_answer_that_agrees_with_an_earlier_one_is_released() -> None:
    assert released(Verify(), "Paris.", "Lyon", "paris!") == "paris!"


def test_answers_that_differ_are_refused_by_their_key() -> None:
    with pytest.raises(RefusedError, match="no two of 3 answers agree") as refused:
        released(Verify(), "Paris", "Lyon", "Nice")
    assert refused.value.key == "unverified"


@pytest.mark.parametrize("tries", [2, 3, 5])
def test_no_more_than_tries_are_asked_for(tries: int) -> None:
    asked = Script(lambda each: answered(each, f"other {each.draw}"))
    with pytest.raises(RefusedError):
        asked.run(Verify(tries=tries), request())
    assert len(asked.asked) == tries == Verify(tries=tries).choices
    assert len({each.draw for each in asked.asked}) == tries


def test_the_first_two_are_drawn_together_and_no_third_one_where_they_agree() -> None:
    asked = script("Paris", "paris")
    asked.run(Verify(tries=5), request())
    assert [len(turn) for turn in asked.turns] == [2]


def test_only_the_part_that_agree_finds_must_agree() -> None:
    stage = Verify(agree=r"answer is (\w+)")
    assert released(stage, "I think the answer is Paris", "no", "So the answer is paris!").startswith("So")
    with pytest.raises(RefusedError):
        released(stage, "Paris", "Paris", "Paris")  # the part is in none


def test_a_part_without_a_group_is_what_the_pattern_matched() -> None:
    assert released(Verify(agree=r"\d+"), "it is 42", "no: 41", "42, surely") == "42, surely"


def test_an_accepted_answer_is_released_at_once() -> None:
    asked = script("hm", "SOLVED: 4", "hm")
    found = asked.run(Verify(accept="^SOLVED"), request())
    assert isinstance(found, Draft)
    assert found.text == "SOLVED: 4"
    assert [len(turn) for turn in asked.turns] == [1, 1]


def test_empty_answers_agree_with_none() -> None:
    with pytest.raises(RefusedError):
        released(Verify(), "", " ", "…")


def test_one_try_is_enough_where_it_may_be_accepted() -> None:
    assert released(Verify(tries=1, accept="x"), "xyz") == "xyz"
    with pytest.raises(RefusedError):
        released(Verify(tries=1, accept="x"), "abc")


@pytest.mark.parametrize(
    ("keys", "why"),
    [
        ({"tries": 0}, "at least 1"),
        ({"tries": True}, "at least 1"),
        ({"tries": 1}, "two answers must agree"),
        ({"agree": "("}, "no regular expression"),
        ({"accept": 3}, "a regular expression"),
    ],
)
def test_a_bad_option_is_an_error_when_it_is_made(keys: dict[str, Any], why: str) -> None:
    with pytest.raises(ConfigError, match=why):
        Verify(**keys)


def test_two_toys_that_are_greedy_agree_with_themselves() -> None:
    found = Script(toys).run(Verify(), request().sampled(temperature=0))
    assert isinstance(found, Draft)
    assert found.text


def test_certificates_state_its_options() -> None:
    assert Verify(agree="x").public() == {"tries": 3, "agree": "x", "accept": ""}
