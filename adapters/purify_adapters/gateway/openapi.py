"""The gateway's OpenAPI document, from the schemas that its routes parse."""

from __future__ import annotations

from typing import Any

from pydantic.json_schema import models_json_schema

from purify_adapters.gateway.schemas import (
    Body,
    ChatRequest,
    CompatGenerateRequest,
    CompletionRequest,
    GenerateRequest,
    ResponseRequest,
)
from purify_adapters.gateway.settings import Settings
from purify_plugins._version import __version__

POSTS: dict[str, type[Body]] = {
    "/": CompatGenerateRequest,
    "/generate": GenerateRequest,
    "/generate_stream": GenerateRequest,
    "/v1/chat/completions": ChatRequest,
    "/v1/completions": CompletionRequest,
    "/v1/responses": ResponseRequest,
    "/invocations": CompatGenerateRequest,
    "/tokenize": GenerateRequest,
    "/chat_tokenize": ChatRequest,
}
GETS = ("/", "/health", "/ping", "/ready", "/info", "/v1/models", "/metrics")
OPEN = ("/chat_tokenize",)
TEMPLATE = "#/components/schemas/{model}"
REFUSALS = {
    "400": "The body is no JSON.",
    "401": "The key is missing or wrong.",
    "408": "The body took too long.",
    "413": "The body is too large.",
    "415": "The body is not declared as JSON in UTF-8.",
    "422": "Something asked for is invalid, or cannot be honoured with purification.",
    "424": "A model failed.",
    "429": "Too many requests are waiting.",
    "500": "An answer was cut short.",
    "503": "The gateway is shutting down.",
}

UNWELL = "The gateway is shutting down, or (`/ready`) a model cannot be asked."


def document(settings: Settings) -> dict[str, Any]:
    """OpenAPI 3.1 for every route."""
    kinds = sorted({*POSTS.values()}, key=lambda kind: kind.__name__)
    _, schemas = models_json_schema([(kind, "validation") for kind in kinds], ref_template=TEMPLATE)
    paths: dict[str, dict[str, Any]] = {path: {"get": _get()} for path in GETS}
    secured = settings.api_key is not None or bool(settings.tenants)
    for path, kind in POSTS.items():
        paths.setdefault(path, {})["post"] = _post(kind, secured and path not in OPEN)
    return {
        "openapi": "3.1.0",
        "info": {"title": "purify-plugins gateway", "version": __version__},
        "paths": paths,
        "components": {
            "schemas": schemas["$defs"],
            "securitySchemes": {"key": {"type": "http", "scheme": "bearer"}},
        },
    }


def _get() -> dict[str, Any]:
    return {"responses": {"200": {"description": "OK"}, "503": {"description": UNWELL}}}


def _post(kind: type[Body], secured: bool) -> dict[str, Any]:
    schema = {"$ref": TEMPLATE.format(model=kind.__name__)}
    answers = {"200": {"description": "The answer, as JSON or as server-sent events."}}
    refusals = {status: {"description": text} for status, text in REFUSALS.items()}
    found: dict[str, Any] = {
        "requestBody": {"required": True, "content": {"application/json": {"schema": schema}}},
        "responses": answers | refusals,
    }
    return found | ({"security": [{"key": []}]} if secured else {})
