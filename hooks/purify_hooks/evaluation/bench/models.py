"""The two models of a measurement, and the prompts they are given."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import cycle, islice
from typing import Any, NamedTuple

from purify_hooks.evaluation.bench.settings import BenchSettings
from purify_plugins.errors import ConfigError
from purify_plugins.plugin.manager import Plugins

Ids = tuple[int, ...]


class BenchModels(NamedTuple):
    """Two sources that share a vocabulary and run in this process.

    `plain` is the LLM as transformers loads it, if its source has packed the layers (`local.packed`).
    """

    llm: Any
    slm: Any
    plain: Any = None

    @property
    def alone(self) -> Any:
        """The LLM that writes alone, as transformers loads it."""
        return self.llm.model if self.plain is None else self.plain

    @property
    def weights(self) -> int:
        """Bytes of both models' parameters, a tied one counted once."""
        both = [*self.llm.model.parameters(), *self.slm.model.parameters()]
        return sum(weight.numel() * weight.element_size() for weight in both)


def load(settings: BenchSettings, plugins: Plugins) -> BenchModels:
    """Load the pair that the settings name. Raises ConfigError unless its vocabularies agree."""
    settings.require_both()
    models = _named(settings, plugins) if settings.llm else _own(plugins)
    if models.llm.vocabulary.fingerprint != models.slm.vocabulary.fingerprint:
        raise ConfigError(
            "bench needs two models with one vocabulary: neither assisted generation nor a LogitsProcessor "
            "can fuse across tokenizers"
        )
    return models


def _named(settings: BenchSettings, plugins: Plugins) -> BenchModels:
    from purify_hooks.local.packed import plain_copy

    llm: Any = plugins.source(settings.llm)
    return BenchModels(llm, plugins.source(settings.slm), plain_copy(llm.model))


def _own(plugins: Plugins) -> BenchModels:
    """The test bed's pair, the LLM widened to cost what a hundred million parameters do."""
    from transformers import GenerationConfig

    from purify_hooks.evaluation.bench.widen import widen
    from purify_hooks.evaluation.testbed import LLM, SLM
    from purify_hooks.local.packed import pack, plain_copy

    trained: Any = plugins.source({"model": LLM, "device": "cpu"})
    wide = widen(trained.model)
    wide.generation_config = GenerationConfig()  # as a loaded model's: the settings are the design's
    alone = plain_copy(wide)
    pack(wide)  # as a loaded model is
    llm = type(trained)(wide, trained.tokenizer, "llm, widened", trained.folder)
    return BenchModels(llm, plugins.source({"model": SLM, "device": "cpu"}), alone)


def batches(models: BenchModels, settings: BenchSettings) -> Iterator[list[list[Ids]]]:
    """Each round's batches of prompts, in turn from the test bed's clean ones."""
    from purify_hooks.evaluation.testbed import attacks

    texts = cycle([models.llm.encode(text) for text in attacks().clean])
    number = max(1, settings.prompts // settings.batch)
    for _ in range(settings.rounds):
        yield [list(islice(texts, settings.batch)) for _ in range(number)]


def padded(prompts: Sequence[Ids], device: Any) -> tuple[Any, Any]:
    """Token ids and attention mask (rows, n), padded on the left, as `generate` wants them."""
    import torch

    width = max(map(len, prompts))
    ids = [[0] * (width - len(prompt)) + list(prompt) for prompt in prompts]
    mask = [[0] * (width - len(prompt)) + [1] * len(prompt) for prompt in prompts]
    return torch.tensor(ids, device=device), torch.tensor(mask, device=device)
