"""A pair of models: generation and teacher-forced scoring by any system made of them."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple, Self

from purify_hooks.evaluation.eval.attempt import Attack, attempt
from purify_hooks.evaluation.eval.sources import Recorded, uniform
from purify_hooks.evaluation.eval.systems import System
from purify_plugins.decode.likelihood import Likelihood, judged, require_tokens
from purify_plugins.decode.strategies import Walk
from purify_plugins.plugin.manager import Plugins, load_plugins
from purify_plugins.policy import FusionPolicy
from purify_plugins.protocols import LogitSource
from purify_plugins.purifier import Purifier
from purify_plugins.sampling import Sampling
from purify_plugins.types import Prompt

MODES: dict[str, Sampling] = {
    "greedy": Sampling(temperature=0, seed=0),
    "sampled": Sampling(temperature=1, seed=0),
}
REMEMBERED = 2**29
"""Bytes of logits that are kept, so that another system is scored without a forward pass."""


class WrittenAnswer(NamedTuple):
    """An answer: its token ids and its text."""

    tokens: tuple[int, ...]
    text: str


@dataclass(frozen=True, eq=False)
class ModelPair:
    """Two aligned models, and a cache of logits that were computed before."""

    llm: LogitSource
    slm: LogitSource
    plugins: Plugins
    batch: int = 64
    """Rows decoded together."""
    _records: dict[Hashable, tuple[Recorded, Recorded]] = field(default_factory=dict)

    @classmethod
    def load(cls, llm: Any, slm: Any, plugins: Plugins | None = None, batch: int = 64) -> Self:
        """Read both models. Raises ModelError, VocabularyError, PluginError."""
        from purify_plugins.tokenizers.vocabulary_map import align

        plugins = plugins or load_plugins()
        pair = align(plugins.source(llm), plugins.source(slm))
        require_tokens(*pair)
        return cls(*pair, plugins, batch)

    def policy(self, system: System) -> FusionPolicy:
        chosen: FusionPolicy = self.plugins.policy(system.policy, system.parameters)
        return chosen

    def purifier(self, system: System) -> Purifier:
        """The system's Purifier; for a model alone the other is a source of uniform rows, without drafts."""
        silent = uniform(self.slm.vocabulary)
        llm = silent if system.key == "slm" else self.llm
        slm = silent if system.key == "llm" else self.slm
        walk: Walk = "lockstep" if system.alone else "auto"
        policy = self.policy(system)
        return Purifier(llm, slm, policy, plugins=self.plugins, batch_size=self.batch, walk=walk)

    def write(
        self, system: System, prompts: Sequence[Prompt], tokens: int, sampling: Sampling
    ) -> list[WrittenAnswer]:
        """A system's answers; answer i is drawn with seed + i."""
        purifier = self.purifier(system)
        answers = purifier.generate(prompts, replace(sampling, max_tokens=tokens)) if prompts else []
        return [WrittenAnswer(answer.tokens, answer.text) for answer in answers]

    def attack(
        self,
        system: System,
        attacks: Sequence[Attack],
        sampling: Sampling,
        given: Sequence[Sequence[int]] | None = None,
    ) -> list[bytes]:
        """A system's answers to attacks, each ended as soon as its attack is decided."""
        purifier, answers = self.purifier(system), []
        for start in range(0, len(attacks), self.batch):
            batch = attacks[start : start + self.batch]
            begun = given[start : start + self.batch] if given else None
            longest = max(each.tokens for each in batch) + (len(begun[0]) if begun else 0)
            answers += attempt(purifier, batch, replace(sampling.of_row(start), max_tokens=longest), begun)
        return answers

    def judge(self, system: System, asked: Sequence[tuple[Prompt, Sequence[int]]]) -> list[Likelihood]:
        """Teacher-forced log-likelihoods (nats) of answers to prompts, the policy's state included."""
        found = []
        for start in range(0, len(asked), self.batch):
            batch = tuple(prompt for prompt, _ in asked[start : start + self.batch])
            tokens = tuple(tuple(answer) for _, answer in asked[start : start + self.batch])
            llm, slm = self._remembered(batch, tokens)
            purifier = Purifier(llm, slm, self.policy(system), plugins=self.plugins)
            found += judged(purifier, batch, tokens)
        return found

    def _remembered(
        self, prompts: tuple[Prompt, ...], answers: tuple[tuple[int, ...], ...]
    ) -> tuple[LogitSource, LogitSource]:
        """Sources that replay both models' cached logits; the models themselves if these do not fit."""
        key = prompts, answers
        size = 4 * len(prompts) * (1 + max(map(len, answers))) * len(self.slm.vocabulary)
        if key not in self._records:
            if size + sum(slm.record.nbytes for _, slm in self._records.values()) > REMEMBERED:
                return self.llm, self.slm
            self._records[key] = (
                Recorded.of(self.llm, prompts, answers),
                Recorded.of(self.slm, prompts, answers),
            )
        return self._records[key]
