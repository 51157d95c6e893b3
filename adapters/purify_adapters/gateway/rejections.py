"""How a request is refused: TGI's status codes and bodies, and never a word of the untrusted model's."""

from __future__ import annotations

from math import ceil
from typing import Any

from starlette.responses import JSONResponse, Response

from purify_adapters.sources.http.circuit_breaker import CircuitOpen
from purify_plugins.errors import ConfigError, RefusedError, TooLongError

TYPES = {401: "authentication_error", 404: "not_found_error", 429: "rate_limit_error"}
"""OpenAI's names of errors that are not simply the request's or the server's."""


class Rejected(Exception):
    """A request that gets no answer; `error_type` is TGI's word for why, where it has one.

    Clients of TGI's take an error with such a word for one of the model's, not of the web's.
    """

    param: str | None = None
    """The option that is refused, where it is one."""

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
        """OpenAI's shape; TGI's own word stays beside it for clients of TGI that chat."""
        ours = "server_error" if self.status == 424 or self.status >= 500 else "invalid_request_error"
        kind = TYPES.get(self.status, ours)
        told = {"message": self.error, "type": kind, "param": self.param, "code": self.error_type}
        return {**self.body, "error": {**told, "http_status_code": self.status}}

    def response(self, path: str = "") -> Response:
        """The refusal in the dialect of the route at `path`."""
        body = self.openai if path.startswith("/v1/") else self.body
        return JSONResponse(body, self.status, self.headers)


def invalid(message: str, option: str | None = None) -> Rejected:
    """A request that TGI's validation would have refused, because of an option if one is named."""
    found = Rejected(422, f"Input validation error: {message}", "validation")
    found.param = option
    return found


def unsupported(option: str, why: str = "") -> Rejected:
    """An option that cannot be honoured without giving up purification, or that this gateway lacks."""
    return invalid(f"`{option}` is not supported with purification{why and ': '}{why}", option)


def too_long(most: int, length: int, prompt: str) -> Rejected:
    """A prompt of `length` tokens, `prompt` on its route, for models that read `most` with the answer."""
    if prompt == "inputs":
        return invalid(f"`inputs` must have less than {most} tokens. Given: {length}", prompt)
    # OpenAI's words, by which its clients know what to do.
    said = (
        f"This model's maximum context length is {most} tokens. However, your prompt has {length}; shorten it"
    )
    found = invalid(said, prompt)
    found.error_type = "context_length_exceeded"
    return found


def overloaded() -> Rejected:
    return Rejected(429, "Model is overloaded", "overloaded", retry_after="1")


def stopping() -> Rejected:
    return Rejected(503, "The gateway is shutting down", "overloaded", retry_after="5")


def ended() -> Rejected:
    """An answer that had not ended when the gateway had to."""
    said = "Request failed during generation: the gateway is shutting down"
    return Rejected(503, said, "generation", retry_after="5")


def resting(error: CircuitOpen) -> Rejected:
    """The LLM's server has failed too often to be asked now."""
    return Rejected(503, "A model's server is down", "overloaded", retry_after=str(ceil(error.after)))


def failed(why: str) -> Rejected:
    return Rejected(424, f"Request failed during generation: {why}", "generation")


def cut_short() -> Rejected:
    return Rejected(500, "Incomplete generation", "incomplete_generation")


def to_http_error(error: BaseException) -> Rejected:
    """What a client is told of an error.

    Our own sentences about a request are passed on. What a model's failure says may hold a server's
    words, and those may be the untrusted model's: the client hears what kind of failure it was.
    """
    if isinstance(error, Rejected):
        return error
    if isinstance(error, RefusedError):
        return Rejected(422, str(error), "refused")
    if isinstance(error, TooLongError):  # its own sentence names a model by the path it lies at
        return too_long(error.most, error.length, "messages")
    if isinstance(error, ConfigError):
        return invalid(str(error))
    if isinstance(error, CircuitOpen):
        return resting(error)
    if isinstance(error, TimeoutError):
        return failed("the deadline has passed")
    return failed(f"a model or a plugin failed ({type(error).__name__})")
