"""Which of transformers' types are causal language models of text alone, without code of the hub's."""

from __future__ import annotations

import inspect
import re
import sys
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from purify_plugins.errors import ModelError

OTHER_HEAD = re.compile(
    r"For(Sequence|Token|Text)Classification|ForQuestionAnswering|ForMultipleChoice|ForMaskedLM|RewardModel"
)
"""Classes of other tasks; such a checkpoint may have every weight of a causal model all the same."""


def causal(name: Any, file: Path) -> tuple[Any, Any]:
    """The configuration class and the model class of a `model_type`. Raises ModelError."""
    from transformers.models.auto import modeling_auto
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING

    if not isinstance(name, str) or name not in modeling_auto.MODEL_FOR_CAUSAL_LM_MAPPING_NAMES:
        raise ModelError(
            f"{file} does not load as a causal language model: this transformers has no causal one "
            f"of model_type {repr(name)[:80]}; use a causal language model, or install a transformers that "
            "knows it"
        )
    try:
        kind = CONFIG_MAPPING[name]
        model = modeling_auto.MODEL_FOR_CAUSAL_LM_MAPPING[kind]
    except Exception as error:  # what transformers raises for a type whose dependencies are not here
        raise ModelError(f"{file} does not load as a causal language model: {error}") from error
    if name in _others() or _sees_or_hears(model):
        raise ModelError(
            f"{file} does not load as a causal language model: {name!r} has an encoder, an image or sound "
            "part, or reads both ways; use a causal language model of text alone"
        )
    if find_spec("kernels") is not None and _fetches_kernels(model):
        raise ModelError(
            f"{file}: for model_type {name!r} transformers fetches compiled code from the hub, because the "
            "package `kernels` is installed; uninstall it, or use another model"
        )
    return kind, model


@cache
def _fetches_kernels(model: Any) -> bool:
    """Whether transformers' module of this class fetches kernels by itself, whatever the configuration says.

    In 4.57 Mamba's does, in 5.24 RWKV's.
    """
    source = inspect.getsource(sys.modules[model.__module__])
    return re.search(r"\b(get_kernel|lazy_load_kernel)\(", source) is not None


@cache
def _others() -> frozenset[str]:
    """Types that transformers can make causal, and whose published models are something else."""
    from transformers.models.auto import modeling_auto as auto

    return frozenset(
        {"xlnet", "xlm", "trocr", "musicgen", "musicgen_melody", "moshi", "fuyu", "blt", "bert-generation"}
        | set(auto.MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING_NAMES)
        | set(auto.MODEL_FOR_SPEECH_SEQ_2_SEQ_MAPPING_NAMES)
        | set(auto.MODEL_FOR_MASKED_LM_MAPPING_NAMES)
    )


def _sees_or_hears(model: Any) -> bool:
    parts = getattr(model.config_class, "sub_configs", {})  # transformers' own class
    return model.__name__.endswith("ForConditionalGeneration") or any(
        re.search("vision|image|audio|vq|video", part) for part in parts
    )


def check_architecture(named: Any, model: Any, file: Path) -> None:
    """Raise ModelError when `architectures` names a class of another `model_type`, or no language model."""
    import transformers

    for name in named if isinstance(named, list) else (named,):
        if isinstance(name, str) and OTHER_HEAD.search(name):
            raise ModelError(
                f"{file} says that the weights are of {name[:80]}, which writes no text; use a causal "
                "language model"
            )
        known = getattr(transformers, name, None) if isinstance(name, str) and name.isidentifier() else None
        taken = getattr(known, "config_class", None)
        if taken is None or taken is model.config_class or known is model:
            continue
        if model.config_class not in getattr(taken, "sub_configs", {}).values():
            raise ModelError(
                f"{file} says that the weights are of {name}, and that model_type is one of "
                f"{model.__name__}; correct one of the two"
            )
