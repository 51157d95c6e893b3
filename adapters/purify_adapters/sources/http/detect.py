"""Find out which kind of server answers at a URL, and load its source."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from purify_adapters.sources import SERVERS, server_source
from purify_adapters.sources.http.circuit_breaker import Unavailable
from purify_adapters.sources.http.client import HttpClient
from purify_adapters.sources.http.event_loop import wait
from purify_adapters.sources.http.source import RemoteSource
from purify_plugins.errors import ConfigError, SourceError, UnknownNameError
from purify_plugins.plugin.arguments import check_arguments


def load(
    url: str, *, tokenizer: str | Path, kind: str = "auto", api_key: str | None = None, **options: Any
) -> RemoteSource:
    """Reach a model behind the server at `url`, whatever kind of server that is.

    `kind` "auto" asks the server what it is; else it is `tgi`, `vllm`, `llama_cpp` or `llama_cpp_python`.
    `tokenizer`, `api_key` and all other `options` are that source's. Raises ConfigError, ModelError,
    VocabularyError, SourceError.
    """
    check_kind(kind)
    found = wait(detected(HttpClient(url, api_key, retries=0))) if kind == "auto" else kind
    source = server_source(found)
    check_arguments(f"source {found!r} option", source.Options, options)
    return source.load(url, tokenizer=tokenizer, api_key=api_key, **options)  # type: ignore[no-any-return]  # each kind's own


def check_kind(kind: str) -> None:
    """Raise UnknownNameError for an unknown kind of server."""
    if kind != "auto" and kind not in SERVERS:
        raise UnknownNameError("kind of server", kind, ["auto", *SERVERS])


async def detected(http: HttpClient) -> str:
    """The kind of the server. Raises SourceError if none answers, ConfigError for an unknown kind."""
    for kind in SERVERS:
        path, key = server_source(kind).sign
        try:
            answer = await http.get(path)
        except Unavailable:
            raise
        except SourceError:
            continue  # it has no such route, or no JSON there
        if isinstance(answer, dict) and key in answer:
            return kind
    raise ConfigError(
        f"what answers at {http.address} is none of {', '.join(SERVERS)}; check the url, or name its kind"
    )
