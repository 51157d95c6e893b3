"""Named works: those given by file, those of the takedown list, and those of a copy check's index."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from purify_hooks.evaluation.eval.build import CONTINUATION, PREFIX, passages
from purify_hooks.evaluation.eval.derived import part
from purify_hooks.evaluation.eval.questions import Passage
from purify_plugins.errors import ConfigError
from purify_plugins.utils.files import decoded, read_bytes

if TYPE_CHECKING:
    from purify_hooks.takedown.source import TakedownSource
    from purify_plugins.stages.stage import Stage

LEAST = 6
"""The fewest words of a work that can be measured: two are shown."""
GIVEN, TAKEDOWN, PROTECTED = "given", "takedown list", "copycheck"


@dataclass(frozen=True)
class NamedWork:
    """A work by name, with its file's SHA-256; without `text` it is known by its digest alone.

    `sources` say where it is named: "given", "takedown list", "copycheck".
    """

    name: str
    sha256: str
    text: str = ""
    sources: tuple[str, ...] = (GIVEN,)

    def passages(self, count: int) -> list[Passage]:
        """At most `count` passages from evenly spread places; of a short work one, a third of it shown."""
        words = len(self.text.split())
        if words >= PREFIX + CONTINUATION:
            return passages(self.text, count)
        found = part(self.text.lstrip(), words // 3, words - words // 3)
        if words < LEAST or found is None:
            return []
        return [Passage(prefix=found[0], continuation=found[1])]


def given(named: Sequence[str]) -> list[NamedWork]:
    """The works of `NAME=FILE` options. Raises ConfigError."""
    found: dict[str, NamedWork] = {}
    for option in named:
        name, equals, file = option.partition("=")
        if not (equals and name.strip() and file):
            raise ConfigError(f"--work takes NAME=FILE, such as novel=novel.txt, not {option!r}")
        if name.strip() in found:
            raise ConfigError(f"two works are named {name.strip()!r}; give each a name of its own")
        found[name.strip()] = _read(name.strip(), Path(file))
    return list(found.values())


def _read(name: str, file: Path) -> NamedWork:
    content = read_bytes(file)
    work = NamedWork(name, hashlib.sha256(content).hexdigest(), decoded(content, repr(str(file))))
    if not work.passages(1):
        raise ConfigError(
            f"{str(file)!r} has fewer than {LEAST} words, which is no passage; name a longer text"
        )
    return work


def listed(source: TakedownSource) -> list[NamedWork]:
    """The works of a takedown list, their text spelled from its tokens."""
    from purify_hooks.ngram.storage import documents

    known = source.listed
    found = zip(known.record.texts, documents(known.works, known.record), strict=True)
    return [
        NamedWork(
            each.name, each.sha256, known.vocabulary.spell(ids.tolist()).decode(errors="replace"), (TAKEDOWN,)
        )
        for each, ids in found
    ]


def protected(stages: Iterable[Stage]) -> list[NamedWork]:
    """The works of the copy checks among the stages; an index holds no text."""
    from purify_hooks.protected.copycheck import Copycheck

    return [
        NamedWork(each.name, each.sha256, sources=(PROTECTED,))
        for stage in stages
        if isinstance(stage, Copycheck)
        for each in stage.works
    ]


def joined(*groups: Iterable[NamedWork]) -> list[NamedWork]:
    """The works of all groups; those of one file are one, by the first name and the first text."""
    found: dict[str, NamedWork] = {}
    for work in (each for group in groups for each in group):
        first = found.get(work.sha256)
        both = first and replace(first, text=first.text or work.text, sources=_once(first, work))
        found[work.sha256] = both or work
    return list(_named_apart(found))


def _once(one: NamedWork, other: NamedWork) -> tuple[str, ...]:
    return tuple(dict.fromkeys((*one.sources, *other.sources)))


def _named_apart(found: Mapping[str, NamedWork]) -> Iterator[NamedWork]:
    """The works, a name that two of them have followed by the beginning of the digest."""
    names = [each.name for each in found.values()]
    for each in found.values():
        yield replace(each, name=f"{each.name} ({each.sha256[:8]})") if names.count(each.name) > 1 else each


def as_json(work: NamedWork) -> dict[str, Any]:
    """Its name, its digest and where it is named; never its text."""
    return {"name": work.name, "sha256": work.sha256, "named_by": list(work.sources)}
