"""Small models of n-grams for tests: from texts, with the test bed's tokenizer."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from purify_hooks.ngram.build import BuildOptions, Built, build
from purify_plugins.testbed import LLM

TEXTS = {
    "lamp.txt": "The lamp stood by the door.\nThe lamp was old, and the door was green.\n" * 3,
    "nested/well.md": "Once upon a time there was a well by the door of a house.\n\nIt was deep.\n",
    "tale.txt": "Once upon a time there lived a king. The king had a lamp.\n",
}
"""Documents by name: repeated, nested, and sharing phrases."""


def written(folder: Path, texts: Mapping[str, str | bytes]) -> Path:
    """The folder, with these files in it."""
    for name, content in texts.items():
        place = folder / name
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(content if isinstance(content, bytes) else content.encode())
    return folder


def quiet(stage: str, done: int, total: int) -> None:
    """No progress."""


def built(out: Path, corpus: Path, tokenizer: str | Path = LLM, order: int = 4, pattern: str = "*") -> Built:
    """A model made of a corpus; by default with the tokenizer of the test bed."""
    return build(BuildOptions([corpus], str(tokenizer), out, order, pattern), quiet)
