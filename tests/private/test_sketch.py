"""`sketch`: all that is captured at the LLM is the abstract, and whatever goes wrong opens nothing."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from purify_adapters.sources.http.client import HttpClient
from purify_adapters.sources.llama_cpp import LlamaCppSource
from purify_hooks.private.finders import finder
from purify_hooks.private.leaks import LeakTest
from purify_hooks.private.sketch import Sketch, told
from purify_hooks.stages.ensemble import Ensemble
from purify_hooks.stages.rewrite import Rewrite
from purify_plugins import Chat, ConfigError, Purifier, PurifyError, RefusedError, Sampling
from purify_plugins.certificates import citing, recompute, verify
from purify_plugins.plugin.manager import load_plugins
from purify_plugins.protocols import Capabilities
from purify_plugins.stages import Stage
from purify_plugins.stages.request import Request
from purify_plugins.testing import StageConformance, ToySource
from tests.fake_tgi import serving
from tests.private.scripted import Scripted
from tests.remote.fake_servers import FakeLlama
from tests.remote.toy_server import ToyReader
from tests.toys import BYTES, Failing

ASKED = "My sister Zyx Quill, born on 4 May 1961, coughs since Monday. Her number is 555 0199. What helps?"
ABSTRACT = "Which remedies help against a cough that lasts for days?"
HELP = "Honey and rest."
FINAL = "Zyx should rest."
GREEDY = Sampling(max_tokens=200, temperature=0)


class TestSketch(StageConformance):
    def stage(self) -> Stage:
        return Sketch(on_leak="refuse")


def writes(abstract: str | Callable[[str], str]) -> Callable[[str], str]:
    """An SLM: its abstract, and otherwise the whole answer."""

    def write(prompt: str) -> str:
        if "general question" not in prompt:
            return HELP if prompt == ABSTRACT else FINAL
        return abstract if isinstance(abstract, str) else abstract(prompt)

    return write


def captured(
    abstract: str | Callable[[str], str] = ABSTRACT,
    prompt: Any = ASKED,
    *around: Stage,
    policy: Any = "capped",
    **options: Any,
) -> tuple[Any, Scripted, Scripted]:
    """The answer, or the error, and both models with what they were asked."""
    llm, slm = Scripted(lambda _: HELP), Scripted(writes(abstract))
    stages = [*around, Sketch(**options)]
    purifier = Purifier(llm, slm, load_plugins().policy(policy), stages=stages, sampling=GREEDY)
    try:
        [answer] = purifier.generate([prompt])
    except PurifyError as error:
        return error, llm, slm
    return answer, llm, slm


@pytest.mark.parametrize("prompt", [ASKED, Chat(({"role": "user", "content": ASKED},))])
def test_the_llm_is_asked_the_abstract_and_nothing_else(prompt: Any) -> None:
    answer, llm, slm = captured(prompt=prompt)
    assert llm.asked == [ABSTRACT]
    assert answer.text == FINAL
    assert ASKED in slm.asked[-1]
    assert ABSTRACT in slm.asked[-1]


def test_a_conversation_s_turns_tools_and_calls_stay_here() -> None:
    call = {"id": "1", "type": "function", "function": {"name": "find_zyx", "arguments": "{}"}}
    messages = (
        {"role": "system", "content": "The vault's code is 7788."},
        {"role": "user", "content": "Find Zyx."},
        {"role": "assistant", "content": "", "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "1", "content": "Zyx Quill, Elm Street 5"},
        {"role": "user", "content": "What helps against her cough?"},
    )
    tools = ({"type": "function", "function": {"name": "find_zyx", "description": "Finds Zyx."}},)
    _, llm, _ = captured(prompt=Chat(messages, tools))
    assert llm.asked == [ABSTRACT]


def test_the_completion_is_streamed_by_the_slm_and_the_ledger_counts_the_draft_it_read() -> None:
    llm, slm = Scripted(lambda _: HELP), Scripted(writes(ABSTRACT))
    policy = load_plugins().policy({"name": "capped", "total": 7.0})
    purifier = Purifier(llm, slm, policy, stages=[Sketch()])
    chunks = list(purifier.stream(ASKED, Sampling(max_tokens=200, seed=0)))
    assert len([chunk for chunk in chunks if chunk.text]) > 3
    answer = chunks[-1].completion
    assert answer is not None
    verify(answer.certificate, load_plugins())
    assert recompute(answer.certificate, slm) < 1e-3
    body = answer.certificate.body
    assert [each["role"] for each in body["drafts"]] == ["discarded", "read", "released"]
    assert float(body["ledger"]["read"]) == pytest.approx(7.0)
    assert body["ledger"]["choices"] == 1
    assert body["claim"]["guarantee"] == "path"


LEAKS = {
    "empty": "",
    "blank": " \n",
    "marks": "???",
    "the prompt": lambda prompt: prompt,
    "the request": ASKED,
    "five words of it": "What helps when the sister coughs since monday her number is known?",
    "a name": "What helps Zyx against a cough?",
    "a name in another case": "What helps zyx against a cough?",
    "a name with a zero-width space": "What helps Zy\u200bx against a cough?",
    "a name in a longer word": "What helps quillish people against a cough?",
    "a year": "What helps someone born in 1961?",
    "an address that a detector finds": "What helps? Write to someone@example.com.",
    "cut off": "What helps against a cough? " * 20,
}


@pytest.mark.parametrize("abstract", LEAKS.values(), ids=LEAKS)
@pytest.mark.parametrize("on_leak", ["slm", "refuse"])
def test_an_abstract_that_leaks_is_not_sent(abstract: Any, on_leak: str) -> None:
    answer, llm, _ = captured(abstract, on_leak=on_leak)
    assert llm.asked == []
    if on_leak == "slm":
        assert answer.text == FINAL
        assert answer.certificate.body["claim"]["guarantee"] == "none"
    else:
        assert isinstance(answer, RefusedError)
        assert "Zyx" not in str(answer)


def test_another_abstract_is_tried() -> None:
    tried = iter(["What helps Zyx?", ABSTRACT])
    _, llm, _ = captured(lambda _: next(tried))
    assert llm.asked == [ABSTRACT]


def test_what_is_labelled_is_private_and_the_rest_may_be_named() -> None:
    abstract = "How far is Oslo from Bergen by train?"
    prompt = "<private>I meet Zyx Quill there.</private> How far is Oslo from Bergen by train?"
    _, llm, slm = captured(abstract, prompt)
    assert llm.asked == [abstract]
    assert not [each for each in slm.asked if "<private>" in each]
    _, llm, _ = captured("Where do I meet Zyx?", prompt)
    assert llm.asked == []
    with citing({"file 3": "The fee is ninety euros."}):
        _, llm, _ = captured(
            "Say if the fee is ninety euros.", "The fee is ninety euros. Is it much?", private=("file 3",)
        )
    assert llm.asked == []


@pytest.mark.parametrize("around", [Ensemble(2), Rewrite(longest_change=1.0)])
def test_what_other_stages_ask_is_abstracted_too(around: Stage) -> None:
    _, llm, _ = captured(ABSTRACT, ASKED, around)
    assert llm.asked
    assert set(llm.asked) == {ABSTRACT}


def test_an_llm_that_fails_is_an_error_and_no_second_way() -> None:
    llm, slm = Failing(Scripted(str).vocabulary, opening=True), Scripted(writes(ABSTRACT))
    purifier = Purifier(llm, slm, load_plugins().policy("capped"), stages=[Sketch()])
    with pytest.raises(PurifyError, match="hung up"):
        purifier.generate([ASKED], GREEDY, errors="raise")


def test_token_ids_have_no_abstract() -> None:
    with pytest.raises(PurifyError):
        next(Sketch().answer(Request((1, 2, 3))))  # type: ignore[arg-type]


def test_a_server_receives_the_abstract_alone() -> None:
    """Over HTTP, on a server that keeps every request; ids are read back as its vocabulary spells them."""
    fake = FakeLlama(ToySource(BYTES, 1))
    with serving(fake.app()) as url:
        source = LlamaCppSource(HttpClient(url), ToyReader(BYTES), len(BYTES), ahead=0)  # type: ignore[arg-type]  # a toy's
        source.capabilities = Capabilities(False, True, len(BYTES), True, False, False)
        slm = Scripted(writes(ABSTRACT))
        purifier = Purifier(source, slm, load_plugins().policy("capped"), stages=[Sketch()])
        [answer] = purifier.generate([ASKED], Sampling(max_tokens=16, temperature=0))
    assert answer.text == FINAL
    found = "".join(spelled(body) for _, body in fake.requests)
    assert ABSTRACT in found
    for private in ("Zyx", "Quill", "1961", "May", "Monday", "0199", "general question"):
        assert private not in found


def spelled(value: Any) -> str:
    """All that JSON says, with runs of ids as text."""
    if isinstance(value, list) and value and all(type(each) is int for each in value):
        return bytes(each for each in value if each < 256).decode(errors="replace")
    if isinstance(value, dict):
        return "".join(f"{key}{spelled(each)}" for key, each in value.items())
    return "".join(map(spelled, value)) if isinstance(value, list) else str(value)


WORDS = st.lists(st.sampled_from(["red", "Ada", "7", "fox", "runs", "far", "away", "."]), max_size=12).map(
    " ".join
)


@settings(deadline=None)
@given(WORDS, WORDS, st.integers(1, 5))
def test_what_shares_a_run_leaks_and_more_private_text_leaks_no_less(
    text: str, private: str, run: int
) -> None:
    test = LeakTest(finder([]), run)
    said = [each for each in text.casefold().split() if each != "."]
    known = [each for each in private.casefold().split() if each != "."]
    length = min(run, len(known))
    runs = [known[at : at + length] for at in range(len(known) - length + 1)] if length else []
    shared = any(said[at : at + length] in runs for at in range(len(said)))
    if shared or not said:
        assert test.leaks(text, [private])
    if test.leaks(text, [private]):
        assert test.leaks(text, [private, "more"])


@pytest.mark.parametrize(
    ("text", "private", "leaks"),
    [
        ("我想问王小明住在哪里", "王小明住在北京朝阳区", True),
        ("What of 123450 euros?", "They owe 1,234.50 euros to me, and have paid none of it", True),
        ("What of 1234 euros?", "They owe 1,234.50 euros to me, and have paid none of it", True),
        ("What of 77 12 34 as a code?", "My code is 771234 since the last time that I asked", True),
        ("What of 12 euros?", "They owe 1,234.50 euros to me, and have paid none of it", False),
    ],
)
def test_scripts_without_spaces_and_numbers_in_other_groups_leak(
    text: str, private: str, leaks: bool
) -> None:
    """A sentence of Han was one word, so nothing less than all of it was found; and 1234 was not in 1,234."""
    assert LeakTest(finder([]), 5).leaks(text, [private]) is leaks


@pytest.mark.parametrize("option", [{"run": 0}, {"tries": 0}, {"length": 0}, {"on_leak": "llm"}])
def test_options_say_what_is_wrong(option: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=next(iter(option))):
        Sketch(**option)


def test_examples_stand_before_the_last_question_and_its_calls_stay_behind_it() -> None:
    call = {"id": "1", "type": "function", "function": {"name": "find", "arguments": "{}"}}
    system, user = {"role": "system", "content": "Be brief."}, {"role": "user", "content": "What helps Zyx?"}
    after = ({"role": "assistant", "content": "", "tool_calls": [call]}, {"role": "tool", "content": "Tea."})
    asked = told(Request(Chat((system, user, *after))), [("A?", "B."), ("C?", "D.")]).prompt
    assert isinstance(asked, Chat)
    assert [each["content"] for each in asked.messages] == [
        *("Be brief.", "A?", "B.", "C?", "D.", "What helps Zyx?", "", "Tea.")
    ]
    assert told(Request("What helps Zyx?"), [("A?", "B.")]).prompt == "A?\nB.\n\nWhat helps Zyx?\n"
