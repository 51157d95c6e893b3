"""Detectors of private data in texts: what a stage keeps from the LLM's host."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from purify_hooks.private.finders.contact import Emails
from purify_hooks.private.finders.finder import Detector, Finder, JoinedFinder, Span
from purify_hooks.private.finders.plain import plain
from purify_hooks.private.finders.words import Patterns, WordList, entries
from purify_plugins.utils.files import read_text

__all__ = ["Finder", "Span", "finder", "plain"]


def finder(
    kinds: Sequence[str] | None = None,
    patterns: Mapping[str, str] | None = None,
    words: Sequence[str] | str | Path = (),
    tagger: str | Path | None = None,
    libraries: Sequence[str] = (),
) -> Finder:
    """A finder of private data.

    `kinds` are names of kinds or groups of them, all if not given; `patterns` are regular expressions by the
    kind they find, `words` a list of texts or the file that holds one a line (kind "word"), `tagger` is the
    directory of a token classifier, `libraries` are "phonenumbers" and "presidio". Raises ConfigError.
    """
    listed = entries(read_text(Path(words)).splitlines()) if isinstance(words, str | Path) else words
    detectors: list[Detector] = [Emails(), WordList(listed), Patterns.compiled(patterns or {})]
    return JoinedFinder(
        tuple(detectors), None if kinds is None else frozenset({*kinds, "word", *(patterns or {})})
    )
