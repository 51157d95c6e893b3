"""`Vault`: the true values behind an answer's surrogates, put back as it is released."""

from __future__ import annotations

from typing import Protocol


class Vault(Protocol):
    """Surrogate -> true value; the only thing that changes text."""

    longest: int
    """The length of the longest surrogate."""

    def find(self, text: str, start: int) -> tuple[int, int, str, str] | None:
        """The first surrogate in `text` from `start` on: where it begins and ends, its id, its true value.

        None: there is none. Where two begin at one place the longest is found.
        """
