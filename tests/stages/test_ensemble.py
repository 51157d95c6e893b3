"""`ensemble`: the candidates of one request are drawn together, and told apart as `vary` says."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from purify_hooks.stages.ensemble import Ensemble
from purify_hooks.stages.varying import shuffled
from purify_hooks.stages.wording import chosen, letters_of, normalised
from purify_plugins import Chat, ConfigError, PromptError
from purify_plugins.stages.request import Request
from purify_plugins.stages.stage import Draft
from tests.stages.program import Script, answered, request, toys

QUESTION = "Which city?\nA) Rome\nB) Oslo\nC) Paris\nAnswer with a letter."


def candidates(*texts: str, verdict: Callable[[Request], str] = lambda _: "1") -> Script:
    """The fused candidates answer these texts by their number; the SLM alone lists two ways, or judges."""

    def write(asked: Request) -> Draft:
        if asked.slm_only and asked.sampling.grammar:
            return answered(asked, verdict(asked))
        if asked.slm_only:
            return answered(asked, "1. a chemist\n2. an accountant")
        text = texts[asked.draw[-1]] if asked.draw else f"composed from {asked.text}"
        return answered(asked, text, (-0.1 * len(text),))

    return Script(write)


def released(stage: Ensemble, script: Script, asked: Request | None = None) -> str:
    found = script.run(stage, asked or request())
    assert isinstance(found, Draft)
    return found.text


# vary


def test_the_candidates_are_one_list_and_each_is_drawn_for_itself() -> None:
    script = candidates("a", "b", "c")
    script.run(Ensemble(), request())
    assert [len(turn) for turn in script.turns] == [3]
    assert len({each.draw for each in script.asked}) == 3
    assert {each.prompt for each in script.asked} == {request().prompt}


def test_n_toy_candidates_differ() -> None:
    script = Script(toys)
    assert isinstance(script.run(Ensemble(n=4), request()), Draft)
    assert len({toys(each).text for each in script.asked}) == 4


@pytest.mark.parametrize(("vary", "named"), [("approaches", 2), ("personas", 2)])
def test_ways_that_are_not_given_are_named_by_the_slm_alone(vary: Any, named: int) -> None:
    script = candidates("a", "b", "c", "d")
    script.run(Ensemble(n=4, vary=vary), request())
    [listing], asked = script.turns
    assert listing.slm_only
    assert "4 different" in listing.text
    assert sum("a chemist" in each.text for each in asked) == 1
    assert sum(each.text != request().text for each in asked) == named


def test_one_candidate_answers_as_no_persona() -> None:
    script = candidates("a", "b")
    script.run(Ensemble(n=2, vary="personas", ways=("a {pirate}.",)), request())
    assert [each.text for each in script.asked] == [
        request().text,
        f"Answer as a {{pirate}} would.\n\n{request().text}",
    ]


def test_given_ways_are_used_and_nothing_is_asked_for_them() -> None:
    script = candidates("a", "b")
    script.run(Ensemble(n=2, vary="approaches", ways=("by elimination", "backwards")), request())
    assert [len(turn) for turn in script.turns] == [2]
    assert "by elimination" in script.asked[0].text
    assert "backwards" in script.asked[1].text


def test_shuffled_options_keep_their_letters_and_their_place_in_the_text() -> None:
    script = candidates("A", "A", "A", "A", "A", "A")
    script.run(Ensemble(n=6, vary="choices"), request(QUESTION))
    texts = [each.text for each in script.asked]
    assert texts[0] == QUESTION
    assert len(set(texts)) > 2
    for text in texts:
        assert sorted(text.split("\n")) == sorted(QUESTION.split("\n"))
        assert text.startswith("Which city?\n")
        assert text.endswith("\nAnswer with a letter.")


def test_a_shuffle_is_the_same_every_time() -> None:
    assert shuffled(request(QUESTION), 3) == shuffled(request(QUESTION), 3)


def test_a_question_without_options_is_not_shuffled() -> None:
    assert shuffled(request("A) only one"), 3).prompt == "A) only one"


def test_what_the_llm_reads_instead_is_reworded_alike() -> None:
    script = candidates("a", "b")
    veiled = request("Who is Ada?").showing("Who is Eva?")
    script.run(Ensemble(n=2, vary="approaches", ways=("slowly", "fast")), veiled)
    for each in script.asked:
        assert "Ada" in each.text
        assert isinstance(each.shown, str)
        assert each.shown.endswith("Who is Eva?")
        assert "Ada" not in each.shown


def test_token_ids_cannot_be_reworded() -> None:
    with pytest.raises(PromptError, match="token ids"):
        candidates("a").run(Ensemble(vary="choices"), request((1, 2, 3)))
    assert candidates("a", "a", "a").run(Ensemble(), request((1, 2, 3)))


# select


def test_the_majority_is_released_by_its_normalised_text() -> None:
    assert released(Ensemble(), candidates("Rome", "Paris!", "paris")) == "Paris!"


def test_of_votes_that_tie_the_first_is_released() -> None:
    assert released(Ensemble(), candidates("Rome", "Paris", "Oslo")) == "Rome"


def test_the_vote_is_by_letter_where_the_question_has_options() -> None:
    script = candidates("A, surely", "Well, I'd say: C", "(C) Paris")
    assert released(Ensemble(), script, request(QUESTION)) == "Well, I'd say: C"


@pytest.mark.parametrize(
    ("text", "letter"),
    [
        ("C", "C"),
        (" c", None),
        ("It is (B).", "B"),
        ("A or B? B", "B"),
        ("C. A dog", "C"),
        ("C) A dog", "C"),
        ("A dog", None),
        ("The answer is B, since A is false. A", "B"),
        ("Option C", "C"),
        ("Well, I'd say: C!", "C"),
        ("Aha", None),
        ("I", None),
        ("the A's", None),
        ("", None),
    ],
)
def test_the_letter_that_an_answer_gives(text: str, letter: str | None) -> None:
    assert chosen(text, letters_of(QUESTION)) == letter


def test_the_options_are_the_last_ones_of_the_text() -> None:
    shots = "Q\nA) x\nB) y\nAnswer: B\n\n"
    assert letters_of(shots + QUESTION) == "ABC"
    assert letters_of("A) one alone\n\nB) another") == letters_of("A)\nB)\n") == letters_of("") == ""
    for candidate in range(1, 5):
        assert shuffled(request(shots + QUESTION), candidate).text.startswith(shots)


def test_the_likeliest_under_the_slm_is_released() -> None:
    assert released(Ensemble(select="slm"), candidates("long one", "short", "the longest")) == "short"


def test_the_judge_is_the_slm_alone_asked_in_both_orders() -> None:
    def better(asked: Request) -> str:
        return "1" if asked.text.index("good") < asked.text.index("bad") else "2"

    script = candidates("bad", "good", verdict=better)
    assert released(Ensemble(n=2, select="judge"), script) == "good"
    one, two = script.turns[1]
    assert one.slm_only
    assert two.slm_only
    assert one.text.index("bad") < one.text.index("good")
    assert two.text.index("good") < two.text.index("bad")


@pytest.mark.parametrize("always", ["1", "2"])
def test_an_unstable_verdict_takes_the_first(always: str) -> None:
    script = candidates("one", "two", "three", verdict=lambda _: always)
    assert released(Ensemble(select="judge"), script) == "one"


def test_a_toy_judge_writes_a_verdict() -> None:
    script = Script(toys)
    assert isinstance(script.run(Ensemble(n=2, select="judge"), request()), Draft)
    assert {toys(each).text for each in script.turns[1]} <= {"1", "2"}


def test_aggregating_reads_every_candidate_and_is_streamed() -> None:
    script = candidates("one", "two", "three")
    found = script.run(Ensemble(select="aggregate", window=3), request())
    assert isinstance(found, Request)
    assert not found.slm_only
    assert all(each in found.text for each in ("1. one", "2. two", "3. three", request().text))
    assert [len(turn) for turn in script.turns] == [3]


def test_a_window_composes_in_sequence() -> None:
    script = candidates("one", "two", "three", "four")
    found = script.run(Ensemble(n=4, select="aggregate"), request())
    assert isinstance(found, Request)
    assert [len(turn) for turn in script.turns] == [4, 1, 1]
    assert "1. one\n\n2. two" in script.turns[1][0].text
    assert "1. composed from " in script.turns[2][0].text
    assert "2. three" in script.turns[2][0].text
    assert "2. four" in found.text


def test_the_ledger_is_given_the_number_of_choices() -> None:
    assert [Ensemble(n=4, select=select).choices for select in ("vote", "slm", "judge", "aggregate")] == [
        4,
        4,
        4,
        1,
    ]


def test_a_conversation_s_last_message_is_what_varies() -> None:
    chat = Chat(({"role": "system", "content": "Be brief."}, {"role": "user", "content": "Where?"}))
    script = candidates("a", "b")
    script.run(Ensemble(n=2, vary="approaches", ways=("slowly", "fast")), request(chat))
    prompt = script.asked[0].prompt
    assert isinstance(prompt, Chat)
    assert prompt.messages[0] == chat.messages[0]
    assert prompt.messages[1]["content"] == "Answer with this approach: slowly.\n\nWhere?"


@pytest.mark.parametrize(
    "keys",
    [
        {"n": 1},
        {"window": 1},
        {"vary": "moods"},
        {"select": "best"},
        {"ways": "one"},
        {"ways": ["x"]},
        {"ways": [" "], "vary": "personas"},
    ],
)
def test_a_bad_option_is_an_error_when_it_is_made(keys: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match="stage 'ensemble'"):
        Ensemble(**keys)


def test_certificates_state_its_options() -> None:
    assert Ensemble(ways=("a",), vary="personas").public()["ways"] == ["a"]


def test_normalising_leaves_words() -> None:
    assert normalised("  Paris,\n(FRANCE)! ") == "paris france"  # full-width letters: NFKC
