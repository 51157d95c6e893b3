"""Purified copies of models, pipelines and framework objects; the originals are not changed."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from purify_adapters.openai_schema import fingerprint_of
from purify_adapters.transformers.model import PurifiedModel
from purify_plugins.canonical_json import options
from purify_plugins.errors import ConfigError
from purify_plugins.plugin.manager import load_plugins
from purify_plugins.purifier import Purifier

Around = Callable[[Any, Any], PurifiedModel]
"""(model, tokenizer) -> the purified model."""


def drop_in(obj: Any, slm: Any, policy: Any = "balanced", tokenizer: Any = None, **parameters: Any) -> Any:
    """The purified copy; see `purify_adapters.purify`."""
    wrap = next((KINDS[kind] for kind in _kinds(obj) if kind in KINDS), None)
    if wrap is None:
        raise ConfigError(
            f"purify does not know what to do with a {type(obj).__name__}; give it a transformers model or "
            "text-generation pipeline, a HuggingFacePipeline, a ChatHuggingFace or a HuggingFaceLLM"
        )

    def around(model: Any, own: Any) -> PurifiedModel:
        return purified(model, tokenizer or own, slm, policy, parameters)

    return wrap(obj, around)


def _kinds(obj: Any) -> list[str]:
    """The names of an object's classes, so that no framework has to be imported."""
    return [f"{kind.__module__.split('.')[0]}.{kind.__name__}" for kind in type(obj).__mro__]


def purified(
    model: Any, tokenizer: Any, slm: Any, policy: Any, parameters: Mapping[str, Any]
) -> PurifiedModel:
    """The drop-in for a causal language model. Raises ConfigError, ModelError."""
    if isinstance(model, PurifiedModel):
        raise ConfigError("this model is purified already; purify the original instead")
    if tokenizer is None:
        raise ConfigError("a bare model needs its tokenizer: purify(model, slm, tokenizer=tokenizer)")
    plugins = load_plugins()
    name = Path(getattr(model, "name_or_path", "") or model.config.model_type).name
    llm = plugins.make("purify_sources", "loaded", {"model": model, "tokenizer": tokenizer, "name": name})
    purifier = Purifier(llm, plugins.source(slm), plugins.policy(policy, parameters), plugins=plugins)
    return PurifiedModel.around(model, purifier)


def fingerprint(purifier: Purifier) -> str:
    """A digest of the models, the policy and its options, for cache keys."""
    named = {
        "llm": dict(purifier.llm.identity()),
        "slm": dict(purifier.slm.identity()),
        "policy": purifier.plugins.name_of(purifier.policy),
        "options": options(purifier.policy, purifier.plugins.name_of),
    }
    return fingerprint_of(named)


# One wrapper for each kind of object


def _model(model: Any, around: Around) -> PurifiedModel:
    return around(model, None)


def _pipeline(pipeline: Any, around: Around) -> Any:
    """A copy of the pipeline around the purified model. Raises ConfigError for one with an assistant."""
    if getattr(pipeline, "assistant_model", None) is not None:
        raise ConfigError("this pipeline has an assistant model, which would draft unpurified; leave it out")
    wrapped = copy.copy(pipeline)
    wrapped.model = around(pipeline.model, pipeline.tokenizer)
    return wrapped


def _langchain_pipeline(llm: Any, around: Around) -> Any:
    if llm.pipeline.task != "text-generation":
        raise ConfigError(f"a {llm.pipeline.task!r} pipeline has no next token to fuse; use text-generation")
    pipeline = _pipeline(llm.pipeline, around)
    return _identified(llm.model_copy(update={"pipeline": pipeline}), pipeline.model.purifier)


def _langchain_chat(chat: Any, around: Around) -> Any:
    if not hasattr(chat.llm, "pipeline"):
        raise ConfigError("this ChatHuggingFace asks a server; wrap one around a HuggingFacePipeline")
    llm = _langchain_pipeline(chat.llm, around)
    return _identified(chat.model_copy(update={"llm": llm}), llm.pipeline.model.purifier)


def _identified(obj: Any, purifier: Purifier) -> Any:
    """The object with its purification among its identifying parameters, which make LangChain's cache keys.

    Otherwise an unpurified answer from the cache would be returned.
    """
    kind: Any = type(obj)
    digest = fingerprint(purifier)

    def identifying(self: Any) -> dict[str, Any]:
        return {**super(purified_kind, self)._identifying_params, "purification": digest}

    body = {"_identifying_params": property(identifying), "__module__": kind.__module__}
    purified_kind: Any = type(kind)(kind.__name__, (kind,), body)
    obj.__class__ = purified_kind
    return obj


def _llama_index(llm: Any, around: Around) -> Any:
    wrapped = llm.model_copy()
    wrapped._model = around(llm._model, llm._tokenizer)
    return wrapped


KINDS: Mapping[str, Callable[[Any, Around], Any]] = {
    "langchain_huggingface.ChatHuggingFace": _langchain_chat,
    "langchain_huggingface.HuggingFacePipeline": _langchain_pipeline,
    "llama_index.HuggingFaceLLM": _llama_index,
    "transformers.TextGenerationPipeline": _pipeline,
    "transformers.PreTrainedModel": _model,
    "purify_adapters.PurifiedModel": _model,
}
