"""The parts that both of vLLM's runners share: the purifier around its model, and tokens drawn as rows."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

from purify_adapters.sources.http.source import reader
from purify_plugins.configuration.build import plugins_of, source, watermark
from purify_plugins.configuration.build import policy as policy_of
from purify_plugins.configuration.config import read_config
from purify_plugins.configuration.signing import issuing
from purify_plugins.decode.fusion import FusedLogits
from purify_plugins.decode.processors import LogitsProcessors
from purify_plugins.decode.random_streams import widest
from purify_plugins.errors import ConfigError, NumericError, VocabularyError
from purify_plugins.policy import Context
from purify_plugins.protocols import LogitSource, Session
from purify_plugins.purifier import Purifier
from purify_plugins.sampling import Sampling
from purify_plugins.types import Prompt, Vocabulary
from purify_plugins.vouching.options import refuse_unseen

NAME = "purify_adapters.vllm_engine:PurifyLogitsProcessor"
GREEDY = 1e-5
"""Below this temperature vLLM takes the arg-max."""
LEFT = 256
"""How many preempted requests are remembered, in case vLLM resumes them."""
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Engine(LogitSource):
    """The LLM, which vLLM runs, as a source that cannot be opened."""

    engine = "trusted"
    vocabulary: Vocabulary
    context_length: int | None

    def open(self, prompts: Sequence[Prompt], scored: int = 0) -> tuple[Session, Tensor]:
        raise ConfigError("inside vLLM only vLLM opens the LLM")

    def identity(self) -> Mapping[str, Any]:
        return {"kind": "vllm", "name": self.vocabulary.name}


def purifier_of(model: Any) -> tuple[Purifier, Sampling]:
    """The configuration's purifier, with vLLM's model as the LLM, and its sampling."""
    config = read_config()
    plugins, defaults = plugins_of(config), Sampling(**config.sampling)
    if defaults.grammar is not None:
        raise ConfigError("[sampling] grammar is not for the engine; run `purify serve` in front of vLLM")
    if watermark(config.watermark) is not None:
        raise ConfigError("[watermark] is not for the engine; run `purify serve` in front of vLLM")
    if "store" in config.certificate:  # certificates are made here only for those who ask for them
        raise ConfigError("[certificate] store is not for the engine; run `purify serve` in front of vLLM")
    refuse_unseen(config.llm, "the LLM is vLLM's own, and was not loaded from files here")
    slm = source(plugins, config.slm)
    llm = Engine(reader(model.tokenizer).vocabulary, model.max_model_len)
    policy = policy_of(plugins, config.policy)
    failing, certified = config.on_llm_failure, issuing(config.certificate)
    purifier = Purifier(llm, slm, policy, on_llm_failure=failing, plugins=plugins, **certified)
    if purifier.llm is not llm or purifier.slm is not slm:
        raise VocabularyError(
            "inside vLLM both models must have the same tokenizer and ends; for others run `purify serve` "
            "in front of vLLM"
        )
    if slm.context_length is not None and slm.context_length < model.max_model_len:
        raise ConfigError(
            f"the SLM reads {slm.context_length} tokens, vLLM's model {model.max_model_len}; start vLLM with "
            f"--max-model-len {slm.context_length}"
        )
    return purifier, defaults


def asked_of(params: Any, defaults: Sampling) -> Sampling:
    """The settings of a request's vLLM parameters."""
    heat = 0.0 if params.temperature < GREEDY else float(params.temperature)
    return replace(defaults, temperature=heat, ignore_eos=bool(params.ignore_eos))


def unreadable(tokens: Sequence[int], purifier: Purifier) -> bool:
    """Whether the SLM has no token for some id: vLLM admits every id that its model has a row for."""
    unknown = max(tokens) >= len(purifier.vocabulary)
    if unknown:
        log.error("a prompt has ids that are no tokens of the SLM's; its answer ends at once")
    return unknown


def forgotten() -> bool:
    """True, and a line in the log: a resumed request's past is unknown, and its policy would need it."""
    log.warning("what was spent on a resumed request is no longer known; the SLM goes on alone")
    return True


def shapes(purifier: Purifier) -> Callable[[Sampling], LogitsProcessors]:
    """The processors of a request's settings, made once for each of the last `LEFT` settings."""

    @lru_cache(maxsize=LEFT)
    def shape(sampling: Sampling) -> LogitsProcessors:
        return LogitsProcessors(sampling, purifier.vocabulary, purifier.policy.shift_invariant)

    return shape


def finite_rows(logits: Tensor) -> list[bool]:
    """Whether each of the rows (rows, V) is free of NaN and of positive infinity, and allows a token."""
    finite: list[bool] = torch.isfinite(logits.amax(dim=-1)).tolist()
    return finite


def ending(logits: Tensor, purifier: Purifier) -> Tensor:
    """Rows (…, V) as vLLM's that end an answer."""
    closed = torch.full_like(logits, -torch.inf)
    closed[..., min(purifier.vocabulary.eos, default=0)] = 0.0
    return closed


def one_device(vllm_config: Any) -> None:
    """Raise ConfigError where each of several devices would draw by itself."""
    parallel = getattr(vllm_config, "parallel_config", None)
    for option in ("tensor_parallel_size", "prefill_context_parallel_size"):
        if getattr(parallel, option, 1) > 1:
            raise ConfigError(
                f"{option} > 1: each device would draw by itself; run one device a replica, or "
                "`purify serve` in front of vLLM (source = 'vllm')"
            )


def sound(column: FusedLogits) -> FusedLogits:
    """The column. Raises NumericError if a row is not finite, which on an accelerator `fuse` only marks."""
    if column.finite is not None and not bool(column.finite.all()):
        raise NumericError("a model or the policy returned NaN or an infinite logit, or nothing is allowed")
    return column


def one_token_rows(column: FusedLogits, uniforms: Sequence[float] | None) -> Tensor:
    """(rows, V) 0 at each row's drawn token (its arg-max without uniforms), minus infinity elsewhere."""
    device = column.fused.device
    luck = None if uniforms is None else torch.tensor(uniforms, dtype=widest(device), device=device)
    tokens = column.draw(luck)[:, None]
    return torch.full_like(column.fused, -torch.inf).scatter(-1, tokens, 0.0)


def unscored(greedy: bool, device: torch.device) -> Context:
    """A policy's context of one row without prompt scores, which vLLM does not show."""
    nothing, none = torch.zeros(1, 0, device=device), torch.zeros(1, dtype=torch.long, device=device)
    return Context(nothing, nothing, none, torch.tensor([greedy], device=device))


def require_last(model: Any, kind: type) -> None:
    """Raise ConfigError if another processor would change the fused row."""
    named = getattr(model, "logits_processors", None) or [NAME]
    if named[-1] not in (NAME, kind):
        raise ConfigError(f"name {NAME} last of the logits processors: what comes after it is not purified")
