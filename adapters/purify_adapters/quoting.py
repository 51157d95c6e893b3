"""Which of the texts that a framework retrieved a prompt quotes: those that certificates cite."""

from __future__ import annotations

from collections.abc import Mapping

REMEMBERED = 100
"""How many retrieved texts are remembered; all of the last retrieval, if these are more."""
WINDOW = 60
"""Window size in characters: a prompt with one aligned window of a text quotes that text."""


def remembered(before: Mapping[str, str], new: Mapping[str, str]) -> dict[str, str]:
    """The retrieved texts, by id, with new ones; the oldest are forgotten."""
    both = {**{key: text for key, text in before.items() if key not in new}, **new}
    return dict(list(both.items())[-max(REMEMBERED, len(new)) :])


def quoted(prompt: str, retrieved: Mapping[str, str]) -> dict[str, str]:
    """The retrieved texts, by id, of which a window is in the prompt.

    Windows, since frameworks split texts that do not fit into one prompt.
    """
    return {name: text for name, text in retrieved.items() if _quotes(prompt, text.strip())}


def _quotes(prompt: str, text: str) -> bool:
    windows = (text[at : at + WINDOW] for at in range(0, max(len(text) - WINDOW, 0) + 1, WINDOW))
    return bool(text) and any(window in prompt for window in windows)
