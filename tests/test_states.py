"""`purify check` says what is on and what is off, and why."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from purify_plugins.cli.inspect import drafts, states
from purify_plugins.protocols import Capabilities, Reading
from purify_plugins.testing import ToySource
from purify_plugins.threat import Engine
from tests.toys import BYTES, both, pair, toys
from tests.zoo import of_the_zoo

DRAFTS = Capabilities(True, True, 259, True, scores_draft=True, streams_rows=False)


@dataclass(frozen=True)
class Served(ToySource):
    """A toy that says it is behind a server."""

    engine: Engine = "trusted"
    capabilities: Capabilities = DRAFTS


ONE = Capabilities(True, True, 259, True, scores_draft=False, streams_rows=False)
STREAMS = Capabilities(True, True, 259, True, scores_draft=False, streams_rows=True)


@pytest.mark.parametrize(
    ("llm", "walk", "words"),
    [
        (ToySource(BYTES, 1), "auto", "on: the SLM drafts"),
        (ToySource(BYTES, 1), "lockstep", "off: walk 'lockstep' asks both models for every token"),
        (Served(BYTES, 1), "auto", "on: the SLM drafts"),
        (Served(BYTES, 1, engine="untrusted"), "auto", "off: the LLM's server is untrusted"),
        (Served(BYTES, 1, capabilities=ONE), "auto", "off: the LLM's server reads one token a request"),
        (
            Served(BYTES, 1, engine="untrusted", capabilities=STREAMS),
            "auto",
            "on: the LLM's server drafts by itself",
        ),
    ],
)
def test_drafts_are_on_or_off_for_a_reason(llm: ToySource, walk: str, words: str) -> None:
    assert drafts(pair(llm, ToySource(BYTES, 2), walk=walk)).startswith(words)


@pytest.mark.parametrize(
    ("kind", "cache", "attention"),
    [
        ("llama", "on", "sdpa"),
        ("jamba", "on, row by row, one token a pass", "sdpa"),
        ("mpt", "on, row by row", "eager"),
    ],
)
def test_a_model_says_how_it_is_read(kind: str, cache: str, attention: str) -> None:
    reading = of_the_zoo(kind).reading
    assert (reading.cache, reading.attention) == (cache, attention)


def test_what_is_not_known_here_is_not_guessed() -> None:
    assert states(toys())["KV cache"] == {"llm": Reading().cache, "slm": "not known here"}


def test_side_by_side_is_for_two_tokenizers() -> None:
    """One text has one spelling in the tokens of both; in smaller symbols a token has several."""
    llm, slm = both()
    assert states(pair(llm, slm))["tree attention"]["used"] == "no: both models read the same tokens"
    meeting = pair(llm, slm, alignment="bytes")
    assert states(meeting)["tree attention"] == {"llm": "on", "slm": "on", "used": "yes"}
