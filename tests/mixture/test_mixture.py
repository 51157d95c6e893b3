"""A mixture's rows, its posterior, its errors, and what it names in certificates."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import pytest
import torch
from torch import Tensor

from purify_hooks.mixture.session import KEPT
from purify_hooks.mixture.source import MixtureSource
from purify_plugins import Sampling
from purify_plugins.certificates import read, recompute, verify
from purify_plugins.certificates.calibration_record import digest_of
from purify_plugins.certificates.explain import summary
from purify_plugins.decode.loop import lockstep
from purify_plugins.decode.speculative import speculative
from purify_plugins.errors import ConfigError, PurifyError, SourceError, VocabularyError
from purify_plugins.protocols import Capabilities
from purify_plugins.testing import SourceConformance, ToySession, ToySource, letters
from purify_plugins.types import Prompt, ScoredPrompt, Vocabulary
from tests.toys import pair

A, B, C = (ToySource(letters("abc"), seed=seed) for seed in (1, 2, 3))
HABITS = [{}, {"share": 0.0}, {"share": 0.2}]


class TestFixedWeights(SourceConformance):
    def source(self) -> MixtureSource:
        return MixtureSource([A, B, C], [5, 3, 2])


class TestThePosterior(SourceConformance):
    def source(self) -> MixtureSource:
        return MixtureSource([A, B], [0.7, 0.3], share=0.0)


class TestAFixedShare(SourceConformance):
    def source(self) -> MixtureSource:
        return MixtureSource([A, B], [0.7, 0.3], share=0.1)


def rows_of(source: MixtureSource, tokens: Sequence[int]) -> Tensor:
    """The probabilities (n + 1, V) of the token after each of the tokens, the first being the prompt."""
    session, first = source.open([tuple(tokens[:1])])
    with session:
        if len(tokens) == 1:
            return first.double().exp()
        return torch.cat([first, session.extend(torch.tensor([[*tokens[1:]]]))[0]]).double().exp()


def alone(member: ToySource, tokens: Sequence[int]) -> list[Tensor]:
    return [torch.softmax(member.logits(tokens[:n]).double(), -1) for n in range(1, len(tokens) + 1)]


TEXT = [0, 2, 1, 1, 0, 3, 2]


def test_fixed_weights_are_a_weighted_mean() -> None:
    found = rows_of(MixtureSource([A, B], [3, 1]), TEXT)
    for row, a, b in zip(found, alone(A, TEXT), alone(B, TEXT), strict=True):
        torch.testing.assert_close(row, 0.75 * a + 0.25 * b, atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("share", [0.0, 0.25])
def test_weights_follow_the_text_by_bayes_rule_and_a_share_returns(share: float) -> None:
    found = rows_of(MixtureSource([A, B], [0.75, 0.25], share), TEXT)
    weights = [0.75, 0.25]
    for at, (row, a, b) in enumerate(zip(found, alone(A, TEXT), alone(B, TEXT), strict=True)):
        torch.testing.assert_close(row, weights[0] * a + weights[1] * b, atol=1e-6, rtol=1e-5)
        if at + 1 < len(TEXT):
            joint = [weights[0] * float(a[TEXT[at + 1]]), weights[1] * float(b[TEXT[at + 1]])]
            posterior = [each / sum(joint) for each in joint]
            weights = [
                (1 - share) * each + share * prior
                for each, prior in zip(posterior, (0.75, 0.25), strict=True)
            ]


def test_bayes_rule_alone_is_the_mean_of_whole_texts() -> None:
    """Σ w_i p_i(text), whichever way the text is multiplied up: the mixture is one language model."""
    found = rows_of(MixtureSource([A, B], [0.75, 0.25], share=0.0), TEXT)
    chance = math.prod(float(row[token]) for row, token in zip(found, TEXT[1:], strict=False))
    whole = [
        math.prod(float(row[token]) for row, token in zip(alone(each, TEXT), TEXT[1:], strict=False))
        for each in (A, B)
    ]
    assert chance == pytest.approx(0.75 * whole[0] + 0.25 * whole[1], rel=1e-5)


def test_the_prompt_is_evidence_too() -> None:
    source = MixtureSource([A, B], share=0.1)
    session, first = source.open([tuple(TEXT)])
    session.close()
    torch.testing.assert_close(first[0].double().exp(), rows_of(source, TEXT)[-1], atol=1e-6, rtol=1e-5)


def test_a_rewind_goes_back_further_than_rows_are_kept() -> None:
    source = MixtureSource([A, B], share=0.1)
    tokens = torch.randint(0, 3, (2, 2 * KEPT), generator=torch.Generator().manual_seed(1))
    session, _ = source.open(["a", "abc"])
    again, _ = source.open(["a", "abc"])
    with session, again:
        session.extend(tokens)
        session.rewind(torch.tensor([5, 0]))
        again.extend(torch.cat([tokens[:1, :5], tokens[1:, :5]]))
        again.rewind(torch.tensor([5, 0]))
        rest = tokens[:, 7:11]
        torch.testing.assert_close(session.extend(rest), again.extend(rest), atol=1e-5, rtol=1e-5)


def test_undo_restores_weights_and_members() -> None:
    source = MixtureSource([Marked(letters("abc"), 1), Marked(letters("abc"), 2)], share=0.1)
    session, _ = source.open(["ab"])
    with session:
        session.extend(torch.tensor([[1]]))
        mark = session.mark()
        expected = session.extend(torch.tensor([[2]]))
        session.undo(mark)
        assert torch.equal(session.extend(torch.tensor([[2]])), expected)


class MarkedSession(ToySession):
    """A toy's session that can be restored."""

    def mark(self) -> list[list[int]]:
        return [[*row] for row in self.rows]

    def undo(self, mark: list[list[int]]) -> None:
        self.rows = mark


@dataclass(frozen=True)
class Marked(ToySource):
    def open(self, prompts: Sequence[Prompt], scored: int = 0) -> tuple[ToySession, Tensor]:
        session = MarkedSession(self, [self.encode(prompt) for prompt in prompts], scored)
        return session, torch.stack([self.logits(row) for row in session.rows])


@dataclass(frozen=True)
class Shown(ToySource):
    @property
    def capabilities(self) -> Capabilities:
        return Capabilities(True, True, 5, None, False, False)


OTHER = ToySource(letters("abd"))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"members": [A]}, "a mixture has two members or more, not 1"),
        ({"weights": [1.0]}, "the mixture has 2 members and 1 weights; give one a member"),
        ({"weights": [1.0, 0.0]}, "finite and above 0.*; leave a member out instead of 0"),
        ({"weights": [1.0, math.inf]}, "finite and above 0"),
        ({"share": 1.5}, "share must be from 0 to 1, not 1.5"),
        ({"members": [A, Shown(letters("abc"))]}, "member 2 of the mixture is behind a server"),
        ({"members": [A, OTHER]}, "member 2 .* has another tokenizer .*build n-grams with that"),
    ],
)  # fmt: skip
def test_what_is_no_mixture_is_refused_in_words(options: dict[str, Any], words: str) -> None:
    with pytest.raises(PurifyError, match=words) as refused:
        MixtureSource(**{"members": [A, B], **options})
    assert isinstance(refused.value, ConfigError | VocabularyError)


def test_members_may_differ_in_ids_and_added_tokens() -> None:
    """As a tokenizer's n-grams and a model's checkpoint do."""
    letters_ = letters("abc")
    moved = Vocabulary(
        (b"c", b"b", b"a", b"", b"<tool>"), frozenset({3}), {3: "<end>"}, frozenset({4}), "moved"
    )
    source = MixtureSource([A, ToySource(moved, seed=4)], [1, 3])
    assert source.vocabulary.fingerprint == letters_.fingerprint
    logits = ToySource(moved, seed=4).logits([2])[[2, 1, 0, 3]]  # of "a": the token <tool> is left out
    expected = 0.25 * torch.softmax(A.logits([0]), -1) + 0.75 * torch.softmax(logits, -1)
    torch.testing.assert_close(rows_of(source, [0])[0].float(), expected)


def test_members_that_read_another_text_are_an_error() -> None:
    class Longer(ToySource):
        def open(self, prompts: Sequence[Prompt], scored: int = 0) -> tuple[Any, Tensor]:
            session, rows = super().open(prompts, scored)
            session.prompts = [ScoredPrompt((0, *each.tokens)) for each in session.prompts]  # type: ignore[misc]
            return session, rows

    with pytest.raises(SourceError, match="read the prompt as different tokens"):
        MixtureSource([A, Longer(letters("abc"))]).open(["ab"])


class Filed(ToySource):
    """A toy whose weights lie in one file."""

    def identity(self) -> Mapping[str, Any]:
        return {**super().identity(), "files": {"weights": "0" * 64}}


def test_a_mixture_s_digest_tells_its_weights_and_share_and_is_none_without_a_member_s_files() -> None:
    members = [Filed(letters("abc"), seed=seed) for seed in (1, 2)]
    given: list[dict[str, Any]] = [{}, {"weights": [3, 1]}, {"share": 0.0}, {"share": 0.1}]
    digests = [digest_of(MixtureSource(members, **each).identity()) for each in given]
    assert len({*digests, ""}) == len(given) + 1
    assert digests[0] == digest_of(MixtureSource(members, [2, 2]).identity())
    assert digest_of(MixtureSource([members[0], A]).identity()) == ""


def test_the_shortest_context_and_the_least_trusted_engine_count() -> None:
    found = MixtureSource([replace(A, context_length=9), replace(B, context_length=7), C])
    assert (found.context_length, found.engine) == (7, "in-process")


@pytest.mark.parametrize("habit", HABITS)
def test_drafts_of_a_mixture_change_nothing(habit: dict[str, float]) -> None:
    """Drafts are read, rejected and rewound row by row: greedy answers are those of lockstep."""
    purifier = pair(ToySource(letters("abc"), seed=9), MixtureSource([A, B], [3, 1], **habit), "geometric")
    prompts, sampling = ["ab", "c", "abc", "aac"], Sampling(max_tokens=40, temperature=0, ignore_eos=True)
    drafted, plain = (
        [
            [step.tokens[row].id for step in walk(purifier, prompts, sampling) if step.tokens[row]]
            for row in range(4)
        ]
        for walk in (speculative, lockstep)
    )
    assert drafted == plain
    assert len(plain[0]) == 40


@pytest.mark.parametrize("habit", HABITS)
def test_an_answer_is_certified_against_the_mixture(habit: dict[str, float]) -> None:
    slm = MixtureSource([A, B], [0.75, 0.25], **habit)
    purifier = pair(ToySource(letters("abc"), seed=9), slm, "balanced")
    (answer,) = purifier.generate("ab", Sampling(max_tokens=12, seed=1))
    certificate = read(answer.certificate.text.encode())
    verify(certificate, purifier.plugins)
    assert recompute(certificate, slm) < 1e-4
    told = certificate.body["models"]["slm"]
    assert [each["weight"] for each in told["members"].values()] == [0.75, 0.25]
    words = " ".join(summary(certificate, None))
    assert "It is the mixture of 0.75 of " in words
    assert "what is bounded is bounded against it" in words
    assert ("fixed weights" in words) == (not habit)
