"""A TGI with a toy behind it, for tests that ask it thousands of things."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from purify_adapters.sources.http.client import HttpClient
from purify_adapters.sources.http.options import Timeouts
from purify_adapters.sources.tgi.source import TGISource
from purify_plugins.protocols import Capabilities
from purify_plugins.testing import ScriptedSource, ToySource
from purify_plugins.types import Prompt, Vocabulary


@dataclass(frozen=True)
class ToyReader:
    """One token per letter, as toys read."""

    vocabulary: Vocabulary
    name: str = "toy"

    def tokenised(self, text: str) -> tuple[int, ...]:
        return ToySource(self.vocabulary).encode(text)

    def tokens(self, prompt: Prompt) -> tuple[int, ...]:
        return self.tokenised(str(prompt))

    def text(self, prompt: Prompt) -> str:
        return str(prompt)


@dataclass(frozen=True)
class Script(ScriptedSource):
    """A scripted model that a server can be put around."""

    def encode(self, prompt: Prompt) -> tuple[int, ...]:
        return ToySource(self.vocabulary).encode(prompt)


def toy_source(url: str, vocabulary: Vocabulary, top_n: int, read: float = 30.0, **options: Any) -> TGISource:
    """A source that takes its server's word; probing has tests of its own."""
    wire = HttpClient(url, timeouts=Timeouts(read=read), retries=1)
    source = TGISource(wire, ToyReader(vocabulary), top_n, **options)  # type: ignore[arg-type]  # a toy's reader
    source.capabilities = Capabilities(False, True, top_n, True, False, source.ahead > 0)
    return source
