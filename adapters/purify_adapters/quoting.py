"""Which of the texts that a framework retrieved a prompt quotes: those that certificates cite."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

REMEMBERED = 100
"""How many retrieved texts are remembered; all of the last retrieval, if these are more."""
WINDOW = 60
"""Window size in characters: a prompt with one aligned window of a text quotes that text."""


def remembered(before: Mapping[str, str], new: Mapping[str, str]) -> dict[str, str]:
    """The retrieved texts, by id, with new ones; the oldest are forgotten."""
    return dict(list(merged(before, new).items())[-max(REMEMBERED, len(new)) :])


def merged(before: Mapping[str, str], new: Mapping[str, str]) -> dict[str, str]:
    """Both texts by their ids, the new ones last.

    Two retrievals may name different parts of a file alike: the later one's name then gets its digest's
    beginning, so that neither is lost.
    """
    found = dict(before)
    for name, text in new.items():
        keep(found, name, text)
    return found


def keep(found: dict[str, str], name: str, text: str) -> None:
    """Put a text last, under a name that no other text has."""
    name = _free(name, text, found)
    found.pop(name, None)
    found[name] = text


def _free(name: str, text: str, known: Mapping[str, str]) -> str:
    """The name that a text has among those that are known, or one that no other has."""
    mark = f" {hashlib.sha256(text.encode()).hexdigest()[:8]}"
    short = name.removesuffix(mark)
    for each in (short, short + mark):
        if known.get(each, text) == text:
            return each
    return short + mark


def quoted(prompt: str, retrieved: Mapping[str, str]) -> dict[str, str]:
    """The retrieved texts, by id, of which a window is in the prompt.

    Windows, since frameworks split texts that do not fit into one prompt.
    """
    return {name: text for name, text in retrieved.items() if _quotes(prompt, text.strip())}


def _quotes(prompt: str, text: str) -> bool:
    windows = (text[at : at + WINDOW] for at in range(0, max(len(text) - WINDOW, 0) + 1, WINDOW))
    return bool(text) and any(window in prompt for window in windows)
