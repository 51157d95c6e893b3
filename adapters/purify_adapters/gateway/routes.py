"""TGI's routes. Each reads its request, asks the purifier, and shapes the answer; none knows a server."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from starlette.responses import JSONResponse, PlainTextResponse, Response

from purify_adapters.gateway.answers import Json, TokenEvents, generated
from purify_adapters.gateway.asking import Ask, several
from purify_adapters.gateway.conversing import RESPONSE, as_chat, shows
from purify_adapters.gateway.listing import listed, templated
from purify_adapters.gateway.openai import (
    ChatEvents,
    CompletionEvents,
    OldChatEvents,
    chat_completion,
    text_completion,
)
from purify_adapters.gateway.reading import admit, parse, read_body
from purify_adapters.gateway.rejections import Rejected
from purify_adapters.gateway.responses import ResponseEvents, head, response
from purify_adapters.gateway.schemas import (
    ChatRequest,
    CompatGenerateRequest,
    CompletionRequest,
    GenerateRequest,
    ResponseRequest,
)
from purify_adapters.gateway.talking import talk
from purify_plugins.types import Chunk, Completion

if TYPE_CHECKING:
    from starlette.requests import Request

    from purify_adapters.gateway.app import Gateway


OLD_FIELDS = {
    *(
        "messages",
        "model",
        "stream",
        "tools",
        "tool_choice",
        "max_tokens",
        "n",
        "seed",
        "temperature",
        "top_p",
    ),
    *("frequency_penalty", "presence_penalty", "repetition_penalty"),
    *("logit_bias", "logprobs", "top_logprobs"),
}
"""What `text-generation` 0.7.0 sends, and only it: every option it knows, set or not."""


class Shape(Protocol):
    """Turns an answer's chunks into events; `done` ends a stream that went well."""

    done: str | None

    def take(self, chunk: Chunk) -> Iterator[Json]: ...

    def error(self, why: Rejected) -> Json: ...


@dataclass(frozen=True)
class Plan:
    """What to ask, and how to tell the answer: as a whole or event by event."""

    asks: Sequence[Ask]
    whole: Callable[[Sequence[Completion]], Any]
    shapes: Sequence[Shape]


def of(request: Request) -> Gateway:
    gateway: Gateway = request.app.state.gateway
    return gateway


async def generate(request: Request) -> Response:
    return await _generate(request, parse(await _body(request), GenerateRequest), streaming=False)


async def generate_stream(request: Request) -> Response:
    return await _generate(request, parse(await _body(request), GenerateRequest), streaming=True)


async def compat_generate(request: Request) -> Response:
    return await _compat(request, parse(await _body(request), CompatGenerateRequest))


async def chat_completions(request: Request) -> Response:
    return await _chat(request, parse(await _body(request), ChatRequest))


async def completions(request: Request) -> Response:
    return await _completions(request, parse(await _body(request), CompletionRequest))


async def responses(request: Request) -> Response:
    """OpenAI's newer words for a chat."""
    asked = parse(await _body(request), ResponseRequest)
    gateway, said, told = of(request), as_chat(asked), shows(asked)
    vocabulary, about = gateway.purifier.vocabulary, head(gateway.face, asked)

    def plan() -> Plan:
        chat, grammar, reader = talk(gateway.purifier, said)
        ask = gateway.asking.chat(said, chat, grammar, RESPONSE)
        events = ResponseEvents(about, ask, vocabulary, reader, told)
        return Plan([ask], lambda found: response(events, found[0]), [events])

    return await gateway.answer(request, plan, bool(asked.stream), _length(said))


async def invocations(request: Request) -> Response:
    """SageMaker's one route: whichever of the three requests this is."""
    body = await _body(request)
    keys = _keys(body)
    if "inputs" in keys:
        return await _compat(request, parse(body, CompatGenerateRequest))
    if "messages" in keys:
        return await _chat(request, parse(body, ChatRequest))
    return await _completions(request, parse(body, CompletionRequest))


def _keys(body: bytes) -> set[str]:
    """The request's own fields; the request itself is read by its schema."""
    try:
        found = json.loads(body)
    except (ValueError, RecursionError):
        return set()
    return set(found) if isinstance(found, dict) else set()


async def _body(request: Request) -> bytes:
    admit(request, of(request).settings)
    return await read_body(request, of(request).settings)


async def _compat(request: Request, asked: CompatGenerateRequest) -> Response:
    """`POST /`: a list of one answer, with the prompt before it unless that is switched off."""
    if asked.parameters.return_full_text is None:
        asked.parameters.return_full_text = True
    return await _generate(request, asked, asked.stream, listed=True)


async def _generate(
    request: Request, asked: GenerateRequest, streaming: bool, listed: bool = False
) -> Response:
    gateway, wanted = of(request), asked.parameters
    vocabulary, details = gateway.purifier.vocabulary, bool(wanted.details)
    prefix = asked.inputs if wanted.return_full_text else ""

    def plan() -> Plan:
        ask = gateway.asking.generation(asked.inputs, wanted)

        def whole(found: Sequence[Completion]) -> Any:
            answer = generated(found[0], ask, vocabulary, details, prefix)
            return [answer] if listed else answer

        return Plan([ask], whole, [TokenEvents(ask, vocabulary, details, prefix)])

    return await gateway.answer(request, plan, streaming, len(asked.inputs))


async def _chat(request: Request, asked: ChatRequest) -> Response:
    gateway = of(request)
    vocabulary, told = gateway.purifier.vocabulary, bool(asked.logprobs)
    counted = bool(asked.stream_options and asked.stream_options.include_usage)

    def plan() -> Plan:
        chat, grammar, reader = talk(gateway.purifier, asked)
        ask = gateway.asking.chat(asked, chat, grammar)
        about = gateway.face.head("chat.completion", asked.model)
        chunk = {**about, "object": "chat.completion.chunk"}
        events = OldChatEvents if asked.model_fields_set == OLD_FIELDS else ChatEvents

        def whole(found: Sequence[Completion]) -> Any:
            return chat_completion(about, ask, found[0], vocabulary, reader, told)

        return Plan([ask], whole, [events(chunk, ask, vocabulary, reader, told, counted)])

    return await gateway.answer(request, plan, bool(asked.stream), _length(asked))


def _length(asked: ChatRequest) -> int:
    return sum(len(each.content or "") for each in asked.messages)


async def _completions(request: Request, asked: CompletionRequest) -> Response:
    gateway = of(request)
    vocabulary = gateway.purifier.vocabulary
    counted = bool(asked.stream_options and asked.stream_options.include_usage)

    def plan() -> Plan:
        asks = gateway.asking.completions(asked)
        about = gateway.face.head("text_completion", asked.model)
        shapes = CompletionEvents.several(about, asks, vocabulary, counted)
        return Plan(asks, lambda found: text_completion(about, asks, found, vocabulary), shapes)

    return await gateway.answer(request, plan, bool(asked.stream), sum(map(len, several(asked.prompt))))


async def tokenize(request: Request) -> Response:
    gateway, asked = of(request), parse(await _body(request), GenerateRequest)
    tokens = await gateway.compute(lambda: gateway.asking.encode(asked.inputs) if asked.inputs else ())
    return JSONResponse(listed(tokens, gateway.asking.vocabulary, asked.inputs))


async def chat_tokenize(request: Request) -> Response:
    """Open, as TGI's is: it tells nothing but how the SLM's template looks."""
    gateway = of(request)
    asked = parse(await read_body(request, gateway.settings), ChatRequest)
    tokens = await gateway.compute(lambda: gateway.asking.encode(talk(gateway.purifier, asked).chat))
    vocabulary = gateway.asking.vocabulary
    text = templated(tokens, vocabulary)
    return JSONResponse({"tokenize_response": listed(tokens, vocabulary), "templated_text": text})


async def certificate(request: Request) -> Response:
    """The certificate of a recent answer, by its digest."""
    gateway = of(request)
    admit(request, gateway.settings)
    if (found := gateway.certificates.get(request.path_params["digest"])) is None:
        raise Rejected(404, "No such certificate is kept here", "not_found")
    return Response(found, media_type="application/json")


# What anyone may know


async def ping(request: Request) -> Response:
    """Whether this process still takes requests."""
    if of(request).work.stopped:
        raise Rejected(503, "the gateway is shutting down", "healthcheck")
    return Response()


async def health(request: Request) -> Response:
    """Whether a request would be answered: by the fused models, or as the operator chose by the SLM alone."""
    gateway = of(request)
    if not gateway.resting:
        return await ping(request)
    if gateway.purifier.on_llm_failure == "slm":
        return JSONResponse({"status": "degraded", "answers": "the SLM's alone: the LLM's server is down"})
    raise Rejected(503, "the LLM's server is down", "healthcheck")


async def info(request: Request) -> Response:
    return JSONResponse(of(request).info())


async def models(request: Request) -> Response:
    return JSONResponse({"object": "list", "data": [_model(of(request))]})


async def model(request: Request) -> Response:
    """The one model there is, by its name."""
    gateway, name = of(request), request.path_params["name"]
    if name != gateway.face.model:
        raise Rejected(404, f"there is no model {name!r}; this is {gateway.face.model!r}", "model_not_found")
    return JSONResponse(_model(gateway))


def _model(gateway: Gateway) -> Json:
    name = gateway.face.model
    return {"id": name, "object": "model", "created": 0, "owned_by": name}


async def metrics(request: Request) -> Response:
    """Of this gateway, or the sum of all that serve the port."""
    gateway = of(request)
    total, gauges = gateway.together.sum(gateway.gauges())
    return PlainTextResponse(total.text(gauges), media_type="text/plain; version=0.0.4")
