"""A transformers model that classifies texts, from a local directory."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self

from purify_hooks.local.loading import check_files, file_digests
from purify_hooks.local.weights import quiet, refuse_nan
from purify_plugins.errors import ConfigError, ModelError, RefusedError
from purify_plugins.sources.read_scope import for_fusion
from purify_plugins.tokenizers.loading import load_tokenizer
from purify_plugins.utils.model_files import read_json


class SequenceClassifier:
    """The probability of one label of a sequence classifier, each text read alone."""

    def __init__(self, model: Any, tokenizer: Any, label: int) -> None:
        self.model, self.tokenizer, self.label = model.eval(), tokenizer, label
        self.longest = longest(model, tokenizer)

    @classmethod
    def load(cls, folder: Path, label: str) -> Self:
        """Load a directory's safetensors, without running code of it. Raises ModelError, ConfigError."""
        from transformers import AutoModelForSequenceClassification

        number = label_of(folder, label)
        model = loaded(AutoModelForSequenceClassification, folder, "sequence classifier")
        return cls(model, load_tokenizer(folder), number)

    def scores(self, texts: Sequence[str]) -> list[float]:
        return [self._score(text) for text in texts]

    def _score(self, text: str) -> float:
        import torch

        read = self.tokenizer(text, return_tensors="pt", truncation=False, verbose=False)
        tokens = read["input_ids"].shape[1]
        if tokens > self.longest:
            raise RefusedError(
                f"a window has {tokens} tokens and its classifier reads {self.longest}; lower window"
            )
        with torch.inference_mode(), for_fusion():  # our own pass, which activation lets through
            logits = self.model(**read).logits[0].float()
        several = self.model.config.problem_type == "multi_label_classification" or len(logits) == 1
        return float((logits.sigmoid() if several else logits.softmax(-1))[self.label])


def loaded(kind: Any, folder: Path, what: str, unused: str = "") -> Any:
    """A directory's safetensors as transformers' class `kind`, without running code of it. Raises ModelError.

    Weights whose names have `unused` in them may be missing.
    """
    try:
        with quiet():
            model, info = kind.from_pretrained(
                folder,
                output_loading_info=True,
                use_safetensors=True,
                trust_remote_code=False,
                local_files_only=True,
            )
    except Exception as error:  # transformers raises many kinds for one cause: not a model it can load
        raise ModelError(f"{folder} does not load as a {what}: {error}") from error
    if missing := sorted(each for each in info["missing_keys"] if not unused or unused not in each):
        raise ModelError(f"{folder} lacks {missing[0]}: it is no trained {what}")
    refuse_nan(model, folder)
    return model


def longest(model: Any, tokenizer: Any) -> int:
    """The most tokens of a text that a model reads."""
    sizes = (tokenizer.model_max_length, getattr(model.config, "max_position_embeddings", None))
    return int(min(size for size in sizes if size))


def check_classifier(folder: Path, label: str, stage: str = "guardian") -> None:
    """Check a directory before its weights are read. Raises ModelError, ConfigError."""
    if not folder.is_dir():
        raise ModelError(f"{folder} is no directory; give that of a transformers sequence classifier")
    check_files(folder)
    label_of(folder, label, stage)


def label_of(folder: Path, label: str, stage: str = "guardian") -> int:
    """The number of the label whose probability is the score. Raises ConfigError."""
    # transformers leaves its own two labels out of the file
    named = read_json(folder / "config.json").get("id2label") or {"0": "LABEL_0", "1": "LABEL_1"}
    found = [int(number) for number, name in named.items() if label in (name, str(number))]
    if len(found) != 1:
        known = ", ".join(repr(name) for name in named.values()) or "none"
        raise ConfigError(f"stage {stage!r}: label must be one of the classifier's ({known}), not {label!r}")
    return found[0]


def public(folder: Path) -> dict[str, Any]:
    """What certificates say of a classifier's directory."""
    return {"name": folder.name, "files": file_digests(folder)}
