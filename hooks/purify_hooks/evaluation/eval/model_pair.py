"""A pair of models: generation and teacher-forced scoring by any system made of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple, Self, TypeVar

from purify_hooks.evaluation.eval.sources import uniform
from purify_hooks.evaluation.eval.systems import System
from purify_plugins.decode.forced_text import ForcedText, Likelihood
from purify_plugins.decode.forcing import judged_by
from purify_plugins.decode.strategies import Walk
from purify_plugins.errors import ConfigError
from purify_plugins.plugin.manager import Plugins, load_plugins
from purify_plugins.policy import FusionPolicy
from purify_plugins.protocols import LogitSource
from purify_plugins.purifier import Purifier
from purify_plugins.sampling import Sampling
from purify_plugins.types import Alignment, Fidelity, Prompt

P = TypeVar("P", bound=Purifier)
MODES: dict[str, Sampling] = {
    "greedy": Sampling(temperature=0, seed=0),
    "sampled": Sampling(temperature=1, seed=0),
}


class WrittenAnswer(NamedTuple):
    """An answer: its token ids and its text."""

    tokens: tuple[int, ...]
    text: str


@dataclass(frozen=True, eq=False)
class ModelPair:
    """Two aligned models."""

    llm: LogitSource
    slm: LogitSource
    plugins: Plugins
    batch: int = 64
    """Answers written together."""

    @classmethod
    def load(
        cls,
        llm: Any,
        slm: Any,
        plugins: Plugins | None = None,
        batch: int = 64,
        alignment: Alignment = "auto",
        fidelity: Fidelity = "default",
    ) -> Self:
        """Read both models. Raises ModelError, VocabularyError, PluginError."""
        from purify_plugins.tokenizers.vocabulary_map import align

        plugins = plugins or load_plugins()
        both = align(plugins.source(llm), plugins.source(slm), alignment, fidelity)
        return cls(*both, plugins, batch)

    def unfit(self, system: System) -> str:
        """Why a policy cannot be bound to this pair's vocabulary; "" where it can."""
        try:
            self.policy(system).bind(self.slm.vocabulary)
        except ConfigError as error:
            return str(error)
        return ""

    def policy(self, system: System) -> FusionPolicy:
        chosen: FusionPolicy = self.plugins.policy(system.policy, system.parameters)
        return chosen

    def purifier(self, system: System) -> Purifier:
        """The system's Purifier, with its request stages."""
        return self.made(system, Purifier)

    def made(self, system: System, kind: type[P]) -> P:
        """The system's Purifier, of this kind.

        For a model alone the other is a source of uniform rows, without drafts.
        """
        silent = uniform(self.slm.vocabulary)
        llm = silent if system.key == "slm" else self.llm
        slm = silent if system.key == "llm" else self.slm
        walk: Walk = "lockstep" if system.alone else "auto"
        how: dict[str, Any] = {"plugins": self.plugins, "batch_size": self.batch, "walk": walk}
        if system.chain:
            how |= {"stages": system.chain.made(self.plugins), "request": system.chain.options}
        return kind(llm, slm, self.policy(system), **how)

    def write(
        self, system: System, prompts: Sequence[Prompt], tokens: int, sampling: Sampling
    ) -> list[WrittenAnswer]:
        """A system's answers; answer i is drawn with seed + i."""
        purifier = self.purifier(system)
        answers = purifier.generate(prompts, replace(sampling, max_tokens=tokens)) if prompts else []
        return [WrittenAnswer(answer.tokens, answer.text) for answer in answers]

    def scores(
        self,
        systems: Sequence[System],
        texts: Sequence[ForcedText],
        done: Callable[[int], object] = lambda count: None,
    ) -> list[tuple[Likelihood, ...]]:
        """Of each text its likelihood under each system; both models read it once."""
        purifiers = [
            Purifier(self.llm, self.slm, self.policy(each), plugins=self.plugins) for each in systems
        ]
        return judged_by(purifiers[0], [each.policy for each in purifiers], texts, done)

    def likelihoods(self, policy: FusionPolicy, texts: Sequence[ForcedText]) -> list[Likelihood]:
        """Teacher-forced log-likelihoods (nats) of texts under a policy."""
        purifier = Purifier(self.llm, self.slm, policy, plugins=self.plugins)
        return [score for (score,) in judged_by(purifier, [purifier.policy], texts)]

    def judge(self, system: System, asked: Sequence[tuple[Prompt, Sequence[int]]]) -> list[Likelihood]:
        """Teacher-forced log-likelihoods (nats) of answers to prompts, the policy's state included."""
        texts = [ForcedText(prompt, tuple(answer)) for prompt, answer in asked]
        return [score for (score,) in self.scores([system], texts)]
