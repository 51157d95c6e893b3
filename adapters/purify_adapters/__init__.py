"""Adapters of other software, each imported only when it is used."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cached_property
from importlib import import_module
from inspect import Signature, getdoc, signature
from typing import Any

from purify_adapters.sources import SERVERS
from purify_plugins.plugin.hookspecs import hookimpl
from purify_plugins.plugin.preview import Checked, Preview
from purify_plugins.types import ToolFormat
from purify_plugins.utils.extras import require_extra

TOOL_FORMATS: Mapping[str, ToolFormat] = {
    "hermes": ToolFormat(
        "<tool_call>\n", "\n</tool_call>", sign=r"(?s)^(?!.*(?:<function=|<arg_key>|```)).*<tool_call>"
    ),
    "mistral": ToolFormat("[TOOL_CALLS]", "", sign=r"\[TOOL_CALLS\]\s*\[", listed=True),
    "mistral_args": ToolFormat("[TOOL_CALLS]", "", sign=r"\[ARGS\]", named="[ARGS]"),
    "mistral_named": ToolFormat(
        "[TOOL_CALLS]", "", sign=r"(?s)^(?!.*\[ARGS\])(?!.*\[TOOL_CALLS\]\s*\[).*\[TOOL_CALLS\]", named=""
    ),
    "granite": ToolFormat("<|tool_call|>", "", sign=r"<\|tool_call\|>", listed=True),
    "llama": ToolFormat("", "", sign=r"<\|python_tag\|>|\"parameters\": dictionary", arguments="parameters"),
}


@hookimpl
def purify_adapters() -> Mapping[str, Callable[..., Any]]:
    return {
        "langchain": lambda purifier, **options: _load("langchain", "ChatPurified")(
            purifier=purifier, **options
        ),
        "llama_index": _llama_index,
        "transformers": purify,
        "gateway": lambda purifier, **settings: _load("gateway", "gateway")(purifier, **settings),
        "activation": lambda: import_module("purify_adapters.activation"),
    }


class ServerFactory(Checked):
    """A kind of server's source, imported only when it is called or its keys are read."""

    def __init__(self, kind: str) -> None:
        self.kind = kind

    @cached_property
    def source(self) -> Any:
        require_extra("tgi", "a model behind a server")
        from purify_adapters.sources import server_source

        return server_source(self.kind)

    @property
    def __wrapped__(self) -> Callable[..., Any]:
        """The class with the keys and their types."""
        return self.source.Options  # type: ignore[no-any-return]  # a class of that file

    @property
    def __signature__(self) -> Signature:
        return signature(self.__wrapped__)

    def __getattribute__(self, name: str) -> Any:
        return self.about if name == "__doc__" else super().__getattribute__(name)

    @property
    def about(self) -> str:
        """The documentation of the keys: of this kind of server, then of every kind."""
        own, *above, _ = (getdoc(kind) or "" for kind in self.source.Options.__mro__)
        return "\n\n".join([own, *above])

    def __call__(self, *args: Any, **keys: Any) -> Any:
        return self.source.load(*args, **keys)

    def preview(self, **keys: Any) -> Preview:
        require_extra("tgi", "a model behind a server")
        from purify_adapters.sources.http.preflight import looked_at

        return looked_at(**keys)


class AnyServerFactory(ServerFactory):
    """The source that detects the kind of server."""

    @cached_property
    def source(self) -> Any:
        require_extra("tgi", "a model behind a server")
        return import_module("purify_adapters.sources.http.detect")

    @property
    def __wrapped__(self) -> Callable[..., Any]:
        return self.source.load  # type: ignore[no-any-return]  # a function of that file

    @property
    def about(self) -> str:
        return getdoc(self.source.load) or ""

    def preview(self, **keys: Any) -> Preview:
        return super().preview(**{"kind": "auto", **keys})


@hookimpl
def purify_sources() -> Mapping[str, Callable[..., Any]]:
    return {"server": AnyServerFactory("auto"), **{kind: ServerFactory(kind) for kind in SERVERS}}


@hookimpl
def purify_tool_formats() -> Mapping[str, Callable[..., ToolFormat]]:
    return {name: (lambda kept=kept: kept) for name, kept in TOOL_FORMATS.items()}


def _load(module: str, name: str) -> Any:
    return getattr(import_module(f"purify_adapters.{module}"), name)


def _llama_index(purifier: Any, **options: Any) -> Any:
    """A LlamaIndex language model around a purifier; the options are PurifiedLLM's."""
    from purify_adapters.llama_index import PurifiedLLM

    return PurifiedLLM(purifier, **options)


def purify(obj: Any, slm: Any, policy: Any = "balanced", tokenizer: Any = None, **parameters: Any) -> Any:
    """A purified drop-in for a transformers model, a pipeline, or a framework's object around one.

    Known are transformers' causal models and text-generation pipelines, LangChain's
    `HuggingFacePipeline` and `ChatHuggingFace`, and LlamaIndex's `HuggingFaceLLM`. `slm` and `policy`
    are as in `Purifier.load`, `parameters` the policy's fields; a bare model needs its `tokenizer`.
    `obj` stays as it is. Raises ConfigError for anything else.

    >>> model = purify(model, slm="small-slm", tokenizer=tokenizer)
    """
    from purify_adapters.transformers import drop_in

    return drop_in(obj, slm, policy, tokenizer, **parameters)
