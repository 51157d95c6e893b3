"""Read a corpus of text files and tokenise it in batches; each file is a document."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from purify_plugins.errors import ConfigError
from purify_plugins.utils.files import decoded, read_bytes

if TYPE_CHECKING:
    from numpy.typing import NDArray

Advance = Callable[[int], object]
"""Called with how many bytes of text have been tokenised since the last call."""

BLOCK = 65_536
"""Characters of a text that are tokenised at once; a longer text is cut after a line that is not empty."""
BATCH = 16
"""Blocks in one call of the tokenizer, which works in Rust: about a megabyte."""
CUT = re.compile(r"\S\n(?=\S)")
"""Where a cut changes no token: no tokenizer known here joins a single line break to the next line's text."""


class Document(NamedTuple):
    """A file of a corpus: its `name` in the corpus, its content and the content's SHA-256."""

    name: str
    text: str
    sha256: str
    size: int


def read_corpus(places: Sequence[Path], pattern: str) -> list[Document]:
    """The documents of files and directories, by name: in directories every file that matches `pattern`.

    Hidden files are left out. Raises ConfigError for a place that is missing, a file that is no text, two
    files of one name, or no text at all.
    """
    found = sorted(
        (_document(name, path) for name, path in corpus_files(places, pattern)), key=lambda each: each.name
    )
    twice = next((one.name for one, other in pairwise(found) if one.name == other.name), "")
    if twice:
        raise ConfigError(f"two files of the corpus are named {twice!r}; rename one, or give their directory")
    written = [each for each in found if each.text.strip()]
    if not written:
        places_ = ", ".join(repr(str(place)) for place in places)
        raise ConfigError(
            f"there is no text in {places_} ({len(found)} files match {pattern!r}); give text files, or "
            "directories with some"
        )
    return written


def corpus_files(places: Sequence[Path], pattern: str) -> Iterator[tuple[str, Path]]:
    """Every file, and its name in the corpus."""
    for place in places:
        if not place.is_dir():
            yield place.name, place
            continue
        try:
            inside = sorted(place.rglob(pattern))
        except (ValueError, NotImplementedError) as error:
            raise ConfigError(f"{pattern!r} is no pattern of file names; give one such as '*.txt'") from error
        for file in inside:
            name = file.relative_to(place)
            if file.is_file() and not any(part.startswith(".") for part in name.parts):
                yield name.as_posix(), file


def _document(name: str, path: Path) -> Document:
    content = read_bytes(path)
    if b"\0" in content:
        raise ConfigError(
            f"{str(path)!r} is no text (it holds a zero byte); leave it out with --glob, such as "
            "--glob '*.txt'"
        )
    text = decoded(content, repr(str(path))).removeprefix("\ufeff")
    return Document(name, text, hashlib.sha256(content).hexdigest(), len(content))


def tokenised(tokenizer: Any, documents: Sequence[Document], advance: Advance) -> list[NDArray[Any]]:
    """The token ids (n,) int32 of each document, with what the tokenizer puts before a prompt."""
    import numpy as np

    begin = _opening(tokenizer)
    blocks = [(at, block) for at, each in enumerate(documents) for block in _blocks(each.text)]
    parts: list[list[NDArray[Any]]] = [[begin] for _ in documents]
    for start in range(0, len(blocks), BATCH):
        batch = blocks[start : start + BATCH]
        found = _encoded(tokenizer, [block for _, block in batch])
        for (at, block), ids in zip(batch, found, strict=True):
            parts[at].append(np.array(ids, dtype=np.int32))
            advance(len(block.encode("utf-8", "replace")))
    return [np.concatenate(each) for each in parts]


def _encoded(tokenizer: Any, texts: list[str]) -> list[list[int]]:
    ids: list[list[int]] = tokenizer(
        texts, add_special_tokens=False, return_attention_mask=False, verbose=False
    )["input_ids"]
    return ids


def _opening(tokenizer: Any) -> NDArray[Any]:
    """The ids that the tokenizer puts before every prompt, such as BOS."""
    import numpy as np

    whole, plain = tokenizer("a")["input_ids"], _encoded(tokenizer, ["a"])[0]
    added = next((at for at in range(len(whole)) if whole[at : at + len(plain)] == plain), 0)
    return np.array(whole[:added], dtype=np.int32)


def _blocks(text: str) -> Iterator[str]:
    """The text in blocks of at least `BLOCK` characters, cut between two lines."""
    start = 0
    while start < len(text):
        cut = CUT.search(text, start + BLOCK)
        end = cut.end() if cut else len(text)
        yield text[start:end]
        start = end
