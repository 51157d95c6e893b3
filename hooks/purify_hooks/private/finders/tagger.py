"""A transformers model that tags words (names, places, …), from a local directory."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

from purify_hooks.local.loading import check_files
from purify_hooks.local.weights import quiet, refuse_nan
from purify_hooks.private.finders.finder import SHAPE, Hit
from purify_plugins.errors import ConfigError, ModelError, RefusedError
from purify_plugins.sources.read_scope import for_fusion
from purify_plugins.tokenizers.loading import load_tokenizer
from purify_plugins.utils.model_files import read_json

TOKENS, OVERLAP = 512, 64
"""The most tokens of a window, and how many of them the next one reads too."""
KINDS = {"per": "person", "loc": "location", "org": "organization"}
"""CoNLL's labels as words; others are kinds in small letters."""


class TokenTagger:
    """A token classifier's spans; a word of which one token is tagged counts whole.

    Long texts are read in windows that overlap. Weights are read at the first text.
    """

    def __init__(self, folder: Path) -> None:
        if not folder.is_dir():
            raise ModelError(f"{folder} is no directory; give that of a transformers token classifier")
        check_files(folder)
        self.folder, self.labels = folder, labels_of(folder)

    @cached_property
    def model(self) -> Any:
        """The model from safetensors, without running code of its directory. Raises ModelError."""
        from transformers import AutoModelForTokenClassification

        try:
            with quiet():
                model, info = AutoModelForTokenClassification.from_pretrained(
                    self.folder,
                    output_loading_info=True,
                    use_safetensors=True,
                    trust_remote_code=False,
                    local_files_only=True,
                )
        except Exception as error:  # transformers raises many kinds for one cause: not a model it can load
            raise ModelError(f"{self.folder} does not load as a token classifier: {error}") from error
        if missing := sorted(info["missing_keys"]):
            raise ModelError(f"{self.folder} lacks {missing[0]}: it is no trained token classifier")
        refuse_nan(model, self.folder)
        return model.eval()

    @cached_property
    def tokenizer(self) -> Any:
        return load_tokenizer(self.folder)

    @property
    def longest(self) -> int:
        """The most tokens of a window, special ones included."""
        most = self.model.config.to_dict().get("max_position_embeddings") or TOKENS
        return int(min(self.tokenizer.model_max_length, most, TOKENS))

    def hits(self, text: str) -> Iterator[Hit]:
        for tokens, places in self._windows(text):
            yield from _spans(text, self._tags(tokens), places)

    def _windows(self, text: str) -> Iterator[tuple[list[int], Sequence[tuple[int, int]]]]:
        """Windows of token ids, and the characters that each token spells; special ones spell none."""
        longest = self.longest
        read = self.tokenizer(
            text,
            truncation=True,
            max_length=longest,
            stride=min(OVERLAP, longest // 4),
            return_overflowing_tokens=True,
            return_offsets_mapping=True,
            verbose=False,
        )
        yield from zip(read["input_ids"], read["offset_mapping"], strict=True)

    def _tags(self, tokens: list[int]) -> list[str]:
        """The kind of each token, "" for none. Raises RefusedError where the model returns NaN."""
        import torch

        with torch.inference_mode(), for_fusion():  # our own pass, which activation lets through
            logits = self.model(input_ids=torch.tensor([tokens])).logits[0]
        if not logits.isfinite().all():
            raise RefusedError("the tagger returned numbers that are not finite")
        return [self.labels[number] for number in logits.argmax(-1).tolist()]


def _spans(text: str, tags: Sequence[str], places: Sequence[tuple[int, int]]) -> Iterator[Hit]:
    """Runs of tokens of one kind with only spaces between, widened to whole words."""
    start = end = 0
    kind = ""
    for tag, (first, last) in zip(tags, places, strict=True):
        if first == last:
            continue
        if tag and tag == kind and not text[end:first].strip():
            end = last
            continue
        if kind:
            yield _whole(text, start, end, kind)
        start, end, kind = first, last, tag
    if kind:
        yield _whole(text, start, end, kind)


def _whole(text: str, start: int, end: int, kind: str) -> Hit:
    """A hit from the beginning of its first word to the end of its last."""
    before = re.match(r"\w{0,64}", text[max(0, start - 64) : start][::-1])
    after = re.compile(r"\w{0,64}").match(text, end)
    begin = start - len(before[0] if before else "")
    begin += len(text[begin:end]) - len(text[begin:end].lstrip())
    return Hit(begin, after.end() if after else end, kind, SHAPE)


def labels_of(folder: Path) -> Sequence[str]:
    """The kind that each label of a directory's model stands for, "" for none. Raises ConfigError."""
    named = read_json(folder / "config.json").get("id2label") or {}
    kinds = [_kind(str(named.get(str(number), ""))) for number in range(len(named))]
    if not any(kinds):
        raise ConfigError(
            f"{folder / 'config.json'} names no labels (id2label); give a token classifier's directory"
        )
    return kinds


def _kind(label: str) -> str:
    """`B-PER`, `I-PER` and `PER` are "person"; `O` is none."""
    bare = re.sub(r"^[BIELSU][-_]", "", label).lower()
    return "" if bare in ("o", "") else KINDS.get(bare, bare)
