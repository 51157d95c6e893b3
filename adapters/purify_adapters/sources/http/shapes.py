"""What a server answers, as types: msgspec checks them while it reads and skips what nobody needs.

A whole row is thousands of small objects. Read as dictionaries they cost ten times as much, most of it in
passes of the garbage collector; as these, which it does not track, they cost less than sending them does.
"""

from __future__ import annotations

import msgspec


class TokenLogprob(msgspec.Struct, gc=False):
    """A token of a row and its log-probability in nats."""

    id: int
    logprob: float


class LlamaPosition(msgspec.Struct, gc=False):
    """The token that a llama-server chose, and the likeliest of the row it was chosen from."""

    id: int
    top_logprobs: list[TokenLogprob]


class LlamaCompletion(msgspec.Struct):
    """A llama-server's answer to one prompt; `index` is the prompt's place in the request."""

    completion_probabilities: list[LlamaPosition]
    index: int | None = None


LlamaCompletions = LlamaCompletion | list[LlamaCompletion]
"""Its answer to one prompt, or to several."""
