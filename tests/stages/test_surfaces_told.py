"""What surfaces tell stages, what clients are told beside the text, and who is left alone by a refusal."""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass
from typing import Any

import pytest
from langchain_core.caches import InMemoryCache
from llama_index.core.base.llms.types import ChatMessage
from llama_index.core.tools import FunctionTool

from purify_adapters.langchain import ChatPurified
from purify_adapters.langchain import PurifiedLLM as LangChainLLM
from purify_adapters.llama_index import PurifiedLLM as LlamaIndexLLM
from purify_adapters.tool_calls import CallParser, CallPart, ChunkParser
from purify_plugins import Purifier, RefusedError
from purify_plugins.plugin.manager import load_plugins
from purify_plugins.stages import RequestOptions
from purify_plugins.stages.stage import Stage
from purify_plugins.types import Chunk, Completion, Piece, ToolFormat
from tests.adapters.gateways import serving
from tests.stages.surfaces import MESSAGES
from tests.stages.surfaces_wire import OPENAI, ROUTES
from tests.stages.theatre import DRAWN, PROMPT, SAID, TRUE, VOCABULARY, Programme, cases, plain, told, word


@dataclass(frozen=True)
class Picky(Stage):
    """Refuses whatever speaks of land."""

    def answer(self, request: Any) -> Any:
        if "land" in request.text:
            raise RefusedError("the guard refused this request")
        return request


LAND = "Tell me of the land"


def picky() -> Purifier:
    return told().replace(stages=[Picky()])


# Neighbours


def test_a_refused_row_leaves_its_neighbours() -> None:
    first, refused, last = picky().generate([PROMPT, LAND, PROMPT])
    alone = told().generate([PROMPT, PROMPT, PROMPT])
    assert first.text == alone[0].text == plain()
    assert last.text == alone[2].text
    with pytest.raises(RefusedError):
        _ = refused.text


@pytest.mark.parametrize("kind", [ChatPurified, LangChainLLM])
@pytest.mark.parametrize("seed", [DRAWN["seed"], None], ids=["seeded", "as one batch"])
def test_a_refused_row_of_langchain_s_batch_leaves_its_neighbours(kind: Any, seed: int | None) -> None:
    model = kind(purifier=picky(), **{**DRAWN, "seed": seed})
    prompts = [PROMPT, LAND, "Tell me of the sky"]
    for found in (
        model.batch(prompts, return_exceptions=True),
        asyncio.run(model.abatch(prompts, return_exceptions=True)),
    ):
        assert [isinstance(each, RefusedError) for each in found] == [False, True, False]


def test_prompts_of_one_request_are_one_answer_or_one_refusal() -> None:
    """OpenAI's body has no place for the error of one prompt among several."""
    with serving(picky()) as served:
        answer = served.post("/v1/completions", {**OPENAI, "prompt": [PROMPT, LAND]})
        assert answer.status_code == 422
        assert "choices" not in answer.json()


# What is told beside the text


@pytest.mark.parametrize(
    ("case", "openai", "tgi"),
    [
        ("ended in the operator's words", "content_filter", "eos_token"),
        ("refused in the operator's words", "content_filter", "eos_token"),
        ("restored", "length", "length"),
    ],
)
def test_why_an_answer_ended(case: str, openai: str, tgi: str) -> None:
    with serving(told(cases()[case])) as served:
        path, body, *_ = ROUTES["/v1/chat/completions"]
        whole, *_, last = (
            served.post(path, body).json(),
            *_last(served.events(path, {**body, "stream": True})),
        )
        assert whole["choices"][0]["finish_reason"] == last["choices"][0]["finish_reason"] == openai
        path, body, *_ = ROUTES["/generate details"]
        assert served.post(path, body).json()["details"]["finish_reason"] == tgi
        path, body, *_ = ROUTES["/v1/responses"]
        ended = served.post(path, body).json()
        assert ended["status"] == "incomplete"
        assert ended["incomplete_details"]["reason"] in ("content_filter", "max_output_tokens")
    model = ChatPurified(purifier=told(cases()[case]), **DRAWN)
    assert model.invoke(PROMPT).response_metadata["finish_reason"] == openai


@pytest.mark.parametrize(
    ("case", "reason", "drawn"),
    [("picked", "length", 2 * DRAWN["max_tokens"]), ("refused in the operator's words", "refused", 0)],
)
def test_what_the_wire_has_no_field_for_is_told_beside_it(case: str, reason: str, drawn: int) -> None:
    with serving(told(cases()[case])) as served:
        path, body, *_ = ROUTES["/v1/chat/completions"]
        whole = served.post(path, body)
        assert whole.headers["x-purify-finish-reason"] == reason
        assert whole.headers["x-purify-drawn-tokens"] == str(drawn)
        assert whole.json()["usage"]["completion_tokens"] == drawn // 2
        *_, last = _last(served.events(path, {**body, "stream": True}))
        assert (last["purify"]["finish_reason"], last["purify"]["drawn_tokens"]) == (reason, drawn)


def _last(events: list[Any]) -> list[Any]:
    return [each for each in events if each != "[DONE]"]


@pytest.mark.parametrize(
    "case", ["blocked in the middle", "ended in the operator's words", "redone", "restored"]
)
def test_log_probabilities_name_released_text_alone(case: str) -> None:
    purifier, due = told(cases()[case]), cases()[case]
    with serving(purifier) as served:
        path, body, *_ = ROUTES["/v1/chat/completions"]
        wanted = {**body, "logprobs": True, "stream": True}
        found = _tokens(served.events(path, wanted))
        assert due.due.removesuffix(SAID).startswith(found) or due.before.startswith(found)
        path, body, *_ = ROUTES["/v1/completions"]
        listed = served.post(path, {**body, "logprobs": 0})
        if not due.error:
            [choice] = listed.json()["choices"]
            assert "".join(choice["logprobs"]["tokens"]) == due.due.removesuffix(SAID)
    if not due.error:
        llm = LlamaIndexLLM(purifier, logprobs=True, **DRAWN)
        logprobs = llm.chat([ChatMessage(PROMPT)]).logprobs
        assert "".join(each[0].token for each in logprobs) == due.due.removesuffix(SAID)
        model = ChatPurified(purifier=purifier, **DRAWN).bind(logprobs=True)
        content = model.invoke(PROMPT).response_metadata["logprobs"]["content"]
        assert "".join(each["token"] for each in content) == due.due.removesuffix(SAID)


def _tokens(events: list[Any]) -> str:
    choices = [choice for each in _last(events) for choice in each.get("choices", ())]
    return "".join(one["token"] for each in choices for one in (each["logprobs"] or {}).get("content", ()))


@pytest.mark.parametrize(
    ("route", "option"),
    [
        ("/generate", {"parameters": {"top_n_tokens": 2}}),
        ("/v1/chat/completions", {"logprobs": True, "top_logprobs": 2}),
        ("/v1/completions", {"logprobs": 2}),
    ],
)
def test_words_that_were_not_drawn_are_not_shown(route: str, option: dict[str, Any]) -> None:
    path, body, *_ = ROUTES[route]
    with serving(told(cases()["redone"])) as served:
        answer = served.post(path, {**body, **option})
        assert answer.status_code == 422
        assert "no check of the request stages has judged" in answer.text


# Several answers


@pytest.mark.parametrize("route", ["/v1/completions", "/v1/chat/completions"])
def test_n_answers_are_n_choices_and_certificates(route: str) -> None:
    path, body, *_ = ROUTES[route]
    with serving(told(), certificates=9) as served:
        answer = served.post(path, {**body, "n": 3})
        choices = answer.json()["choices"]
        texts = [each.get("text") or each["message"]["content"] for each in choices]
        assert texts == [each.text for each in told().generate([PROMPT] * 3)]
        assert [each["index"] for each in choices] == [0, 1, 2]
        usage = answer.json()["usage"]
        assert usage == {
            "prompt_tokens": len(PROMPT),
            "completion_tokens": 3 * DRAWN["max_tokens"],
            "total_tokens": len(PROMPT) + 3 * DRAWN["max_tokens"],
        }
        digests = answer.headers["x-purify-certificate"].split(",")
        assert len({*digests} & {digest for _, digest in served.app.service.certificates}) == 3
        streamed = _last(served.events(path, {**body, "n": 3, "stream": True}))
        said = ["", "", ""]
        for event in streamed:
            for choice in event["choices"]:
                said[choice["index"]] += choice.get("text") or choice.get("delta", {}).get("content") or ""
        assert said == texts
        assert sum("purify" in each for each in streamed) == 3


@pytest.mark.parametrize("route", ["/generate", "/v1/completions"])
def test_best_of_picks_by_the_slm_and_counts_the_choice(route: str) -> None:
    path, body, text_of, _ = ROUTES[route]
    asked = {**body, "best_of": 3}
    if "parameters" in body:
        asked = {**body, "parameters": {**body["parameters"], "best_of": 3}}
    with serving(told(), certificates=9) as served:
        text = text_of(served.post(path, asked).json())
        [certificate] = map(json.loads, served.app.service.certificates.values())
    assert certificate["ledger"]["choices"] == 3
    assert [each["role"] for each in certificate["drafts"]].count("discarded") == 2
    ensemble = load_plugins().make("purify_stages", "ensemble", {"n": 3, "select": "slm"})
    assert text == told().replace(stages=[ensemble]).generate([PROMPT], errors="raise")[0].text


# Certificates


@pytest.mark.parametrize("case", ["ended in the operator's words", "redone"])
def test_a_certificate_s_ids_do_not_spell_a_blocked_span(case: str) -> None:
    [answer] = told(cases()[case]).generate([PROMPT], errors="raise")
    for draft in answer.certificate.body["drafts"]:
        spelled = VOCABULARY.spell([step[0] for step in draft["certificate"]["steps"]]).decode()
        assert spelled == answer.text.removesuffix(SAID)
        assert word() not in spelled


# Whose a request is


@dataclass(frozen=True)
class Known(Stage):
    """Refuses all but one user."""

    def answer(self, request: Any) -> Any:
        if request.about.get("user") != "ada":
            raise RefusedError("who are you?")
        return request


def test_a_user_is_whose_the_request_is() -> None:
    purifier = told().replace(stages=[Known()])
    with serving(purifier) as served:
        for route in ("/v1/completions", "/v1/chat/completions", "/v1/responses"):
            path, body, *_ = ROUTES[route]
            for stream in (False, True):
                assert served.post(path, {**body, "user": "ada", "stream": stream}).status_code == 200
                assert served.post(path, {**body, "user": "eve", "stream": stream}).status_code == 422
    for model in (ChatPurified(purifier=purifier, **DRAWN), LangChainLLM(purifier=purifier, **DRAWN)):
        assert model.invoke(PROMPT, user="ada")
        assert list(model.stream(PROMPT, user="ada"))
        assert asyncio.run(model.ainvoke(PROMPT, user="ada"))
        with pytest.raises(RefusedError):
            model.invoke(PROMPT)
    llm = LlamaIndexLLM(purifier, **DRAWN)
    assert llm.complete(PROMPT, user="ada").text == plain()
    assert asyncio.run(llm.achat([ChatMessage(PROMPT)], user="ada"))
    with pytest.raises(RefusedError):
        llm.complete(PROMPT)


# Caches


def test_an_answer_without_stages_is_not_replayed_with_them() -> None:
    cache = InMemoryCache()
    bare = ChatPurified(purifier=told(), cache=cache, **DRAWN)
    assert word() in bare.invoke(PROMPT).content
    staged = ChatPurified(purifier=told(cases()["restored"]), cache=cache, **DRAWN)
    assert TRUE in staged.invoke(PROMPT).content
    assert TRUE in staged.invoke(PROMPT).content  # from the cache


def test_a_refused_answer_is_not_cached() -> None:
    cache = InMemoryCache()
    model = ChatPurified(purifier=told(cases()["blocked in the middle"]), cache=cache, **DRAWN)
    for _ in range(2):
        with pytest.raises(RefusedError):
            model.invoke(PROMPT)
    assert not cache._cache


# Tool calls

CALLS = ToolFormat("<tool_call>", "</tool_call>", "")


def reading(*pieces: Piece, completion: Completion) -> list[Any]:
    reader = ChunkParser(CallParser(CALLS, ["find"]), VOCABULARY)
    return [*reader.take(Chunk(pieces)), *reader.take(Chunk((), (), completion))]


def test_an_operator_s_text_is_no_part_of_the_call_that_it_ends() -> None:
    [answer] = told().generate([PROMPT], errors="raise")
    token = answer.steps[0]
    begun = Piece(token, '<tool_call>{"name": "find", "arguments": {"who": "Ada')
    parts = reading(begun, Piece(None, SAID), completion=answer)
    assert parts[-1] == SAID
    calls = [each for each in parts if isinstance(each, CallPart)]
    assert "".join(each.arguments for each in calls) == '{"who": "Ada'


def test_a_restored_value_in_a_call_is_read() -> None:
    [answer] = told().generate([PROMPT], errors="raise")
    token = answer.steps[0]
    begun = Piece(token, '<tool_call>{"name": "find", "arguments": {"who": "')
    parts = reading(begun, Piece(token, TRUE), Piece(token, '"}}</tool_call>'), completion=answer)
    calls = [each for each in parts if isinstance(each, CallPart)]
    assert json.loads("".join(each.arguments for each in calls)) == {"who": TRUE}


def test_an_operator_s_text_is_no_reply_to_a_required_tool() -> None:
    options = RequestOptions(on_refusal="text", refusals={"default": SAID})
    purifier = told().replace(stages=[Programme("refuses")], request=options)
    with serving(purifier) as served:
        tool = {"type": "function", "function": {"name": "find", "parameters": {"type": "object"}}}
        body = {**OPENAI, "messages": MESSAGES, "tools": [tool]}
        [choice] = served.post("/v1/chat/completions", body).json()["choices"]
        assert choice["message"]["content"] == SAID
        assert choice["finish_reason"] == "content_filter"
    find = FunctionTool.from_defaults(lambda: "", name="find", description="finds")
    llm = LlamaIndexLLM(purifier, **DRAWN)
    assert llm.chat_with_tools([find], PROMPT, tool_required=True).message.content == SAID
