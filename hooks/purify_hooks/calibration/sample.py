"""The text a pair is measured on: the user's own, or the sample in the package; cut alike every time."""

from __future__ import annotations

import hashlib
import re
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from importlib.resources import files
from itertools import chain, zip_longest
from pathlib import Path

from purify_plugins.canonical_json import canonical
from purify_plugins.errors import ConfigError
from purify_plugins.types import Chat
from purify_plugins.utils.files import decoded, read_bytes

OPENING = 24
"""Characters at the beginning of a text, up to the next space if any, that are read and not scored."""
LONGEST = 1200
"""Characters of one passage at most; a longer text is cut into several."""
LEAST = 2000
"""Characters of text that are needed: fewer say little of the share of tokens that meet a limit."""
FOREVER = 2**62
"""A length without a limit."""
CONTROL = re.compile("[\x00-\x08\x0e-\x1f]")
"""Characters that plain text does not contain."""


@dataclass(frozen=True)
class TextPassage:
    """A text of some kind; with `ask`, the answer to that message of a chat."""

    kind: str
    text: str
    ask: str = ""

    @property
    def chat(self) -> Chat:
        """The chat that the text answers."""
        return Chat(({"role": "user", "content": self.ask},))

    def parts(self, most: int, octets: int = FOREVER) -> Iterator[TextPassage]:
        """The passage in parts of at most so many characters and bytes; of a chat's answer the beginning."""
        if self.ask:
            yield replace(self, text=self.text[: fitting(self.text, most, octets)])
            return
        yield from (replace(self, text=part) for part in pieces(self.text, most, octets) if part.strip())

    @property
    def scored(self) -> str:
        """The part whose tokens are scored: not the first words of a text, which have no context."""
        if self.ask:
            return self.text
        found = self.text.find(" ", OPENING)
        spaceless = OPENING if len(self.text) > 2 * OPENING else 0
        return self.text[found if found >= 0 else spaceless :]


@dataclass(frozen=True)
class TextSample:
    """Passages of text, and what they are, for people: a file's name, or "the default sample"."""

    name: str
    passages: tuple[TextPassage, ...]

    @property
    def digest(self) -> str:
        """SHA-256 of the passages."""
        shown = {"passages": [asdict(each) for each in self.passages]}
        return hashlib.sha256(canonical(shown).encode()).hexdigest()

    @property
    def characters(self) -> int:
        return sum(len(each.text) for each in self.passages)

    def within(self, *contexts: int | None, most: int = LONGEST) -> TextSample:
        """Passages of at most `most` characters, and of half as many as the shortest context has tokens.

        A tokenizer that does not know an alphabet has a token for each byte of it: passages have at most
        three bytes for every four tokens of the context, too.
        """
        shortest = min((length for length in contexts if length is not None), default=FOREVER)
        most, octets = min(most, shortest // 2), 3 * shortest // 4
        return TextSample(
            self.name, tuple(part for each in self.passages for part in each.parts(most, octets))
        )

    def in_turn(self) -> TextSample:
        """The same passages, one of each kind and then another of each."""
        kinds = dict.fromkeys(each.kind for each in self.passages)
        columns = ([each for each in self.passages if each.kind == kind] for kind in kinds)
        turns = (each for each in chain(*zip_longest(*columns)) if each is not None)
        return TextSample(self.name, tuple(turns))

    def cut(self, characters: int) -> TextSample:
        """Passages spread evenly over the sample, about so many characters in all; at least one."""
        share = min(1.0, characters / self.characters)
        kept = [each for at, each in enumerate(self.passages) if int((at + 1) * share) > int(at * share)]
        return TextSample(self.name, tuple(kept or self.passages[:1]))


def default_sample() -> TextSample:
    """The sample in the package: prose, facts, few-shot prompts, chats, code and other languages."""
    table = tomllib.loads(files(__package__).joinpath("sample.toml").read_text("utf-8"))
    return TextSample(
        "the default sample",
        tuple(_passage(kind, each) for kind, entries in table.items() for each in entries),
    )


def _passage(kind: str, entry: Mapping[str, str]) -> TextPassage:
    return (
        TextPassage(kind, entry["text"])
        if "text" in entry
        else TextPassage(kind, entry["answer"], entry["ask"])
    )


def sample_of(paths: Sequence[Path]) -> TextSample:
    """The text of the user's files, the name of each its kind; without any, the default sample.

    Raises ConfigError for a file that is no text, and for too little of it.
    """
    if not paths:
        return default_sample()
    passages = [each for path in paths for each in _read(path)]
    found = TextSample(", ".join(path.name for path in paths), tuple(passages))
    if found.characters < LEAST:
        raise ConfigError(
            f"{found.name} has {found.characters} characters of text, and at least {LEAST:,} are needed to "
            "know how often clean text meets a limit; give more text of this kind (--text can be repeated), "
            "or leave --text out for the default sample"
        )
    return found


def _read(path: Path) -> Iterator[TextPassage]:
    """A file's text in passages, cut where paragraphs end."""
    text = decoded(read_bytes(path), repr(str(path)))
    if CONTROL.search(text):
        raise ConfigError(
            f"{str(path)!r} is not plain text: it has control characters; save it as UTF-8 text"
        )
    yield from TextPassage(path.stem, text.strip()).parts(LONGEST)


def fitting(text: str, most: int, octets: int = FOREVER) -> int:
    """How many of the text's first characters are at most `most`, and at most so many bytes of UTF-8."""
    beginning = text[:most]
    if len(encoded := beginning.encode()) > octets:
        return len(encoded[:octets].decode(errors="ignore"))
    return len(beginning)


def pieces(text: str, most: int, octets: int = FOREVER) -> Iterator[str]:
    """The text in pieces of at most so many characters and bytes, cut at empty lines, line ends or spaces."""
    while len(text) > (fits := fitting(text, most, octets)):
        ends = (text.rfind(mark, fits // 2, fits) for mark in ("\n\n", "\n", " "))
        at = next((end for end in ends if end > 0), fits)
        yield text[:at]
        text = text[at:].lstrip("\n")
    yield text
