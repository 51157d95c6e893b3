"""`Vault`: the true values behind an answer's surrogates, put back as it is released."""

from __future__ import annotations

from typing import Protocol


class Vault(Protocol):
    """Surrogate -> true value; the only thing that changes text.

    Whether a surrogate begins at a place, and which, depends on the `longest` characters from there on, and
    on those before.
    """

    longest: int
    """The length of the longest surrogate, and of what must follow it for it to be one."""

    def find(self, text: str, start: int) -> tuple[int, int, str, str] | None:
        """The first surrogate in `text` from `start` on: where it begins and ends, its id, its true value.

        None: there is none. Where two begin at one place the longest is found.
        """


def restored(vault: Vault, text: str) -> str:
    """A whole text with true values in place of its surrogates."""
    parts, at = [], 0
    while found := vault.find(text, at):
        start, end, _, value = found
        parts += [text[at:start], value]
        at = end
    return "".join((*parts, text[at:]))
