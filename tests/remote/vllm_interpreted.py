"""vLLM's server with Model Runner V2 on a CPU: Triton's own interpreter runs its kernels.

vLLM chooses V2 where Triton has a compiler for the device. The Triton on the index has none for CPUs; its
interpreter runs the same kernels, slowly. It is a child's main module too, so what is set is set on import.
"""

from __future__ import annotations

import os
import runpy
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

os.environ |= {"TRITON_INTERPRET": "1", "VLLM_USE_V2_MODEL_RUNNER": "1"}

from triton.backends import backends  # Triton reads the variable when it is imported
from triton.runtime.interpreter import InterpreterBuilder

backends.clear()
backends["cpu"] = SimpleNamespace(driver=SimpleNamespace(is_active=lambda: True), compiler=None)
load, store = InterpreterBuilder.create_masked_load, InterpreterBuilder.create_masked_store


def truth(mask: Any) -> Any:
    """The mask as booleans: one made of a scalar's comparison is integers, which the interpreter refuses."""
    return replace(mask, data=mask.data.astype(bool))


InterpreterBuilder.create_masked_load = lambda self, ptrs, mask, *more: load(self, ptrs, truth(mask), *more)
InterpreterBuilder.create_masked_store = lambda self, ptrs, value, mask, *more: store(
    self, ptrs, value, truth(mask), *more
)

if __name__ == "__main__":
    runpy.run_module("vllm.entrypoints.openai.api_server", run_name="__main__")
