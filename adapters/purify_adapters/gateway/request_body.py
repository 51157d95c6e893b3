"""A request's key and body: authorisation, size, time limit, encoding, schema."""

from __future__ import annotations

import asyncio
from email.message import Message
from typing import TYPE_CHECKING, TypeVar

from pydantic import ValidationError
from starlette.requests import ClientDisconnect, Request

from purify_adapters.gateway.rejections import Rejected
from purify_adapters.gateway.schemas import Body

if TYPE_CHECKING:
    from pydantic_core import ErrorDetails

    from purify_adapters.gateway.settings import Settings

B = TypeVar("B", bound=Body)
KINDS = (
    "str",
    "int",
    "bool",
    "list[str]",
    "list[ContentPart]",
    "list[ResponseItem]",
    "list[ResponseItemPart]",
    "list[constrained-int]",
)
"""Names of union members that pydantic puts into an error's location; they are not in the request."""
TOO_LARGE = "Failed to buffer the request body: length limit exceeded"


async def read_body(request: Request, settings: Settings) -> bytes:
    """The whole body of a JSON request. Raises Rejected: 408, 413, 415."""
    _require_json(request)
    length = request.headers.get("content-length", "")
    if length.isdigit() and int(length) > settings.max_body:
        raise Rejected(413, TOO_LARGE, connection="close")
    try:
        async with asyncio.timeout(settings.patience):
            return await _collect(request, settings.max_body)
    except TimeoutError:
        raise Rejected(408, "The request's body took too long", connection="close") from None
    except ClientDisconnect:
        raise Rejected(400, "The client left before its request was whole") from None


async def _collect(request: Request, most: int) -> bytes:
    found = bytearray()
    async for chunk in request.stream():
        found += chunk
        if len(found) > most:
            raise Rejected(413, TOO_LARGE, connection="close")
    return bytes(found)


def _require_json(request: Request) -> None:
    """Raise Rejected (415) unless the body is declared as uncompressed JSON in UTF-8."""
    header = Message()
    header["content-type"] = request.headers.get("content-type", "")
    kind, charset = header.get_content_type(), header.get_param("charset", "utf-8")
    if kind != "application/json" and not (kind.startswith("application/") and kind.endswith("+json")):
        raise Rejected(415, "Expected request with `Content-Type: application/json`")
    if str(charset).lower().replace("-", "") != "utf8":
        raise Rejected(415, "Expected JSON in UTF-8")
    if request.headers.get("content-encoding", "identity").lower() != "identity":
        raise Rejected(415, "Expected a request body that is not compressed")


def parse(body: bytes, kind: type[B]) -> B:
    """The body as an instance of its schema. Raises Rejected: 400, 422."""
    try:
        return kind.model_validate_json(body)
    except ValidationError as error:
        raise _refused(error.errors(include_url=False, include_input=False)[0]) from None


def _refused(error: ErrorDetails) -> Rejected:
    if error["type"] == "json_invalid":
        return Rejected(400, f"Failed to parse the request body as JSON: {error['msg']}")
    where = ".".join(str(part) for part in error["loc"] if part not in KINDS)
    message = f"{where}: {error['msg']}" if where else error["msg"]
    found = Rejected(422, f"Failed to deserialize the JSON body into the target type: {message}")
    found.param = str(error["loc"][0]) if where else None
    return found
