"""Generated private data in prompts as people write them: what recall and leaks are measured with.

Every value is drawn at random from what its kind allows; none is copied from a person's data.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from random import Random

from purify_hooks.private.samples.carriers import carried
from purify_hooks.private.samples.values import VALUES
from purify_plugins.errors import UnknownNameError

__all__ = ["VALUES", "PrivateText", "samples", "value"]


@dataclass(frozen=True)
class PrivateText:
    """A prompt's text, and which of its characters are private and of which kind."""

    text: str
    start: int
    end: int
    kind: str

    @property
    def value(self) -> str:
        """The private characters as written."""
        return self.text[self.start : self.end]


def value(kind: str, random: Random) -> str:
    """A value of a kind, well-formed and with its checksum. Raises UnknownNameError."""
    if kind not in VALUES:
        raise UnknownNameError("kind of private data", kind, VALUES)
    return VALUES[kind](random)


def samples(kind: str, count: int, seed: int = 0) -> Sequence[PrivateText]:
    """So many prompts, each with one value of a kind; the same ones for the same seed."""
    random = Random(f"{kind} {seed}")
    found = []
    for _ in range(count):
        before, written, after = carried(kind, value(kind, random), random)
        found.append(PrivateText(before + written + after, len(before), len(before + written), kind))
    return found
