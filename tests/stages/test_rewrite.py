"""`rewrite`: only the SLM's own correction is released, never the fused answer behind it."""

from __future__ import annotations

from typing import Any

import pytest

from purify_hooks.stages.rewrite import Rewrite, changed
from purify_plugins import Chat, ConfigError, RefusedError
from purify_plugins.stages.request import Request
from purify_plugins.stages.stage import Draft
from purify_plugins.types import FinishReason
from tests.stages.program import Script, answered, request, toys


def script(original: str, corrected: str, reason: FinishReason = "eos") -> Script:
    def write(asked: Request) -> Draft:
        return answered(asked, corrected, reason=reason) if asked.slm_only else answered(asked, original)

    return Script(write)


def test_the_slm_alone_corrects_the_fused_answer_and_its_text_is_released() -> None:
    asked = script("Paris is in Spain", "Paris is in France")
    found = asked.run(Rewrite(), request())
    assert isinstance(found, Draft)
    assert found.text == "Paris is in France"
    first, second = asked.asked
    assert (first.slm_only, second.slm_only) == (False, True)
    assert "Paris is in Spain" in second.text
    assert request().text in second.text


def test_the_instruction_is_what_the_slm_is_asked() -> None:
    asked = script("a b", "a b")
    asked.run(Rewrite(instruction="Mend the grammar."), request())
    assert asked.asked[1].text.startswith("Mend the grammar.")


@pytest.mark.parametrize(
    ("corrected", "reason", "why"),
    [
        ("", "eos", "empty"),
        (" \n", "eos", "empty"),
        ("Paris is in France", "length", "cut off"),
        ("Quite other words, and many of them", "eos", "changes"),
    ],
)
def test_a_failed_correction_is_refused(corrected: str, reason: FinishReason, why: str) -> None:
    with pytest.raises(RefusedError, match=why) as refused:
        script("Paris is in Spain", corrected, reason).run(Rewrite(), request())
    assert refused.value.key == "rewrite"


def test_longest_change_bounds_the_share_of_words_that_differ() -> None:
    original, corrected = "one two three four", "one two three five"
    assert changed(original, corrected) == pytest.approx(0.25)
    assert script(original, corrected).run(Rewrite(longest_change=0.25), request())
    with pytest.raises(RefusedError, match="25%"):
        script(original, corrected).run(Rewrite(longest_change=0.2), request())
    assert changed(original, original) == 0
    assert changed(original, "none of these") == 1


def test_a_conversation_keeps_its_earlier_messages_and_loses_its_tools() -> None:
    chat = Chat(
        ({"role": "user", "content": "Hi"}, {"role": "user", "content": "Where is Paris?"}), ({"x": 1},)
    )
    asked = script("In Spain", "In France")
    asked.run(Rewrite(), request(chat))
    prompt = asked.asked[1].prompt
    assert isinstance(prompt, Chat)
    assert prompt.messages[0]["content"] == "Hi"
    assert "Where is Paris?" in prompt.messages[1]["content"]
    assert not prompt.tools


@pytest.mark.parametrize(
    "keys", [{"instruction": " "}, {"instruction": 1}, {"longest_change": 1.5}, {"longest_change": -0.1}]
)
def test_a_bad_option_is_an_error_when_it_is_made(keys: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match="rewrite"):
        Rewrite(**keys)


def test_a_toy_s_correction_is_released_and_the_ledger_counts_one_choice() -> None:
    stage = Rewrite(longest_change=1)
    asked = Script(lambda each: toys(each.sampled(max_tokens=400)))
    found = asked.run(stage, request())
    assert isinstance(found, Draft)
    assert all(each.slm_only for each in found.steps) or found.request.slm_only
    assert stage.choices == 1
