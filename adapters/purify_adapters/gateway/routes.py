"""The routes: each reads its request, plans the answer, and leaves it to the service."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from starlette.responses import JSONResponse, PlainTextResponse, Response

from purify_adapters.gateway.chat_request import prepare_chat
from purify_adapters.gateway.openai_completions import (
    ChatEvents,
    CompletionEvents,
    OldChatEvents,
    chat_completion,
    text_completion,
)
from purify_adapters.gateway.openai_responses import ResponseEvents, head, response
from purify_adapters.gateway.openapi import document
from purify_adapters.gateway.rejections import Rejected
from purify_adapters.gateway.request_body import parse, read_body
from purify_adapters.gateway.request_validation import prompts_of
from purify_adapters.gateway.responses_request import RESPONSE, as_chat, wants_logprobs
from purify_adapters.gateway.schemas import (
    ChatRequest,
    CompatGenerateRequest,
    CompletionRequest,
    GenerateRequest,
    ResponseRequest,
)
from purify_adapters.gateway.service import AnswerPlan, Service
from purify_adapters.gateway.tgi_responses import TokenEvents, generated, templated, tokenized
from purify_adapters.openai_schema import Json
from purify_plugins._version import __version__
from purify_plugins.vouching.options import vouching_of

if TYPE_CHECKING:
    from starlette.requests import Request

    from purify_plugins.types import Completion

OLD_FIELDS = {
    *("messages", "model", "stream", "tools", "tool_choice", "max_tokens", "n", "seed", "temperature"),
    *("top_p", "frequency_penalty", "presence_penalty", "repetition_penalty"),
    *("logit_bias", "logprobs", "top_logprobs"),
}
"""The fields of a request by `text-generation` 0.7.0, which sends every option it has, set or not."""


def _service(request: Request) -> Service:
    service: Service = request.scope["purify.service"]
    return service


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
    """OpenAI's Responses API, answered as a chat."""
    parsed = parse(await _body(request), ResponseRequest)
    service, chat_request, with_logprobs = _service(request), as_chat(parsed), wants_logprobs(parsed)
    vocabulary, about = service.purifier.vocabulary, head(service.identity, parsed)

    def plan() -> AnswerPlan:
        chat, grammar, parser = prepare_chat(service.purifier, chat_request)
        generation = service.validator.chat(chat_request, chat, grammar, RESPONSE)
        events = ResponseEvents(about, generation, vocabulary, parser, with_logprobs)
        return AnswerPlan([generation], lambda found: response(events, found[0]), [events])

    return await service.answer(request, plan, bool(parsed.stream), _length(chat_request))


async def invocations(request: Request) -> Response:
    """SageMaker's only route: a request to `/`, `/v1/chat/completions` or `/v1/completions`."""
    body = await _body(request)
    keys = _keys(body)
    if "inputs" in keys:
        return await _compat(request, parse(body, CompatGenerateRequest))
    if "messages" in keys:
        return await _chat(request, parse(body, ChatRequest))
    return await _completions(request, parse(body, CompletionRequest))


def _keys(body: bytes) -> set[str]:
    """The names of the request's fields; its schema is chosen by them."""
    try:
        found = json.loads(body)
    except (ValueError, RecursionError):
        return set()
    return set(found) if isinstance(found, dict) else set()


async def _body(request: Request) -> bytes:
    return await read_body(request, _admitted(request).settings)


def _admitted(request: Request) -> Service:
    """The service for the request's key, which `_service` returns from now on. Raises Rejected: 401, 422."""
    service = request.scope["purify.service"] = _service(request).admitting(request)
    return service


async def _compat(request: Request, parsed: CompatGenerateRequest) -> Response:
    """`POST /`: a list of one answer, with the prompt before it unless `return_full_text` is false."""
    if parsed.parameters.return_full_text is None:
        parsed.parameters.return_full_text = True
    return await _generate(request, parsed, parsed.stream, listed=True)


async def _generate(
    request: Request, parsed: GenerateRequest, streaming: bool, listed: bool = False
) -> Response:
    service, wanted = _service(request), parsed.parameters
    vocabulary, details = service.purifier.vocabulary, bool(wanted.details)
    prefix = parsed.inputs if wanted.return_full_text else ""

    def plan() -> AnswerPlan:
        generation = service.validator.generate(parsed.inputs, wanted)

        def body(found: Sequence[Completion]) -> Any:
            answer = generated(found[0], generation, vocabulary, details, prefix)
            return [answer] if listed else answer

        return AnswerPlan([generation], body, [TokenEvents(generation, vocabulary, details, prefix)])

    return await service.answer(request, plan, streaming, len(parsed.inputs))


async def _chat(request: Request, parsed: ChatRequest) -> Response:
    service = _service(request)
    vocabulary, with_logprobs = service.purifier.vocabulary, bool(parsed.logprobs)
    include_usage = bool(parsed.stream_options and parsed.stream_options.include_usage)

    def plan() -> AnswerPlan:
        chat, grammar, _ = prepare_chat(service.purifier, parsed)
        generations = service.validator.chat(parsed, chat, grammar).several(parsed.n)
        parsers = [prepare_chat(service.purifier, parsed).parser for _ in generations]
        about = service.identity.head("chat.completion", parsed.model)
        chunk = {**about, "object": "chat.completion.chunk"}
        kind = OldChatEvents if parsed.model_fields_set == OLD_FIELDS else ChatEvents

        def body(found: Sequence[Completion]) -> Any:
            return chat_completion(about, generations, found, vocabulary, parsers, with_logprobs)

        options = vocabulary, parsers, with_logprobs, include_usage
        return AnswerPlan(generations, body, kind.batch(chunk, generations, *options))

    return await service.answer(request, plan, bool(parsed.stream), _length(parsed))


def _length(parsed: ChatRequest) -> int:
    """Characters of the messages."""
    return sum(len(each.content or "") for each in parsed.messages)


async def _completions(request: Request, parsed: CompletionRequest) -> Response:
    service = _service(request)
    vocabulary = service.purifier.vocabulary
    include_usage = bool(parsed.stream_options and parsed.stream_options.include_usage)

    def plan() -> AnswerPlan:
        generations = service.validator.completions(parsed)
        about = service.identity.head("text_completion", parsed.model)
        events = CompletionEvents.batch(about, generations, vocabulary, include_usage)
        return AnswerPlan(
            generations, lambda found: text_completion(about, generations, found, vocabulary), events
        )

    return await service.answer(request, plan, bool(parsed.stream), sum(map(len, prompts_of(parsed.prompt))))


async def tokenize(request: Request) -> Response:
    parsed = parse(await _body(request), GenerateRequest)
    service = _service(request)
    tokens = await service.compute(lambda: service.validator.encode(parsed.inputs) if parsed.inputs else ())
    return JSONResponse(tokenized(tokens, service.validator.vocabulary, parsed.inputs))


async def chat_tokenize(request: Request) -> Response:
    """The SLM's rendering of a chat. It needs no key, as TGI's does not: it shows only the SLM's template."""
    service = _service(request)
    parsed = parse(await read_body(request, service.settings), ChatRequest)
    tokens = await service.compute(
        lambda: service.validator.encode(prepare_chat(service.purifier, parsed).chat)
    )
    vocabulary = service.validator.vocabulary
    text = templated(tokens, vocabulary)
    return JSONResponse({"tokenize_response": tokenized(tokens, vocabulary), "templated_text": text})


async def certificate(request: Request) -> Response:
    """The certificate of a recent answer, by its digest."""
    service = _admitted(request)
    if (found := service.certificates.get((service.owner, request.path_params["digest"]))) is None:
        raise Rejected(404, "No such certificate is kept here", "not_found")
    return Response(found, media_type="application/json")


# What anyone may know


async def health(request: Request) -> Response:
    """Whether this process is alive and accepts requests; nothing is asked of a model."""
    if _service(request).executor.stopped:
        raise Rejected(503, "the gateway is shutting down", "healthcheck")
    return Response()


async def ready(request: Request) -> Response:
    """Whether requests can be answered now, and the state of each part."""
    service = _service(request)
    states, stopped = await service.readiness.states(), service.executor.stopped
    well = service.readiness.ready(states) and not stopped
    body = {"ready": well, "gateway": "stopping" if stopped else "serving", **states}
    return JSONResponse(body, 200 if well else 503)


async def info(request: Request) -> Response:
    """TGI's `/info`."""
    service = _service(request)
    settings, validator = service.settings, service.validator
    facts: dict[str, Any] = {
        "model_id": service.identity.model,
        "model_sha": None,
        "model_pipeline_tag": "text-generation",
        "max_concurrent_requests": settings.max_concurrent,
        "max_best_of": validator.max_best_of,
        "max_stop_sequences": settings.max_stop_sequences,
        "max_input_tokens": validator.max_input_tokens,
        "max_total_tokens": validator.max_total_tokens,
        "validation_workers": 1,
        "max_client_batch_size": settings.max_batch,
        "router": "purify-plugins",
        "version": __version__,
        "sha": None,
        "docker_label": None,
        "configuration": service.purifier.configuration,
    }
    if (signer := service.purifier.signer) is not None:
        facts["certificate_keys"] = list(signer.key_ids)
    if told := _vouching(service):
        facts["vouching"] = told
    return JSONResponse(facts)


def _vouching(service: Service) -> Json:
    """The digests of the models' cards and signatures, of those that have some."""
    both = {"llm": service.purifier.llm, "slm": service.purifier.slm}
    found = {side: vouching_of(source.identity()) for side, source in both.items()}
    return {side: told for side, told in found.items() if told}


async def openapi(request: Request) -> Response:
    """The OpenAPI document of these routes."""
    return JSONResponse(document(_service(request).settings))


async def models(request: Request) -> Response:
    return JSONResponse({"object": "list", "data": [_model(_service(request))]})


async def model(request: Request) -> Response:
    """The only model, by its name."""
    service, name = _service(request), request.path_params["name"]
    if name != service.identity.model:
        known = service.identity.model
        raise Rejected(404, f"there is no model {name!r}; this is {known!r}", "model_not_found")
    return JSONResponse(_model(service))


def _model(service: Service) -> Json:
    name = service.identity.model
    return {"id": name, "object": "model", "created": 0, "owned_by": name}


async def metrics(request: Request) -> Response:
    """The metrics of all workers that serve the port."""
    service = _service(request)
    return PlainTextResponse(service.metrics.text(service.gauges()), media_type="text/plain; version=0.0.4")
