"""Patches huggingface_hub's inference clients: calls are purified through a server source, or refused."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from functools import wraps
from inspect import BoundArguments, signature
from types import ModuleType
from typing import TYPE_CHECKING, Any

from purify_adapters.activation.gate import kind_of
from purify_adapters.activation.hub_requests import HUB_REQUESTS, HubRequest
from purify_adapters.activation.rules import is_url, plain
from purify_plugins.configuration.build import keys_of
from purify_plugins.errors import ConfigError, RefusedError
from purify_plugins.sources.read_scope import for_fusion, reading
from purify_plugins.utils.locks import ForkedLock
from purify_plugins.utils.logs import warn_of_greedy

if TYPE_CHECKING:
    from purify_adapters.activation.gate import Gate
    from purify_adapters.activation.monkeypatch import Monkeypatch, Patch
    from purify_plugins.plugin.manager import Plugins
    from purify_plugins.protocols import LogitSource
    from purify_plugins.purifier import Purifier
    from purify_plugins.types import Chunk, Completion

OWN = frozenset(("api_key", "api_key_env", "engine"))
"""The keys of `[llm]` that hold for its own `url` alone: the secret, and whether the server is trusted."""
ROUTES = re.compile(r"/(v1(/chat/completions|/completions)?|generate(_stream)?)?/?$")
"""The part of a URL after the server's root."""
WRITING = frozenset(("text-generation", "conversational", "summarization", "translation", "image-to-text"))
"""huggingface_hub's tasks whose answer is generated text."""


class HubClients:
    """The patches of huggingface_hub's clients, and one purifier for each server they call.

    `purifier_for` makes the purifier of an LLM; `llm` is the configuration's table.
    """

    def __init__(
        self,
        gate: Gate,
        purifier_for: Callable[[LogitSource], Purifier],
        plugins: Plugins,
        llm: Mapping[str, Any],
    ) -> None:
        self.gate, self.recorder, self.rules = gate, gate.recorder, gate.rules
        self.purifier_for, self.plugins, self.llm = purifier_for, plugins, llm
        self.purifiers: dict[str, Purifier] = {}
        self.lock = ForkedLock(reentrant=True)

    @property
    def patches(self) -> dict[str, Patch]:
        """Module -> what is replaced in it."""
        return {
            "huggingface_hub.inference._client": self._patch("InferenceClient", self._blocking),
            "huggingface_hub.inference._generated._async_client": self._patch(
                "AsyncInferenceClient", self._awaited
            ),
        }

    def _patch(self, client: str, around: Callable[[Any], Any]) -> Patch:
        def patch(monkeypatch: Monkeypatch, module: ModuleType) -> None:
            kind = vars(module)[client]
            for name in HUB_REQUESTS:
                monkeypatch.replace(kind, name, around)
            monkeypatch.replace(kind, "_inner_post", self.gate.refusing(_bypassing_server, kind_of))

        return patch

    def _blocking(self, original: Any) -> Any:
        taken = signature(original)

        @wraps(original)
        def call(*args: Any, **kwargs: Any) -> Any:
            if reading.get():
                return original(*args, **kwargs)
            client, content, options = _parsed(taken.bind(*args, **kwargs))
            server = server_of(client, options)
            with self.recorder.refusals(server):
                if self.rules.trusts(server):
                    self.recorder.count(server, "trusted")
                    with for_fusion():
                        return original(*args, **kwargs)
                request, purifier = self._request(original.__name__, server, content, options)
                if not request.stream:
                    sampling = request.sampling(purifier.sampling)
                    [completion] = purifier.generate([request.prompt], sampling, errors="raise")
                    self._count(server, completion)
                    return request.answer(completion)
            return self._streamed(server, request, purifier)

        return call

    def _awaited(self, original: Any) -> Any:
        taken = signature(original)

        @wraps(original)
        async def call(*args: Any, **kwargs: Any) -> Any:
            from anyio import to_thread

            client, content, options = _parsed(taken.bind(*args, **kwargs))
            server = server_of(client, options)
            with self.recorder.refusals(server):
                if self.rules.trusts(server):
                    self.recorder.count(server, "trusted")
                    with for_fusion():
                        return await original(*args, **kwargs)
                request, purifier = await to_thread.run_sync(
                    self._request, original.__name__, server, content, options
                )
                if not request.stream:
                    sampling = request.sampling(purifier.sampling)
                    [completion] = await purifier.agenerate([request.prompt], sampling, errors="raise")
                    self._count(server, completion)
                    return request.answer(completion)
            return self._astreamed(server, request, purifier)

        return call

    def _streamed(self, server: str, request: HubRequest, purifier: Purifier) -> Iterator[Any]:
        with self.recorder.refusals(server):
            for chunk in purifier.stream(request.prompt, request.sampling(purifier.sampling)):
                yield from request.pieces(chunk)
                self._finished(server, chunk)

    async def _astreamed(self, server: str, request: HubRequest, purifier: Purifier) -> AsyncIterator[Any]:
        with self.recorder.refusals(server):
            async for chunk in purifier.astream(request.prompt, request.sampling(purifier.sampling)):
                for piece in request.pieces(chunk):
                    yield piece
                self._finished(server, chunk)

    def _finished(self, server: str, chunk: Chunk) -> None:
        if chunk.completion is not None:
            self._count(server, chunk.completion)

    def _count(self, server: str, completion: Completion) -> None:
        if completion.certificate.decoded["method"]["mode"] == "greedy":
            warn_of_greedy()
        carries = completion.certificate.guarantee != "none"
        self.recorder.count(server, "purified", *["guaranteed"] * carries)

    def _request(
        self, method: str, server: str, content: Any, options: dict[str, Any]
    ) -> tuple[HubRequest, Purifier]:
        """The parsed request and the server's purifier. Raises RefusedError, ConfigError, SourceError."""
        request = HUB_REQUESTS[method](
            content, {key: value for key, value in options.items() if key != "model"}
        )
        with self.lock:
            if server not in self.purifiers:
                self.purifiers[server] = self._purifier(server)
            return request, self.purifiers[server]

    def _purifier(self, server: str) -> Purifier:
        if not is_url(server):
            raise RefusedError(
                f"{server!r} is asked through a provider, which shows no probabilities; give the client its "
                "server's URL, or name it in `trusted`"
            )
        offered = self.plugins.offers("purify_sources")
        servers = [name for name, factory in offered.items() if "url" in signature(factory).parameters]
        if self.llm.get("source") not in servers:
            raise ConfigError(
                f"{server!r} does not tell its tokenizer, without which it cannot be purified; say in [llm]: "
                f'source = "KIND" (one of {", ".join(servers)}) and tokenizer = "DIR"'
            )
        return self.purifier_for(self.plugins.source(self._table(server)))

    def _table(self, server: str) -> dict[str, Any]:
        """The source's keys for a server: those of `[llm]`, with `OWN` only for that table's server."""
        own = _same(str(self.llm.get("url", "")), server)
        table = {key: value for key, value in self.llm.items() if own or key not in OWN}
        return {**keys_of(self.plugins, table), "url": ROUTES.sub("", server)}


def _parsed(given: BoundArguments) -> tuple[Any, Any, dict[str, Any]]:
    """A call's client, its prompt or messages, and its options, positional or by name."""
    client, content, *_ = given.args
    first, second, *_ = given.signature.parameters
    options = {name: value for name, value in given.arguments.items() if name not in (first, second)}
    return client, content, options


def _bypassing_server(client: Any, request_parameters: Any, *_: Any, **__: Any) -> Sequence[str]:
    """The server of a request from an unpatched method; none if it generates no text."""
    request = request_parameters
    return [server_of(client, {"model": request.model})] if request.task in WRITING else ()


def _same(url: str, server: str) -> bool:
    """Whether two URLs have the same root."""
    root = plain(ROUTES.sub("", url)) if is_url(url) else ""
    return bool(root) and root == plain(ROUTES.sub("", server))


def server_of(client: Any, options: dict[str, Any]) -> str:
    """The URL, or else the model's name, that a call of huggingface_hub goes to."""
    return str(options.get("model") or client.model or "the provider's own choice")
