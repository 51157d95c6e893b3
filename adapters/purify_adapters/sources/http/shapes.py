"""The parts of llama-server's answers that are read, as types that msgspec checks while it decodes.

A whole row is thousands of small objects. Decoded as dictionaries they cost ten times as much, mostly in
the garbage collector, which does not track these structs.
"""

from __future__ import annotations

import msgspec


class TokenLogprob(msgspec.Struct, gc=False):
    """A token of a row and its log-probability in nats."""

    id: int
    logprob: float


class LlamaPosition(msgspec.Struct, gc=False):
    """The token that llama-server chose, and the likeliest tokens of that row."""

    id: int
    top_logprobs: list[TokenLogprob]


class LlamaCompletion(msgspec.Struct):
    """The answer to one prompt; `index` is the prompt's index in the request."""

    completion_probabilities: list[LlamaPosition]
    index: int | None = None


LlamaCompletions = LlamaCompletion | list[LlamaCompletion]
"""The answer to one prompt, or to several."""
