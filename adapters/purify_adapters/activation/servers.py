"""Clients of inference servers: purified through a source of ours, or refused by name."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from functools import wraps
from types import ModuleType
from typing import TYPE_CHECKING, Any

from purify_adapters.activation.inference import ASKED, Asked
from purify_adapters.activation.rules import is_url, plain
from purify_plugins.errors import ConfigError, RefusedError
from purify_plugins.guard import for_fusion, reading

if TYPE_CHECKING:
    from purify_adapters.activation.active import Activation
    from purify_adapters.activation.points import Patch, Points
    from purify_plugins.purifier import Purifier
    from purify_plugins.types import Chunk

SOURCE = "tgi"
"""The source that reads a Text Generation Inference server."""
SECRET = frozenset(("api_key", "api_key_env"))
"""The keys of `[llm]` that only its own `url` may see."""
ROUTES = re.compile(r"/(v1(/chat/completions|/completions)?|generate(_stream)?)?/?$")
"""What of a URL is not the server's root."""
WRITING = frozenset(("text-generation", "conversational", "summarization", "translation", "image-to-text"))
"""huggingface_hub's tasks that are answered with text of a model's own."""
SILENT = re.compile(r"/(embeddings|models|moderations|files|uploads|audio|images|vector_stores)\b")
"""What one may ask an OpenAI-compatible server without being written to."""


def patches(activation: Activation) -> dict[str, Patch]:
    """Module -> what is replaced in it."""
    servers = Servers(activation)
    return {
        "huggingface_hub.inference._client": servers.client,
        "huggingface_hub.inference._generated._async_client": servers.async_client,
        "text_generation.client": servers.text_generation,
        "openai._base_client": servers.openai,
    }


class Servers:
    """The points inside clients, and a purifier for each server they ask."""

    def __init__(self, activation: Activation) -> None:
        self.activation = activation
        self.purifiers: dict[str, Purifier] = {}

    # huggingface_hub: purified

    def client(self, points: Points, module: ModuleType) -> None:
        for name in ASKED:
            points.replace(module.InferenceClient, name, self._blocking)
        points.replace(module.InferenceClient, "_inner_post", self._refusing(_went_past))

    def async_client(self, points: Points, module: ModuleType) -> None:
        for name in ASKED:
            points.replace(module.AsyncInferenceClient, name, self._awaited)
        points.replace(module.AsyncInferenceClient, "_inner_post", self._refusing(_went_past))

    def _blocking(self, original: Any) -> Any:
        @wraps(original)
        def call(client: Any, content: Any, **options: Any) -> Any:
            server = asked_server(client, options)
            if reading.get():
                return original(client, content, **options)
            with self.activation.refusals(server):
                if self.activation.rules.trusts(server):
                    self.activation.count(server, "trusted")
                    with for_fusion():
                        return original(client, content, **options)
                asked, purifier = self._asked(original.__name__, server, content, options)
                if not asked.stream:
                    [completion] = purifier.generate([asked.prompt], asked.sampling(purifier.sampling))
                    self.activation.count(server, "purified")
                    return asked.answer(completion)
            return self._streamed(server, asked, purifier)

        return call

    def _awaited(self, original: Any) -> Any:
        @wraps(original)
        async def call(client: Any, content: Any, **options: Any) -> Any:
            from anyio import to_thread

            server = asked_server(client, options)
            with self.activation.refusals(server):
                if self.activation.rules.trusts(server):
                    self.activation.count(server, "trusted")
                    with for_fusion():
                        return await original(client, content, **options)
                asked, purifier = await to_thread.run_sync(
                    self._asked, original.__name__, server, content, options
                )
                if not asked.stream:
                    [completion] = await purifier.agenerate([asked.prompt], asked.sampling(purifier.sampling))
                    self.activation.count(server, "purified")
                    return asked.answer(completion)
            return self._astreamed(server, asked, purifier)

        return call

    def _streamed(self, server: str, asked: Asked, purifier: Purifier) -> Iterator[Any]:
        with self.activation.refusals(server):
            for chunk in purifier.stream(asked.prompt, asked.sampling(purifier.sampling)):
                yield from asked.pieces(chunk)
                self._finished(server, chunk)

    async def _astreamed(self, server: str, asked: Asked, purifier: Purifier) -> AsyncIterator[Any]:
        with self.activation.refusals(server):
            async for chunk in purifier.astream(asked.prompt, asked.sampling(purifier.sampling)):
                for piece in asked.pieces(chunk):
                    yield piece
                self._finished(server, chunk)

    def _finished(self, server: str, chunk: Chunk) -> None:
        if chunk.completion is not None:
            self.activation.count(server, "purified")

    def _asked(
        self, method: str, server: str, content: Any, options: dict[str, Any]
    ) -> tuple[Asked, Purifier]:
        """The request in our terms, and who answers it. Raises RefusedError, ConfigError, SourceError."""
        asked = ASKED[method](content, {key: value for key, value in options.items() if key != "model"})
        with self.activation.lock:
            if server not in self.purifiers:
                self.purifiers[server] = self._purifier(server)
            return asked, self.purifiers[server]

    def _purifier(self, server: str) -> Purifier:
        plugins, llm = self.activation.plugins, self.activation.config.llm
        if not is_url(server):
            raise RefusedError(
                f"{server!r} is asked through a provider, which shows no probabilities; give the client its "
                "server's URL, or name it in `trusted`"
            )
        if SOURCE not in plugins.offers("purify_sources"):
            raise RefusedError(
                f"no plugin offers the source {SOURCE!r}, without which {server!r} cannot be purified; "
                "install one, or name it in `trusted`"
            )
        if llm.get("source") != SOURCE:
            raise ConfigError(
                f"{server!r} does not tell its tokenizer, without which it cannot be purified; say in [llm]: "
                f'source = "{SOURCE}", tokenizer = "DIR"'
            )
        return self.activation.purifier(plugins.source(self._table(llm, server)))

    def _table(self, llm: Mapping[str, Any], server: str) -> dict[str, Any]:
        """The source's keys for a server: `[llm]`'s, its API key for the server that `[llm]` names alone."""
        named = str(llm.get("url", ""))
        if not _same(named, server):
            llm = {key: value for key, value in llm.items() if key not in SECRET}
        return {**self.activation.keys_of(llm), "url": ROUTES.sub("", server)}

    # Clients of others: refused

    def text_generation(self, points: Points, module: ModuleType) -> None:
        for kind in (module.Client, module.AsyncClient):
            for name in ("generate", "generate_stream", "chat"):
                points.replace(kind, name, self._refusing(lambda client, *_: str(client.base_url)))

    def openai(self, points: Points, module: ModuleType) -> None:
        """Every call of every resource ends in `request`."""
        for kind in (module.SyncAPIClient, module.AsyncAPIClient):
            points.replace(kind, "request", self._refusing(_written_to))

    def _refusing(self, server_of: Callable[..., str]) -> Callable[[Any], Any]:
        """Pass calls that `server_of` has no name for, and those of trusted servers; refuse the others."""

        def around(original: Any) -> Any:
            @wraps(original)
            def call(client: Any, *args: Any, **options: Any) -> Any:
                server = server_of(client, *args, *options.values())
                if server:
                    self._refuse_untrusted(server, type(client))
                return original(client, *args, **options)

            return call

        return around

    def _refuse_untrusted(self, server: str, client: type) -> None:
        with self.activation.refusals(server):
            if not self.activation.rules.trusts(server):
                raise RefusedError(
                    f"{client.__module__}.{client.__name__} asks {server!r}, which cannot be purified; ask a "
                    "purifying gateway in its place, or name it in `trusted`"
                )
        self.activation.count(server, "trusted")


def _went_past(client: Any, request: Any, *_: Any) -> str:
    """The server of a request that did not come by us; "" for one that did, or that asks for no text."""
    expected = reading.get() or request.task not in WRITING
    return "" if expected else asked_server(client, {"model": request.model})


def _same(url: str, server: str) -> bool:
    """Whether two URLs have one root."""
    root = plain(ROUTES.sub("", url)) if is_url(url) else ""
    return bool(root) and root == plain(ROUTES.sub("", server))


def asked_server(client: Any, options: dict[str, Any]) -> str:
    """The URL, or else the model's name, that a call of huggingface_hub's goes to."""
    return str(options.get("model") or client.model or "the provider's own choice")


def _written_to(client: Any, *arguments: Any) -> str:
    """The server an OpenAI client asks for text; "" for a request that writes none."""
    paths = [str(each.url) for each in arguments if hasattr(each, "url") and hasattr(each, "method")]
    return "" if paths and all(SILENT.match(path) for path in paths) else str(client.base_url)
