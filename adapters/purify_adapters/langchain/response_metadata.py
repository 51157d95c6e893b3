"""An answer's metadata for LangChain: usage, log-probabilities, certificate facts, fingerprint."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from functools import cache
from itertools import count
from typing import Any
from weakref import WeakKeyDictionary

from langchain_core.messages.ai import UsageMetadata

from purify_adapters.openai_schema import fingerprint_of, finish_reason, shown
from purify_plugins import __version__
from purify_plugins.canonical_json import options
from purify_plugins.errors import ConfigError
from purify_plugins.plugin.listing import listing
from purify_plugins.purifier import Purifier
from purify_plugins.types import Completion, DrawnToken


def fingerprint(purifier: Purifier) -> dict[str, Any]:
    """The purifier's policy, options and models, and a digest of all that its answers depend on."""
    named = {
        "policy": purifier.plugins.name_of(purifier.policy),
        "parameters": options(purifier.policy, purifier.plugins.name_of),
        "on_llm_failure": purifier.on_llm_failure,
        "version": __version__,
    }
    stages = [[stage.name, stage.public()] for stage in purifier.stages]
    staged = {"stages": stages, "request": asdict(purifier.request)} if stages else {}
    models = {"llm": _who(purifier.llm), "slm": _who(purifier.slm)}
    active = sorted(found.name for found in listing(purifier.plugins) if found.active)
    whole = {**named, **staged, **models, "vocabulary": purifier.vocabulary.fingerprint, "plugins": active}
    return {
        **named,
        "llm": models["llm"]["name"],
        "slm": models["slm"]["name"],
        "fingerprint": fingerprint_of(whole),
    }


def _who(source: Any) -> dict[str, Any]:
    """A model's identity; without file digests, the identity of the object in this process."""
    identity = {"name": "?", **source.identity()}
    if identity.get("kind") == "transformers" and not identity.get("files"):
        return {**identity, "object": f"{_process()}/{_number(source.inner.model)}"}
    return identity


_NUMBERS: WeakKeyDictionary[Any, int] = WeakKeyDictionary()
_NEXT = count()


def _number(model: Any) -> int:
    """The number of an object of this process, which no later one gets: an `id` may be used again."""
    return _NUMBERS.setdefault(model, next(_NEXT))


@cache
def _process() -> str:
    from uuid import uuid4

    return uuid4().hex


def logprobs(drawn: Sequence[DrawnToken], purifier: Purifier) -> list[dict[str, Any]]:
    """The tokens' log-probabilities in the fused row, in OpenAI's shape; ends are left out."""
    vocabulary, staged = purifier.vocabulary, bool(purifier.stages)
    return [
        {
            "token": text,
            "bytes": list(text.encode() if staged else vocabulary.tokens[step.id]),
            "logprob": step.fused,
            "top_logprobs": [],
        }
        for step, text in shown(drawn, vocabulary, staged)
        if step.id not in vocabulary.eos
    ]


def usage(completion: Completion) -> UsageMetadata:
    """How many tokens were read and written."""
    read, wrote = len(completion.certificate.decoded["prompt"]), len(completion.tokens)
    return UsageMetadata(input_tokens=read, output_tokens=wrote, total_tokens=read + wrote)


def metadata(
    completion: Completion, model_name: str, certificate: bool, called: bool = False
) -> dict[str, Any]:
    """An answer's metadata; the purification's own facts are under `purification`."""
    method = completion.certificate.decoded["method"]
    purification = {
        "digest": completion.certificate.digest,
        "policy": method["policy"],
        "guarantee": completion.certificate.guarantee,
        "log_ratio": completion.certificate.log_ratio,
    }
    if certificate:
        purification["certificate"] = completion.certificate.issued
    return {
        "finish_reason": finish_reason(completion, called),
        "model_name": model_name,
        "model_provider": "purified",
        "purification": purification,
    }


def token_ids(purifier: Purifier, text: str) -> list[int]:
    """A text's token ids in the SLM's tokenizer. Raises ConfigError for an SLM without one."""
    source = purifier.slm.inner
    if not text:
        return []
    if source.tokenizer is not None:
        return list(source.tokenizer(text, add_special_tokens=False)["input_ids"])
    if source.encodes:
        return list(source.encode(text))
    raise ConfigError(
        f"{source.identity()['name']!r} does not say how it splits text; count with another model"
    )
