"""Patches the HTTP libraries: requests that generate text are refused, whichever client sends them.

Each library is patched where all of its requests pass.
"""

from __future__ import annotations

import re
import sys
from functools import wraps
from types import ModuleType
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urljoin, urlsplit

from purify_plugins.sources.read_scope import reading

if TYPE_CHECKING:
    from purify_adapters.activation.gate import Gate
    from purify_adapters.activation.monkeypatch import Monkeypatch, Patch

WRITES = re.compile(
    r"/(chat/completions|completions?|generate(_stream)?|generate_content|infill|predictions)/?$"
    r"|/v\d\w*/(messages|complete|responses|conversations|chat|chat_stream|interactions)(/|$)"
    r"|/(openai|api)/(v\d/)?(responses|chat|generate)(/|$)"
    r"|/threads(/[^/]+)?/runs\b|/realtime\b|/(fim|agents)/completions"
    r"|/model/[^/]+/(invoke|converse)(-\w+)*$|/endpoints/[^/]+/invocations\S*$"  # Bedrock, SageMaker
    r"|/text/(generation|chat)(_stream)?$|/aigc/[\w-]+/generation$"  # watsonx, DashScope
    r"|/serving-endpoints/[^/]+/invocations$|/ai/run/@|/completions_pro$"  # Databricks, Cloudflare, Qianfan
    r"|/extra/generate/stream$|/studio/v\d/[\w-]+/complete$"  # KoboldCpp, AI21
    r"|/v\d/((chat|completion)-messages|workflows/run)$"  # Dify
    r"|:(stream)?(generate|bidiGenerate)(Content|Text|Message)|:(stream)?rawPredict$|BidiGenerateContent"
    r"|:serverStreamingPredict$",
    re.IGNORECASE,
)
"""Paths of requests that generate text, at any host."""
HOSTS = re.compile(
    r"(^|\.)(api\.openai\.com|openai\.azure\.com|services\.ai\.azure\.com|models\.github\.ai|api\.anthropic\.com|"
    r"generativelanguage\.googleapis\.com|api\.cohere\.(com|ai)|(api|codestral)\.mistral\.ai|api\.groq\.com|"
    r"api\.together\.(xyz|ai)|api\.fireworks\.ai|api\.replicate\.com|api\.x\.ai|api\.deepseek\.com|"
    r"api\.perplexity\.ai|openrouter\.ai|api\.cerebras\.ai|api\.sambanova\.ai|api\.ai21\.com|"
    r"dashscope[\w-]*\.aliyuncs\.com|ml\.cloud\.ibm\.com|api\.deepinfra\.com|integrate\.api\.nvidia\.com|"
    r"api\.moonshot\.(ai|cn)|open\.bigmodel\.cn|api\.minimaxi?\.(chat|com|io)|api-inference\.huggingface\.co|"
    r"router\.huggingface\.co|endpoints\.huggingface\.cloud|ollama\.com)$"
)
"""Hosts whose requests generate text, except for the paths in `SILENT`."""
SILENT = re.compile(
    r"/(v\d/)?(embeddings?|embed|moderations|rerank|(de)?tokenize|count_tokens|messages/count_tokens)/?$"
    r"|/api/(embed|embeddings|show|pull|push|create|copy|delete|blobs/\S+)$"
    r"|/(files|uploads|audio|images|vector_stores)(/|$)"
    r"|:(batch|async)?(embed\w*|countTokens)$|/pipeline/(feature-extraction|sentence-similarity)$",
    re.IGNORECASE,
)
"""Paths of such hosts that generate no text."""
PLUMBING = {
    *("purify_adapters", "purify_plugins", "httpx", "httpx2", "httpcore", "requests", "urllib3", "urllib"),
    *("http", "aiohttp", "websockets", "grpc", "asyncio", "anyio", "contextlib", "concurrent", "threading"),
    *("tenacity", "backoff", "functools", "selectors"),
}
"""Packages that send requests for their callers."""


def is_silent(method: str, url: str) -> bool:
    """Whether a request to a model server generates no text."""
    path = urlsplit(url).path
    return SILENT.search(path) is not None or (method.upper() == "GET" and "/models" in path)


def writes(method: str, url: str) -> bool:
    """Whether a request generates text."""
    parts = urlsplit(url)
    path = unquote(parts.path)  # servers take chat%2Fcompletions for chat/completions
    if method.upper() in ("GET", "HEAD", "OPTIONS"):
        return parts.scheme in ("ws", "wss") and WRITES.search(path) is not None
    if SILENT.search(path):
        return False
    return WRITES.search(path) is not None or HOSTS.search(parts.hostname or "") is not None


def calling_package() -> str:
    """The package that sends a request: the nearest caller's that is not in `PLUMBING`."""
    frame = sys._getframe(1)
    while frame is not None:
        module = str(frame.f_globals.get("__name__", ""))
        package = module.split(".")[0]
        if package not in PLUMBING:
            return ".".join(module.split(".")[:2]) if package in ("google", "azure") else package
        frame = frame.f_back  # type: ignore[assignment]  # None ends it
    return "__main__"


class Outgoing:
    """The patches of the HTTP libraries."""

    def __init__(self, gate: Gate) -> None:
        self.gate = gate

    @property
    def patches(self) -> dict[str, Patch]:
        """Module -> what is replaced in it."""
        return {
            "http.client": self._standard,  # urllib, urllib3, requests, botocore
            "httpx._transports.default": self._httpx,
            "httpx2._transports.default": self._httpx,
            "aiohttp.client": self._aiohttp,
            "websockets.client": self._websockets,
        }

    def check(self, method: str, url: str) -> None:
        """Raise RefusedError for a request that generates text on an untrusted server."""
        if not reading.get() and writes(method, url):
            caller, parts = calling_package(), urlsplit(url)
            root = f"{parts.scheme.replace('ws', 'http', 1)}://{parts.netloc.rpartition('@')[2]}"
            self.gate.check(caller, (root, root + parts.path, caller))

    def _httpx(self, monkeypatch: Monkeypatch, module: ModuleType) -> None:
        """Patch the transports, so that an ASGI application in this process is left alone."""

        def blocking(original: Any) -> Any:
            @wraps(original)
            def handle_request(transport: Any, request: Any) -> Any:
                self.check(request.method, str(request.url))
                return original(transport, request)

            return handle_request

        def awaited(original: Any) -> Any:
            @wraps(original)
            async def handle_async_request(transport: Any, request: Any) -> Any:
                self.check(request.method, str(request.url))
                return await original(transport, request)

            return handle_async_request

        monkeypatch.replace(module.HTTPTransport, "handle_request", blocking)
        monkeypatch.replace(module.AsyncHTTPTransport, "handle_async_request", awaited)

    def _standard(self, monkeypatch: Monkeypatch, module: ModuleType) -> None:
        def around(original: Any) -> Any:
            @wraps(original)
            def putrequest(connection: Any, method: str, url: str, *args: Any, **options: Any) -> None:
                self.check(method, urljoin(_root(connection), url))
                original(connection, method, url, *args, **options)

            return putrequest

        monkeypatch.replace(module.HTTPConnection, "putrequest", around)

    def _aiohttp(self, monkeypatch: Monkeypatch, module: ModuleType) -> None:
        def around(original: Any) -> Any:
            @wraps(original)
            async def _request(session: Any, method: str, str_or_url: Any, **options: Any) -> Any:
                self.check(method, urljoin(str(session._base_url or ""), str(str_or_url)))
                return await original(session, method, str_or_url, **options)

            return _request

        monkeypatch.replace(module.ClientSession, "_request", around)

    def _websockets(self, monkeypatch: Monkeypatch, module: ModuleType) -> None:
        def around(original: Any) -> Any:
            @wraps(original)
            def connect(protocol: Any) -> Any:
                uri = protocol.uri
                scheme = "wss" if uri.secure else "ws"
                self.check("GET", f"{scheme}://{uri.host}:{uri.port}{uri.resource_name}")
                return original(protocol)

            return connect

        monkeypatch.replace(module.ClientProtocol, "connect", around)


def _root(connection: Any) -> str:
    """The server's root URL of a connection of http.client or urllib3."""
    scheme = "https" if connection.default_port == 443 else "http"
    host = connection._tunnel_host or connection.host
    port = connection._tunnel_port if connection._tunnel_host else connection.port
    return f"{scheme}://{host}:{port}"
