"""Build a model of n-grams from text files: read, tokenise, sort, count, write whole or not at all."""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import mkdtemp
from typing import TYPE_CHECKING, Any, NamedTuple

from purify_hooks.ngram.storage import ORDERS, RECORD, Text
from purify_plugins.errors import ConfigError, ModelError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from purify_hooks.ngram.corpus import Document
    from purify_hooks.progress import Progress
    from purify_plugins.types import Vocabulary

MOST_TOKENS = 2**31
"""The most tokens of a corpus: positions are 32 bits, and sorting takes some 60 bytes of memory a token."""


@dataclass(frozen=True)
class BuildOptions:
    """What to build: `places` are files and directories, `pattern` names the files in directories."""

    places: Sequence[Path]
    tokenizer: str
    out: Path
    order: int = 4
    pattern: str = "*"
    force: bool = False

    def check(self) -> None:
        """Raise ConfigError for what cannot be built, before anything is read."""
        if self.order not in ORDERS:
            raise ConfigError(f"the order must be from {ORDERS[0]} to {ORDERS[-1]}, not {self.order}")
        for place in self.places:
            if not place.exists():
                raise ConfigError(f"there is no file or directory {str(place)!r}; check the path")
        if self.out.exists() and not (self.force and (self.out / RECORD).is_file()):
            advice = "replace it with --force" if (self.out / RECORD).is_file() else "name another directory"
            raise ConfigError(f"there is {str(self.out)!r} already; {advice}")
        if not self.out.absolute().parent.is_dir():
            raise ConfigError(f"there is no directory for {str(self.out)!r}; create it first")


class Built(NamedTuple):
    """What was built: documents, tokens, n-grams of each order, and bytes on disk."""

    documents: int
    tokens: int
    ngrams: tuple[int, ...]
    size: int


def build(options: BuildOptions, stage: Progress) -> Built:
    """Build the model that the options describe. Raises ConfigError, ModelError, VocabularyError."""
    from purify_hooks.ngram.corpus import read_corpus

    put_back(options.out)
    options.check()
    tokenizer, vocabulary, ends = read_tokenizer(options.tokenizer)
    documents = read_corpus(options.places, options.pattern)
    with new_directory(options.out) as folder:
        save_tokenizer(tokenizer, folder, ends, vocabulary)
        return _counted(options, documents, (tokenizer, vocabulary), folder, stage)


def _counted(
    options: BuildOptions,
    documents: Sequence[Any],
    known: tuple[Any, Vocabulary],
    folder: Path,
    stage: Progress,
) -> Built:
    """Tokenise and count the documents, and write the tables."""
    ids = tokens_of(known[0], documents, stage)
    if sum(map(len, ids)) > MOST_TOKENS:
        raise ConfigError(f"the corpus has more than {MOST_TOKENS:,} tokens; build from a part of it")
    return write_tables(options.order, known, texts_of(documents, ids), ids, folder, stage)


def tokens_of(tokenizer: Any, documents: Sequence[Document], stage: Progress) -> list[NDArray[Any]]:
    """The token ids (n,) int32 of each document."""
    from purify_hooks.ngram.corpus import tokenised

    total, done = sum(each.size for each in documents), [0]

    def advance(amount: int) -> None:
        done[0] += amount
        stage(done[0], total, "tokenising")

    return tokenised(tokenizer, documents, advance)


def texts_of(documents: Sequence[Document], ids: Sequence[NDArray[Any]]) -> list[Text]:
    """What a model's record says of its documents."""
    pairs = zip(documents, ids, strict=True)
    return [Text(each.name, each.sha256, each.size, len(found)) for each, found in pairs]


def write_tables(
    order: int,
    known: tuple[Any, Vocabulary],
    texts: Sequence[Text],
    ids: Sequence[NDArray[Any]],
    folder: Path,
    stage: Progress,
) -> Built:
    """Count the documents' tokens, and write the tables and the record into a directory."""
    from purify_hooks.ngram import counting, smoothing, storage

    (tokenizer, vocabulary), size = known, len(known[1])
    stage(0, 2, "counting")
    end = sorted(vocabulary.eos & {tokenizer.eos_token_id} or vocabulary.eos)[:1]
    stream, starts = counting.stream_of(ids, size, order, end)
    counts = counting.count(stream, size, order)
    stage(1, 2, "counting")
    # The last unigram is BEGIN, which is never predicted.
    counted = (level.counts[:-1] if n == 0 else level.counts for n, level in enumerate(counts.levels))
    discounts = [smoothing.discounts(each) for each in counted]
    record = storage.Record(size, vocabulary.fingerprint, discounts, texts, starts.tolist())
    storage.save(folder, counts, record)
    stage(2, 2, "counting")
    bytes_ = sum(file.stat().st_size for file in folder.iterdir())
    ngrams = tuple(len(level.tokens) for level in counts.levels)
    return Built(len(texts), sum(text.tokens for text in texts), ngrams, bytes_)


def read_tokenizer(name: str) -> tuple[Any, Vocabulary, frozenset[int]]:
    """A tokenizer, its vocabulary and end tokens, of a directory, hub id or GGUF file; no weights are read.

    Raises ModelError, VocabularyError.
    """
    from purify_hooks.local.loading import find_gguf_tokenizer
    from purify_plugins.tokenizers.loading import find_tokenizer, load_tokenizer, require_tokenizer
    from purify_plugins.tokenizers.token_bytes import vocabulary
    from purify_plugins.utils.model_files import eos_ids

    if file := find_gguf_tokenizer(name):
        from purify_hooks.local.gguf_model import unpacked

        with unpacked(file) as folder:
            return read_tokenizer(str(folder))
    folder = find_tokenizer(name)
    require_tokenizer(folder)
    tokenizer = load_tokenizer(folder)
    ends = eos_ids(folder) | ({tokenizer.eos_token_id} - {None})
    return tokenizer, vocabulary(tokenizer, folder.name, ends), ends


def save_tokenizer(tokenizer: Any, folder: Path, ends: frozenset[int], known: Vocabulary) -> None:
    """Write the tokenizer beside the tables. Raises ModelError if it is not read back the same."""
    tokenizer.save_pretrained(folder)
    (folder / "generation_config.json").write_text(json.dumps({"eos_token_id": sorted(ends)}), "utf-8")
    _, found, _ = read_tokenizer(str(folder))
    if found.fingerprint != known.fingerprint:
        raise ModelError(
            f"the tokenizer of {known.name!r} changes when transformers saves it; save it as a "
            "tokenizer.json first, and name that directory"
        )


@contextmanager
def new_directory(out: Path) -> Iterator[Path]:
    """A new directory that takes the place of `out` once it is complete, and is removed otherwise."""
    try:
        made = Path(mkdtemp(dir=out.absolute().parent, prefix=f".{out.name}."))
    except OSError as error:
        raise ConfigError(f"cannot write {str(out)!r}: {error.strerror}; name another place") from error
    try:
        yield made
        made.chmod(0o755)
        if not out.exists():
            os.rename(made, out)
        elif not _exchanged(made, out):
            old = made.with_name(f"{made.name}.old")
            os.rename(out, old)
            os.rename(made, out)
            shutil.rmtree(old)
    finally:
        put_back(out)
        shutil.rmtree(made, ignore_errors=True)


def put_back(out: Path) -> None:
    """Give its name back to a directory whose process was ended between two renames."""
    old = re.compile(rf"\.{re.escape(out.name)}\.[a-z0-9_]{{8}}\.old")
    parent = out.absolute().parent
    if not out.exists() and parent.is_dir():
        for each in [each for each in parent.iterdir() if old.fullmatch(each.name)][:1]:
            os.rename(each, out)


def _exchanged(one: Path, other: Path) -> bool:
    """Exchange the names of two directories in one step, where the system can, as Linux does."""
    import ctypes

    try:
        exchange = ctypes.CDLL(None, use_errno=True)["renameat2"]
    except (AttributeError, TypeError, OSError):  # not Linux; Windows has no names of its own to look up
        return False
    here, swap = -100, 2  # AT_FDCWD and RENAME_EXCHANGE, as in <fcntl.h> and <stdio.h>
    return bool(exchange(here, os.fsencode(one.absolute()), here, os.fsencode(other.absolute()), swap) == 0)
