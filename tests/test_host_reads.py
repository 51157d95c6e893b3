"""On an accelerator the host looks once a cycle: everything else waits for nothing.

There is no accelerator here. `Far` stands in for one's memory: whatever is computed from the models' logits
is a Far tensor, and whoever looks at one is counted. The walks are told that nothing is near.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor

from purify_hooks.evaluation import testbed
from purify_hooks.local.session import LocalSession
from purify_hooks.policies import calibration
from purify_plugins import NumericError, Purifier, Sampling
from purify_plugins.decode import logits as weights
from purify_plugins.decode.draft_length import DraftLength
from purify_plugins.decode.loop import lockstep
from purify_plugins.decode.speculative import VerifyLoop, speculative
from tests.test_speculative import PAIRED, prompts_of, written

LOOKS = {
    *("tolist", "item", "numpy", "cpu", "nonzero", "masked_select", "unique", "equal", "is_nonzero"),
    *("__array__", "__contains__", "__bool__", "__int__", "__float__", "__index__"),
}
"""What makes the host wait for an accelerator."""
ASKING = {
    "anchored": "searches for a point on the path between the rows, and looks where it is after each step",
    "cp_fuse": "searches as anchored does",
    "safe_decoding": "looks whether any answer is still at its beginning, then how deep its candidates lie",
}
"""Policies that look by themselves, and why."""
ROWWISE = sorted({*PAIRED} - {*ASKING})
MAIN = ["balanced", "geometric", "windowed"]
DRAWS: dict[str, dict[str, float]] = {
    "greedy": {"temperature": 0},
    "sampled": {"seed": 1},
    "top-p": {"seed": 1, "top_p": 0.9},
}
TOKENS = 10


class Far(Tensor):
    """A tensor that counts who looks at it, or at what is computed from it."""

    looks: ClassVar[list[str]] = []

    @classmethod
    def __torch_function__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = getattr(func, "__name__", "")
        masks = name == "__getitem__" and isinstance(args[1], Tensor) and args[1].dtype == torch.bool
        if name in LOOKS or masks:
            cls.looks.append(name)
        return super().__torch_function__(func, types, args, kwargs or {})


@pytest.fixture(scope="module")
def pair() -> Purifier:
    return Purifier.load(testbed.LLM, testbed.SLM, "geometric")


@pytest.fixture
def far(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """Who has looked, with both models' tokens, and so their logits, far away."""
    note = LocalSession.append

    def noted(self: LocalSession, tokens: Tensor, visible: Tensor) -> None:
        note(self, tokens, visible)
        self.ids = self.ids.as_subclass(Far)

    monkeypatch.setattr(weights, "HOST", frozenset())
    monkeypatch.setattr(LocalSession, "append", noted)
    Far.looks.clear()
    yield Far.looks
    Far.looks.clear()


def cycles(pair: Purifier, policy: Any, sampling: Sampling, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How often the host looked in each cycle but the first, which begins with the prompts."""
    purifier = Purifier.load(pair.llm, pair.slm, policy)
    monkeypatch.setattr(purifier.draft_lengths, "of", lambda *_: DraftLength(fixed=3))
    cycle, found = VerifyLoop.draft_and_verify, []

    def counting(self: VerifyLoop) -> Any:
        Far.looks.clear()
        columns = cycle(self)
        found.append(len(Far.looks))
        return columns

    monkeypatch.setattr(VerifyLoop, "draft_and_verify", counting)
    answers = written(speculative, purifier, prompts_of(2), sampling)
    assert set(map(len, answers)) == {TOKENS}
    return found[1:]


@pytest.mark.parametrize("draw", DRAWS)
@pytest.mark.parametrize(
    "policy", [pytest.param(name, marks=[pytest.mark.slow] * (name not in MAIN)) for name in ROWWISE]
)
def test_a_speculative_cycle_looks_once(
    pair: Purifier, policy: str, draw: str, far: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    sampling = Sampling(max_tokens=TOKENS, ignore_eos=True, **DRAWS[draw])  # type: ignore[arg-type]  # numbers
    assert set(cycles(pair, policy, sampling, monkeypatch)) == {1}


@pytest.mark.parametrize("draw", DRAWS)
def test_a_rule_that_follows_the_text_looks_no_more(
    pair: Purifier, draw: str, far: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    sampling = Sampling(max_tokens=TOKENS, ignore_eos=True, **DRAWS[draw])  # type: ignore[arg-type]  # numbers
    assert set(cycles(pair, calibration.BASE, sampling, monkeypatch)) == {1}


@pytest.mark.slow
@pytest.mark.parametrize("policy", sorted(ASKING))
def test_policies_that_look_by_themselves_are_known(
    pair: Purifier, policy: str, far: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    sampling = Sampling(max_tokens=TOKENS, temperature=0, ignore_eos=True)
    assert max(cycles(pair, policy, sampling, monkeypatch)) > 1


@pytest.mark.parametrize("draw", DRAWS)
@pytest.mark.parametrize("policy", ["geometric", "windowed"])
def test_a_step_of_lockstep_looks_once(pair: Purifier, policy: str, draw: str, far: list[str]) -> None:
    purifier = Purifier.load(pair.llm, pair.slm, policy)
    sampling = Sampling(max_tokens=TOKENS, ignore_eos=True, **DRAWS[draw])  # type: ignore[arg-type]  # numbers
    looks = []
    for _ in lockstep(purifier, prompts_of(2), sampling):
        looks.append(len(far))
        far.clear()
    assert looks[1:] == [1] * (TOKENS - 1)


@pytest.mark.parametrize("draw", DRAWS)
@pytest.mark.parametrize("policy", MAIN)
def test_far_away_the_same_is_written(
    pair: Purifier, policy: str, draw: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    purifier = Purifier.load(pair.llm, pair.slm, policy)
    sampling = Sampling(max_tokens=16, **DRAWS[draw])  # type: ignore[arg-type]  # numbers
    prompts = prompts_of(4)
    here = written(speculative, purifier, prompts, sampling)
    monkeypatch.setattr(weights, "HOST", frozenset())
    assert written(speculative, purifier, prompts, sampling) == here


@pytest.mark.parametrize("walk", [lockstep, speculative])
@pytest.mark.parametrize(("policy", "value"), [("geometric", float("inf")), ("windowed", float("nan"))])
@pytest.mark.parametrize("side", ["llm", "slm"])
def test_a_broken_row_is_refused_far_away_too(
    pair: Purifier, walk: Any, policy: str, value: float, side: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    purifier = Purifier.load(pair.llm, pair.slm, policy)
    broken, honest = getattr(purifier, side).model, LocalSession._logits

    def breaking(self: LocalSession, columns: int, wanted: int) -> Tensor:
        logits = honest(self, columns, wanted).clone()
        if self.model.module is broken and self.visible.shape[1] > 40:
            logits[..., 7] = value
        return logits

    monkeypatch.setattr(LocalSession, "_logits", breaking)
    monkeypatch.setattr(weights, "HOST", frozenset())
    with pytest.raises(NumericError, match="a model or the policy returned NaN"):
        written(walk, purifier, ["There was a king"], Sampling(max_tokens=60, temperature=0, ignore_eos=True))
