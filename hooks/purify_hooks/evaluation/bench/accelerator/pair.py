"""The test bed's pair at a chosen size, with a vocabulary of a chosen size, made on the device itself."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import torch
from torch import Tensor

from purify_hooks.evaluation.bench.models import BenchModels
from purify_hooks.evaluation.bench.widen import widen
from purify_hooks.evaluation.testbed import LLM, SLM, attacks
from purify_hooks.local.preflight import find_dtype
from purify_hooks.local.source import LoadedSource
from purify_plugins.plugin.manager import Plugins
from purify_plugins.types import Vocabulary

UNLIKELY = 30.0
"""About how many nats the logit of an added token is below zero."""


class Growth(NamedTuple):
    """How many copies of each hidden dimension, and how many layers for each trained one."""

    copies: int
    layers: int


@dataclass(frozen=True)
class Preset:
    """Sizes of a pair, vocabularies and batches that are measured."""

    llm: Growth
    slm: Growth
    vocabularies: tuple[int, ...]
    batches: tuple[int, ...]
    dtype: str


PRESETS = {
    # 192 -> 4032 and 6 -> 36 layers: 7 billion parameters; 128 -> 2048 and 3 -> 24 layers: 1.2 billion
    "gpu": Preset(Growth(21, 6), Growth(16, 8), (1 << 11, 1 << 17), (1, 8, 32), "bfloat16"),
    # for a test on a CPU: both models as they were trained
    "none": Preset(Growth(1, 1), Growth(1, 1), (1 << 12,), (1,), "float32"),
}


class GrownSource(LoadedSource):
    """A widened model of the test bed, whose vocabulary has tokens that it never writes."""

    def __init__(self, model: Any, tokenizer: Any, name: str, words: Vocabulary, compile: bool) -> None:
        super().__init__(model, tokenizer, name)
        self.compile = compile
        vars(self)["vocabulary"] = words

    def twin(self, compile: bool) -> GrownSource:
        """The same model in a source of its own, compiled or not."""
        return GrownSource(self.model, self.tokenizer, self.name, self.vocabulary, compile)


def grown_pair(preset: Preset, size: int, device: str, plugins: Plugins) -> BenchModels:
    """Both models at the preset's sizes, with `size` tokens, on the device."""
    return BenchModels(
        _grown(LLM, preset.llm, preset, size, device, plugins),
        _grown(SLM, preset.slm, preset, size, device, plugins),
    )


def _grown(
    folder: Any, growth: Growth, preset: Preset, size: int, device: str, plugins: Plugins
) -> GrownSource:
    from transformers import GenerationConfig

    small: Any = plugins.source({"model": folder, "device": "cpu"})
    wide = widen(
        small.model,
        growth.copies,
        growth.layers,
        head=larger_head(small, size),
        dtype=find_dtype(preset.dtype, torch.device(device)),
        device=device,
    )
    wide.generation_config = GenerationConfig(eos_token_id=sorted(small.vocabulary.eos))
    return GrownSource(wide, small.tokenizer, small.name, larger_vocabulary(small.vocabulary, size), False)


def larger_vocabulary(words: Vocabulary, size: int) -> Vocabulary:
    """The vocabulary with added tokens, each a text of its own, up to `size`."""
    added = tuple(f"\x01{index}\x01".encode() for index in range(len(words), size))
    return replace(words, tokens=(*words.tokens, *added))


def larger_head(source: Any, size: int) -> tuple[Tensor, Tensor]:
    """Input and output embedding (size, hidden) of the model with added tokens that it never writes."""
    state = source.model.state_dict()
    inputs, outputs = state["model.embed_tokens.weight"].float(), state["lm_head.weight"].float()
    more = size - len(inputs)
    away = -UNLIKELY * ahead(source)
    extra = away + away.norm() * 0.01 * torch.randn(
        more, len(away), generator=torch.Generator().manual_seed(0)
    )
    return torch.cat([inputs, inputs[torch.arange(more) % len(inputs)]]), torch.cat([outputs, extra])


def ahead(source: Any) -> Tensor:
    """The direction (hidden,) that every last hidden state on ordinary text has a product of about 1 with."""
    ids = torch.tensor([source.encode(text)[:48] for text in attacks().clean[:8]])
    with torch.inference_mode():
        states = source.model.model(ids).last_hidden_state.flatten(0, 1).float()
    found: Tensor = torch.linalg.lstsq(states, torch.ones(len(states), 1)).solution
    return found[:, 0]
