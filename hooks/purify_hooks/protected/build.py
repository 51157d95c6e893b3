"""Build an index of prints: read works in blocks, sort their prints in parts, write whole or not at all."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, BinaryIO

from purify_hooks.protected.index import POSITIONS, IndexHeader, WorkRecord, digest_of, written
from purify_hooks.protected.reading import WorkReader, WorkReading, reader
from purify_plugins.errors import ConfigError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from purify_hooks.progress import Progress

PARTS = 64
"""Parts of the prints that are sorted one at a time: a part of 10**8 prints takes 40 MB."""


@dataclass(frozen=True)
class IndexOptions:
    """What to build: `works` and `common` are files and directories, `pattern` names files in directories."""

    works: Sequence[Path]
    out: Path
    common: Sequence[Path] = ()
    licence: str = ""
    pattern: str = "*"
    code: bool = False

    def check(self) -> None:
        """Raise ConfigError for what cannot be built, before anything is read."""
        for place in (*self.works, *self.common):
            if not place.exists():
                raise ConfigError(f"there is no file or directory {str(place)!r}; check the path")


def build(options: IndexOptions, told: Progress) -> IndexHeader:
    """Build the index that the options describe. Raises ConfigError."""
    from purify_hooks.ngram.corpus import corpus_files

    options.check()
    read = reader("code" if options.code else "text")
    works = sorted(corpus_files(options.works, options.pattern))
    common = sorted(corpus_files(options.common, options.pattern))
    _check_names(works)
    total = sum(path.stat().st_size for _, path in (*works, *common))
    with TemporaryDirectory(prefix="purify-prints-", dir=options.out.absolute().parent) as folder:
        draft = _Draft(Path(folder), read, told, total)
        sources = [draft.take(name, path) for name, path in works]
        draft.common = True
        others = [draft.take(name, path) for name, path in common]
        header = draft.header(options, sources, others)
        return draft.write(header, options.out)


def _check_names(works: Sequence[tuple[str, Path]]) -> None:
    names = [name for name, _ in works]
    twice = next((name for name, other in pairwise(names) if name == other), "")
    if twice:
        raise ConfigError(f"two files of the works are named {twice!r}; rename one, or give their directory")


class _Draft:
    """An index in the making: prints in `PARTS` files by their upper bits, and the words' lengths in one."""

    def __init__(self, folder: Path, read: WorkReader, told: Progress, total: int) -> None:
        self.folder, self.read, self.told, self.total = folder, read, told, total
        self.common = False
        self.words = self.letters = self.prints = self.done = 0

    def take(self, name: str, path: Path) -> WorkRecord:
        """Read one file; its prints and lengths are added."""
        digest, start, words, size = hashlib.sha256(), self.words, 0, 0
        reading = self.read()
        with ExitStack() as files:
            places = [files.enter_context((self.folder / self._part(at)).open("ab")) for at in range(PARTS)]
            lengths = files.enter_context((self.folder / ("unused" if self.common else "lengths")).open("ab"))
            for content in _blocks(path):
                digest.update(content)
                size += len(content)
                words += self._add(reading, content, path, places, lengths)
                self.done += len(content)
                self.told(self.done, self.total, "reading")
            words += self._add(reading, b"", path, places, lengths)
        return WorkRecord(name, digest.hexdigest(), size, words, 0 if self.common else start)

    def _part(self, at: int) -> str:
        return f"{'common' if self.common else 'works'}-{at}"

    def _add(
        self, reading: WorkReading, content: bytes, path: Path, places: Sequence[BinaryIO], lengths: BinaryIO
    ) -> int:
        """Add a block of a file's content; the last one is empty. Returns how many words it completes."""
        import numpy

        prints, whole, sizes = reading.feed(content, repr(str(path)))
        kind = [("print", "<u8"), ("word", "<u4")]
        found = numpy.zeros(len(prints), dtype=kind)
        found["print"], found["word"] = prints, whole + self.words if not self.common else 0
        parts = (prints >> numpy.uint64(58)).astype(numpy.int64)
        order = numpy.argsort(parts, kind="stable")
        edges = numpy.searchsorted(parts[order], numpy.arange(PARTS + 1))
        for at in range(PARTS):
            places[at].write(found[order[edges[at] : edges[at + 1]]].tobytes())
        if not self.common:
            lengths.write(numpy.minimum(sizes, 255).astype(numpy.uint8).tobytes())
            self.words += len(sizes)
            self.letters += int(sizes.sum())
            self.prints += len(prints)
            if self.words >= 1 << POSITIONS[-1]:
                raise ConfigError(
                    f"the works have more than {1 << POSITIONS[-1]:,} words; "
                    "build several indexes, with a stage each"
                )
        return len(sizes)

    def header(
        self, options: IndexOptions, sources: Sequence[WorkRecord], common: Sequence[WorkRecord]
    ) -> IndexHeader:
        """What is known so far. Raises ConfigError where there is nothing to protect."""
        if not self.prints:
            raise ConfigError(
                f"there is no print in {', '.join(repr(str(each)) for each in options.works)}: a work has "
                f"at least {self.read.length} {'tokens' if options.code else 'letters'}; give files of text"
            )
        return IndexHeader(
            kind="code" if options.code else "text",
            length=self.read.length,
            letters=round(self.letters / self.words, 4),
            prints=self.prints,
            positions=max(self.words - 1, 1).bit_length(),
            licence=options.licence,
            sources=tuple(sources),
            common=tuple(common),
            digest="",
            sizes=(0, 0),
        )

    def write(self, header: IndexHeader, out: Path) -> IndexHeader:
        """Sort the parts, and move the whole file into its place."""
        import numpy

        arrays = self.folder / "arrays"
        with arrays.open("wb") as file:
            self._sorted(file, header.positions)
            size = file.tell()
            file.write((self.folder / "lengths").read_bytes())
            sizes = size, file.tell() - size
        header = replace(header, sizes=sizes)
        header = replace(header, digest=digest_of(numpy.memmap(arrays, numpy.uint8, "r"), header))
        whole = self.folder / "whole"
        with whole.open("wb") as file, arrays.open("rb") as content:
            file.write(written(header))
            while block := content.read(1 << 22):
                file.write(block)
        os.replace(whole, out)
        return header

    def _records(self) -> Iterator[tuple[NDArray[Any], NDArray[Any], NDArray[Any]]]:
        """Of each part its prints, their words, and which are commonplace."""
        import numpy

        kind = [("print", "<u8"), ("word", "<u4")]
        for at in range(PARTS):
            self.told(at, PARTS, "sorting")
            common = self.folder / f"common-{at}"
            known = numpy.unique(numpy.fromfile(common, dtype=kind)["print"]) if common.exists() else None
            works = numpy.fromfile(self.folder / f"works-{at}", dtype=kind)
            prints = works["print"]
            usual = numpy.zeros(len(prints), dtype=bool) if known is None else numpy.isin(prints, known)
            yield prints, works["word"], usual
        self.told(PARTS, PARTS, "sorting")

    def _sorted(self, file: BinaryIO, bits: int) -> None:
        import numpy

        low = numpy.uint64(bits + 1)
        for prints, words, usual in self._records():
            records = prints >> low << low | usual.astype(numpy.uint64) << numpy.uint64(bits)
            records |= words.astype(numpy.uint64)
            records.sort()
            file.write(records.astype("<u8").tobytes())


def _blocks(path: Path) -> Iterator[bytes]:
    """A file's content, a megabyte at a time. Raises ConfigError."""
    try:
        with path.open("rb") as file:
            while block := file.read(1 << 20):
                yield block
    except OSError as error:
        raise ConfigError(f"cannot read {str(path)!r}: {error.strerror}; check the path") from error
