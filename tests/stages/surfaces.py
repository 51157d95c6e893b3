"""Every way to ask in this process: what its reader gets, and all that it wrote on the way."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterable, Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import torch
from langchain_core.caches import InMemoryCache
from llama_index.core.base.llms.types import ChatMessage
from llama_index.core.callbacks import CallbackManager
from llama_index.core.callbacks.base_handler import BaseCallbackHandler
from transformers.generation.streamers import BaseStreamer

from purify_adapters.langchain import ChatPurified
from purify_adapters.langchain import PurifiedLLM as LangChainLLM
from purify_adapters.llama_index import PurifiedLLM as LlamaIndexLLM
from purify_adapters.transformers import PurifiedModel
from purify_plugins import Purifier, PurifyError
from purify_plugins.types import Unanswered
from tests.adapters.gateways import Served
from tests.adapters.test_langchain_canary import Everything, Traces
from tests.stages.theatre import DRAWN, PROMPT, TORCH_SEED, VOCABULARY, Case, storyteller, told

MESSAGES = [{"role": "user", "content": PROMPT}]


class Seen(NamedTuple):
    """What a reader got, the class of the error that ended it, and everything that was written."""

    text: str
    error: str | None
    written: str


@dataclass
class House:
    """A case, the purifier with its program, the gateway around that, and a folder for files."""

    case: Case
    purifier: Purifier
    served: Served
    folder: Path
    heard: list[str] = field(default_factory=list)


Surface = Callable[[House], Seen]


def read(make: Callable[[], Any], text_of: Callable[[Any], str] = str, *heard: Any) -> Seen:
    """What comes one after another, or, of no iterable, at once; an error of ours ends it."""
    found: list[Any] = []
    error: Exception | None = None
    try:
        made = make()
        if isinstance(made, AsyncIterable):
            asyncio.run(_gathered(made, found))
        else:
            found += [made] if isinstance(made, str) or not isinstance(made, Iterable) else []
            if not found:
                for each in made:
                    found.append(each)  # what came before an error counts
    except PurifyError as raised:
        error = raised
    written = "\n".join(map(repr, (*found, error, error and error.__cause__, *heard)))
    return Seen("".join(map(text_of, found)), error and type(error).__name__, written)


async def _gathered(stream: AsyncIterable[Any], found: list[Any]) -> None:
    async for each in stream:
        found.append(each)


async def _later(make: Callable[[], Any]) -> Any:
    """An asynchronous generator, from a function that returns one, or awaits one."""
    stream = make()
    for_each = await stream if asyncio.iscoroutine(stream) else stream
    if isinstance(for_each, AsyncIterable):
        async for each in for_each:
            yield each
    else:
        yield for_each


# The core


def generate(house: House) -> Seen:
    return read(lambda: house.purifier.generate([PROMPT], errors="raise")[0], lambda each: each.text)


def stream(house: House) -> Seen:
    return read(lambda: house.purifier.stream(PROMPT))


def batch(house: House) -> Seen:
    """Two of one prompt; the second draws from the next seed."""
    return read(lambda: _answered(house.purifier.generate([PROMPT, PROMPT])[0]), lambda each: each.text)


def _answered(outcome: Any) -> Any:
    """An answer; the error of a refused one."""
    if isinstance(outcome, Unanswered):
        raise outcome.error
    return outcome


def agenerate(house: House) -> Seen:
    return read(
        lambda: _later(lambda: house.purifier.agenerate([PROMPT], errors="raise")), lambda each: each[0].text
    )


def astream(house: House) -> Seen:
    return read(lambda: house.purifier.astream(PROMPT))


def chat(house: House) -> Seen:
    return read(lambda: house.purifier.chat(MESSAGES), lambda each: each.text)


# LangChain


def _langchain(kind: Any, ask: Callable[[Any, Any], Any], text_of: Callable[[Any], str]) -> Surface:
    def surface(house: House) -> Seen:
        heard, traces, cache = Everything(), Traces(), InMemoryCache()
        model = kind(purifier=house.purifier, certificate=True, cache=cache, **DRAWN)
        found = read(lambda: ask(model, {"callbacks": [heard, traces]}), text_of, heard.heard, traces.kept)
        return found._replace(written=found.written + repr(cache._cache))

    return surface


def _content(message: Any) -> str:
    return message if isinstance(message, str) else str(message.content)


def _in_event(event: Any) -> str:
    """A stream's text is in one kind of its events."""
    return _content(event["data"]["chunk"]) if event["event"].endswith("model_stream") or _llm(event) else ""


def _llm(event: Any) -> bool:
    return bool(event["event"] == "on_llm_stream")


LANGCHAIN: dict[str, tuple[Callable[[Any, Any], Any], Callable[[Any], str]]] = {
    "invoke": (lambda model, config: [model.invoke(PROMPT, config)], _content),
    "ainvoke": (lambda model, config: _later(lambda: model.ainvoke(PROMPT, config)), _content),
    "stream": (lambda model, config: model.stream(PROMPT, config), _content),
    "astream": (lambda model, config: model.astream(PROMPT, config), _content),
    "batch": (lambda model, config: model.batch([PROMPT], config), _content),
    "abatch": (
        lambda model, config: _later(lambda: model.abatch([PROMPT], config)),
        lambda found: "".join(map(_content, found)),
    ),
    "astream_events": (lambda model, config: model.astream_events(PROMPT, config, version="v2"), _in_event),
}


# LlamaIndex


class Heard(BaseCallbackHandler):
    """Keeps all that LlamaIndex's callbacks are told."""

    def __init__(self) -> None:
        super().__init__([], [])
        self.heard: list[str] = []

    def on_event_start(self, event_type: Any, payload: Any = None, **more: Any) -> str:
        self.heard.append(repr((event_type, payload)))
        return ""

    def on_event_end(self, event_type: Any, payload: Any = None, **more: Any) -> None:
        self.heard.append(repr((event_type, payload)))

    def start_trace(self, trace_id: Any = None) -> None: ...
    def end_trace(self, trace_id: Any = None, trace_map: Any = None) -> None: ...


def _llama_index(ask: Callable[[Any], Any], text_of: Callable[[Any], str]) -> Surface:
    def surface(house: House) -> Seen:
        heard = Heard()
        llm = LlamaIndexLLM(
            house.purifier, certificate=True, callback_manager=CallbackManager([heard]), **DRAWN
        )
        return read(lambda: ask(llm), text_of, heard.heard)

    return surface


def _asked() -> list[ChatMessage]:
    return [ChatMessage(PROMPT)]


def _said(response: Any) -> str:
    return str(response.message.content or "")


def _delta(response: Any) -> str:
    return str(response.delta or "")


LLAMA_INDEX: dict[str, tuple[Callable[[Any], Any], Callable[[Any], str]]] = {
    "complete": (lambda llm: [llm.complete(PROMPT)], lambda each: each.text),
    "stream_complete": (lambda llm: llm.stream_complete(PROMPT), _delta),
    "acomplete": (lambda llm: _later(lambda: llm.acomplete(PROMPT)), lambda each: each.text),
    "astream_complete": (lambda llm: _later(lambda: llm.astream_complete(PROMPT)), _delta),
    "chat": (lambda llm: [llm.chat(_asked())], _said),
    "stream_chat": (lambda llm: llm.stream_chat(_asked()), _delta),
    "achat": (lambda llm: _later(lambda: llm.achat(_asked())), _said),
    "astream_chat": (lambda llm: _later(lambda: llm.astream_chat(_asked())), _delta),
}


# transformers


class Tokens(BaseStreamer):
    """Keeps the answer's tokens; the first that come are the prompt's."""

    def __init__(self) -> None:
        self.kept: list[int] = []
        self.puts = 0

    def put(self, value: Any) -> None:
        self.kept += value.flatten().tolist() if self.puts else []
        self.puts += 1

    def end(self) -> None: ...


def _drop_in(house: House) -> tuple[PurifiedModel, torch.Tensor]:
    from tests.adapters.test_transformers import original

    torch.manual_seed(TORCH_SEED)
    ids = torch.tensor([storyteller().encode(PROMPT)])
    return PurifiedModel.around(original(), house.purifier), ids


def _spelled(ids: Any) -> str:
    return VOCABULARY.spell(ids).decode()


OPTIONS: dict[str, Any] = {"do_sample": True, "top_k": 0, "max_new_tokens": DRAWN["max_tokens"]}


def transformers(house: House) -> Seen:
    model, ids = _drop_in(house)
    return read(
        lambda: [model.generate(ids, **OPTIONS)], lambda found: _spelled(found[0, ids.shape[1] :].tolist())
    )


def transformers_streamed(house: House) -> Seen:
    model, ids = _drop_in(house)
    tokens = Tokens()
    found = read(lambda: [model.generate(ids, streamer=tokens, **OPTIONS)], lambda _: "", tokens.kept)
    return found._replace(text=_spelled(tokens.kept))


WHOLE: dict[str, Surface] = {
    "generate": generate,
    "a batch": batch,
    "agenerate": agenerate,
    "chat": chat,
    "transformers": transformers,
    **{
        f"LangChain {kind.__name__} {name}": _langchain(kind, *LANGCHAIN[name])
        for kind in (ChatPurified, LangChainLLM)
        for name in ("invoke", "ainvoke", "batch", "abatch")
    },
    **{
        f"LlamaIndex {name}": _llama_index(*LLAMA_INDEX[name])
        for name in ("complete", "acomplete", "chat", "achat")
    },
}
"""A refused answer shows nothing here."""
STREAMED: dict[str, Surface] = {
    "stream": stream,
    "astream": astream,
    "transformers streamed": transformers_streamed,
    **{
        f"LangChain {kind.__name__} {name}": _langchain(kind, *LANGCHAIN[name])
        for kind in (ChatPurified, LangChainLLM)
        for name in ("stream", "astream", "astream_events")
    },
    **{
        f"LlamaIndex {name}": _llama_index(*LLAMA_INDEX[name])
        for name in ("stream_complete", "astream_complete", "stream_chat", "astream_chat")
    },
}
"""What was released before the error is shown."""
__all__ = ["MESSAGES", "STREAMED", "WHOLE", "House", "Seen", "Surface", "read", "told"]
