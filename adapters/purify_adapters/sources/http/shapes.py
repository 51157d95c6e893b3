"""What a server answers, as types: msgspec checks them while it reads and skips what nobody needs.

A whole row is thousands of small objects. Read as dictionaries they cost ten times as much, most of it in
passes of the garbage collector; as these, which it does not track, they cost less than sending them does.
"""

from __future__ import annotations

import msgspec


class Entry(msgspec.Struct, gc=False):
    """A token of a row and its log-probability in nats."""

    id: int
    logprob: float


class Position(msgspec.Struct, gc=False):
    """The token that a llama-server chose, and the likeliest of the row it was chosen from."""

    id: int
    top_logprobs: list[Entry]


class Completion(msgspec.Struct):
    """A llama-server's answer to one prompt; `index` is the prompt's place in the request."""

    completion_probabilities: list[Position]
    index: int | None = None


Completions = Completion | list[Completion]
"""Its answer to one prompt, or to several."""
