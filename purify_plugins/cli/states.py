"""What is on and what is off when a pair writes, and why: nothing is slow in silence."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from purify_plugins.purifier import Purifier


def states(writer: Purifier) -> dict[str, Any]:
    """The KV caches, the drafts, the reading side by side and the attention of a pair, in words."""
    llm, slm = writer.llm.reading, writer.slm.reading
    return {
        "KV cache": {"llm": llm.cache, "slm": slm.cache},
        "drafts": drafts(writer),
        "tree attention": {"llm": llm.trees, "slm": slm.trees, "used": used(writer)},
        "attention": {"llm": llm.attention, "slm": slm.attention},
    }


def drafts(writer: Purifier) -> str:
    """Whether several tokens are read in one pass of the LLM, and why or why not."""
    if writer.walk == "speculative":
        return "on: the SLM drafts, and the LLM reads a draft in one pass"
    if writer.walk == "readahead":
        return "on: the LLM's server drafts by itself, and is shown nothing"
    if writer.given_walk == "lockstep":
        return "off: walk 'lockstep' asks both models for every token"
    if writer.llm.engine == "untrusted":
        return "off: the LLM's server is untrusted, and could choose its rows by a draft it is shown"
    return "off: the LLM's server reads one token a request"


def used(writer: Purifier) -> str:
    """Whether continuations are read side by side: only where tokens are spelled in smaller symbols."""
    sides = (writer.llm, writer.slm)
    trees = [side.reading.trees for side in sides if side.symbolic]
    if not trees:
        return "no: both models read the same tokens"
    return "yes" if "on" in trees else "no: neither model can"
