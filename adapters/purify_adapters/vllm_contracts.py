"""What vLLM asks of a logits processor: one table of its two contracts, and which one runs.

Read in vLLM's source, 0.32 and 0.33. Model Runner V2 is the default wherever Triton is; its loader takes no
V1 class. `tests/adapters/engine.py` has stand-ins written from this table, and compares it with an
installed vLLM.
"""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from typing import Any

from purify_plugins.errors import ConfigError

SWITCH = "VLLM_USE_V2_MODEL_RUNNER"
"""The environment variable that decides before anything else: 0 is V1, 1 is V2."""


@dataclass(frozen=True)
class Contract:
    """One runner's: where its base class is, what it is constructed with, and what it must have.

    `speculates`: the processor stays active where vLLM speculates.
    """

    runner: str
    module: str
    constructor: tuple[str, ...]
    methods: tuple[str, ...]
    speculates: bool
    name: str = "LogitsProcessor"


V1 = Contract(
    "V1",
    "vllm.v1.sample.logits_processor",
    ("vllm_config", "device", "is_pin_memory"),
    ("validate_params", "apply", "is_argmax_invariant", "update_state"),
    speculates=False,
)
V2 = Contract(
    "V2",
    "vllm.v1.worker.gpu.sample.logits_processor",
    ("vllm_config", "req_states"),
    ("validate_params", "add_request", "apply_staged_writes", "apply"),
    speculates=True,
)
CONTRACTS = (V1, V2)
ADVICE = (
    f"start vLLM with {SWITCH}=0 in its environment, which chooses Model Runner V1, or run `purify serve` in "
    "front of it (source = 'vllm')"
)


def v1_base() -> Any:
    """V1's base class; `object` where vLLM is not installed. Raises ConfigError for a vLLM without it."""
    try:
        return getattr(importlib.import_module(V1.module), V1.name)
    except (ImportError, AttributeError) as error:
        if isinstance(error, ModuleNotFoundError) and error.name == "vllm":
            return object  # as a documentation or a test without vLLM
        raise ConfigError(
            f"this vLLM has no {V1.module}.{V1.name}, the only contract that purify speaks inside vLLM; use "
            "vLLM 0.11 to 0.33, or run `purify serve` in front of it (source = 'vllm')"
        ) from error


def admit(processor: type) -> None:
    """Let V2's loader take the class, so that its constructor can say what to do instead.

    The loader asks only whether it is a subclass, and its own complaint names no way out. A vLLM whose V2
    does not import has no V2 loader either.
    """
    try:
        base = getattr(importlib.import_module(V2.module), V2.name)
    except Exception:  # a module for GPUs may raise anything where there is none, and V1 runs without it
        return
    base.register(processor)


def refuse_v2() -> ConfigError:
    """What a processor of V1's contract says when V2 constructs it."""
    return ConfigError(
        "vLLM runs Model Runner V2, whose logits processors have another contract than this one (V1's): "
        f"nothing would be purified; {ADVICE}"
    )
