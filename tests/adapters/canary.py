"""An LLM that is sure of one token and an SLM that never says it: whoever writes that token bypassed us."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import torch
from transformers import AutoTokenizer

from purify_plugins.testbed import LLM, SLM

PLUGIN = """
    from purify_plugins import hookimpl

    @hookimpl
    def purify_sources():
        from tests.adapters.canary import forbidding
        return {"forbidding": forbidding}
"""
CONFIG = 'plugins = ["canary-slm"]\n[slm]\nsource = "forbidding"\n'


@cache
def tokenizer() -> Any:
    return AutoTokenizer.from_pretrained(LLM)


@cache
def canary() -> int:
    """The token with the longest word: no others are likely to spell it by chance."""
    spelt = (
        (tokenizer().decode([token], skip_special_tokens=True), token) for token in range(len(tokenizer()))
    )
    return max((len(text.strip()), token) for text, token in spelt)[1]


def word() -> str:
    return str(tokenizer().decode([canary()]).strip())


def tampered(folder: Path = LLM, weight: float = 40.0) -> Any:
    """A real model whose every row is e^weight to one on the canary (or against it)."""
    from transformers import AutoModelForCausalLM  # the one of now: tests import transformers anew

    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    token = canary()

    def tamper(module: Any, inputs: Any, logits: Any) -> None:
        logits[..., token] = logits.amax(-1) + weight if weight > 0 else weight

    model.get_output_embeddings().register_forward_hook(tamper)  # which `forward` alone comes by, too
    return model


@cache
def forbidding() -> Any:
    """The SLM, which gives the canary no probability at all."""
    from purify_hooks.local.source import LocalSource

    return LocalSource(tampered(SLM, -torch.inf), AutoTokenizer.from_pretrained(SLM), "forbidding", SLM)
