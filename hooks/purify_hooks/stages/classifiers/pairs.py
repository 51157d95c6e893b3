"""A transformers classifier of pairs of texts (entailment), from a local directory."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Self

from purify_hooks.stages.classifiers.sequence import label_of, loaded, longest
from purify_plugins.errors import RefusedError
from purify_plugins.sources.read_scope import for_fusion
from purify_plugins.tokenizers.loading import load_tokenizer


class PairClassifier:
    """The probability of one label, such as "entailment", of a premise and a sentence."""

    def __init__(self, model: Any, tokenizer: Any, label: int) -> None:
        self.model, self.tokenizer, self.label = model.eval(), tokenizer, label
        self.longest = longest(model, tokenizer)

    @classmethod
    def load(cls, folder: Path, label: str) -> Self:
        """Load a directory's safetensors, without running code of it. Raises ModelError, ConfigError."""
        from transformers import AutoModelForSequenceClassification

        number = label_of(folder, label, "grounded")
        model = loaded(AutoModelForSequenceClassification, folder, "sequence classifier")
        return cls(model, load_tokenizer(folder), number)

    def entailed(self, premises: tuple[str, ...], sentence: str) -> float:
        return max((self._sure(premise, sentence) for premise in premises), default=0.0)

    def _sure(self, premise: str, sentence: str) -> float:
        import torch

        alone = len(self.tokenizer(sentence, verbose=False)["input_ids"])
        if alone >= self.longest:
            raise RefusedError(f"a sentence has {alone} tokens and its classifier reads {self.longest}")
        # The end of a premise that is too long is not read: less is found entailed, never more.
        read = self.tokenizer(
            premise, sentence, return_tensors="pt", truncation="only_first", max_length=self.longest
        )
        with torch.inference_mode(), for_fusion():  # our own pass, which activation lets through
            return float(self.model(**read).logits[0].float().softmax(-1)[self.label])
