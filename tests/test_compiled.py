"""`compile = true`: a static cache whose rows are the model's, drafts, rewinds and branches included."""

from __future__ import annotations

import pytest
import torch

from purify_hooks.local.compiled import CompiledSession, compiled_session
from purify_hooks.local.model import LocalModel
from purify_hooks.local.source import LocalSource
from purify_hooks.local.static_cache import WIDTH, CachePool
from purify_plugins.errors import ModelError
from purify_plugins.testbed import SLM

NEAR = {"atol": 1e-4, "rtol": 0.0}


@pytest.fixture(scope="module")
def plain() -> LocalSource:
    return LocalSource.load(SLM)


@pytest.fixture
def model(plain: LocalSource) -> LocalModel:
    """The model, its short passes run without a compiler: the cache is what is tested."""
    model = LocalModel(plain.model, plain.name, len(plain.vocabulary))
    vars(model)["compiled"] = model.forward
    return model


def prompts() -> list[tuple[int, ...]]:
    return [tuple(range(5, 25)), tuple(range(40, 47))]


def test_rows_are_the_models_through_drafts_rewinds_and_closed_ranks(
    plain: LocalSource, model: LocalModel
) -> None:
    ours = CompiledSession(model, prompts())
    theirs, after = plain.open(prompts(), scored=8)
    with ours, theirs:
        assert torch.allclose(ours.prefill(8), after, **NEAR)
        for drafted, kept in ((3, 2), (1, 1), (4, 0), (2, 2)):
            tokens = torch.randint(
                0, 2048, (len(ours.prompts), drafted), generator=torch.manual_seed(drafted)
            )
            assert torch.allclose(ours.extend(tokens), theirs.extend(tokens), **NEAR)
            lengths = torch.tensor([kept] * len(ours.prompts))
            ours.rewind(lengths)
            theirs.rewind(lengths)
        ours.keep([1])
        theirs.keep([1])
        assert torch.allclose(ours.extend(torch.tensor([[9]])), theirs.extend(torch.tensor([[9]])), **NEAR)


def test_a_text_longer_than_the_cache_widens_it(plain: LocalSource, model: LocalModel) -> None:
    long = tuple(7 + at % 900 for at in range(WIDTH - 3))
    with CompiledSession(model, [long]) as ours, plain.open([long])[0] as theirs:
        ours.prefill(0)
        for token in range(8):
            new = torch.tensor([[token + 100]])
            assert torch.allclose(ours.extend(new), theirs.extend(new), **NEAR)
        assert ours.cache.width == 2 * WIDTH


def test_branches_are_read_as_ever(plain: LocalSource, model: LocalModel) -> None:
    seen = torch.tensor([[[True, False, False], [False, True, False], [True, False, True]]])
    tokens = torch.tensor([[31, 32, 33]])
    with CompiledSession(model, prompts()[:1], branches=True) as ours, plain.open(prompts()[:1])[0] as theirs:
        ours.prefill(0)
        assert torch.allclose(ours.branch(tokens, seen), theirs.branch(tokens, seen), **NEAR)
        kept = torch.tensor([[0, 2]])
        ours.select(kept)
        theirs.select(kept)
        assert torch.allclose(ours.extend(torch.tensor([[8]])), theirs.extend(torch.tensor([[8]])), **NEAR)


def test_a_cache_is_used_again_without_the_text_before(model: LocalModel) -> None:
    with CompiledSession(model, prompts()) as first:
        first.prefill(0)
        cache = first.cache
    assert all(not layer._keys.any() for layer in cache.parts)
    with CompiledSession(model, prompts()) as second:
        assert second.cache is cache
    assert CachePool(1).take(3).rows == 0


def test_a_model_with_windows_is_refused(model: LocalModel) -> None:
    vars(model)["windowed"] = True
    with pytest.raises(ModelError, match="static cache, which compile = true needs; leave it out"):
        compiled_session(model)


@pytest.mark.slow  # torch compiles for half a minute
@pytest.mark.filterwarnings(
    "ignore:.torch.jit.script_method. is deprecated:DeprecationWarning"
)  # its compiler's own
def test_compiled_rows_are_the_models(plain: LocalSource) -> None:
    compiled = LocalSource.load(SLM, compile=True)
    assert compiled.reading.cache == "on, static, the model compiled"
    ours, first = compiled.open(prompts())
    theirs, second = plain.open(prompts())
    with ours, theirs:
        assert torch.allclose(first, second, **NEAR)
        for drafted in (1, 3, 1, 2):
            tokens = torch.full((2, drafted), 50 + drafted)
            assert torch.allclose(ours.extend(tokens), theirs.extend(tokens), **NEAR)
