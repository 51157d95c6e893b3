"""A transformers encoder whose mean hidden state is a text's vector, from a local directory."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self

from purify_hooks.local.loading import check_files
from purify_hooks.stages.classifiers.sequence import loaded, longest
from purify_plugins.errors import ModelError
from purify_plugins.sources.read_scope import for_fusion
from purify_plugins.tokenizers.loading import load_tokenizer


class Encoder:
    """The mean of a model's last hidden states over each text's tokens; a long text's end is left out."""

    def __init__(self, model: Any, tokenizer: Any) -> None:
        self.model, self.tokenizer = model.eval(), tokenizer
        self.longest = longest(model, tokenizer)

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Load a directory's safetensors, without running code of it. Raises ModelError."""
        from transformers import AutoModel

        return cls(loaded(AutoModel, folder, "encoder", unused="pooler"), load_tokenizer(folder))

    def vectors(self, texts: Sequence[str]) -> list[list[float]]:
        return [self._vector(text) for text in texts]

    def _vector(self, text: str) -> list[float]:
        import torch

        read = self.tokenizer(text, return_tensors="pt", truncation=True, max_length=self.longest)
        with torch.inference_mode(), for_fusion():  # our own pass, which activation lets through
            states = self.model(**read).last_hidden_state[0].float()
        found: list[float] = states.mean(dim=0).tolist()
        return found


def check_encoder(folder: Path) -> None:
    """Check a directory before its weights are read. Raises ModelError."""
    if not folder.is_dir():
        raise ModelError(f"{folder} is no directory; give that of a transformers encoder")
    check_files(folder)
