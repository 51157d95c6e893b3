"""TGI through a huggingface_hub client: one `text_generation` call for each token."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

from purify_adapters.sources.http.circuit_breaker import Unavailable
from purify_adapters.sources.http.client import HttpClient, RequestRefused
from purify_adapters.sources.http.options import ServerOptions
from purify_adapters.sources.http.rows import field, listed
from purify_adapters.sources.http.source import SAMPLE
from purify_adapters.sources.tgi.source import TGIOptions, TGISource
from purify_plugins.errors import SourceError
from purify_plugins.sources.read_scope import for_fusion


class HubHttpClient(HttpClient):
    """Sends through a `huggingface_hub.InferenceClient`, which has its own timeouts and keys."""

    def __init__(self, client: Any, retries: int = 2) -> None:
        super().__init__("", retries=retries)
        self.client = client

    def __post_init__(self) -> None:
        """Check nothing: the URL is the client's."""

    async def post(
        self, path: str, body: Any, rows: int = 1, shape: Any = Any
    ) -> tuple[Any, Mapping[str, str]]:
        """The answer of `/generate`; the client shows no headers."""
        with self.breaker.asking() as answered:
            self._count()
            try:
                with for_fusion():  # activation would purify this client's calls
                    answer = await asyncio.to_thread(
                        self.client.text_generation, body["inputs"], **body["parameters"]
                    )
            except Exception as error:  # the client raises httpx's, its own and requests', by its version
                raise _fault(error) from error
            answered()
        return _plain(answer), {}


def _fault(error: Exception) -> SourceError:
    """The client's error as a SourceError, without the server's own words."""
    kind = type(error).__name__
    if kind == "ValidationError":
        return RequestRefused("the LLM's server refused the request", str(error).encode())
    message = f"the hub's client failed ({kind}); see the log of the LLM's server"
    return Unavailable(message) if kind in ("OverloadedError", "ConnectError") else SourceError(message)


def _plain(value: Any) -> Any:
    """The client's dataclasses, which are half dictionaries, as JSON."""
    if isinstance(value, list):
        return [_plain(each) for each in value]
    found = value if isinstance(value, dict) and value else getattr(value, "__dict__", None)
    return {key: _plain(each) for key, each in found.items()} if found is not None else value


class HubSource(TGISource):
    """TGI behind a handed-in client, which shows no headers, streams no rows and asks no other route."""

    @staticmethod
    def client(options: ServerOptions) -> HttpClient:
        assert isinstance(options, TGIOptions)
        return HubHttpClient(options.client, options.retries)

    async def reach(self) -> None:
        """Ask for one row: the client asks no route that says how the server is. Raises SourceError."""
        await self.row(self.start("a"))

    async def _check_tokens(self) -> None:
        body = self._body(SAMPLE, 1, decoder_input_details=True)
        body["parameters"]["top_n_tokens"] = 1
        answer, _ = await self.http.with_retries(lambda: self.http.post("/generate", body))
        ids = tuple(field(each, "id") for each in listed(answer, "details", "prefill"))
        if ids and ids != self.reader.tokenised(SAMPLE):
            raise self.another()

    async def _context(self) -> int | None:
        return None  # only /info says, which this client does not request
