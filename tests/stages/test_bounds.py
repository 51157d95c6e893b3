"""Whole requests enumerated: no answer is likelier than its certificate's ledger says, draw by draw.

Two letters, answers of two. The LLM wants one answer and takes all that the policy leaves it, and the stages
pick it, try for it, and have everything else written again. Every draw of the decoder is branched over, so
the probabilities are exact, and the bounds are those that the certificates state.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

import pytest
import torch
from torch import Tensor

from purify_plugins import Completion, Purifier, Refused, RefusedError, Sampling
from purify_plugins.certificates import verify
from purify_plugins.decode.fusion import FusedLogits
from purify_plugins.plugin.manager import load_plugins
from purify_plugins.stages.checks import Blocked, Check
from purify_plugins.stages.request import Request
from purify_plugins.stages.stage import Answer, Draft, Stage
from purify_plugins.testing import ToySource
from tests.stages.branches import Branches
from tests.toys import AB

LENGTH, TOTAL = 2, 1.0
ANSWERS = ["".join(each) for each in product("ab", repeat=LENGTH)]
SAMPLING = Sampling(max_tokens=LENGTH, ignore_eos=True)


@dataclass(frozen=True)
class Wanting(ToySource):
    """An LLM that is all but sure of one answer."""

    target: str = "ba"

    def logits(self, tokens: Sequence[int]) -> Tensor:
        written = tokens[1:]  # after a prompt of one letter
        wanted = "ab".index(self.target[len(written)]) if len(written) < LENGTH else 0
        return torch.full((3,), -30.0).index_fill(0, torch.tensor(wanted), 0.0)


@dataclass(frozen=True)
class OneOfMany(Stage):
    """Of n drafts drawn together, the target or else the first."""

    n: int
    target: str

    @property
    def choices(self) -> int:
        return self.n

    def answer(self, request: Request) -> Answer:
        drafts = yield [request.seeded(at) for at in range(self.n)]
        return next((each for each in drafts if each.text == self.target), drafts[0])


@dataclass(frozen=True)
class Trying(OneOfMany):
    """One draft after another until one is the target; else the last."""

    def answer(self, request: Request) -> Answer:
        for at in range(self.n):
            draft: Draft = yield request.seeded(at)
            if draft.text == self.target:
                break
        return draft


@dataclass(frozen=True)
class SlmFirst(Stage):
    """The SLM's own answer where it is the target, else what the stages after it make."""

    target: str

    @property
    def choices(self) -> int:
        return 1

    def answer(self, request: Request) -> Answer:
        draft = yield request.alone()
        return draft if draft.text == self.target else request


@dataclass(frozen=True)
class Rewriting(Stage):
    """Has everything but the target written again by the SLM, once."""

    target: str

    def answer(self, request: Request) -> Request:
        return request.checked(Spelling(self.target))


@dataclass
class Spelling(Check):
    """Clears the beginnings of one text alone."""

    target: str
    window = 0
    redo = 1

    def clear(self, text: str, last: bool) -> int:
        for at, (one, other) in enumerate(zip(text, self.target, strict=False)):
            if one != other:
                raise Blocked(at)
        return len(text)


PROGRAMS: dict[str, Callable[[str], Sequence[Stage]]] = {
    "best of 3": lambda target: [OneOfMany(3, target)],
    "three tries": lambda target: [Trying(3, target)],
    "one redo": lambda target: [Rewriting(target)],
    "a cascade around best of 2 around a redo": lambda target: [
        SlmFirst(target),
        OneOfMany(2, target),
        Rewriting(target),
    ],
}


def written(purifier: Purifier) -> Completion | None:
    """An answer; None where it was refused."""
    try:
        [answer] = purifier.generate(["a"], SAMPLING)
    except RefusedError:
        return None
    return answer


@dataclass
class Reached:
    """How likely an answer is, and the least bound (nats) that a certificate of it states."""

    chance: float = 0.0
    bound: float = math.inf


def enumerated(purifier: Purifier, monkeypatch: pytest.MonkeyPatch) -> dict[str, Reached]:
    branches, found, whole = Branches(), defaultdict[str, Reached](Reached), 0.0
    monkeypatch.setattr(FusedLogits, "draw", lambda rows, uniforms: branches.draw(rows, uniforms))
    checked = set()
    for chance, answer in branches.runs(lambda: written(purifier)):
        whole += chance
        if answer is None:
            continue
        reached = found[answer.text]
        reached.chance += chance
        body = answer.certificate.body
        if answer.text not in checked:
            checked.add(answer.text)
            verify(answer.certificate, load_plugins())
        if "ledger" in body and body["ledger"]["bound"] is not None:
            reached.bound = min(reached.bound, float(body["ledger"]["bound"]))
    assert whole == pytest.approx(1)
    return found


def purifier(seed: int, target: str, stages: Sequence[Stage] = ()) -> Purifier:
    policy = load_plugins().policy({"name": "capped", "cap": TOTAL, "total": TOTAL})
    pair = Wanting(AB, 0, target=target), ToySource(AB, seed, sharpness=1.0)
    return Purifier(*pair, policy, walk="lockstep", stages=stages)


def slm_alone(seed: int) -> dict[str, float]:
    """What the SLM says by itself."""
    slm, found = ToySource(AB, seed, sharpness=1.0), {}
    for answer in ANSWERS:
        ids = ["ab".index(each) for each in answer]
        rows = [torch.softmax(slm.logits([0, *ids[:at]])[:2].double(), -1) for at in range(LENGTH)]
        found[answer] = math.prod(float(row[token]) for row, token in zip(rows, ids, strict=True))
    return found


@pytest.mark.parametrize("program", PROGRAMS)
@pytest.mark.parametrize(("seed", "target"), [(1, "ba"), (2, "bb")])
def test_no_answer_is_likelier_than_its_certificate_says(
    program: str, seed: int, target: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And the bounds are not idle: stages that help the LLM get it more than one draft's policy leaves it."""
    alone = slm_alone(seed)
    plain = enumerated(purifier(seed, target), monkeypatch)[target].chance
    found = enumerated(purifier(seed, target, PROGRAMS[program](target)), monkeypatch)
    for text, reached in found.items():
        assert reached.chance <= math.exp(reached.bound) * alone[text] * (1 + 1e-6), text
    assert plain <= math.exp(TOTAL) * alone[target] * (1 + 1e-6)
    assert plain < found[target].chance
    assert found[target].bound < math.inf


class Leaning(ToySource):
    """An SLM that writes "ba" after the prompt "b" rather than after "a"."""

    def logits(self, tokens: Sequence[int]) -> Tensor:
        a = {(0,): 0.7, (0, 1): 0.05, (1,): 0.4}.get(tuple(tokens), 0.6)
        return torch.tensor([a, 1 - a, 1e-30]).log()


@dataclass(frozen=True)
class AskingAgain(Stage):
    """The SLM is asked both questions; then a draft of the LLM's says which of them is asked again."""

    @property
    def choices(self) -> int:
        return 2

    def answer(self, request: Request) -> Answer:
        both = [request.asking("a"), request.asking("b")]
        yield [each.alone() for each in both]
        chosen: Draft = yield request.sampled(max_tokens=1)
        return both["ab".index(chosen.text)]


def test_a_draft_that_says_which_question_is_asked_again_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its total counts: the LLM had it twice for the price of a choice between two."""
    policy = load_plugins().policy({"name": "capped", "cap": TOTAL, "total": TOTAL})
    pair = Wanting(AB, 0, target="ba"), Leaning(AB, 0)
    program = Purifier(*pair, policy, walk="lockstep", stages=[AskingAgain()])
    found = enumerated(program, monkeypatch)["ba"]
    blind = 0.7 * 0.3 * 0.05 + 0.3 * 0.6 * 0.6
    assert 2 * math.exp(TOTAL) * blind < found.chance <= math.exp(found.bound) * blind * (1 + 1e-6)


@pytest.mark.parametrize(
    "stages", [lambda target: [OneOfMany(2, target)], lambda _: []], ids=["draft", "streamed"]
)
def test_an_answer_that_may_not_be_written_again_is_refused_once(stages: Any) -> None:
    """A draft that was released had ended its row: its refusal was dropped, and its reader got nothing."""
    slm = ToySource(AB, 3, sharpness=1.0)
    policy = load_plugins().policy({"name": "capped", "cap": TOTAL, "total": TOTAL})
    chain = [*stages("bb"), Rewriting("bb")]
    pair = Purifier(Wanting(AB, 0, target="aa"), slm, policy, walk="lockstep", stages=chain)
    sampling = Sampling(max_tokens=LENGTH, ignore_eos=True, seed=0)
    found = pair.generate(["a"] * 12, sampling)
    assert len(found) == 12
    assert any(isinstance(each, Refused) for each in found)
    assert all(isinstance(each, Refused) or each.text == "bb" for each in found)
    at = next(at for at, each in enumerate(found) if isinstance(each, Refused))
    with pytest.raises(RefusedError):
        list(pair.stream("a", Sampling(max_tokens=LENGTH, ignore_eos=True, seed=at)))


@pytest.mark.parametrize("walk", ["lockstep", "speculative"])
def test_an_answer_that_the_slm_wrote_the_end_of_was_begun_with_the_llm(walk: Any) -> None:
    """The last of it was drawn by the SLM alone, step by step; the certificate is for the whole."""
    policy = load_plugins().policy({"name": "capped", "cap": TOTAL, "total": TOTAL})
    pair = Wanting(AB, 0, target="bb"), ToySource(AB, 3, sharpness=1.0)
    purifier = Purifier(*pair, policy, walk=walk, stages=[Rewriting("ba")])
    for seed in range(60):
        try:
            [answer] = purifier.generate(["a"], Sampling(max_tokens=LENGTH, ignore_eos=True, seed=seed))
        except RefusedError:
            continue
        [draft] = answer.certificate.body["drafts"]
        verify(answer.certificate, load_plugins())
        assert "llm_asked" not in draft["certificate"]["method"]
        alone = [row[6] for row in draft["certificate"]["steps"]]
        if draft["redone"] and alone == [False, True]:
            assert draft["certificate"]["method"]["walk"] == walk
            return
    raise AssertionError("no span was written again")
