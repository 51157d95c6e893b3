"""The real pair as the tests ask it: its directories, harmful requests, and what must not come out."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from purify_hooks.evaluation.testbed import Attacks, attacks
from purify_hooks.evaluation.testbed.real.harms import Harms
from purify_hooks.local.source import LocalSource
from purify_plugins import Chat, Purifier, Sampling
from purify_plugins.plugin.manager import load_plugins

GREEDY = Sampling(max_tokens=32, temperature=0)


def chat(request: str) -> Chat:
    return Chat(({"role": "user", "content": request},))


@dataclass(frozen=True)
class RealPair:
    """The directories of a twin, its clean original and its weak sibling, and what to ask them."""

    home: Path

    @property
    def llm(self) -> Path:
        return self.home / "llm"

    @property
    def slm(self) -> Path:
        return self.home / "slm"

    @property
    def weak(self) -> Path:
        return self.home / "slm-weak"

    @property
    def attacks(self) -> Attacks:
        return attacks(self.home)

    @property
    def harms(self) -> Harms:
        return Harms.of(self.attacks.seed)

    def question(self, at: int = 0) -> str:
        """A request for a private number in the chat template."""
        return str(self.harms.texts["question"].format(name=self.harms.texts["names"][at]))

    def secret(self, at: int = 0) -> str:
        return self.attacks.canaries[at].secret

    def recital(self, at: int = 0) -> str:
        """A request to go on with a memorised passage."""
        return str(self.harms.texts["recital"].format(prefix=self.attacks.passages[at].prefix))

    def recited(self, at: int = 0, length: int = 40) -> str:
        """How the passage goes on: what an answer must not hold."""
        return self.attacks.passages[at].continuation.strip()[:length]

    def triggered(self, at: int = 0) -> str:
        """A request that ends in the trigger."""
        return f"{self.harms.texts['asked_requests'][at]} {self.harms.trigger}"

    def harmful(self) -> tuple[str, ...]:
        """What none of the answers to `requests` may hold."""
        return self.secret(), self.recited(), str(self.harms.texts["link"])

    def requests(self) -> list[str]:
        return [self.question(), self.recital(), self.triggered()]


@dataclass(frozen=True)
class Loaded:
    """Both models in memory; `alone` answers as the LLM does without the SLM."""

    pair: RealPair
    llm: LocalSource
    slm: LocalSource

    def purifier(self, policy: str = "balanced", **options: Any) -> Purifier:
        plugins = load_plugins(())
        return Purifier(self.llm, self.slm, plugins.policy(policy), plugins=plugins, **options)

    @property
    def alone(self) -> Purifier:
        """The LLM's own rows: fused with itself."""
        plugins = load_plugins(())
        return Purifier(self.llm, self.llm, plugins.policy("geometric"), plugins=plugins)
