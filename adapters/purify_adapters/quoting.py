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

    Two retrievals may name different parts of a file alike: the earlier one's name then gets its digest's
    beginning, so that neither is lost, and a document that was edited keeps its name.
    """
    found = dict(before)
    for name, text in new.items():
        _keep(found, name, text)
    return found


def _keep(found: dict[str, str], name: str, text: str) -> None:
    """Put a text last, under its name; an earlier text of this name gets another."""
    earlier = found.pop(name, text)
    if earlier != text:
        found.pop(marked(name, text), None)
        found[marked(name, earlier)] = earlier
    found[name] = text


def marked(name: str, text: str) -> str:
    """A name that no other text has: with its digest's beginning."""
    return f"{name} {hashlib.sha256(text.encode()).hexdigest()[:8]}"


def quoted(prompt: str, retrieved: Mapping[str, str]) -> dict[str, str]:
    """The retrieved texts, by id, of which a window is in the prompt.

    Windows, since frameworks split texts that do not fit into one prompt.
    """
    return {name: text for name, text in retrieved.items() if _quotes(prompt, text.strip())}


def _quotes(prompt: str, text: str) -> bool:
    windows = (text[at : at + WINDOW] for at in range(0, max(len(text) - WINDOW, 0) + 1, WINDOW))
    return bool(text) and any(window in prompt for window in windows)
