"""`copycheck`: answers hold no long run of a protected work, and no passage that is mostly one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from copy import copy
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Self

from purify_hooks.stages.wording import require, texts, whole
from purify_plugins.canonical_json import counted
from purify_plugins.errors import ConfigError
from purify_plugins.stages.request import Request
from purify_plugins.stages.stage import Stage

if TYPE_CHECKING:
    from purify_hooks.protected.check import CopyCheck
    from purify_hooks.protected.index import PrintIndex, WorkRecord
    from purify_hooks.protected.mask import CopyMask
    from purify_plugins.protocols import LogitSource
    from purify_plugins.types import Prompt, Vocabulary

TAIL = 2000
"""Characters at a prompt's end that an answer may go on from."""


@dataclass(frozen=True)
class Copycheck(Stage):
    """Keep copies of protected works out of answers, by an `index` that `purify protect build` makes.

    No token is drawn that would complete `longest` words in a row of a work (0: no such mask), counting
    those that the prompt ends with. And an answer is blocked where, of `words` words, at least `share` have
    prints of one passage (0: no such check): the SLM alone then writes the span again, at most `redo` times,
    or the answer is refused with the key "copied". Works that are `quotable`, by their names in the index,
    are excepted; certificates name those that were quoted. `code` says that the index is of source files:
    there is no mask then, and two tokens count as a word, so that 50 are some ten lines.
    """

    withheld: ClassVar[tuple[str, ...]] = ("quotable",)
    paths: ClassVar[tuple[str, ...]] = ("index",)

    index: str
    longest: int = 10
    share: float = 0.2
    words: int = 50
    redo: int = 1
    quotable: tuple[str, ...] = ()
    code: bool = False

    def __post_init__(self) -> None:
        named = isinstance(self.index, str) and bool(self.index)
        require("copycheck", "index", self.index, named, "a file that `purify protect build` made")
        long = whole(self.longest, 0) and (self.longest == 0 or self.longest >= 5)
        require("copycheck", "longest", self.longest, long, "a number of words, at least 5, or 0 for no mask")
        share = type(self.share) in (int, float) and 0 <= self.share <= 1
        require("copycheck", "share", self.share, share, "a number from 0 to 1")
        many = whole(self.words, 10) and self.words <= 1000
        require("copycheck", "words", self.words, many, "a number of words from 10 to 1000")
        require("copycheck", "redo", self.redo, whole(self.redo, 0), "a number of times, 0 or more")
        require("copycheck", "code", self.code, isinstance(self.code, bool), "true or false")
        found = texts(self.quotable)
        require("copycheck", "quotable", self.quotable, found is not None, "a list of works' names")
        object.__setattr__(self, "quotable", found)
        if not ((self.longest and not self.code) or self.share):
            raise ConfigError("stage 'copycheck': longest = 0 and share = 0 leave nothing to check")
        self._check_index()

    def _check_index(self) -> None:
        """Raise ConfigError for an index that cannot be used with these options."""
        header = self._index.header
        kind = "code" if self.code else "text"
        if header.kind != kind:
            how = "code = true" if header.kind == "code" else "code = false"
            raise ConfigError(f"stage 'copycheck': {self.index!r} is an index of {header.kind}; write {how}")
        names = {each.name for each in header.sources}
        for name in self.quotable:
            if name not in names:
                raise ConfigError(
                    f"stage 'copycheck': quotable names {name!r}, which is no work of {self.index!r}"
                )

    @cached_property
    def _index(self) -> PrintIndex:
        from purify_hooks.protected.index import open_index

        return open_index(Path(self.index))

    @property
    def works(self) -> Sequence[WorkRecord]:
        """The works of its index: names, digests and lengths."""
        return self._index.header.sources

    @cached_property
    def _check(self) -> CopyCheck:
        from purify_hooks.protected.check import CopyCheck

        allowed = frozenset(self.quotable)
        return CopyCheck(self._index, self.share, self.words, redo=self.redo, quotable=allowed)

    @cached_property
    def _mask(self) -> CopyMask:
        """The constraint of every prompt that ends in no work; one object, so that rows decode together."""
        from purify_hooks.protected.mask import CopyMask

        return CopyMask(self._index, self.longest, frozenset(self.quotable))

    @property
    def choices(self) -> int:
        return 1

    @property
    def holds_back(self) -> float:
        return self._check.window if self.share else 0

    def bind(self, slm: LogitSource) -> Self:
        """The stage with the vocabulary that token ids are spelled with."""
        _ = self._check, self.code or self._mask
        found = copy(self)
        object.__setattr__(found, "_vocabulary", slm.vocabulary)
        return found

    def answer(self, request: Request) -> Request:
        request = request.forbidding(*self.masks(request.prompt))
        return request.checked(self._check) if self.share else request

    def masks(self, prompt: Prompt) -> tuple[CopyMask, ...]:
        """The constraint of an answer to a prompt, if there is one: `recompute` needs the same."""
        return () if self.code or not self.longest else (self._mask.after(self._tail(prompt)),)

    def _tail(self, prompt: Prompt) -> str:
        """The text that the answer goes on from: the prompt's end, or its last message's."""
        if isinstance(prompt, tuple):
            vocabulary: Vocabulary | None = vars(self).get("_vocabulary")
            if vocabulary is None:
                raise ConfigError("stage 'copycheck': token ids need the SLM; use it as a Purifier's stage")
            text = vocabulary.spell(prompt[-TAIL:]).decode("utf-8", "ignore")
        else:
            text = Request(prompt).text
        return text[-TAIL:]

    def public(self) -> Mapping[str, Any]:
        header = self._index.header
        found = {name: vars(self)[name] for name in ("longest", "share", "words", "redo", "code")}
        known = {"blake2b": self._index.digest, "prints": header.prints, "works": len(header.sources)}
        return {**found, "index": known, "quotable": counted(self.quotable)}
