"""The toys keep the contracts they are there to test, and so does every bundled policy."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import pytest
import torch

from purify_plugins import PromptError, Vocabulary
from purify_plugins.plugin.manager import load_plugins
from purify_plugins.policy import Context, FusionPolicy, State
from purify_plugins.protocols import LogitSource
from purify_plugins.testing import (
    PolicyConformance,
    ScriptedSource,
    SourceConformance,
    ToySource,
    byte_vocabulary,
    letters,
    no_context,
    random_rows,
)
from tests.toys import BYTES, Forbidding

WORD = Vocabulary((b"a", b" the", b" of", *(b"%d" % n for n in range(14))), frozenset({0}))
POLICIES = sorted(load_plugins([]).offers("purify_policies"))


class TestToys(SourceConformance):
    def source(self) -> LogitSource:
        return ToySource(byte_vocabulary(), 1)


class TestSmallToys(SourceConformance):
    prompts = ("a", "ab", "bba")

    def source(self) -> LogitSource:
        return ToySource(letters("ab"), 1)


class TestScripts(SourceConformance):
    def source(self) -> LogitSource:
        return ScriptedSource(byte_vocabulary(), b"always the same")

    @pytest.mark.skip(reason="a script scores no prompts: it is sure of its answer whatever it read")
    def test_scored_prompts_are_what_reading_them_says(self) -> None: ...


class TestForbiddingToys(SourceConformance):
    def source(self) -> LogitSource:
        return Forbidding(BYTES, 1, forbidden=frozenset(range(128, 257)))


@pytest.mark.parametrize("name", POLICIES)
class TestBundledPolicies(PolicyConformance):
    @pytest.fixture(autouse=True)
    def choose(self, name: str) -> None:
        self.chosen = load_plugins([]).policy(name).bind(WORD)

    def policy(self) -> FusionPolicy:
        return self.chosen

    def test_permuting_the_vocabulary_permutes_the_result(self) -> None:
        if getattr(self.chosen, "ids", None):
            pytest.skip("its words are named by their ids, which a permutation changes")
        super().test_permuting_the_vocabulary_permutes_the_result()


@dataclass(frozen=True)
class Half:
    """A policy as the documentation writes one."""

    guarantee: ClassVar[str] = "none"
    lookback: ClassVar[int] = 0
    weight: Any = 0.5

    def start(self, context: Context) -> State:
        return ()

    def fuse(self, llm: Any, slm: Any, state: State) -> Any:
        return (llm.float() + slm.float()) * self.weight

    def advance(self, state: State, tokens: Any, llm: Any, slm: Any, fused: Any) -> State:
        return state


class TestAPluginAuthorsPolicy(PolicyConformance):
    def policy(self) -> Any:
        return Half()


def suite(policy: Any) -> PolicyConformance:
    class Suite(PolicyConformance):
        def policy(self) -> Any:
            return policy

    return Suite()


class InPlace(Half):
    def fuse(self, llm: Any, slm: Any, state: State) -> Any:
        return llm.add_(slm)


class Mixing(Half):
    def fuse(self, llm: Any, slm: Any, state: State) -> Any:
        return llm + slm * slm.abs().max()


class Masking(Half):
    def fuse(self, llm: Any, slm: Any, state: State) -> Any:
        return llm + 0.0 * slm


class Placed(Half):
    def fuse(self, llm: Any, slm: Any, state: State) -> Any:
        return llm + torch.arange(llm.shape[1])


class Promising(Half):
    guarantee = "absolute"


class Thawed:
    guarantee, lookback = "none", 0


@pytest.mark.parametrize(
    ("policy", "law"),
    [
        (InPlace(), "it_leaves_its_inputs_alone"),
        (Mixing(), "a_batch_is_its_rows"),
        (Masking(), "minus_infinity_is_an_ordinary_value"),
        (Placed(), "permuting_the_vocabulary_permutes_the_result"),
        (Promising(), "it_names_its_guarantee"),
        (Half(weight=object()), "its_options_can_be_written_in_a_certificate"),
        (Thawed(), "it_is_a_frozen_dataclass_whose_fields_are_its_options"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_the_conformance_suite_notices(policy: Any, law: str) -> None:
    with pytest.raises((AssertionError, TypeError)):
        getattr(suite(policy), f"test_{law}")()


def test_a_toy_is_deterministic_and_depends_on_its_seed_and_context() -> None:
    one, other = ToySource(BYTES, 1), ToySource(BYTES, 2)
    assert torch.equal(one.logits((1, 2)), ToySource(BYTES, 1).logits((1, 2)))
    assert not torch.equal(one.logits((1, 2)), other.logits((1, 2)))
    assert not torch.equal(one.logits((1, 2)), one.logits((2, 1)))
    assert torch.equal(one.logits((9, 1, 2, 3)), one.logits((1, 2, 3)))


def test_a_toy_refuses_what_it_cannot_read() -> None:
    with pytest.raises(PromptError):
        ToySource(BYTES, context_length=3).open(["abc"])


def test_no_context_is_empty() -> None:
    context = no_context(3, greedy=True)
    assert context.rows == 3
    assert context.greedy.all()
    assert context.llm.shape == (3, 0)


def test_random_rows_are_distributions_with_holes_when_asked() -> None:
    for holes in (False, True):
        rows = random_rows(5, 9, seed=4, holes=holes)
        torch.testing.assert_close(rows.exp().sum(-1), torch.ones(5))
        assert rows.isneginf().any() == holes
