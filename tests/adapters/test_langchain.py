"""ChatPurified and PurifiedLLM: what LangChain's own suites do not ask."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Literal, TypedDict

import pytest
from langchain_core.caches import InMemoryCache
from langchain_core.callbacks import BaseCallbackHandler, UsageMetadataCallbackHandler
from langchain_core.exceptions import OutputParserException
from langchain_core.globals import set_llm_cache
from langchain_core.messages import AIMessage, HumanMessage, SystemMessage, ToolMessage
from langchain_core.output_parsers import StrOutputParser
from langchain_core.prompts import ChatPromptTemplate
from langchain_core.runnables import ConfigurableField
from pydantic import BaseModel, Field

from purify_adapters.langchain import ChatPurified, PurifiedLLM, response_metadata
from purify_adapters.langchain.coalesced_batch import CoalescedBatch
from purify_adapters.langchain.response_metadata import fingerprint
from purify_plugins import (
    Chat,
    ConfigError,
    Grammar,
    PromptError,
    Purifier,
    RefusedError,
    Sampling,
    SourceError,
    UnknownNameError,
    hookimpl,
)
from purify_plugins.certificates import read, verify
from purify_plugins.plugin.manager import load_plugins
from purify_plugins.protocols import Capabilities
from purify_plugins.testbed import LLM, SLM
from purify_plugins.testing import ScriptedSource, ToySource
from purify_plugins.types import Prompt
from tests.adapters.actors import Actor, agreeing, call, last
from tests.adapters.costs import MOST, overhead, replaying
from tests.adapters.gateways import stubs
from tests.toys import BYTES, Failing, Placed, Watched, both, pair, real, toys

GREEDY: dict[str, Any] = {"temperature": 0.0, "max_tokens": 12}
HELLO = [HumanMessage("hello")]


def chat(purifier: Purifier | None = None, **options: Any) -> ChatPurified:
    return ChatPurified(purifier=purifier or toys(), **{**GREEDY, **options})


def core(prompt: str = "hello", purifier: Purifier | None = None, **options: Any) -> str:
    """What the core says to the same conversation."""
    conversation = Chat(({"role": "user", "content": prompt},))
    return (purifier or toys()).generate([conversation], Sampling(**{**GREEDY, **options}))[0].text


@pytest.fixture(autouse=True)
def no_cache() -> Iterator[None]:
    set_llm_cache(None)
    yield
    set_llm_cache(None)


# Making one


def test_weights_are_read_at_the_first_call(monkeypatch: pytest.MonkeyPatch) -> None:
    loads: list[int] = []

    def load(*_: Any, **__: Any) -> Purifier:
        loads.append(1)
        return toys()

    monkeypatch.setattr(Purifier, "load", load)
    model = ChatPurified(llm="no/llm", slm="no/slm", **GREEDY)
    assert model.model_name == "llm"
    assert not loads
    model.invoke("hello")
    assert loads == [1]


def test_many_threads_load_the_weights_once(monkeypatch: pytest.MonkeyPatch) -> None:
    loads: list[int] = []

    def load(*_: Any, **__: Any) -> Purifier:
        time.sleep(0.05)
        loads.append(1)
        return toys()

    monkeypatch.setattr(Purifier, "load", load)
    model = ChatPurified(llm="large", slm="small", **GREEDY)
    threads = [threading.Thread(target=model.load) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(loads) == 1


@pytest.mark.parametrize("kind", [ChatPurified, PurifiedLLM])
def test_a_model_is_made_from_a_configuration(kind: Any, tmp_path: Any, monkeypatch: Any) -> None:
    models = f"[llm]\nmodel = {json.dumps(str(LLM))}\n[slm]\nmodel = {json.dumps(str(SLM))}\n"
    file = tmp_path / "purify.toml"
    file.write_text(f"{models}[sampling]\nmax_tokens = 3\nseed = 1\n")
    answers = [kind.from_config(file).invoke("Once")]
    monkeypatch.setenv("PURIFY_CONFIG", str(file))
    answers += [
        kind.from_config().invoke("Once"),
        kind().invoke("Once"),
        kind(config=str(file)).invoke("Once"),
    ]
    texts = [getattr(answer, "content", answer) for answer in answers]
    assert len(set(texts)) == 1
    assert kind.from_config(file).get_token_ids("Once upon") == kind(purifier=real()).get_token_ids(
        "Once upon"
    )


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"llm": "x"}, "both llm and slm are needed"),
        ({"llm": "x", "slm": "y", "config": "z"}, "two of them would contradict each other"),
        (
            {"llm": "x", "slm": "y", "polcy": "z"},
            "unknown ChatPurified option 'polcy'; did you mean 'policy'",
        ),
        ({"llm": "x", "slm": "y", "temperature": -1.0}, "temperature must be"),
        ({"llm": "x", "slm": "y", "temperature": 1e-9}, "temperature must be 0 .greedy., or finite"),
        ({"config": "gone.toml"}, "cannot read 'gone.toml'"),
    ],
)
def test_a_model_that_cannot_be_made_is_refused_with_advice(options: Any, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        ChatPurified(**options)


def test_an_adapter_is_offered() -> None:
    purifier = toys()
    made = purifier.plugins.make("purify_adapters", "langchain", {"purifier": purifier, "max_tokens": 3})
    assert isinstance(made, ChatPurified)
    assert made.invoke("hello").content


# One call


def test_an_answer_is_the_core_s() -> None:
    assert chat().invoke("hello").content == core()


@pytest.mark.parametrize(
    "options",
    [
        {"max_tokens": 3},
        {"temperature": 1.0, "seed": 4},
        {"temperature": 1.0, "seed": 4, "top_p": 0.5, "top_k": 3, "min_p": 0.1},
        {"repetition_penalty": 3.0, "frequency_penalty": 1.0},
        {"grammar": Grammar("regex", "[a-z]{4}")},
    ],
)
def test_a_call_s_options_are_this_call_s(options: dict[str, Any]) -> None:
    model = chat()
    assert model.invoke("hello", **options).content == core(**options)
    assert chat(**options).invoke("hello").content == core(**options)
    assert model.invoke("hello").content == core()
    assert "".join(str(chunk.content) for chunk in model.stream("hello", **options)) == core(**options)


def test_stop_strings_end_every_answer() -> None:
    letter = core()[4]
    expected = core(stop=(letter,))
    assert letter not in expected
    assert chat(stop=[letter]).invoke("hello").content == expected
    assert chat(stop=["never"]).invoke("hello", stop=[letter]).content == expected
    assert "".join(str(chunk.content) for chunk in chat().stream("hello", stop=[letter])) == expected
    assert chat().invoke("hello", stop=[letter]).response_metadata["finish_reason"] == "stop"


STOPPED: dict[str, Callable[[Any, list[str]], Any]] = {
    "invoke": lambda model, stop: model.invoke("hello", stop=stop),
    "ainvoke": lambda model, stop: asyncio.run(model.ainvoke("hello", stop=stop)),
    "stream": lambda model, stop: _sum(model.stream("hello", stop=stop)),
    "astream": lambda model, stop: asyncio.run(_asum(model.astream("hello", stop=stop))),
    "batch": lambda model, stop: model.batch(["hello", "hello"], stop=stop)[1],
    "abatch": lambda model, stop: asyncio.run(model.abatch(["hello", "hello"], stop=stop))[1],
    "bind": lambda model, stop: model.bind(stop=stop).invoke("hello"),
}


@pytest.mark.parametrize("way", STOPPED)
@pytest.mark.parametrize("kind", [ChatPurified, PurifiedLLM])
def test_a_stop_string_of_several_tokens_ends_every_way_to_ask(kind: Any, way: str) -> None:
    """It is found in the text, wherever the tokens' borders are, and no part of it is released."""
    model = kind(purifier=toys(), **GREEDY)
    whole = str(getattr(model.invoke("hello"), "content", model.invoke("hello")))
    ended = STOPPED[way](model, [whole[3:6]])
    assert getattr(ended, "content", ended) == whole[:3]


async def _asum(chunks: Any) -> Any:
    return _sum([chunk async for chunk in chunks])


@pytest.mark.parametrize("name", ["policy", "slm", "weight", "purify", "tempratur"])
def test_what_a_call_cannot_say_is_refused_by_name(name: str) -> None:
    for model in (chat(), PurifiedLLM(purifier=toys())):
        with pytest.raises(UnknownNameError, match=f"unknown call option '{name}'"):
            model.invoke("hello", **{name: None})
        with pytest.raises(UnknownNameError, match=f"unknown call option '{name}'"):
            list(model.stream("hello", **{name: None}))


def test_another_llm_is_purified_by_the_same_slm() -> None:
    purifier = toys()
    model = chat(purifier, llms={"other": ToySource(BYTES, 3)})
    other = Purifier(ToySource(BYTES, 3), purifier.slm, purifier.policy)
    answer = model.invoke("hello", model="other")
    assert answer.content == core(purifier=other)
    assert answer.response_metadata["model_name"] == "other"
    with pytest.raises(UnknownNameError, match="unknown model 'stranger'"):
        model.invoke("hello", model="stranger")


def test_another_llm_is_purified_in_the_same_way() -> None:
    """The policy counts the new pair's symbols, of the tokens that it was given in."""
    options: Any = {"alignment": "bytes", "fidelity": "fast", "explain": True, "walk": "lockstep"}
    purifier = real("windowed", **options)
    other = chat(purifier, llms={"other": both()[0]}).load("other")
    assert purifier.policy != purifier.given_policy
    assert other.policy == purifier.policy
    assert (other.llm.identity(), other.slm.identity()) == (purifier.llm.identity(), purifier.slm.identity())
    assert other.explain


@dataclass(frozen=True)
class Streaming(ToySource):
    """A toy that says it is behind a server which drafts."""

    @property
    def capabilities(self) -> Capabilities:
        return Capabilities(True, True, 5, None, scores_draft=False, streams_rows=True)


def test_another_llm_is_asked_in_the_way_that_suits_it() -> None:
    model = chat(pair(Streaming(BYTES, 1), ToySource(BYTES, 2)), llms={"other": ToySource(BYTES, 3)})
    assert (model.load().walk, model.load("other").walk) == ("readahead", "speculative")


def test_an_answer_says_what_it_cost_and_who_wrote_it() -> None:
    answer = chat().invoke("hello")
    assert answer.usage_metadata == {"input_tokens": 5, "output_tokens": 12, "total_tokens": 17}
    about = answer.response_metadata
    assert about["model_name"] == "toy 1"
    assert about["finish_reason"] == "length"
    assert about["purification"]["policy"] == "geometric"
    assert len(about["purification"]["digest"]) == 64
    assert "certificate" not in about["purification"]


def test_the_whole_certificate_comes_when_asked_for() -> None:
    for answer in (chat().invoke("hello", certificate=True), chat(certificate=True).invoke("hello")):
        purification = answer.response_metadata["purification"]
        certificate = read(purification["certificate"])
        verify(certificate, load_plugins())
        assert certificate.digest == purification["digest"]


def test_logprobs_are_in_openai_s_shape() -> None:
    purifier = toys()
    [completion] = purifier.generate([Chat(({"role": "user", "content": "hello"},))], Sampling(**GREEDY))
    whole = chat(purifier).invoke("hello", logprobs=True).response_metadata["logprobs"]
    streamed = None
    for chunk in chat(purifier).stream("hello", logprobs=True):
        streamed = chunk if streamed is None else streamed + chunk
    assert streamed is not None
    assert streamed.response_metadata["logprobs"] == whole
    assert [each["logprob"] for each in whole["content"]] == [step.fused for step in completion.steps]
    assert whole["content"][0].keys() == {"token", "bytes", "logprob", "top_logprobs"}
    with pytest.raises(ConfigError, match="top_logprobs must be 0"):
        chat(purifier).invoke("hello", logprobs=True, top_logprobs=3)


def test_a_completion_model_s_generations_say_the_same() -> None:
    purifier = toys()
    [completion] = purifier.generate("hello", Sampling(**GREEDY))
    [[generation]] = PurifiedLLM(purifier=purifier, **GREEDY).generate(["hello"], logprobs=True).generations
    about = generation.generation_info or {}
    assert generation.text == completion.text
    assert [each["logprob"] for each in about["logprobs"]["content"]] == [s.fused for s in completion.steps]
    assert about["purification"]["digest"] == completion.certificate.digest
    assert (about["finish_reason"], about["model_name"]) == ("length", "toy 1")
    assert about["usage"]["total_tokens"] == 17


def test_messages_of_every_kind_are_rendered() -> None:
    seen: list[Prompt] = []

    def reply(prompt: Prompt) -> str:
        seen.append(prompt)
        return "ok"

    messages = [
        SystemMessage("s"),
        HumanMessage([{"type": "text", "text": "a"}, {"type": "text", "text": "b"}], name="ann"),
        AIMessage("", tool_calls=[{"name": "f", "args": {"x": "é"}, "id": "1"}]),
        ToolMessage("7", tool_call_id="1"),
    ]
    ChatPurified(purifier=agreeing(reply), temperature=0).invoke(messages)
    assert isinstance(seen[0], Chat)
    assert [(each["role"], each["content"]) for each in seen[0].messages] == [
        ("system", "s"),
        ("user", "ab"),
        ("assistant", call("f", x="é")),
        ("user", "<tool_response>\n7\n</tool_response>"),
    ]


def test_an_image_is_refused_by_name() -> None:
    image = HumanMessage([{"type": "image_url", "image_url": {"url": "http://x"}}])
    with pytest.raises(PromptError, match="read text alone, and a message holds a 'image_url'"):
        chat().invoke([image])


def test_tokens_are_counted_here() -> None:
    assert chat().get_token_ids("hello") == list(b"hello")
    assert chat().get_num_tokens("") == 0
    assert chat().get_num_tokens_from_messages([HumanMessage("hello"), AIMessage("yes")]) == 9
    model = ChatPurified(purifier=real())
    assert len(model.get_token_ids("Once upon a time")) < 10
    read_ = model.invoke("Once", max_tokens=1).usage_metadata
    assert read_ is not None
    assert model.get_num_tokens_from_messages([HumanMessage("Once")]) == read_["input_tokens"]


# Streams and event loops


def test_a_stream_is_the_answer_in_pieces() -> None:
    whole, chunks = chat().invoke("hello"), list(chat().stream("hello"))
    assert "".join(str(chunk.content) for chunk in chunks) == whole.content
    assert len(chunks) > 3
    assert [chunk.chunk_position for chunk in chunks[:-1]] == [None] * (len(chunks) - 1)
    last_ = chunks[-1]
    assert last_.chunk_position == "last"
    assert last_.usage_metadata == whole.usage_metadata
    assert last_.response_metadata["purification"] == whole.response_metadata["purification"]
    assert not any(chunk.usage_metadata for chunk in chunks[:-1])


async def test_async_answers_are_the_sync_ones() -> None:
    model = chat()
    assert (await model.ainvoke("hello")).content == core()
    assert "".join([str(chunk.content) async for chunk in model.astream("hello")]) == core()
    assert [each.content for each in await model.abatch(["hello", "you"])] == [core(), core("you")]


async def test_the_event_loop_is_never_blocked(monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither by weights being read nor by tokens being written: both happen on other threads."""
    threads: set[int] = set()

    def load(*_: Any, **__: Any) -> Purifier:
        threads.add(threading.get_ident())
        return pair(Placed(BYTES, 1, threads=threads), Placed(BYTES, 2, threads=threads))

    monkeypatch.setattr(Purifier, "load", load)
    for use in ("invoke", "stream", "batch"):
        model = ChatPurified(llm="large", slm="small", **GREEDY)
        if use == "stream":
            assert [chunk async for chunk in model.astream("hello")]
        else:
            await (model.ainvoke("hello") if use == "invoke" else model.abatch(["hello", "you"]))
    assert threads
    assert threading.get_ident() not in threads


async def test_events_tell_of_every_token() -> None:
    events = [event async for event in chat().astream_events("hello", version="v2")]
    text = "".join(e["data"]["chunk"].content for e in events if e["event"] == "on_chat_model_stream")
    assert text == core()
    chain = ChatPromptTemplate.from_messages([("user", "{x}")]) | chat() | StrOutputParser()
    events = [event async for event in chain.astream_events({"x": "hello"}, version="v2")]
    assert (
        "".join(e["data"]["chunk"].content for e in events if e["event"] == "on_chat_model_stream") == core()
    )


class Listening(BaseCallbackHandler):
    def __init__(self) -> None:
        self.tokens: list[str] = []
        self.started = self.ended = 0

    def on_chat_model_start(self, *_: Any, **__: Any) -> None:
        self.started += 1

    def on_llm_start(self, *_: Any, **__: Any) -> None:
        self.started += 1

    def on_llm_new_token(self, token: Any, **_: Any) -> None:
        self.tokens.append(token)

    def on_llm_end(self, *_: Any, **__: Any) -> None:
        self.ended += 1


@pytest.mark.parametrize("kind", [ChatPurified, PurifiedLLM])
def test_callbacks_hear_every_token_once(kind: Any) -> None:
    model, heard = kind(purifier=toys(), **GREEDY), Listening()
    text = "".join(getattr(part, "content", part) for part in model.stream("hello", {"callbacks": [heard]}))
    assert "".join(heard.tokens) == text
    assert (heard.started, heard.ended) == (1, 1)


def test_usage_is_counted_by_langchain() -> None:
    counting = UsageMetadataCallbackHandler()
    model = chat()
    model.invoke("hello", {"callbacks": [counting]})
    list(model.stream("hello", {"callbacks": [counting]}))
    assert counting.usage_metadata["toy 1"]["total_tokens"] == 34


@pytest.mark.parametrize("way", STOPPED)
@pytest.mark.parametrize("kind", [ChatPurified, PurifiedLLM])
def test_a_failure_reaches_the_caller_and_frees_the_models(kind: Any, way: str) -> None:
    llm, slm = Watched(Failing(BYTES, 1, at=4)), Watched(ToySource(BYTES, 2))
    model = kind(purifier=pair(llm, slm, walk="lockstep"), **GREEDY)
    with pytest.raises(SourceError, match="hung up"):
        STOPPED[way](model, [])
    assert slm.sessions
    assert llm.open_sessions == slm.open_sessions == 0


@pytest.mark.parametrize("kind", [ChatPurified, PurifiedLLM])
async def test_leaving_a_stream_early_frees_the_models(kind: Any) -> None:
    llm, slm = Watched(ToySource(BYTES, 1)), Watched(ToySource(BYTES, 2))
    model = kind(purifier=pair(llm, slm), **GREEDY)
    chunks = model.stream("hello")
    next(chunks)
    assert slm.open_sessions == 1
    chunks.close()
    assert llm.open_sessions == slm.open_sessions == 0
    pieces = model.astream("hello")
    await anext(pieces)
    await pieces.aclose()
    async with asyncio.timeout(60):  # LangChain leaves it to the loop to close the generator inside its own
        while llm.open_sessions or slm.open_sessions:
            await asyncio.sleep(0.01)


# Many at once


def watched(purifier: Purifier, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many prompts each decode of this purifier had."""
    sizes: list[int] = []
    run = purifier._run

    def counting(prompts: Any, *how: Any) -> Any:
        sizes.append(len(prompts))
        return run(prompts, *how)

    monkeypatch.setitem(vars(purifier), "_run", counting)
    return sizes


PROMPTS = ["hello", "you", "a longer prompt", "hello"]


async def test_many_prompts_are_decoded_as_one_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    purifier = toys()
    sizes, model = watched(purifier, monkeypatch), chat(purifier)
    expected = [core(prompt) for prompt in PROMPTS]
    chain = ChatPromptTemplate.from_messages([("user", "{x}")]) | model
    inputs = [{"x": prompt} for prompt in PROMPTS]
    found = [
        model.batch(PROMPTS),
        await model.abatch(PROMPTS),
        chain.batch(inputs),
        await chain.abatch(inputs),
        [each[0].message for each in model.generate([[HumanMessage(p)] for p in PROMPTS]).generations],  # type: ignore[attr-defined]  # chat generations
        [
            each[0].message
            for each in (await model.agenerate([[HumanMessage(p)] for p in PROMPTS])).generations
        ],  # type: ignore[attr-defined]  # chat generations
    ]
    assert [[each.content for each in answers] for answers in found] == [expected] * 6
    assert sizes == [4] * 6


async def test_one_of_a_batch_that_is_given_up_takes_no_other_with_it() -> None:
    """The answer for all was cancelled with it, and the call that computed it failed too."""
    purifier, sampling = toys(), Sampling(**GREEDY)
    chats = [Chat(({"role": "user", "content": each},)) for each in ("hello", "you", "a longer prompt")]
    batch = CoalescedBatch(purifier, chats, sampling)
    calls = [asyncio.create_task(batch.aanswer(purifier, each, sampling)) for each in batch.chats]
    await asyncio.sleep(0)  # each has claimed its row
    calls[1].cancel()
    found = await asyncio.gather(*calls, return_exceptions=True)
    assert [getattr(each, "text", type(each)) for each in found] == [
        core("hello"),
        asyncio.CancelledError,
        core("a longer prompt"),
    ]


def test_each_of_a_batch_has_a_run_of_its_own() -> None:
    heard = [Listening() for _ in PROMPTS]
    chat().batch(PROMPTS, [{"callbacks": [each]} for each in heard])
    assert [(each.started, each.ended) for each in heard] == [(1, 1)] * 4


def test_a_bad_prompt_does_not_fail_its_neighbours() -> None:
    image = [HumanMessage([{"type": "image", "url": "x"}])]
    short = toys()
    object.__setattr__(short.slm, "context_length", 8)
    answers = chat(short).batch(["hello", "much too long a prompt", "you"], return_exceptions=True)
    assert [type(each) for each in answers] == [AIMessage, PromptError, AIMessage]
    answers = chat().batch([[HumanMessage("hello")], image], return_exceptions=True)
    assert [type(each) for each in answers] == [AIMessage, PromptError]


class NoSecrets:
    @hookimpl
    def purify_request(self, prompts: Any) -> None:
        if any("secret" in str(prompt) for prompt in prompts):
            raise RefusedError("no secrets")


class NoLong:
    @hookimpl
    def purify_completed(self, completion: Any) -> None:
        if len(completion.certificate.body["prompt"]) == len("a secret"):
            raise RefusedError("no secrets")


@pytest.mark.parametrize("plugin", [NoSecrets(), NoLong()], ids=["asked", "completed"])
@pytest.mark.parametrize("kind", [ChatPurified, PurifiedLLM])
async def test_a_refused_prompt_is_one_exception_of_a_batch(
    kind: Any, plugin: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of completions all failed; of chats the answered ones were decoded again, one by one."""
    plugins = load_plugins([])
    plugins.register(plugin)
    purifier = toys(plugins=plugins)
    sizes, model = watched(purifier, monkeypatch), kind(purifier=purifier, **GREEDY)
    for found in (
        model.batch(["hello", "a secret", "you"], return_exceptions=True),
        await model.abatch(["hello", "a secret", "you"], return_exceptions=True),
    ):
        texts = [getattr(each, "content", each) for each in found]
        assert [texts[0], str(texts[1]), texts[2]] == [core("hello"), "no secrets", core("you")]
        assert isinstance(texts[1], RefusedError)
    assert sizes == [3, 3]
    with pytest.raises(RefusedError, match="no secrets"):
        model.batch(["hello", "a secret", "you"])


def test_seeded_draws_do_not_depend_on_their_neighbours(monkeypatch: pytest.MonkeyPatch) -> None:
    purifier = toys()
    sizes, model = watched(purifier, monkeypatch), chat(purifier, temperature=1.0, seed=3)
    assert [each.content for each in model.batch(PROMPTS)] == [model.invoke(p).content for p in PROMPTS]
    assert set(sizes) == {1}


def test_a_batch_of_completions_is_one_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    purifier = toys()
    sizes, model = watched(purifier, monkeypatch), PurifiedLLM(purifier=purifier, **GREEDY)
    assert model.batch(PROMPTS) == [purifier.generate(p, Sampling(**GREEDY))[0].text for p in PROMPTS]
    assert sizes[0] == 4


# Caches


@pytest.mark.parametrize("kind", [ChatPurified, PurifiedLLM])
def test_a_cache_never_replays_another_pair_s_text(kind: Any) -> None:
    cache = InMemoryCache()
    set_llm_cache(cache)
    pairs = [
        toys(),
        toys("linear"),
        toys(load_plugins().policy("geometric", {"alpha": 0.2})),
        toys(on_llm_failure="slm"),
        Purifier(ToySource(BYTES, 5), ToySource(BYTES, 2), toys().policy),
    ]
    for number, purifier in enumerate(pairs, start=1):
        kind(purifier=purifier, **GREEDY).invoke("hello")
        assert len(cache._cache) == number
    assert len({fingerprint(each)["fingerprint"] for each in pairs}) == len(pairs)


def test_a_cached_answer_is_not_written_again(monkeypatch: pytest.MonkeyPatch) -> None:
    set_llm_cache(InMemoryCache())
    purifier = toys()
    sizes, model = watched(purifier, monkeypatch), chat(purifier)
    first, second = model.invoke("hello"), model.invoke("hello")
    assert first.content == second.content
    assert sizes == [1]
    model.invoke("hello", max_tokens=3)
    assert sizes == [1, 1]


def test_models_whose_files_nobody_has_hashed_share_no_cache() -> None:
    """Two models in memory may have one name and different weights."""
    from purify_hooks.local.source import LocalSource

    llm, slm = real().llm, real().slm
    bare = LocalSource(llm.model, llm.tokenizer, "llm")  # type: ignore[attr-defined]  # local sources
    known, unknown = Purifier(llm, slm, toys().policy), Purifier(bare, slm, toys().policy)
    assert fingerprint(known)["fingerprint"] != fingerprint(unknown)["fingerprint"]
    assert fingerprint(known) == fingerprint(Purifier(llm, slm, toys().policy))
    numbers = {response_metadata._number(Held()) for _ in range(9)}
    assert len(numbers) == 9, "the id of a model that is gone is given to the next one"


class Held:
    """A model that is gone at once."""


@pytest.mark.parametrize("kind", [ChatPurified, PurifiedLLM])
def test_what_a_model_is_reached_with_is_in_no_trace(kind: Any) -> None:
    """LangChain's traces show a model's repr, and a source's mapping may hold a token."""
    secret = {"source": "server", "token": "hunter2"}
    model = kind(llm=secret, slm=secret, llms={"other": secret})
    model._models.loaded[None] = toys()
    heard: list[str] = []

    class Hearing(BaseCallbackHandler):
        def on_llm_start(self, *told: Any, **more: Any) -> None:
            heard.append(repr((told, more)))

        on_chat_model_start = on_llm_start

    model.invoke("hello", {"callbacks": [Hearing()]}, max_tokens=2)
    assert heard
    assert "hunter2" not in heard[0] + repr(model) + str(model)


# Tools


def add(a: int, b: int) -> int:
    """Add two numbers."""
    return a + b


def test_a_call_is_streamed_in_chunks_and_adds_up() -> None:
    model = ChatPurified(purifier=agreeing(lambda _: "Let me see. " + call("add", a=1, b=2)), temperature=0)
    chunks = list(model.bind_tools([add]).stream("1 + 2?"))
    parts = [part for chunk in chunks for part in getattr(chunk, "tool_call_chunks", [])]
    assert len(parts) > 2
    assert parts[0]["name"] == "add"
    assert "".join(str(part["args"]) for part in parts) == '{"a": 1, "b": 2}'
    whole = model.bind_tools([add]).invoke("1 + 2?")
    assert whole.content == "Let me see."
    assert whole.response_metadata["finish_reason"] == "tool_calls"
    assert [(each["name"], each["args"]) for each in whole.tool_calls] == [("add", {"a": 1, "b": 2})]


def test_a_call_that_cannot_be_read_is_kept() -> None:
    model = ChatPurified(
        purifier=agreeing(lambda _: '<tool_call>\n{"name": "add", "arguments": {"a": 1,,}}\n</tool_call>'),
        temperature=0,
    )
    for answer in (model.bind_tools([add]).invoke("x"), _sum(model.bind_tools([add]).stream("x"))):
        assert answer.tool_calls == []
        assert answer.invalid_tool_calls[0]["name"] == "add"
        assert answer.invalid_tool_calls[0]["args"] == '{"a": 1,,}'


def _sum(chunks: Any) -> Any:
    total = None
    for chunk in chunks:
        total = chunk if total is None else total + chunk
    return total


@pytest.mark.parametrize(
    "choice", ["any", "required", True, "now", {"type": "function", "function": {"name": "now"}}]
)
def test_a_forced_call_is_made_whatever_the_models_would_say(choice: Any) -> None:
    def now(zone: Literal["utc", "cet"]) -> str:
        """Tell the time."""
        return zone

    model = ChatPurified(purifier=agreeing(lambda _: "I would rather not."), max_tokens=200)
    answer = model.bind_tools([now], tool_choice=choice).invoke("What time is it?")
    [made] = answer.tool_calls
    assert made["name"] == "now"
    assert made["args"]["zone"] in ("utc", "cet")


def test_a_choice_of_none_leaves_tools_out() -> None:
    seen: list[str] = []

    def reply(prompt: Prompt) -> str:
        seen.append(str(prompt))
        return call("add", a=1, b=2)

    model = ChatPurified(purifier=agreeing(reply), temperature=0)
    answer = model.bind_tools([add], tool_choice="none").invoke("hello")
    assert answer.tool_calls == []
    assert not any("Add two numbers" in prompt for prompt in seen)


def test_a_tool_nobody_offered_cannot_be_chosen() -> None:
    with pytest.raises(UnknownNameError, match="unknown tool 'ad'; did you mean 'add'"):
        chat().bind_tools([add], tool_choice="ad")


# Structured output


class Pet(BaseModel):
    """A pet."""

    name: str = Field(max_length=8)
    kind: Literal["cat", "dog"]
    friends: list[Pet] = Field(default=[], max_length=1)


class PetDict(TypedDict):
    """A pet."""

    kind: Literal["cat", "dog"]
    legs: Literal[2, 4]


PET_SCHEMA = {
    "title": "pet",
    "description": "A pet.",
    "type": "object",
    "properties": {"kind": {"enum": ["cat"]}},
    "required": ["kind"],
}


@pytest.mark.parametrize("method", ["json_schema", "json_mode", "function_calling"])
@pytest.mark.parametrize("schema", [PetDict, PET_SCHEMA, Pet], ids=["typeddict", "json", "pydantic"])
def test_random_models_write_valid_structures(schema: Any, method: Any) -> None:
    if schema is Pet and method == "function_calling":
        schema = type(
            "Pet", (BaseModel,), {"__annotations__": {"kind": Literal["cat", "dog"]}, "__doc__": "A pet."}
        )
    model = ChatPurified(purifier=toys(), max_tokens=600, seed=2)
    found = model.with_structured_output(schema, method=method).invoke("a pet")
    kind = found.kind if isinstance(found, BaseModel) else found["kind"]
    assert kind in ("cat", "dog")


def test_a_structure_is_purified_like_any_answer() -> None:
    model = ChatPurified(purifier=real(), max_tokens=200, seed=2)
    found = model.with_structured_output(PetDict, include_raw=True).invoke("a pet")
    assert found["parsed"] == json.loads(found["raw"].content)
    assert found["parsing_error"] is None
    assert found["raw"].response_metadata["purification"]["guarantee"] == "window"


def test_a_truncated_structure_is_an_error_and_never_a_guess() -> None:
    class Tale(BaseModel):
        """A tale."""

        text: str

    model = ChatPurified(
        purifier=agreeing(lambda _: '{"text": "Once upon a time"}'), max_tokens=8, temperature=0
    )
    for method in ("json_schema", "function_calling"):
        chain = model.with_structured_output(Tale, method=method)  # type: ignore[arg-type]  # literals, looped over
        with pytest.raises(OutputParserException, match="before its JSON was whole; raise max_tokens"):
            chain.invoke("a tale")
        with pytest.raises(OutputParserException, match="raise max_tokens"):
            list(chain.stream("a tale"))
    raw = model.with_structured_output(Tale, include_raw=True).invoke("a tale")
    assert raw["parsed"] is None
    assert isinstance(raw["parsing_error"], OutputParserException)


def test_a_schema_that_cannot_be_followed_is_refused_at_once() -> None:
    odd = {"title": "odd", "type": "object", "properties": {"text": {"type": "string", "pattern": "(?=a)b"}}}
    with pytest.raises(ConfigError, match="look-around"):
        chat().with_structured_output(odd)
    with pytest.raises(UnknownNameError, match="unknown structured output option 'mode'"):
        chat().with_structured_output(PetDict, mode="x")


# What it costs


@pytest.mark.slow
@pytest.mark.alone
def test_the_adapter_takes_less_than_a_tenth_of_a_millisecond_a_token(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """CPU time of LangChain's own loop and ours, over what the core has already written."""
    purifier, length = toys(), 200
    model = chat(purifier, max_tokens=length, ignore_eos=True)
    conversation = Chat(({"role": "user", "content": "hello"},))
    chunks = list(purifier.stream(conversation, Sampling(max_tokens=length, temperature=0, ignore_eos=True)))
    replaying(purifier, chunks, monkeypatch)
    uses: list[Callable[[], Any]] = [
        lambda: list(model.stream(HELLO)),
        lambda: list(model.stream(HELLO, logprobs=True)),
        lambda: list(model.bind_tools([add]).stream(HELLO)),
        lambda: model.invoke(HELLO),
    ]
    assert [overhead(purifier, use, length) < MOST for use in uses] == [True] * 4


def test_actors_answer_what_they_are_asked() -> None:
    """The toy itself: what both are sure of is what is written."""
    purifier = agreeing(lambda prompt: f"You said {last(prompt)}.")
    assert ChatPurified(purifier=purifier, temperature=0).invoke("hello").content == "You said hello."
    assert Actor(lambda _: "x").identity()["name"] == "actor"


def test_configurable_fields_load_a_pair_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Three calls with another temperature used to load both models three times: each makes a new object."""
    loaded: list[Any] = []
    real = Purifier.load

    def load(*args: Any, **options: Any) -> Purifier:
        loaded.append(args)
        return real(*args, **options)

    monkeypatch.setattr(Purifier, "load", load)
    model = ChatPurified(llm=LLM, slm=SLM, max_tokens=2).configurable_fields(
        temperature=ConfigurableField(id="temperature")
    )
    for temperature in (0.0, 0.5, 1.0):
        model.with_config(configurable={"temperature": temperature}).invoke("hello")
    assert len(loaded) == 1
    other = ChatPurified(llm=LLM, slm=SLM, policy="geometric", max_tokens=2)
    other.invoke("hello")
    assert len(loaded) == 2


@pytest.mark.parametrize("kind", [ChatPurified, PurifiedLLM])
def test_a_bag_of_model_kwargs_is_opened(kind: Any) -> None:
    """LangChain's constructors take more options in `model_kwargs`; all of them were dropped."""
    made = kind(purifier=toys(), model_kwargs={"top_p": 0.5}, timeout=3)
    assert made.top_p == 0.5
    with pytest.raises(UnknownNameError, match="num_beams"):
        kind(purifier=toys(), model_kwargs={"num_beams": 4})


@pytest.mark.parametrize(
    "option",
    [
        {"n": 1},
        {"presence_penalty": 0},
        {"logit_bias": {}},
        {"user": "u"},
        {"stream_usage": True},
        {"n": None},
    ],
    ids=str,
)
def test_an_option_of_others_is_accepted_where_it_changes_nothing(option: dict[str, Any]) -> None:
    model = ChatPurified(purifier=stubs(), max_tokens=4)
    assert model.invoke("hello", **option)
    with pytest.raises(UnknownNameError, match="presence_penalty"):
        model.invoke("hello", presence_penalty=1)


def test_one_call_at_a_time_is_one_call() -> None:
    calls = "".join(f'<tool_call>{{"name": "{name}", "arguments": {{}}}}</tool_call>' for name in "ab")
    script = ScriptedSource(BYTES, calls.encode(), doubt=1e-9)
    model = ChatPurified(purifier=Purifier.load(script, script, "geometric"))
    tools = [{"type": "function", "function": {"name": name, "description": name}} for name in "ab"]
    assert [call["name"] for call in model.bind_tools(tools).invoke("hello").tool_calls] == ["a", "b"]
    single = model.bind_tools(tools, parallel_tool_calls=False).invoke("hello")
    assert [call["name"] for call in single.tool_calls] == ["a"]
