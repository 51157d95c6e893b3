"""What both models and the policy make of named works: k/surprisal, its bound, and what is measured."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, Any

from purify_hooks.evaluation.eval.attempt import recited
from purify_hooks.evaluation.eval.systems import ALONE
from purify_hooks.evaluation.pair_report.works import listed
from purify_hooks.takedown.recognised import recognised
from purify_hooks.takedown.source import TakedownSource
from purify_plugins.decode.forcing import judged_by
from purify_plugins.purifier import Purifier
from purify_plugins.sampling import Sampling

if TYPE_CHECKING:
    from purify_hooks.evaluation.pair_report.works import NamedWork
    from purify_plugins.decode.forced_text import ForcedText, Likelihood
    from purify_plugins.policy import FusionPolicy
    from purify_plugins.types import Guarantee

TOKENS = 50
"""Tokens of the LLM after each prefix that are forced, at most."""
SHAPING = (
    *("temperature", "top_k", "top_p", "min_p", "typical_p"),
    *("repetition_penalty", "frequency_penalty"),
)
"""The settings that change how likely a text is, and rule out none of any kind."""
PER_PASSAGE: frozenset[Guarantee] = frozenset(("window", "passage", "path"))
"""The guarantees that bound how likely one passage is."""


def shaping(sampling: Sampling) -> dict[str, Any]:
    """The settings that change how likely a text is, by name."""
    return {name: value for name, value in vars(sampling).items() if name in SHAPING}


@dataclass(frozen=True)
class PassageFigures:
    """One passage: its tokens, and the log-probabilities (nats) of them all, each right after its prefix.

    `allowed` is the policy's k for it, None without a bound. `begun` are the tokens that a greedy answer has
    of it, of the LLM alone and of the purified model; `before` is the LLM without its takedown list, None
    where it has none.
    """

    tokens: int
    slm: float
    llm: float
    purified: float
    begun: tuple[int, int]
    allowed: float | None
    before: float | None = None
    begun_before: int | None = None

    @property
    def bound(self) -> float | None:
        """The most its log-probability can be, at one place of an answer; 0 says nothing; None: no bound."""
        return None if self.allowed is None else min(0.0, self.allowed + self.slm)

    @property
    def ratio(self) -> float | None:
        """k over the SLM's surprisal: below 1 the bound says something."""
        if self.allowed is None:
            return None
        return self.allowed / -self.slm if self.slm < 0 else math.inf

    def json(self) -> dict[str, Any]:
        """As JSON, in nats; infinite values are texts."""
        named = {
            "surprisal_slm": -self.slm,
            "k": self.allowed,
            "k_over_surprisal": self.ratio,
            "bound": self.bound,
            "log_probability_llm_without_list": self.before,
            "log_probability_llm": self.llm,
            "log_probability_purified": self.purified,
        }
        rounded = {name: spelled(value) for name, value in named.items()}
        greedy = {"llm_without_list": self.begun_before, "llm": self.begun[0], "purified": self.begun[1]}
        return {"tokens": self.tokens, **rounded, "greedy_tokens": greedy}


def spelled(value: float | None) -> float | str | None:
    """A number for JSON, which has no infinite ones."""
    return value if value is None else round(value, 4) + 0.0 if math.isfinite(value) else str(value)


@dataclass(frozen=True)
class MeasuredWork:
    """A named work and its passages' figures."""

    work: NamedWork
    passages: tuple[PassageFigures, ...]


@dataclass(frozen=True)
class Reader:
    """A purifier, the LLM of it without its takedown list (None: it has none), and what its policy bounds."""

    purifier: Purifier
    bare: Purifier | None
    source: TakedownSource | None
    guarantee: Guarantee

    @property
    def sampling(self) -> Sampling:
        """How the configuration shapes both models' rows; where it is greedy, at temperature 1."""
        shaped = shaping(self.purifier.sampling)
        return Sampling(**{**shaped, "temperature": shaped["temperature"] or 1.0})

    @property
    def listed(self) -> list[NamedWork]:
        """The works of the LLM's takedown list."""
        return listed(self.source) if self.source else []

    @property
    def recognised(self) -> dict[str, tuple[int, int]]:
        """Of each listed work, by SHA-256, the places tried and those where a recital is noticed."""
        if self.source is None:
            return {}
        found = recognised(self.source.listed, self.source.rule)
        texts = self.source.listed.record.texts
        return {text.sha256: (each.places, each.noticed) for text, each in zip(texts, found, strict=True)}

    def measured(
        self, works: Sequence[NamedWork], count: int, done: Callable[[int, int], object]
    ) -> list[MeasuredWork]:
        """The figures of `count` passages of each work, as answers are sampled.

        Raises PromptError, SourceError.
        """
        asked = [
            [self._text(each.prefix, each.continuation) for each in work.passages(count)] for work in works
        ]
        every = [text for texts in asked for text in texts]
        total, finished = len(every) * (2 if self.bare else 1), 0

        def told(texts: int) -> None:
            nonlocal finished
            finished += texts
            done(finished, total)

        def read(purifier: Purifier, policies: Sequence[FusionPolicy]) -> Sequence[Sequence[Likelihood]]:
            return judged_by(purifier, policies, every, told, self.sampling)

        scores = read(self.purifier, [*_alone(self.purifier), self.purifier.policy])
        before = read(self.bare, _alone(self.bare)[:1]) if self.bare else [()] * len(every)
        figures = iter([self._figures(*each) for each in zip(scores, before, strict=True)])
        return [
            MeasuredWork(work, tuple(islice(figures, len(texts))))
            for work, texts in zip(works, asked, strict=True)
        ]

    def _text(self, prefix: str, continuation: str) -> ForcedText:
        return recited(self.purifier.slm, prefix, continuation, TOKENS)

    def _figures(self, scores: Sequence[Likelihood], before: Sequence[Likelihood]) -> PassageFigures:
        llm, slm, ours = scores
        count = len(ours.tokens)
        # No factor makes likely what the SLM never writes under these settings.
        allowed = self.purifier.policy.allowance(count, -slm.nats) if math.isfinite(slm.nats) else 0.0
        return PassageFigures(
            count,
            slm.nats,
            llm.nats,
            ours.nats,
            (llm.run, ours.run),
            allowed if self.guarantee in PER_PASSAGE else None,
            *((before[0].nats, before[0].run) if before else ()),
        )


def reader(purifier: Purifier) -> Reader:
    """What measures with a loaded pair."""
    llm, slm = purifier.given_models
    if not isinstance(llm, TakedownSource):
        return Reader(purifier, None, None, purifier.claim().guarantee)
    bare = Purifier(
        llm.model,
        slm,
        purifier.given_policy,
        plugins=purifier.plugins,
        alignment=purifier.alignment,
        fidelity=purifier.fidelity,
    )
    return Reader(purifier, bare, llm, purifier.claim().guarantee)


def _alone(purifier: Purifier) -> list[FusionPolicy]:
    """Both models alone, as policies of a loaded pair."""
    made = (purifier.plugins.policy(each.policy, each.parameters) for each in ALONE)
    return [Purifier(purifier.llm, purifier.slm, each, plugins=purifier.plugins).policy for each in made]
