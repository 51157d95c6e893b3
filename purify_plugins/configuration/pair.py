"""Two models in one vocabulary, and the policy for it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from purify_plugins.errors import ConfigError
from purify_plugins.foreign import adapted_policy
from purify_plugins.plugin.manager import Plugins
from purify_plugins.requests.inputs import require_symbols
from purify_plugins.threat import require_known, require_markable
from purify_plugins.tokenizers.vocabulary_map import align

if TYPE_CHECKING:
    from purify_plugins.decode.watermark import Watermark
    from purify_plugins.policy import FusionPolicy
    from purify_plugins.protocols import LogitSource
    from purify_plugins.types import Alignment, Fidelity, Vocabulary


def together(
    llm: LogitSource, slm: LogitSource, alignment: Alignment, fidelity: Fidelity
) -> tuple[LogitSource, LogitSource]:
    """Both models in one vocabulary. Raises VocabularyError; ConfigError for a model that cannot be used."""
    require_symbols(alignment, fidelity)
    require_known("the LLM", llm.engine)
    require_known("the SLM", slm.engine)
    shown = slm.capabilities
    # A partial row is completed from the SLM's: the SLM's own must be whole.
    if shown is not None and shown.max_n < len(slm.vocabulary):
        raise ConfigError(
            f"the SLM's server shows the likeliest {shown.max_n} of {len(slm.vocabulary)} tokens; "
            "let it show all (vLLM: --max-logprobs -1, TGI: --max-top-n-tokens), or run the SLM here"
        )
    return align(llm, slm, alignment, fidelity)


def markable(
    watermark: Watermark | None, llm: LogitSource, slm: LogitSource, given: LogitSource
) -> Watermark | None:
    """The watermark, if answers of this pair can carry it: `given` is the SLM before the two were aligned.

    Raises ConfigError.
    """
    if watermark is None:
        return None
    require_markable(llm.engine)
    # Detection reads a text with the SLM's tokenizer alone, so answers have to be in its tokens.
    if slm.vocabulary.fingerprint != given.vocabulary.fingerprint:
        raise ConfigError(
            "the two models have two tokenizers, so answers are not written in the SLM's tokens, by which a "
            "watermark is found again; use two models with one tokenizer, or leave [watermark] out"
        )
    return watermark


def fitted(given: Any, vocabulary: Vocabulary, alignment: Alignment, plugins: Plugins) -> FusionPolicy:
    """The policy for this vocabulary; raises ConfigError, VocabularyError."""
    policy: FusionPolicy = adapted_policy(given)
    if alignment == "top_k_union":  # the SLM's rows are estimates there, so no guarantee can hold
        union: FusionPolicy = plugins.policy("top_k_union", {"policy": policy})
        policy = policy if type(policy) is type(union) else union
    bound, per_token = policy.bind(vocabulary), vocabulary.per_token
    return bound.in_symbols(per_token) if per_token > 1 else bound


def tightened(policy: FusionPolicy, strength: float) -> FusionPolicy:
    """The policy with this share of its latitude. Raises ConfigError where it has no such form."""
    found = policy if strength == 1 else policy.tightened(strength)
    if found is None:
        raise ConfigError(
            f"the policy {type(policy.original).__name__} cannot be tightened; "
            "use one that can (balanced), or a stage that leaves strength alone"
        )
    return found
