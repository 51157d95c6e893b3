"""The options that say what is private in a request."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from hashlib import sha256
from typing import Any, ClassVar

from purify_hooks.private.finders import Finder, finder
from purify_hooks.private.labels import Labels
from purify_hooks.stages.wording import require, texts
from purify_plugins.certificates.figures import private_digest
from purify_plugins.requests.inputs import ROLES
from purify_plugins.stages.request import Request
from purify_plugins.stages.stage import Stage


@dataclass(frozen=True)
class LabellingStage(Stage):
    """A stage with these options; `stage` is what errors call it.

    Private is what stands between `markers`; messages of the roles that `private` names, and texts cited by
    the ids that it names; what detectors of `kinds` find; what matches `patterns`, regular expressions by the
    name of their kind; `words`, a list or a file with one a line; what a `tagger` finds, the directory of a
    token classifier, and what `libraries` find, "phonenumbers:REGION" and "presidio".
    """

    paths: ClassVar[tuple[str, ...]] = ("words", "tagger")
    stage: ClassVar[str]

    private: tuple[str, ...] = ()
    markers: tuple[str, ...] = ("<private>", "</private>")
    kinds: tuple[str, ...] = ()
    patterns: Mapping[str, str] = field(default_factory=dict, repr=False)
    words: str | tuple[str, ...] = field(default="", repr=False)
    tagger: str = ""
    libraries: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        given_words = () if isinstance(self.words, str) else ("words",)
        lists = ("private", "markers", "kinds", "libraries", *given_words)
        for name in lists:
            given, found = vars(self)[name], texts(vars(self)[name])
            shown = type(given) if name == "words" else given  # an error must not quote private words
            self._require(name, shown, found is not None, "a list of texts, none of them blank")
            object.__setattr__(self, name, found)
        pair = len(self.markers) in (0, 2) and len({each.casefold() for each in self.markers}) != 1
        self._require("markers", list(self.markers), pair, "two different texts, or none")
        table = isinstance(self.patterns, Mapping) and all(
            isinstance(each, str) for each in self.patterns.values()
        )
        self._require("patterns", self.patterns, table, "a table of regular expressions, by their kind")
        self._require("tagger", self.tagger, isinstance(self.tagger, str), "a directory")
        _ = self.labels

    def _require(self, name: str, value: object, fine: bool, expected: str) -> None:
        require(self.stage, name, value, fine, expected)

    @cached_property
    def labels(self) -> Labels:
        """What is private in a prompt. Raises ConfigError."""
        looks = self.kinds or self.patterns or self.words or self.tagger or self.libraries
        found = self.finder(self.kinds) if looks else None
        roles = frozenset(self.private) & frozenset(ROLES)
        cited = frozenset(self.private) - roles
        return Labels(self.markers, roles, cited, (found,) if found else (), key=self.stage)

    def finder(self, kinds: Sequence[str] | None) -> Finder:
        """A finder of these kinds, all for None, and of what else is named. Raises ConfigError."""
        return finder(kinds, self.patterns, self.words or (), self.tagger or None, self.libraries)

    def cited(self, request: Request, private: Sequence[str]) -> tuple[tuple[str, str], ...]:
        """A request's cited texts as certificates have them: of one with a private part a keyed digest.

        `private` are the texts of the prompt's private parts. Raises RefusedError.
        """
        named = dict.fromkeys(self.labels.private_sources(request.sources))
        keyed = {
            sha256(text.encode()).hexdigest(): private_digest(text)
            for name, text in request.sources
            if (name, text) in named
            or self.labels.marked(text).spans
            or any(text in each for each in private)
        }
        return tuple((name, keyed.get(digest, digest)) for name, digest in request.cited)

    def remarks(self) -> Sequence[str]:
        ids = ", ".join(sorted(self.labels.cited))
        if not ids:
            return ()
        return (
            f"stage {self.stage!r}: {ids} in `private` is no role of a message, and so taken for the id of a "
            "cited text; of a prompt that cites no such text nothing is taken out for it",
        )

    def public(self) -> Mapping[str, Any]:
        """Its options; of patterns and words how many there are, and not even a digest."""
        hidden = {"patterns": len(self.patterns), "words": bool(self.words), "tagger": bool(self.tagger)}
        return {**super().public(), **hidden}
