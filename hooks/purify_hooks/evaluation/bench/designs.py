"""The designs that are compared: ways to generate the same number of tokens after the same prompts."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from time import perf_counter
from typing import Any, NamedTuple

from purify_hooks.evaluation.bench.counting import Counting
from purify_hooks.evaluation.bench.models import BenchModels, Ids, padded
from purify_hooks.evaluation.bench.naive import NaiveFusion, is_memoryless
from purify_hooks.evaluation.bench.settings import Clock
from purify_plugins.decode.loop import lockstep
from purify_plugins.decode.speculative import speculative
from purify_plugins.sampling import Sampling


class WritingTask(NamedTuple):
    """The task of every design: exactly `tokens` tokens after each prompt."""

    prompts: Sequence[Ids]
    tokens: int
    temperature: float


class Stopwatch:
    """Records the time of the first token; for `generate`, a stopping criterion that never stops."""

    def __init__(self, clock: Clock = perf_counter) -> None:
        self.clock, self.began = clock, clock()
        self.first: float | None = None

    @property
    def seconds(self) -> float:
        """Seconds since the start."""
        return self.clock() - self.began

    def __call__(self, *_: Any, **__: Any) -> bool:
        if self.first is None:
            self.first = self.seconds
        return False


Design = Callable[[WritingTask, Stopwatch], Sequence[Sequence[int]]]
"""Generates the answers: one list of token ids a prompt."""


def designs(models: BenchModels, purifier: Counting) -> dict[str, Design]:
    """Every design that can run this policy, by name."""
    found: dict[str, Design] = {"llm": Generating(models), "assisted": Assisted(models)}
    if is_memoryless(purifier.policy):
        found["naive"] = Naive(models, purifier.policy)
    return {**found, "lockstep": Decoding(purifier, lockstep), "speculative": Decoding(purifier, speculative)}


@dataclass(frozen=True)
class Generating:
    """transformers' `generate`, the LLM alone."""

    models: BenchModels

    def __call__(self, task: WritingTask, watch: Stopwatch) -> Sequence[Sequence[int]]:
        alone = self.models.alone
        ids, mask = padded(task.prompts, alone.device)
        written = alone.generate(
            ids,
            attention_mask=mask,
            generation_config=self.configured(task),
            stopping_criteria=[watch],
            **self.options(mask),
        )
        answers: list[list[int]] = written[:, ids.shape[1] :].tolist()
        return answers

    def configured(self, task: WritingTask) -> Any:
        """The task as a GenerationConfig."""
        return generation(task, self.models.llm.vocabulary.eos)

    def options(self, mask: Any) -> Mapping[str, Any]:
        """Further arguments of `generate`; `mask` (rows, n) is the prompts' attention mask."""
        return {}


def generation(task: WritingTask, eos: frozenset[int]) -> Any:
    """The task as a GenerationConfig: no token ends an answer, and no sampling cut applies."""
    from transformers import GenerationConfig

    draws = {"do_sample": True, "temperature": task.temperature, "top_k": 0, "top_p": 1.0}
    return GenerationConfig(
        max_new_tokens=task.tokens,
        min_new_tokens=task.tokens,
        suppress_tokens=sorted(eos) or None,
        pad_token_id=0,
        **(draws if task.temperature else {"do_sample": False}),
    )


class Assisted(Generating):
    """transformers' assisted generation: the SLM drafts for the unpurified LLM."""

    def options(self, mask: Any) -> Mapping[str, Any]:
        return {"assistant_model": self.models.slm.model}


@dataclass(frozen=True)
class Naive(Generating):
    """The policy as a LogitsProcessor inside the LLM's `generate`."""

    policy: Any

    def options(self, mask: Any) -> Mapping[str, Any]:
        return {"logits_processor": [NaiveFusion(self.models.slm, self.policy, mask)]}


@dataclass(frozen=True)
class Decoding:
    """One of our decoders."""

    purifier: Counting
    walk: Callable[..., Any]

    def __call__(self, task: WritingTask, watch: Stopwatch) -> Sequence[Sequence[int]]:
        sampling = Sampling(max_tokens=task.tokens, temperature=task.temperature, ignore_eos=True)
        answers: list[list[int]] = [[] for _ in task.prompts]
        for step in self.walk(self.purifier, task.prompts, sampling):
            watch()
            for answer, token in zip(answers, step.tokens, strict=True):
                if token is not None:
                    answer.append(token.id)
        return answers
