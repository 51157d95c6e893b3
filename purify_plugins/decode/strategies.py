"""The decoding strategies: the values of the option `walk`, and the function behind each.

A new strategy is a module of `purify_plugins.decode` and its two lines here.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Literal, get_args

from purify_plugins.errors import ConfigError
from purify_plugins.threat import VOUCHED, require_draftable

if TYPE_CHECKING:
    from purify_plugins.protocols import LogitSource

Strategy = Literal["speculative", "readahead", "lockstep"]
Walk = Literal["auto", Strategy]
"""What a configuration may ask for; "auto" is the fastest strategy that the LLM allows."""

DECODERS: Mapping[Strategy, str] = {
    "speculative": "purify_plugins.decode.speculative:speculative",
    "readahead": "purify_plugins.decode.speculative:readahead",
    "lockstep": "purify_plugins.decode.loop:lockstep",
}
"""Each strategy's module and function, which imports torch: (Decoder, prompts, Sampling) -> steps."""
RESUMED = "purify_plugins.decode.loop:resumed"
"""What goes on after tokens that were drawn before, whatever the strategy."""


def choose(walk: Walk, llm: LogitSource) -> Strategy:
    """The strategy that was asked for; for "auto" the fastest that this LLM allows. Raises ConfigError."""
    if walk not in get_args(Walk):
        raise ConfigError(f"walk must be one of {', '.join(map(repr, get_args(Walk)))}, not {walk!r}")
    served = llm.capabilities
    streams = served is not None and served.streams_rows
    if walk == "readahead" and not streams:
        raise ConfigError("walk 'readahead' needs an LLM whose server streams rows; leave it at 'auto'")
    if walk == "speculative":
        require_draftable(llm.engine)
    if walk != "auto":
        return walk
    if streams:
        return "readahead"
    drafts = llm.engine in VOUCHED and (served is None or served.scores_draft)
    return "speculative" if drafts else "lockstep"
