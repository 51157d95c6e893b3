"""`PrintIndex`: the prints of protected works in one file, memory-mapped. It holds no text.

The file is a line that names the format, the length of the header (8 bytes, little-endian), the header as
JSON, and arrays. Each print is one number of 64 bits: the upper bits of its hash, whether it is commonplace,
and which word of all the works it ends with; they are sorted. A byte for each word says how many letters it
has. So what follows a print is known, and of which work it is.
"""

from __future__ import annotations

import json
from bisect import bisect_left, bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import lru_cache
from hashlib import blake2b
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from purify_plugins.errors import ConfigError

if TYPE_CHECKING:
    from numpy.typing import NDArray

MAGIC = b"purify prints\n"
FORMAT = "purify-prints/2"
KINDS = ("text", "code")
NORMALISATION = {
    "text": "letters/1: NFKD, case folded, accents and look-alikes folded, only letters and digits kept",
    "code": "tokens/1: comments and spaces dropped, names by where they stood last, numbers and texts alike",
}
MOST_HEADER = 2**28
MOST_TABLE = 28
"""Bits of a print that the table of those in an index goes by, at most: it then takes 32 MB."""
POSITIONS = range(1, 29)
"""Bits of a position: at most 268 million words, so that 35 bits of each hash are left."""


class WorkRecord(NamedTuple):
    """A protected work: its name, its file's SHA-256 and bytes, its words, and the first one's position."""

    name: str
    sha256: str
    size: int
    words: int
    start: int


class FoundPrint(NamedTuple):
    """A print that is in an index: its place in the list that was asked, and its records."""

    at: int
    first: int
    last: int


@dataclass(frozen=True)
class IndexHeader:
    """What is known of an index beside its prints.

    `length` letters (of code: tokens) make a print; `letters` is how many letters a word has on average, and
    `positions` how many bits a word's position has.
    """

    kind: str
    length: int
    letters: float
    prints: int
    positions: int
    licence: str
    sources: tuple[WorkRecord, ...]
    common: tuple[WorkRecord, ...]
    digest: str
    sizes: tuple[int, int]
    """Bytes of the prints and of the words' lengths."""


class PrintIndex:
    """The prints of protected works. `digest` identifies it: BLAKE2b of all that can be looked up in it."""

    def __init__(self, header: IndexHeader, prints: NDArray[Any], lengths: NDArray[Any]) -> None:
        import numpy

        self.header, self.prints, self.lengths = header, prints, lengths.data
        self.digest = header.digest
        self._low = low = header.positions + 1
        self._position = (1 << header.positions) - 1
        self._common = 1 << header.positions
        self._hash = numpy.uint64((2**64 - 1) >> low << low)
        self._starts = [each.start for each in header.sources]
        # A search of the prints costs ten times a look at a table, which leaves it out for 15 of 16 that are
        # not there.
        bits = min(max(len(prints), 1).bit_length() + 4, MOST_TABLE)
        self._shift, self._table = 64 - bits, _table(prints, bits)
        self._words = prints.data

    def found(self, prints: Sequence[int]) -> list[FoundPrint]:
        """Which of these prints are in the index."""
        table, shift = self._table, self._shift
        found: list[FoundPrint] = []
        for at, each in enumerate(prints):
            bit = each >> shift
            if table[bit >> 3] >> (bit & 7) & 1:
                first, last = self._range(each)
                if first < last:
                    found.append(FoundPrint(at, first, last))
        return found

    def places(self, found: FoundPrint, most: int) -> list[int]:
        """The first `most` words, by their positions, that a print ends with."""
        last = min(found.last, found.first + most)
        return [each & self._position for each in self._words[found.first : last]]

    def common(self, found: FoundPrint) -> bool:
        """Whether a print is commonplace."""
        return bool(self._words[found.first] & self._common)

    def complete(self, print_: int, position: int) -> bool:
        """Whether a print ends with the word at a position."""
        key = print_ >> self._low << self._low | position
        for record in (key, key | self._common):
            place = bisect_left(self._words, record)
            if place < len(self._words) and self._words[place] == record:
                return True
        return False

    def ends_at(self, prints: NDArray[Any], position: int) -> NDArray[Any]:
        """Which prints (n,) bool end with the word at a position."""
        import numpy

        keys = prints & self._hash | numpy.uint64(position)
        found = numpy.zeros(len(keys), dtype=bool)
        for record in (keys, keys | numpy.uint64(self._common)):
            places = numpy.minimum(numpy.searchsorted(self.prints, record), len(self.prints) - 1)
            found |= self.prints[places] == record
        return found

    def source(self, position: int) -> str:
        """The name of the work with the word at a position."""
        return self.header.sources[bisect_right(self._starts, position) - 1].name

    def _range(self, print_: int) -> tuple[int, int]:
        key = print_ >> self._low << self._low
        first = last = bisect_left(self._words, key)
        key |= self._common | self._position
        if first < len(self._words) and self._words[first] <= key:
            last = bisect_right(self._words, key, first)
        return first, last


def _table(prints: NDArray[Any], bits: int) -> bytes:
    """A bit for each value of the upper `bits` bits of a print: whether there is one."""
    import numpy

    found = numpy.zeros(1 << bits, dtype=bool)
    for at in range(0, len(prints), 1 << 20):
        found[prints[at : at + (1 << 20)] >> numpy.uint64(64 - bits)] = True
    return numpy.packbits(found, bitorder="little").tobytes()


def written(header: IndexHeader) -> bytes:
    """The beginning of an index's file; what follows are the prints and the lengths."""
    said = {"format": FORMAT, "normalisation": NORMALISATION[header.kind], **asdict(header)}
    said["sources"], said["common"] = (
        [each._asdict() for each in some] for some in (header.sources, header.common)
    )
    text = json.dumps(said, ensure_ascii=False, sort_keys=True, indent=1).encode()
    text += b" " * (-(len(MAGIC) + 8 + len(text)) % 8)
    return MAGIC + len(text).to_bytes(8, "little") + text


@lru_cache(maxsize=8)
def _opened(path: Path, stamp: tuple[int, int, int]) -> PrintIndex:
    return _read(path)


def open_index(path: Path) -> PrintIndex:
    """The index in a file, memory-mapped, one for all that ask for it. Raises ConfigError."""
    try:
        found = path.stat()
    except OSError as error:
        raise ConfigError(
            f"cannot read {str(path)!r}: {error.strerror}; make it with `purify protect build`"
        ) from None
    if not path.is_file():
        raise ConfigError(f"{str(path)!r} is no file; name an index of `purify protect build`")
    return _opened(path.resolve(), (found.st_ino, found.st_size, found.st_mtime_ns))


def _read(path: Path) -> PrintIndex:
    """Read and check an index."""
    import numpy

    try:
        content = numpy.asarray(numpy.memmap(path, numpy.uint8, "r"))
        header, begin = _header(content)
        if sum(header.sizes) != len(content) - begin:
            raise ValueError("it is cut off, or longer than it should be")
        if digest_of(content[begin:], header) != header.digest:
            raise ValueError("its content is not what its digest says")
        middle = begin + header.sizes[0]
        return PrintIndex(header, content[begin:middle].view(numpy.uint64), content[middle:])
    except OSError as error:
        raise ConfigError(f"cannot read {str(path)!r}: {error.strerror}; check the file") from error
    except (ValueError, KeyError, TypeError) as error:
        raise ConfigError(
            f"{str(path)!r} cannot be used as an index of prints: {error}; "
            "make it with `purify protect build`"
        ) from None


def _header(content: NDArray[Any]) -> tuple[IndexHeader, int]:
    """The header, and where the arrays begin. Raises ValueError, KeyError, TypeError."""
    fixed = len(MAGIC) + 8
    if content[: len(MAGIC)].tobytes() != MAGIC:
        raise ValueError("it is another kind of file")
    size = int.from_bytes(content[len(MAGIC) : fixed].tobytes(), "little")
    if size > min(MOST_HEADER, len(content) - fixed):
        raise ValueError("it is cut off")
    said: Mapping[str, Any] = json.loads(content[fixed : fixed + size].tobytes())
    if said["format"] != FORMAT:
        raise ValueError(f"its format is {said['format']!r}, and {FORMAT!r} is read")
    if said["normalisation"] != NORMALISATION.get(said["kind"]):
        raise ValueError("its text was normalised in another way than here")
    names = [name for name in IndexHeader.__dataclass_fields__ if name not in ("sources", "common", "sizes")]
    known: dict[str, Any] = {name: said[name] for name in names}
    for name in ("sources", "common"):
        known[name] = tuple(WorkRecord(**each) for each in said[name])
    header = IndexHeader(**known, sizes=tuple(said["sizes"]))
    whole = header.positions in POSITIONS and header.sizes[0] % 8 == 0
    if not whole or header.sizes[0] == 0 or not header.sources:
        raise ValueError("its header does not fit its prints")
    return header, fixed + size


def digest_of(content: NDArray[Any], header: IndexHeader) -> str:
    """The digest of an index: of its arrays, and what says how they are read."""
    found = blake2b(digest_size=32)
    facts = FORMAT, NORMALISATION[header.kind], header.length, header.positions, header.letters
    found.update(repr((*facts, [(each.name, each.start) for each in header.sources])).encode())
    found.update(content.data)
    return found.hexdigest()
