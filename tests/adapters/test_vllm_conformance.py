"""One suite for both of vLLM's runners: whatever is scheduled, every row is the local purifier's."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from random import Random
from typing import Any

import pytest
import torch
from torch import Tensor

from purify_adapters.vllm_engine import slots
from purify_adapters.vllm_engine.contracts import V1
from purify_adapters.vllm_engine.running import Engine, unscored
from purify_adapters.vllm_engine.slots import SlotLogitsProcessor
from purify_plugins import Purifier, Sampling
from purify_plugins.decode.fusion import advance_state, fuse
from purify_plugins.decode.processors import LogitsProcessors
from purify_plugins.plugin.manager import load_plugins
from purify_plugins.testing import ToySource, letters
from tests.adapters import engine as v1
from tests.adapters.engine import SamplingParams, config, loaded
from tests.adapters.engine_v2 import RunnerV2, Running

ABC = letters("abcdefgh")
CANARY = 7
"""A token that the LLM is all but sure of and the SLM rules out: raw rows have it, and no fused one."""
PLUGINS = load_plugins([])


@dataclass(frozen=True)
class WithCanary(ToySource):
    """A toy that gives the canary this logit."""

    logit: float = 0.0

    def logits(self, tokens: Sequence[int]) -> Tensor:
        row = super().logits(tokens).clone()
        row[CANARY] = self.logit
        return row


BIG, SMALL = WithCanary(ABC, 1, logit=20.0), WithCanary(ABC, 2, logit=float("-inf"))


def any_policy(random: Random) -> Any:
    """A policy with any options, most of which remember what was spent."""
    name, options = random.choice(
        [
            ("geometric", {"alpha": random.random()}),
            ("capped", {"total": random.uniform(0, 20)}),
            ("balanced", {"budget": random.uniform(0, 6), "hedge": random.choice([0.0, 0.1])}),
            ("windowed", {"budget": random.uniform(0, 9), "window": random.randint(1, 9)}),
            ("minimum", {}),
        ]
    )
    return PLUGINS.make("purify_policies", name, options)


def any_sampling(random: Random) -> Sampling:
    return random.choice([Sampling(), Sampling(top_k=3), Sampling(repetition_penalty=1.3, top_p=0.9)])


@dataclass
class Oracle:
    """The local purifier, each text by itself: rows and memory, token by token from the prompt on."""

    purifier: Purifier
    known: dict[Any, Any] = field(default_factory=dict)
    rows: int = 0

    def column(self, prompt: tuple[int, ...], past: tuple[int, ...], sampling: Sampling) -> Any:
        """The policy's memory before a token, and the fused column of it."""
        key = prompt, past, sampling
        if key not in self.known:
            policy = self.purifier.policy
            if past:
                before, column = self.column(prompt, past[:-1], sampling)
                state = advance_state(policy, before, torch.tensor(past[-1:]), column)
            else:
                state = policy.start(unscored(sampling.greedy, torch.device("cpu")))
            llm, slm = (source.logits((*prompt, *past))[None] for source in (BIG, SMALL))
            shape = LogitsProcessors(sampling, ABC, policy.shift_invariant)
            self.known[key] = state, fuse(policy, shape, llm, slm, state, [(prompt, list(past))])
        return self.known[key]

    def check(
        self, column: Any, at: int, prompt: Sequence[int], past: Sequence[int], asked: Sampling
    ) -> None:
        """Compare one row of the processor's with the purifier's, to 1e-5."""
        _, expected = self.column(tuple(prompt), tuple(past), asked)
        rows = [(each.fused - each.totals[:, 2:3]).exp() for each in (column.at([at]), expected)]
        torch.testing.assert_close(*rows, atol=1e-5, rtol=1e-5)
        self.rows += 1


@dataclass
class Scheduled:
    """An engine that is driven at random: `join`, `leave`, `pause`, `resume` and `step` are its moves."""

    random: Random
    join: Callable[[Any], Any]
    leave: Callable[[Any], Any]
    step: Callable[[], Any]
    running: Callable[[], list[Any]]
    make: Callable[[tuple[int, ...], SamplingParams], Any]
    room: Callable[[], bool]
    paused: list[Any] = field(default_factory=list)
    made: list[Any] = field(default_factory=list)

    def move(self) -> None:
        """A few joins, leaves, preemptions and resumptions, and a step."""
        random = self.random
        while self.room() and random.random() < 0.5:
            again = self.paused and random.random() < 0.5
            self.join(self.paused.pop(random.randrange(len(self.paused))) if again else self._new())
        for chance, goes_on in ((0.05, False), (0.15, True)):
            if self.running() and random.random() < chance:
                request = random.choice(self.running())
                self.leave(request)
                self.paused += [request] if goes_on else []
        if self.running():
            self.step()

    def _new(self) -> Any:
        random = self.random
        prompt = tuple(random.randrange(CANARY) for _ in range(random.randint(1, 6)))
        params = SamplingParams(
            temperature=random.choice([0.0, 0.7, 1.0, 1.0, 1.4]),
            max_tokens=random.randint(1, 12),
            seed=random.choice([None, random.randrange(9)]),
            ignore_eos=random.random() < 0.7,
        )
        self.made.append(self.make(prompt, params))
        return self.made[-1]


def one_token_each(rows: Tensor) -> Tensor:
    assert set(torch.isfinite(rows).sum(dim=-1).tolist()) == {1}
    assert not bool(torch.isfinite(rows[:, CANARY]).any()), "a raw row would have the canary"
    return rows


def scheduled_v2(
    monkeypatch: pytest.MonkeyPatch, random: Random, oracle: Oracle, sampling: Sampling
) -> Scheduled:
    monkeypatch.setattr(slots, "purifier_of", lambda model: (oracle.purifier, sampling))
    whole = SlotLogitsProcessor._fuse

    def watched(self: Any, live: Any, offset: int, *rows: Any) -> Any:
        column = whole(self, live, offset, *rows)
        for at, slot in enumerate(live):
            assert not slot.alone, "nothing was forgotten"
            oracle.check(column, at, slot.prompt, [*slot.answer, *slot.drafts[:offset]], slot.sampling)
        return column

    monkeypatch.setattr(SlotLogitsProcessor, "_fuse", watched)

    def drafted(ids: Sequence[int]) -> list[int]:
        return [random.randrange(-1, len(ABC) + 1) for _ in range(random.randint(0, 4))]

    made = {"drafter": drafted, "chunk": 3, "at_once": random.choice([2, 5, 99])}
    engine = RunnerV2(BIG, lambda state: SlotLogitsProcessor(config("x"), state), random, **made)  # type: ignore[arg-type]  # as named
    engine.rows = 0
    apply = engine.processor.apply
    engine.processor.apply = lambda logits, ctx: one_token_each(apply(logits, ctx))
    return Scheduled(
        random,
        engine.add,
        engine.take_out,
        engine.step,
        lambda: engine.running,
        Running,
        lambda: bool(engine.free),
    )


def scheduled_v1(
    monkeypatch: pytest.MonkeyPatch, random: Random, oracle: Oracle, sampling: Sampling
) -> Scheduled:
    module = loaded(monkeypatch, V1)
    monkeypatch.setattr(module, "purifier_of", lambda model: (oracle.purifier, sampling))
    processor = module.PurifyLogitsProcessor(config("x"), torch.device("cpu"), False)
    whole = type(processor)._fuse

    def watched(self: Any, asked: Any, alone: bool, rows: Any, logits: Tensor) -> Any:
        column = whole(self, asked, alone, rows, logits)
        assert not alone, "nothing was forgotten"
        for at, row in enumerate(rows):
            oracle.check(column, at, row.prompt, row.answer, asked)
        return column

    monkeypatch.setattr(type(processor), "_fuse", watched)
    engine = v1.Engine(BIG, processor)
    apply = processor.apply
    processor.apply = lambda logits: one_token_each(apply(logits))

    def join(request: v1.Request) -> None:
        engine.add(request, resumed=bool(request.answer))

    def step() -> None:
        if len(engine.batch) > 1 and random.random() < 0.3:
            engine.swap(*random.sample(range(len(engine.batch)), 2))
        engine.step(keep=random.random() < 0.8)

    return Scheduled(
        random, join, engine.take_out, step, lambda: engine.batch, v1.Request, lambda: len(engine.batch) < 6
    )


RUNNERS = {"V1": scheduled_v1, "V2": scheduled_v2}


def conforms(runner: str, steps: int, seed: int, monkeypatch: pytest.MonkeyPatch) -> int:
    """Drive a runner with one policy; how many rows were compared."""
    random = Random(seed)
    purifier = Purifier(Engine(ABC, 256), SMALL, any_policy(random), plugins=PLUGINS)
    oracle = Oracle(purifier)
    with monkeypatch.context() as patch:
        driven = RUNNERS[runner](patch, random, oracle, any_sampling(random))
        for _ in range(steps):
            driven.move()
    assert not any(CANARY in request.answer for request in driven.made)
    return oracle.rows


@pytest.mark.parametrize("runner", RUNNERS)
@pytest.mark.parametrize("seed", range(4))
def test_every_row_is_the_local_purifier_s(runner: str, seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    assert conforms(runner, 40, seed, monkeypatch) > 20  # by what is drawn: 90 in the mean, 42 once in 700


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("runner", RUNNERS)
def test_ten_thousand_steps_conform(runner: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert sum(conforms(runner, 250, seed, monkeypatch) for seed in range(100, 140)) > 10_000


def test_a_raw_row_or_another_s_would_be_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    """Else the suite could not fail: the LLM's own rows have the canary, and are no fused rows."""
    assert int(BIG.logits((0, 1)).argmax()) == CANARY
    whole = SlotLogitsProcessor._read
    monkeypatch.setattr(SlotLogitsProcessor, "_read", lambda self, *told: whole(self, *told).flip(0))
    with pytest.raises(AssertionError, match="not close"):
        conforms("V2", 40, 1, monkeypatch)
    monkeypatch.setattr(SlotLogitsProcessor, "apply", lambda self, logits, ctx: logits)
    with pytest.raises(AssertionError):
        conforms("V2", 40, 1, monkeypatch)
