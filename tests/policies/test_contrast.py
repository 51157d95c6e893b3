"""Contrast: two models as one source."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import pytest
import torch
from torch import Tensor

from purify_hooks.sources.contrast import Contrast, _difference
from purify_plugins.errors import ConfigError, SourceError, VocabularyError
from purify_plugins.protocols import Capabilities
from purify_plugins.testing import SourceConformance, ToySession, ToySource, letters
from purify_plugins.types import Prompt

EXPERT, ANTI = ToySource(letters("abc"), seed=1), ToySource(letters("abc"), seed=2)
CONTRAST = Contrast(EXPERT, ANTI)


class TestTheContract(SourceConformance):
    def source(self) -> Contrast:
        return CONTRAST

    def test_scored_prompts_are_what_reading_them_says(self) -> None:
        """A difference of two models scores no prompt; policies then see none scored."""
        session, _ = CONTRAST.open(self.prompts, 2)
        with session:
            assert [prompt.logprobs for prompt in session.prompts] == [(), ()]
            assert [prompt.tokens for prompt in session.prompts] == [(0,), (0, 1, 2)]


def test_a_logit_is_the_expert_s_less_the_anti_expert_s() -> None:
    session, first = CONTRAST.open(["ab"])
    with session:
        torch.testing.assert_close(first[0], EXPERT.logits([0, 1]) - ANTI.logits([0, 1]))
        after = session.extend(torch.tensor([[2]]))
        torch.testing.assert_close(after[0, 0], EXPERT.logits([0, 1, 2]) - ANTI.logits([0, 1, 2]))


def test_what_either_rules_out_is_ruled_out() -> None:
    ruled_out = _difference(
        torch.tensor([-torch.inf, 1.0, -torch.inf]), torch.tensor([0.0, -torch.inf, -torch.inf])
    )
    assert ruled_out.isneginf().all()


def test_half_precision_is_widened_before_the_difference() -> None:
    expert, anti = torch.tensor([257.0]).bfloat16(), torch.tensor([1.0078125]).bfloat16()
    assert float(_difference(expert, anti)) == float(expert) - float(anti)


def test_two_languages_are_refused() -> None:
    with pytest.raises(VocabularyError, match="take two models with one tokenizer"):
        Contrast(EXPERT, ToySource(letters("abcd")))


@dataclass(frozen=True)
class Remote(ToySource):
    @property
    def capabilities(self) -> Capabilities:
        return Capabilities(True, True, 5, None, False, False)


@pytest.mark.parametrize("side", ["expert", "anti"])
def test_a_model_behind_a_server_is_refused(side: str) -> None:
    """Its rows are partial, with a column for the rest: their difference would be no logit."""
    with pytest.raises(ConfigError, match=f"the {side}.* is behind a server"):
        replace(CONTRAST, **{side: Remote(letters("abc"))})


def test_the_shorter_context_counts() -> None:
    assert CONTRAST.context_length is None
    assert Contrast(replace(EXPERT, context_length=9), ANTI).context_length == 9
    assert Contrast(replace(EXPERT, context_length=9), replace(ANTI, context_length=7)).context_length == 7


def test_its_identity_names_both() -> None:
    identity = CONTRAST.identity()
    assert identity["expert"] == {"kind": "toy", "name": "toy 1"}
    assert identity["anti"] == {"kind": "toy", "name": "toy 2"}


@dataclass(frozen=True)
class Watched(ToySource):
    """Remembers the sessions it opened; breaks instead when told to."""

    broken: bool = False
    opened: tuple[list[ToySession], ...] = ([],)

    def open(self, prompts: Sequence[Prompt], scored: int = 0) -> tuple[ToySession, Tensor]:
        if self.broken:
            raise SourceError("the anti-expert is away")
        session, first = super().open(prompts, scored)
        self.opened[0].append(session)
        return session, first


def test_an_anti_expert_that_fails_closes_the_expert() -> None:
    expert = Watched(letters("abc"), opened=([],))
    with pytest.raises(SourceError, match="away"):
        Contrast(expert, Watched(letters("abc"), broken=True)).open(["a"])
    assert [session.open for session in expert.opened[0]] == [False]


def test_closing_closes_both() -> None:
    models = [Watched(letters("abc"), seed, opened=([],)) for seed in (1, 2)]
    session, _ = Contrast(*models).open(["a"])
    session.close()
    assert [model.opened[0][0].open for model in models] == [False, False]
