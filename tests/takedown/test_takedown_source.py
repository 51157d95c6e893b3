"""An LLM with named works taken out: one logit source, whose rows are the definition's."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import pytest
import torch
from torch import Tensor

from purify_hooks.takedown.anchor import LIKELY, REMOVED, Recital, TakedownRule
from purify_hooks.takedown.trail import Trail
from purify_plugins import Sampling
from purify_plugins.decode.loop import lockstep
from purify_plugins.decode.speculative import speculative
from purify_plugins.protocols import Capabilities, Session
from purify_plugins.testing import SourceConformance, ToySource, letters
from purify_plugins.types import Prompt
from tests.takedown.lists import ToyTakedown, taken
from tests.toys import pair

WORK = [0, 1, 2, 3, 4, 0, 2, 4, 1, 3, 0, 3, 1, 4, 2] * 2
TOLD = "".join("abcdef"[each] for each in WORK[:20])
RULES = [TakedownRule(sure=2), TakedownRule("rank", most=2, sure=2)]


class TestConformance(SourceConformance):
    prompts = ("a", TOLD)

    def source(self) -> ToyTakedown:
        return taken([WORK])


class TestConformanceOfTheRankForm(SourceConformance):
    prompts = (TOLD, "abc")

    def source(self) -> ToyTakedown:
        return taken([WORK], rule=RULES[1])


def definition(source: ToyTakedown, tokens: Sequence[int]) -> Tensor:
    """The logits (V,) after tokens, by definition, with nothing kept from token to token."""
    anchor, recital = source.anchor, source.anchor.start
    for at, token in enumerate(tokens):
        recital = anchor.after(recital, tokens[:at], token)
    row = source.model.logits(tokens).clone()  # type: ignore[attr-defined]  # a toy's
    change = anchor.change(recital, tokens)
    if change is not None:
        for token, nats in zip(change.tokens.tolist(), change.nats.tolist(), strict=True):
            row[token] -= nats
    return row


@pytest.mark.parametrize("rule", RULES, ids=["linear", "rank"])
def test_each_row_is_the_definition(rule: TakedownRule) -> None:
    source = taken([WORK], rule=rule)
    text = [*WORK[:12], 5, *WORK[12:26]]
    session, first = source.open([tuple(text[:3])])
    with session:
        rows = torch.cat([first, session.extend(torch.tensor([text[3:]]))[0]])
    changed = 0
    for at, row in enumerate(rows, start=3):
        torch.testing.assert_close(row, definition(source, text[:at]).float())
        changed += not torch.equal(row, source.model.logits(text[:at]))  # type: ignore[attr-defined]
    assert 5 < changed < len(rows)


def test_a_text_that_is_not_of_the_works_is_the_llm_s_bit_for_bit() -> None:
    source = taken([WORK])
    text = [5, 5, 4, 4, 3, 3, 2, 2, 1, 1, 0, 0, 5, 4]
    session, first = source.open([tuple(text[:2])])
    with session:
        rows = torch.cat([first, session.extend(torch.tensor([text[2:]]))[0]])
    for at, row in enumerate(rows, start=2):
        assert torch.equal(row, source.model.logits(text[:at]))  # type: ignore[attr-defined]


def test_only_what_the_works_make_likelier_is_taken_and_the_end_never() -> None:
    anchor = taken([WORK]).anchor
    trail = Trail(anchor, WORK[:20])
    assert trail.recital(-1).chance > LIKELY
    change = trail.change(-1)
    assert change is not None
    assert WORK[20] in change.tokens
    assert (change.nats > 0).all()
    assert Trail(replace(anchor, kept=frozenset(range(7))), WORK[:20]).change(-1) is None


def test_the_rank_form_removes_as_many_as_it_says() -> None:
    for length in (14, 20):
        linear = Trail(taken([WORK]).anchor, WORK[:length]).change(-1)
        assert linear is not None
        for most in (1, 2, 20):
            rank = TakedownRule("rank", most=most, sure=2)
            change = Trail(taken([WORK], rule=rank).anchor, WORK[:length]).change(-1)
            assert change is not None
            assert change.nats.tolist() == [REMOVED] * min(most, len(linear.tokens))


def same(one: Recital, other: Recital) -> bool:
    parts = zip(one.alignment or (), other.alignment or (), strict=True)
    return one.chance == other.chance and all(np.array_equal(*each) for each in parts)


def test_a_tree_of_drafts_is_its_paths() -> None:
    trail = Trail(taken([WORK]).anchor, WORK[:14])
    trail.read(WORK[14])
    trail.read(5, before=-1)
    trail.read(WORK[15], before=0)
    straight = Trail(trail.anchor, WORK[:16])
    assert same(trail.recital(2), straight.recital(-1))
    trail.select([0, 2])
    assert same(trail.recital(1), straight.recital(-1))
    trail.read(WORK[16])
    assert same(trail.recital(2), Trail(trail.anchor, WORK[:17]).recital(-1))


def test_drafts_change_nothing() -> None:
    llm = taken([WORK], seed=9)
    purifier = pair(llm, ToySource(letters("abcdef"), seed=2), "balanced")
    prompts, sampling = ["abcdeaceb", "ceb", "abc"], Sampling(max_tokens=30, temperature=0, ignore_eos=True)
    drafted, plain = (
        [
            [step.tokens[row].id for step in walk(purifier, prompts, sampling) if step.tokens[row]]
            for row in range(3)
        ]
        for walk in (speculative, lockstep)
    )
    assert drafted == plain


@dataclass(frozen=True)
class Shown(ToySource):
    """A toy behind a server that shows the likeliest two tokens of a row."""

    @property
    def capabilities(self) -> Capabilities:
        return Capabilities(True, True, 2, None, False, False)

    def open(self, prompts: Sequence[Prompt], scored: int = 0) -> tuple[Session, Tensor]:
        session, rows = super().open(prompts, scored)
        return session, top(rows)


def top(rows: Tensor, shown: int = 2) -> Tensor:
    """Rows (…, V) as a server shows them: (…, V + 1)."""
    rows = rows.log_softmax(-1)
    best = rows.topk(shown, -1).indices
    kept = torch.full_like(rows, -math.inf).scatter(-1, best, rows.gather(-1, best))
    hidden = torch.log1p(-kept.exp().sum(-1, keepdim=True))
    return torch.cat([kept, hidden], -1)


def test_of_a_server_s_row_the_hidden_mass_stays_and_the_shown_is_taken() -> None:
    whole = taken([WORK])
    model = Shown(whole.model.vocabulary, seed=1)
    source = ToyTakedown(model, "toy", given=whole.given)
    session, row = source.open([tuple(WORK[:20])])
    with session:
        change = Trail(source.anchor, WORK[:20]).change(-1)
        assert change is not None
        plain = top(model.logits(WORK[:20])[None])
        expected = plain.clone()
        for token, nats in zip(change.tokens.tolist(), change.nats.tolist(), strict=True):
            expected[0, token] -= nats
        assert row.shape[-1] == len(model.vocabulary) + 1
        torch.testing.assert_close(row, expected)
        assert row[0, -1] == plain[0, -1]


def test_behind_a_server_a_prompt_is_scored_no_lower_than_it_is() -> None:
    whole = taken([WORK])
    behind = ToyTakedown(Shown(whole.model.vocabulary, seed=1), "toy", given=whole.given)
    scores = []
    for source in (whole, behind):
        session, _ = source.open([tuple(WORK[:20])], 19)
        with session:
            scores.append(session.prompts[0].logprobs)
    assert all(most >= exact - 1e-6 for exact, most in zip(*scores, strict=True))
    assert scores[0] != scores[1]
