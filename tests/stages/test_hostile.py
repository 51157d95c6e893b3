"""What a careless or malicious stage or check can do is a refusal of its row, and leaks nothing."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any

import pytest

from purify_plugins import Completion, ConfigError, RefusedError
from purify_plugins.errors import PurifyError
from purify_plugins.stages import Blocked, Check, RequestOptions
from purify_plugins.stages.request import Request
from purify_plugins.stages.stage import Answer, Stage
from purify_plugins.types import Unanswered, Vocabulary
from tests.toys import few, toys

SAID = RequestOptions(on_refusal="text", refusals={"default": "No."})


class Bare(Stage):
    """A stage without options."""

    def public(self) -> Mapping[str, Any]:
        return {}


@dataclass(frozen=True)
class On(Bare):
    """Answers the prompt "b" by a program, and every other one plainly."""

    program: Callable[[Request], Any]

    def answer(self, request: Request) -> Any:
        return self.program(request) if request.prompt == "b" else request


def again(request: Request) -> Answer:
    """Asks until it is answered."""
    while True:
        try:
            return (yield request)
        except RefusedError:
            continue


def refusing(_: Request) -> Request:
    raise RefusedError("no")


def changing(request: Request) -> Answer:
    draft = yield request
    object.__setattr__(draft, "completion", replace(draft.completion, text="not the decoder's"))
    return draft


WRONG: dict[str, list[Callable[[Request], Any]]] = {
    "a check that is none": [lambda request: request.checked(object())],  # type: ignore[arg-type]
    "a constraint that is none": [lambda request: request.forbidding(object())],  # type: ignore[arg-type]
    "a vault that is none": [lambda request: request.veiled(object())],  # type: ignore[arg-type]
    "a prompt that is none": [lambda request: request.showing(5)],  # type: ignore[arg-type]
    "a candidate without a number": [lambda request: replace(request, draw=("\ud800",))],  # type: ignore[arg-type]
    "a stage that asks again for ever": [again, refusing],
    "a draft that was changed": [changing],
}


@pytest.mark.parametrize("programs", WRONG.values(), ids=WRONG)
def test_what_a_stage_does_wrong_is_a_refusal_of_its_row(programs: list[Callable[[Request], Any]]) -> None:
    purifier = toys(stages=[On(each) for each in programs])
    found = purifier.generate(["a", "b", "c"], few())
    assert [isinstance(each, Unanswered) for each in found] == [False, True, False]
    with pytest.raises(PurifyError):
        list(purifier.stream("b", few()))


class Few(Bare):
    choices: Any = 0

    def answer(self, request: Request) -> Request:
        return request


@pytest.mark.parametrize("choices", [0, 1.5, "2", True])
def test_choices_are_a_number(choices: Any) -> None:
    stage = Few()
    stage.choices = choices
    with pytest.raises(ConfigError, match="choices"):
        toys(stages=[stage])


class Failing(Check):
    """Fails once it has cleared three characters."""

    name, window = "failing", 0

    def clear(self, text: str, last: bool) -> int:
        if len(text) > 3:
            raise RefusedError("the classifier is down")
        return len(text)


class BestOfTwo(Bare):
    choices = 2

    def answer(self, request: Request) -> Answer:
        drafts = yield [request.seeded(0), request.seeded(1)]
        return drafts[0]


@pytest.mark.parametrize("before", [[], [BestOfTwo()]], ids=["streamed", "draft"])
def test_a_check_that_fails_midway_ends_a_draft_as_it_ends_a_stream(before: list[Stage]) -> None:
    """What it had cleared was lost of a whole draft; the operator's text failed for it, and the batch."""
    failing = On(lambda request: request.checked(Failing()))
    purifier = toys(stages=[*before, failing], request=SAID)
    found = purifier.generate(["a", "b"], few())
    assert [each.finish_reason for each in found if isinstance(each, Completion)] == ["length", "refused"]
    streamed = list(purifier.stream("b", few(seed=1)))
    assert "".join(each.text for each in streamed) == found[1].text  # type: ignore[union-attr]
    assert found[1].text.endswith("No.")  # type: ignore[union-attr]


class Closing(Check):
    """Blocks the sixth character."""

    name, window = "closing", 2

    def clear(self, text: str, last: bool) -> int:
        if len(text) > 5:
            raise Blocked(5)
        return len(text) if last else max(0, len(text) - 2)


class Second(Check):
    """Blocks the second character."""

    name, window = "second", 0

    def clear(self, text: str, last: bool) -> int:
        if len(text) > 1:
            raise Blocked(1)
        return len(text)


class Broken:
    """A vault that fails once the text is long."""

    longest = 3

    def find(self, text: str, start: int) -> None:
        if len(text) > 5:
            raise ValueError(text)


def test_a_vault_that_fails_in_a_refusal_is_a_refusal_of_its_row() -> None:
    stage = On(lambda request: request.checked(Closing()).veiled(Broken()))
    found = toys(stages=[stage], request=SAID).generate(["a", "b"], few())
    assert [isinstance(each, Unanswered) for each in found] == [False, True]


def test_a_token_that_a_refusal_cut_is_in_no_completion() -> None:
    """Its id spells what was blocked; the certificate left it out, and `tokens` did not."""
    vocabulary = Vocabulary((b"b", b"bad", b""), frozenset({2}), {2: "<end>"})
    purifier = toys(
        vocabulary=vocabulary, stages=[On(lambda request: request.checked(Second()))], request=SAID
    )
    cut = 0
    for seed in range(8):
        [found] = purifier.generate(["b"], few(seed=seed))
        assert isinstance(found, Completion)
        assert found.text == "bNo."
        cut += not found.tokens
        assert 1 not in found.tokens
        assert all(piece.token is None or piece.token.id != 1 for piece in found.pieces)
    assert cut


@pytest.mark.parametrize("stop", [(), ("dx",), ("adx",)])
def test_a_token_of_which_a_part_is_released_has_no_id_in_the_stream(stop: tuple[str, ...]) -> None:
    """Neither where a check holds the rest, nor where it may begin a stop string."""
    vocabulary = Vocabulary((b"b", b"bad", b"", b"c"), frozenset({2}), {2: "<end>"})
    purifier = toys(vocabulary=vocabulary, stages=[On(lambda request: request.checked(Second()))])
    told: list[int] = []
    for seed in range(8):
        with suppress(RefusedError):
            for chunk in purifier.stream("b", few(seed=seed, stop=stop)):
                told += [piece.token.id for piece in chunk.pieces if piece.token]
    assert told
    assert 1 not in told


def reading(request: Request) -> Answer:
    draft = yield request
    try:
        return request.saying(str(int(draft.text)))
    except ValueError:
        raise RefusedError("the answer is no number")  # noqa: B904  # as authors write it


class Reading(Check):
    """Refuses what is no number."""

    name, window = "reading", 0

    def clear(self, text: str, last: bool) -> int:
        try:
            return int(text)
        except ValueError:
            raise RefusedError("the answer is no number")  # noqa: B904


@pytest.mark.parametrize("program", [reading, lambda request: request.checked(Reading())])
def test_what_a_refusal_was_raised_for_quotes_no_draft(program: Callable[[Request], Any]) -> None:
    """`int` quotes its text: logs and tracebacks have it from the refusal's context."""
    purifier = toys(stages=[On(program)])
    with pytest.raises(RefusedError, match="no number") as refused:
        purifier.generate(["b"], few())
    with pytest.raises(RefusedError, match="no number") as streamed:
        list(purifier.stream("b", few()))
    for raised in (refused, streamed):
        assert raised.value.__cause__ is None
        assert raised.value.__context__ is None
