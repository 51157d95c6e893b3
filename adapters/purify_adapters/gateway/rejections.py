"""Refusals of requests: TGI's status codes and bodies, without any text of the untrusted model's."""

from __future__ import annotations

from math import ceil
from typing import Any

from starlette.responses import JSONResponse, Response

from purify_adapters.sources.http.circuit_breaker import CircuitOpen
from purify_plugins.errors import ConfigError, RefusedError, StoreError, TooLongError

TYPES = {401: "authentication_error", 404: "not_found_error", 429: "rate_limit_error"}
"""OpenAI's error types by status; others are `invalid_request_error` or `server_error`."""


class Rejected(Exception):
    """A request that gets no answer; `error_type` is TGI's type of the error, where TGI has one.

    Clients of TGI treat an error with such a type as the model's, and one without as HTTP's.
    """

    param: str | None = None
    """The option that is refused, if it is an option."""

    def __init__(self, status: int, error: str, error_type: str | None = None, **headers: str) -> None:
        super().__init__(error)
        self.status, self.error, self.error_type = status, error, error_type
        self.headers = {name.replace("_", "-"): value for name, value in headers.items()}

    @property
    def body(self) -> dict[str, Any]:
        """TGI's shape."""
        return {"error": self.error, **({"error_type": self.error_type} if self.error_type else {})}

    @property
    def openai(self) -> dict[str, Any]:
        """OpenAI's shape, with TGI's `error_type` beside it for TGI's clients on OpenAI's routes."""
        ours = "server_error" if self.status == 424 or self.status >= 500 else "invalid_request_error"
        kind = TYPES.get(self.status, ours)
        fields = {"message": self.error, "type": kind, "param": self.param, "code": self.error_type}
        return {**self.body, "error": {**fields, "http_status_code": self.status}}

    def response(self, path: str = "") -> Response:
        """The refusal in the shape of the route at `path`."""
        body = self.openai if path.startswith("/v1/") else self.body
        return JSONResponse(body, self.status, self.headers)


def invalid(message: str, option: str | None = None) -> Rejected:
    """A request that TGI's validation would refuse as well; `option` names the cause."""
    found = Rejected(422, f"Input validation error: {message}", "validation")
    found.param = option
    return found


def unsupported(option: str, why: str = "") -> Rejected:
    """An option that this gateway does not have, or that purification rules out."""
    return invalid(f"`{option}` is not supported with purification{why and ': '}{why}", option)


def too_long(most: int, length: int, prompt: str) -> Rejected:
    """A prompt of `length` tokens for models with a context of `most`; `prompt`: the option's name."""
    if prompt == "inputs":
        return invalid(f"`inputs` must have less than {most} tokens. Given: {length}", prompt)
    # OpenAI's message, which its clients recognise.
    message = (
        f"This model's maximum context length is {most} tokens. However, your prompt has {length}; shorten it"
    )
    found = invalid(message, prompt)
    found.error_type = "context_length_exceeded"
    return found


def overloaded() -> Rejected:
    return Rejected(429, "Model is overloaded", "overloaded", retry_after="1")


def stopping() -> Rejected:
    return Rejected(503, "The gateway is shutting down", "overloaded", retry_after="5")


def ended() -> Rejected:
    """An answer that had not ended when the gateway shut down."""
    message = "Request failed during generation: the gateway is shutting down"
    return Rejected(503, message, "generation", retry_after="5")


def failed(why: str) -> Rejected:
    return Rejected(424, f"Request failed during generation: {why}", "generation")


def cut_short() -> Rejected:
    return Rejected(500, "Incomplete generation", "incomplete_generation")


def unrecorded() -> Rejected:
    """An answer that the store of certificates cannot record; where the store is, is not the client's."""
    return Rejected(503, "The record of this answer cannot be written", "store", retry_after="5")


def to_http_error(error: BaseException) -> Rejected:
    """The refusal that an error becomes.

    Messages about the request are passed on. A model's failure is named by its class alone: its message may
    quote a server, and through it the untrusted model.
    """
    if isinstance(error, Rejected):
        return error
    if isinstance(error, RefusedError):
        return Rejected(422, str(error), "refused")
    if isinstance(error, TooLongError):  # the error's own message has the model's path
        return too_long(error.most, error.length, "messages")
    if isinstance(error, ConfigError):
        return invalid(str(error))
    if isinstance(error, CircuitOpen):
        return Rejected(503, "A model's server is down", "overloaded", retry_after=str(ceil(error.after)))
    if isinstance(error, StoreError):
        return unrecorded()
    if isinstance(error, TimeoutError):
        return failed("the deadline has passed")
    return failed(f"a model or a plugin failed ({type(error).__name__})")
