"""A server of any known kind: asked what it is, then reached as that."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from purify_adapters.sources.http.circuit_breaker import Unavailable
from purify_adapters.sources.http.client import Wire
from purify_adapters.sources.http.event_loop import wait
from purify_adapters.sources.http.source import RemoteSource
from purify_plugins.errors import ConfigError, SourceError, UnknownNameError
from purify_plugins.plugin.manager import check_arguments

SIGNS: Mapping[str, tuple[str, str]] = {
    "llama_cpp": ("/props", "default_generation_settings"),
    "tgi": ("/info", "model_id"),
    "vllm": ("/version", "version"),
    "llama_cpp_python": ("/v1/models", "data"),
}
"""By kind of server: a route that no kind before it answers, and a key of what it says there."""


def load(
    url: str, *, tokenizer: str | Path, kind: str = "auto", api_key: str | None = None, **options: Any
) -> RemoteSource:
    """Reach a model behind the server at `url`, whatever kind of server that is.

    `kind` "auto" asks the server what it is; else it is `tgi`, `vllm`, `llama_cpp` or `llama_cpp_python`.
    `tokenizer`, `api_key` and all other `options` are that source's. Raises ConfigError, ModelError,
    VocabularyError, SourceError.
    """
    check_kind(kind)
    found = wait(detected(Wire(url, api_key, retries=0))) if kind == "auto" else kind
    source = _sources()[found]
    check_arguments(f"source {found!r} option", source.load, options)
    return source.load(url, tokenizer=tokenizer, api_key=api_key, **options)  # type: ignore[no-any-return]  # each kind's own


def check_kind(kind: str) -> None:
    """Raise UnknownNameError for a kind of server that nobody knows."""
    if kind != "auto" and kind not in SIGNS:
        raise UnknownNameError("kind of server", kind, ["auto", *SIGNS])


def _sources() -> Mapping[str, Any]:
    from purify_adapters.sources.llama_cpp import LlamaCppSource
    from purify_adapters.sources.llama_cpp_python import LlamaPythonSource
    from purify_adapters.sources.tgi.source import TGISource
    from purify_adapters.sources.vllm_server import VLLMSource

    kinds = (LlamaCppSource, TGISource, VLLMSource, LlamaPythonSource)
    return dict(zip(SIGNS, kinds, strict=True))


async def detected(wire: Wire) -> str:
    """What kind of server answers. Raises SourceError if none does, ConfigError for an unknown one."""
    for kind, (path, key) in SIGNS.items():
        try:
            said = await wire.get(path)
        except Unavailable:
            raise
        except SourceError:
            continue  # it has no such route, or no JSON there
        if isinstance(said, dict) and key in said:
            return kind
    raise ConfigError(
        f"what answers at {wire.address} is none of {', '.join(SIGNS)}; check the url, or name its kind"
    )
