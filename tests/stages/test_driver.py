"""The driver: what stages ask for is answered in order, and whatever one does wrong refuses its row alone."""

from __future__ import annotations

import asyncio
import gc
import math
from collections.abc import Callable
from dataclasses import replace
from types import GeneratorType
from typing import Any

import pytest

from purify_plugins import Chat, Purifier, PurifyError, Refused, RefusedError, Sampling, SourceError, hookimpl
from purify_plugins.stages import Blocked, Check, Draft, Request, RequestOptions, Stage
from purify_plugins.testing import ToySource
from purify_plugins.types import Completion
from tests.toys import BYTES, Failing, Watched

FEW = Sampling(max_tokens=6, seed=3)


class Program:
    """A stage that runs a generator function."""

    def __init__(self, program: Callable[[Request], Any], choices: int | None = None) -> None:
        self.program, self.choices = program, choices

    def answer(self, request: Request) -> Any:
        return self.program(request)


def program(*stages: Any, **request: Any) -> Purifier:
    both = Watched(ToySource(BYTES, 1)), Watched(ToySource(BYTES, 2))
    chain = [stage if isinstance(stage, Stage | Program) else Program(stage) for stage in stages]
    return Purifier(*both, purifier_policy(), stages=chain, request=RequestOptions(**request))


def purifier_policy() -> Any:
    from purify_plugins.plugin.manager import load_plugins

    return load_plugins([]).policy("geometric", {"alpha": 0.5})


def llm_of(purifier: Purifier) -> Any:
    """The watched LLM inside."""
    return purifier.given_models[0]._foreign


def sessions(purifier: Purifier) -> int:
    return sum(source._foreign.open_sessions for source in purifier.given_models)


def refusal(purifier: Purifier, prompt: str = "x") -> str:
    with pytest.raises(RefusedError) as raised:
        purifier.generate(prompt, FEW)
    assert sessions(purifier) == 0
    return str(raised.value)


# What goes well


def test_a_stage_that_passes_a_request_on_changes_no_draw() -> None:
    plain = program()
    staged = plain.replace(stages=[Program(lambda request: request)])
    prompts = ["one", "two", "three"]
    [*told] = [answer.text for answer in plain.generate(prompts, FEW)]
    assert [answer.text for answer in staged.generate(prompts, FEW)] == told
    assert "".join(map(str, staged.stream("one", FEW))) == told[0]


def test_candidates_of_every_row_decode_together(monkeypatch: pytest.MonkeyPatch) -> None:
    def best(request: Request) -> Any:
        drafts = yield [request.seeded(at) for at in range(3)]
        assert len({draft.text for draft in drafts}) == 3
        return drafts[1]

    purifier = program(Program(best, 3))
    llm = llm_of(purifier)
    assert len(purifier.generate(["one", "two"], FEW)) == 2
    assert [len(session.rows) for session in llm.sessions] == [6]


def test_the_same_text_whole_streamed_and_in_a_batch() -> None:
    def twice(request: Request) -> Any:
        draft = yield request.alone()
        [a, b] = yield [request, request.asking(draft.text or "nothing")]
        return request.asking(a.text + b.text or "nothing")

    purifier = program(twice, lambda request: request.sampled(max_tokens=5))
    [alone] = purifier.generate("one", FEW)
    assert "".join(map(str, purifier.stream("one", FEW))) == alone.text
    assert purifier.generate(["one", "two"], FEW)[0].text == alone.text
    assert purifier.replace(batch_size=1).generate(["one", "two"], FEW)[0].text == alone.text
    assert asyncio.run(purifier.agenerate("one", FEW))[0].text == alone.text


def test_stages_nest_and_what_the_outer_one_asks_binds_the_inner() -> None:
    seen: list[tuple[bool, float]] = []

    def outer(request: Request) -> Any:
        draft = yield request.alone().weaker(0.5)
        assert all(step.slm_only for step in draft.steps)
        return draft

    def inner(request: Request) -> Any:
        seen.append((request.slm_only, request.strength))
        draft = yield Request(request.prompt, request.sampling)  # drops what it was given
        return draft

    [answer] = program(outer, inner).generate("x", FEW)
    assert seen == [(True, 0.5)]
    assert all(step.slm_only for step in answer.steps)


def test_what_the_llm_is_shown_is_not_forgotten() -> None:
    def veils(request: Request) -> Any:
        return request.showing("public")

    def asks_on(request: Request) -> Any:
        yield [request.seeded(1), request.alone().asking("private too")]
        return request

    purifier = program(veils, asks_on)
    purifier.generate("private", FEW)
    read = [row.tokens for session in llm_of(purifier).sessions for row in session.prompts]
    assert read == [tuple(b"public"), tuple(b"public")]

    def rewords(request: Request) -> Any:
        return request.asking("private words")

    purifier = program(veils, rewords)
    assert "is shown" in refusal(purifier, "private")
    assert llm_of(purifier).sessions == []


def test_the_slm_alone_sends_the_llm_nothing() -> None:
    def alone(request: Request) -> Any:
        return (yield request.alone())

    purifier = program(alone)
    [answer] = purifier.generate("secret", FEW)
    assert llm_of(purifier).sessions == []
    assert answer.certificate.body["ledger"]["spent"] == "0.000000000"


def test_an_error_of_a_draft_is_raised_where_it_was_asked_for() -> None:
    def fallback(request: Request) -> Any:
        try:
            yield request
        except SourceError:
            return request.alone()

    llm = Watched(Failing(BYTES, 1, opening=True))
    purifier = Purifier(llm, Watched(ToySource(BYTES, 2)), purifier_policy(), stages=[Program(fallback)])
    [answer] = purifier.generate("x", FEW)
    assert all(step.slm_only for step in answer.steps)


# What goes wrong


def raises(request: Request) -> Any:
    raise ValueError("oops")


def raises_later(request: Request) -> Any:
    yield request
    raise ValueError("oops")


def returns_text(request: Request) -> Any:
    return "text"


def yields_text(request: Request) -> Any:
    yield "text"


def yields_nothing_for_ever(request: Request) -> Any:
    while True:
        yield []


def yields_for_ever(request: Request) -> Any:
    while True:
        yield request


def asks_for_many(request: Request) -> Any:
    yield [request] * 100


def mutates(request: Request) -> Any:
    request.prompt.messages[0]["content"] = "something else"  # type: ignore[union-attr]
    return request


def forges(request: Request) -> Any:
    draft = yield request.alone()
    return Draft(request, replace(draft.completion, text="forged"))


def subclasses(request: Request) -> Any:
    class Mine(Draft):
        text = "mine"

    draft = yield request.alone()
    return Mine(request, draft.completion)


def subclasses_a_request(request: Request) -> Any:
    class Free(Request):
        checks = ()

    yield Free(request.prompt)


kept: list[Any] = []


def returns_another_rows_draft(request: Request) -> Any:
    kept.append((yield request.alone()))
    return kept[0]


def catches_everything(request: Request) -> Any:
    while True:
        try:
            yield request
        except Exception:
            continue


def asks_without_sampling(request: Request) -> Any:
    return replace(request, sampling=None)


def quotes_a_draft(request: Request) -> Any:
    draft = yield request.alone()
    raise ValueError(draft.text)


WRONG = {
    asks_without_sampling: "a request has a Sampling",
    quotes_a_draft: "failed with ValueError in test_driver.py",
    raises: "failed with ValueError in test_driver.py",
    raises_later: "failed with ValueError in test_driver.py",
    returns_text: "returns a Request, or a Draft it was given, not a value of type str",
    yields_text: "yields Requests, or lists of them, not a value of type str",
    yields_nothing_for_ever: "ask for more",
    yields_for_ever: "ask for more",
    asks_for_many: "ask for more",
    forges: "another request's draft",
    subclasses: "another request's draft",
    subclasses_a_request: "yields Requests",
}


@pytest.mark.parametrize("wrong", WRONG, ids=lambda each: each.__name__)
def test_what_a_stage_does_wrong_refuses_its_row_alone(wrong: Any) -> None:
    def sometimes(request: Request) -> Any:
        return wrong(request) if request.text == "bad" else request

    purifier = program(sometimes)
    first, bad, last = purifier.generate(["one", "bad", "two"], FEW)
    assert isinstance(first, Completion)
    assert isinstance(last, Completion)
    assert isinstance(bad, Refused) or wrong is asks_without_sampling
    assert WRONG[wrong] in str(bad.error)
    assert sessions(purifier) == 0
    with pytest.raises(PurifyError):
        [*purifier.stream("bad", FEW)]
    assert [first.text, last.text] == [
        each.text for each in program().generate(["one", "-", "two"], FEW)[::2]
    ]


def test_a_message_changed_in_place_is_refused() -> None:
    chat = Chat(({"role": "user", "content": "hello"},))
    purifier = program(mutates)
    with pytest.raises(RefusedError, match="changed a prompt in place"):
        purifier.generate(chat, FEW)


def test_another_row_s_draft_is_refused() -> None:
    kept.clear()
    first, second = program(returns_another_rows_draft).generate(["one", "two"], FEW)
    assert isinstance(first, Completion)
    assert isinstance(second, Refused)


def test_a_program_that_ignores_its_end_is_left() -> None:
    assert "ask for more" in refusal(program(catches_everything))


def test_more_tokens_of_drafts_than_allowed_are_refused() -> None:
    def twice(request: Request) -> Any:
        yield request
        yield request.seeded(1)
        return request

    assert "tokens of drafts" in refusal(program(twice, tokens=8))
    assert program(twice, tokens=12).generate("x", FEW)


def test_closing_a_stream_closes_every_program_that_waits() -> None:
    closed: list[str] = []

    def waits(name: str) -> Callable[[Request], Any]:
        def asks(request: Request) -> Any:
            try:
                [draft] = yield [request]
            finally:
                closed.append(name)
            return draft

        return asks

    def reads(request: Request) -> Any:
        yield request
        return request

    purifier = program(waits("a"), waits("b"), waits("c"))
    stream = purifier._run(["x"], FEW, {})
    events = iter(stream)
    original = llm_of(purifier)

    def hang(*_: Any) -> Any:
        raise KeyboardInterrupt

    object.__setattr__(original.source, "logits", hang)
    with pytest.raises(KeyboardInterrupt):
        next(events)
    assert sorted(closed) == ["a", "b", "c"]
    assert sessions(purifier) == 0


def test_a_reader_who_leaves_closes_programs_and_sessions() -> None:
    for at in range(6):
        purifier = program(lambda request: request)
        stream = purifier.stream("x", replace(FEW, max_tokens=40))
        for _ in range(at):
            next(stream)
        stream.close()
        assert sessions(purifier) == 0


# Checks


class Word(Check):
    name = "word"

    def __init__(self, word: str, redo: int = 0) -> None:
        self.word, self.redo, self.window = word, redo, len(word)

    def clear(self, text: str, last: bool) -> int:
        at = text.find(self.word)
        if at >= 0:
            raise Blocked(at, "word")
        return len(text) if last else max(len(text) - len(self.word) + 1, 0)


class Broken(Word):
    def __init__(self, found: Any) -> None:
        super().__init__("-")
        self.found = found

    def clear(self, text: str, last: bool) -> Any:
        if isinstance(self.found, Exception):
            raise self.found
        return self.found


@pytest.mark.parametrize(
    "found", [ValueError("down"), math.nan, 10**6, -1, None, "all", TimeoutError("late")]
)
def test_a_check_that_fails_releases_nothing(found: Any) -> None:
    purifier = program(lambda request: request.checked(Broken(found)))
    got: list[str] = []
    with pytest.raises(RefusedError):
        got += (str(chunk) for chunk in purifier.stream("x", FEW))
    assert "".join(got) == ""
    assert sessions(purifier) == 0


class Unfresh(Word):
    def fresh(self) -> Any:
        raise ValueError("broken")


def test_a_check_that_cannot_begin_refuses_its_row_alone() -> None:
    purifier = program(lambda request: request.checked(Unfresh("-")) if request.text == "bad" else request)
    first, bad = purifier.generate(["one", "bad"], FEW)
    assert isinstance(first, Completion)
    assert isinstance(bad, Refused)

    def drafts(request: Request) -> Any:
        return (yield request.checked(Unfresh("-")))

    with pytest.raises(RefusedError):
        program(drafts).generate("x", FEW)


def letters_of(text: str) -> list[str]:
    return sorted({text[at : at + 2] for at in range(len(text) - 1)})


@pytest.mark.parametrize("redo", [0, 1, 3])
def test_nothing_of_a_blocked_span_is_released_and_a_span_is_written_again(redo: int) -> None:
    sampling = replace(FEW, max_tokens=24)
    [plain] = program().generate("x", sampling)
    rewritten = 0
    for word in letters_of(plain.text):
        purifier = program(lambda request, word=word: request.checked(Word(word, redo)))
        got: list[str] = []
        try:
            for chunk in purifier.stream("x", sampling):
                got.append(chunk.text)
        except RefusedError:
            assert plain.text.startswith("".join(got)) or redo
        else:
            answer = chunk.completion
            assert answer is not None
            assert "".join(got) == answer.text
            rewritten += 1
            assert sum(step.slm_only for step in answer.steps) >= 1
        assert word not in "".join(got)
        assert sessions(purifier) == 0
    assert bool(rewritten) == bool(redo)


def test_a_refusal_s_text_is_the_operator_s() -> None:
    options = {"on_refusal": "text", "refusals": {"default": "No.", "word": "Not that word."}}
    sampling = replace(FEW, max_tokens=24)
    [plain] = program().generate("x", sampling)
    word = plain.text[8:10]
    [answer] = program(lambda request: request.checked(Word(word)), **options).generate("x", sampling)
    assert answer.text == plain.text[: plain.text.index(word)] + "Not that word."
    assert answer.finish_reason == "refused"
    kinds = [segment["kind"] for segment in answer.certificate.body["segments"]]
    assert kinds == ["drawn", "operator"]
    [early] = program(raises, **options).generate("x", sampling)
    assert (early.text, early.tokens, early.finish_reason) == ("No.", (), "refused")


def test_a_plugin_that_refuses_a_finished_answer_withholds_its_last_text() -> None:
    class Auditor:
        @hookimpl
        def purify_completed(self, completion: Any) -> None:
            raise RefusedError("no")

    purifier = program(lambda request: request)
    [plain] = purifier.generate("x", FEW)
    purifier.plugins.register(Auditor(), name="auditor")
    got: list[str] = []
    with pytest.raises(RefusedError, match="no"):
        got += (str(chunk) for chunk in purifier.stream("x", FEW))
    assert plain.text.startswith("".join(got))
    assert len("".join(got)) < len(plain.text)


def test_programs_leave_nothing_behind() -> None:
    def twice(request: Request) -> Any:
        yield [request, request.alone()]
        return request

    purifier = program(twice)
    purifier.generate("x", FEW)
    gc.collect()
    left = [each for each in gc.get_objects() if type(each) is GeneratorType]
    assert "twice" not in {each.__name__ for each in left}
