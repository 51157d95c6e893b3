"""Models are called by what their arguments mean, and read in a way that was tried."""

from __future__ import annotations

import copy
import logging
from typing import Any

import pytest
import torch
from torch import Tensor

from purify_hooks.local.forward import Forward, windowed
from purify_hooks.local.row_caches import RowByRowSession, TokenByTokenSession
from purify_hooks.local.session import LocalSession, MaskedSession, RecomputingSession
from purify_hooks.local.source import LocalSource
from purify_hooks.local.trial import reads_correctly
from purify_plugins import ModelError
from purify_plugins.testing import SourceConformance
from tests.toys import both, few, pair
from tests.zoo import ZOO, of_the_zoo

TOGETHER = {"llama", "qwen3", "gpt2", "opt", "bloom", "mistral", "gemma2", "gpt-oss"}
HALF = {"llama": MaskedSession, "mpt": RowByRowSession, "jamba": TokenByTokenSession}
PROMPTS = ("A", "Once upon a time there was a king", "The fox")


# What a model is called with


class Wrapper:
    """A model around another, whose `forward` is a subclass's business."""

    def __init__(self, kind: str = "gpt2") -> None:
        self.inner = of_the_zoo(kind).model

    def __getattr__(self, name: str) -> Any:
        return getattr(self.inner, name)

    def __call__(self, *given: Any, **named: Any) -> Any:
        return self.forward(*given, **named)

    def eval(self) -> Any:
        return self


def source(model: Any) -> LocalSource:
    return LocalSource(model, both()[0].tokenizer, "a wrapped model")


class Older(Wrapper):
    """What transformers called things before 5.24, and before 4.45."""

    def forward(
        self,
        input_ids: Tensor,
        past_key_values: Any = None,
        attention_mask: Any = None,
        position_ids: Any = None,
        use_cache: Any = None,
        num_logits_to_keep: int = 0,
    ) -> Any:
        return Forward(self.inner)(
            input_ids,
            past_key_values,
            mask=attention_mask,
            positions=position_ids,
            last=num_logits_to_keep,
            keeping=bool(use_cache),
        )


class Forgetful(Wrapper):
    """Takes a cache, and does not look at it."""

    def forward(
        self,
        input_ids: Tensor,
        cache: Any = None,
        attention_mask: Any = None,
        position_ids: Any = None,
        use_cache: Any = None,
    ) -> Any:
        positions = torch.arange(input_ids.shape[1])[None]
        return Forward(self.inner)(input_ids, positions=positions, keeping=False)


class Unmasked(Wrapper):
    """Takes neither a mask nor positions."""

    def forward(self, input_ids: Tensor, cache: Any = None, use_cache: Any = None) -> Any:
        return self.inner(input_ids, use_cache=use_cache, **{Forward(self.inner).named["cache"]: cache})


class Cacheless(Wrapper):
    def forward(self, input_ids: Tensor, attention_mask: Any = None) -> Any:
        raise AssertionError("nobody may call it")


class Demanding(Wrapper):
    def forward(self, input_ids: Tensor, image: Tensor, cache: Any = None) -> Any:
        raise AssertionError("nobody may call it")


def test_a_cache_by_an_older_name_is_used() -> None:
    """transformers 5.24 renamed `past_key_values`; who knew one name read all the text for every token."""
    older = source(Older())
    assert older.local_model.forward.named["cache"] == "past_key_values"
    assert older.local_model.forward.named["last"] == "num_logits_to_keep"
    assert older.session is MaskedSession
    ids = (5, 6, 7)
    both_ways = [each.open([ids])[1] for each in (older, of_the_zoo("gpt2"))]
    torch.testing.assert_close(both_ways[0], both_ways[1])


class Passing(Older):
    """A subclass that passes on whatever it is given."""

    def forward(self, *given: Any, **named: Any) -> Any:
        return super().forward(*given, **named)


def test_a_subclass_that_passes_everything_on_takes_what_its_parent_takes() -> None:
    assert Forward(Passing()).named == Forward(Older()).named


@pytest.mark.parametrize(
    ("model", "words"),
    [
        (Cacheless, r"Cacheless.forward takes no cache by any name known here \(cache, past_key_values, "),
        (Demanding, "Demanding.forward must be given 'image', which is not known here; use a model"),
    ],
)
def test_a_model_that_cannot_be_asked_is_refused(model: type[Wrapper], words: str) -> None:
    with pytest.raises(ModelError, match=words):
        source(model()).open(["A"])


def test_what_a_model_cannot_be_told_is_not_dropped_in_silence() -> None:
    """A padded row without a mask reads its padding."""
    tokens = torch.tensor([[5, 6]])
    with pytest.raises(ModelError, match=r"Unmasked.forward takes no attention_mask, which these rows"):
        Forward(Unmasked())(tokens, mask=torch.ones(1, 2))


# How it is read


def test_a_cache_that_is_ignored_is_noticed_and_said(caplog: pytest.LogCaptureFixture) -> None:
    forgetful = source(Forgetful())
    with caplog.at_level(logging.WARNING):
        assert forgetful.session is RecomputingSession
    assert "keeps no cache that can be continued: every token is a reading of its whole text" in caplog.text
    assert_reads_as(forgetful, of_the_zoo("gpt2"))


def test_a_model_that_takes_no_mask_reads_its_rows_one_by_one() -> None:
    unmasked = source(Unmasked())
    assert unmasked.session is RowByRowSession
    assert_reads_as(unmasked, of_the_zoo("gpt2"))


def assert_reads_as(one: LocalSource, other: LocalSource) -> None:
    """Both say the same of three rows of different lengths, after a draft that is taken back in part."""
    rows = []
    for each in (one, other):
        session, _ = each.open(PROMPTS)
        session.extend(torch.tensor([[5, 6, 7], [8, 9, 10], [11, 12, 13]]))
        session.rewind(torch.tensor([0, 2, 3]))
        rows.append(session.extend(torch.tensor([[14], [15], [16]])))
    torch.testing.assert_close(rows[0], rows[1], atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("kind", ZOO)
def test_every_architecture_is_read_with_a_cache(kind: str) -> None:
    """MPT counts columns, hidden ones too: it was read wrongly in a batch. States cannot be padded at all."""
    session = of_the_zoo(kind).session
    assert session.batches == (kind in TOGETHER)
    assert issubclass(session, LocalSession if session.batches else RowByRowSession)


@pytest.mark.parametrize("kind", ZOO)
def test_a_long_row_is_the_models_own(kind: str) -> None:
    """Blocks of a long prompt, single tokens and drafts, past every window and chunk of these models."""
    model = of_the_zoo(kind)
    prompts, answer = [tuple(range(100, 140)), (7, 8)], torch.arange(200, 230).expand(2, -1)
    session, first = model.open(prompts)
    read = [first[:, None], *(session.extend(part) for part in answer.split([1, 1, 20, 1, 7], dim=1))]
    with torch.inference_mode():
        for row, prompt in enumerate(prompts):
            ids = torch.tensor([[*prompt, *answer[row].tolist()]])
            whole = model.local_model.forward(ids, keeping=False).logits[0, len(prompt) - 1 :].log_softmax(-1)
            found = torch.cat(read, dim=1)[row].log_softmax(-1)
            torch.testing.assert_close(found, whole, atol=5e-3, rtol=5e-3)


class TestAHybrid(SourceConformance):
    prompts = PROMPTS

    def source(self) -> LocalSource:
        return of_the_zoo("jamba")


class TestConvolutionsAndAttention(SourceConformance):
    prompts = PROMPTS

    def source(self) -> LocalSource:
        return of_the_zoo("lfm2")


class TestColumnsForPositions(SourceConformance):
    prompts = PROMPTS

    def source(self) -> LocalSource:
        return of_the_zoo("mpt")


@pytest.mark.parametrize("kind", ["jamba", "lfm2", "mpt"])
def test_a_draft_taken_back_leaves_the_answer_of_lockstep(kind: str) -> None:
    """Whichever of the two models keeps a state."""
    model, other = of_the_zoo(kind), both()[1]
    for llm, slm in ((model, other), (other, model)):
        answers = [
            pair(llm, slm, {"name": "geometric"}, walk=walk).generate(list(PROMPTS), few(12, temperature=0))
            for walk in ("lockstep", "speculative")
        ]
        assert [each.tokens for each in answers[0]] == [each.tokens for each in answers[1]]


def test_a_state_that_takes_one_token_at_a_time_gets_one() -> None:
    """Mamba's slow path starts from nothing whenever it is given several tokens."""
    mamba = of_the_zoo("mamba")
    assert reads_correctly(mamba.local_model, TokenByTokenSession)
    assert not reads_correctly(mamba.local_model, RowByRowSession)


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({}, False),
        ({"sliding_window": None, "max_window_layers": 28, "layer_types": ["full_attention"]}, False),
        ({"sliding_window": 4096}, True),
        ({"attention_chunk_size": 8192}, True),
        ({"attention_window_size": 8}, True),
        ({"layer_types": ["full_attention", "sliding_attention"]}, True),
        ({"layer_types": ["full_attention", "what is to come"]}, True),
        ({"attention_layers": ["global", "local"]}, True),
    ],
)
def test_whatever_is_called_a_window_is_one(settings: dict[str, Any], expected: bool) -> None:
    class Config:
        def to_dict(self) -> dict[str, Any]:
            return settings

    assert windowed(Config()) is expected


def test_a_state_that_loses_little_is_noticed() -> None:
    """Jamba starts from nothing too, but its attention hides it: half a per cent of what a token changes."""
    jamba = of_the_zoo("jamba")
    assert reads_correctly(jamba.local_model, TokenByTokenSession)
    assert not reads_correctly(jamba.local_model, RowByRowSession)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_rounding_hides_no_wrong_reading(dtype: torch.dtype) -> None:
    """MPT in a batch is off by an eighth; what a state may lose is less than rounding, and is not risked."""
    models = {kind: copy.deepcopy(of_the_zoo(kind).model).to(dtype) for kind in HALF}
    kinds = {kind: LocalSource(model, both()[0].tokenizer) for kind, model in models.items()}
    assert {kind: source.session for kind, source in kinds.items()} == HALF
