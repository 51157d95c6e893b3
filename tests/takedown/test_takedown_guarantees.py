"""Every policy keeps its promise with a wrapped LLM: enumerated over every answer of a toy."""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import cache
from itertools import product
from typing import Any

import pytest
import torch
from torch import Tensor

from purify_hooks.policies.balanced import Balanced
from purify_hooks.takedown.anchor import TakedownRule
from purify_plugins import Purifier
from purify_plugins.decode.likelihood import judged
from purify_plugins.testing import ToySource, letters
from tests.takedown.lists import taken

ABC = letters("abc")
SLM = ToySource(ABC, seed=3)
WORK = [0, 1, 2, 2, 0, 0, 1, 1, 2, 1, 0, 2, 0, 1, 0, 0, 2, 2, 1, 2] * 2
PROMPT = tuple(WORK[:20])
LENGTH = 3
ANSWERS = [answer for length in range(1, LENGTH + 1) for answer in product(range(3), repeat=length)]
WHOLE = [answer for answer in ANSWERS if len(answer) == LENGTH]
RULES = {"linear": TakedownRule(sure=2), "rank": TakedownRule("rank", most=1, sure=2)}


@cache
def llm(form: str) -> Any:
    return taken([WORK], seed=5, rule=RULES[form], alphabet="abc")


def nats(source: Any, policy: Any) -> dict[tuple[int, ...], float]:
    """The log-probability of every answer up to `LENGTH` letters."""
    found = judged(Purifier.load(source, SLM, policy), [PROMPT] * len(ANSWERS), ANSWERS)
    return {answer: each.nats for answer, each in zip(ANSWERS, found, strict=True)}


@cache
def slm() -> Mapping[tuple[int, ...], float]:
    return nats(SLM, {"name": "geometric", "alpha": 0})


def steps(fused: Mapping[tuple[int, ...], float]) -> Tensor:
    """log fused/slm (answers, LENGTH) of each letter of each whole answer."""
    taken_ = [[fused[a[:n]] - slm()[a[:n]] for n in range(1, LENGTH + 1)] for a in WHOLE]
    return torch.tensor(taken_).diff(prepend=torch.zeros(len(WHOLE), 1))


@pytest.mark.parametrize("form", RULES)
def test_the_wrapped_llm_says_something_else(form: str) -> None:
    policy = {"name": "geometric", "alpha": 1}
    plain, wrapped = nats(llm(form).model, policy), nats(llm(form), policy)
    recited = tuple(WORK[20:22])
    assert wrapped[recited] < plain[recited] - 1


@pytest.mark.parametrize("form", RULES)
def test_each_promise_holds_over_every_answer(form: str) -> None:
    windowed = steps(nats(llm(form), {"name": "windowed", "cap": 1.0, "window": 2, "budget": 1.5}))
    assert windowed.max() <= 1.0 + 1e-5
    assert windowed.unfold(1, 2, 1).sum(-1).max() <= 1.5 + 1e-5
    capped = steps(nats(llm(form), {"name": "capped", "cap": 1.0, "total": 1.5}))
    assert capped.clamp(min=0).sum(-1).max() <= 1.5 + 1e-5
    anchored = nats(llm(form), {"name": "anchored", "budget": 0.2})
    kl = math.fsum(math.exp(anchored[a]) * (anchored[a] - slm()[a]) for a in WHOLE)
    assert kl <= 0.2 * LENGTH + 1e-5
    balanced = Balanced(1.5)
    for answer, said in nats(llm(form), balanced).items():
        surprisal = -slm()[answer]
        assert said + surprisal <= balanced.allowance(len(answer), surprisal) + 1e-5
