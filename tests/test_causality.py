"""Models whose rows depend on what follows them are refused: they would see a draft before it is judged."""

from __future__ import annotations

from inspect import signature
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from purify_hooks.local.causality import LENGTHS
from purify_hooks.local.source import LoadedSource, LocalSource
from purify_plugins import ModelError, Purifier
from purify_plugins.testbed import SLM
from tests.toys import both

TINY = {
    "vocab_size": 2048,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "max_position_embeddings": 64,
}


def tiny(kind: str, **settings: Any) -> Any:
    import transformers

    torch.manual_seed(0)
    config = getattr(transformers, f"{kind}Config")(**{**TINY, **settings})
    model = AutoModelForCausalLM.from_config(config).eval()
    model.generation_config.eos_token_id = sorted(both()[1].vocabulary.eos)
    return model


def loaded(model: Any) -> LoadedSource:
    return LoadedSource(model, AutoTokenizer.from_pretrained(SLM), "tiny")


def opened(model: Any) -> None:
    session, _ = loaded(model).open(["The king"])
    session.close()


@pytest.mark.parametrize(
    ("kind", "settings"),
    [
        ("Llama", {}),
        ("Gemma2", {"sliding_window": 4}),
        ("Mistral", {"sliding_window": 4}),
        ("Qwen2Moe", {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 16}),
    ],
)
def test_a_causal_model_is_read(kind: str, settings: dict[str, Any]) -> None:
    """Experts too: what else is in the batch changes how their work is cut, and that is rounding."""
    opened(tiny(kind, **settings))


BOTH_WAYS = [("Gemma3Text", {"use_bidirectional_attention": True}), ("Llama", {"is_causal": False})]


@pytest.mark.parametrize(("kind", "settings"), BOTH_WAYS)
def test_a_model_that_reads_both_ways_is_refused(
    kind: str, settings: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The row after the first token moved by up to 4.2 nats with the second, and the model loaded."""
    from purify_hooks.local import causality

    with pytest.raises(ModelError, match="reads both ways"):
        opened(tiny(kind, **settings))
    monkeypatch.setattr(causality, "_both_ways", lambda model: "")  # and if no part of it says so
    with pytest.raises(ModelError, match="a row moved by"):
        opened(tiny(kind, **settings))


def looking_ahead(model: Any, offset: int, channel: float = 4.0) -> Any:
    """The model, each row of which is moved by the token `offset` places after it, if there is one.

    None of its parts says so: only a trial can tell.
    """
    forward = model.forward

    def ahead(input_ids: torch.Tensor, *args: Any, **more: Any) -> Any:
        read = forward(input_ids, *args, **more)
        length = read.logits.shape[1]
        seen = input_ids[:, -length:].roll(-offset, dims=1)
        for at in range(max(length - offset, 0)):
            read.logits[:, at].scatter_add_(-1, seen[:, at, None], torch.full((len(seen), 1), channel))
        return read

    model.forward = ahead
    ahead.__signature__ = signature(forward)  # type: ignore[attr-defined]  # what it takes
    return model


@pytest.mark.parametrize("offset", [1, 2, 4])
def test_a_model_that_looks_ahead_is_refused_however_far(offset: int) -> None:
    with pytest.raises(ModelError, match="when the tokens after it changed"):
        opened(looking_ahead(tiny("Llama"), offset))
    assert offset < max(LENGTHS)


def test_a_model_whose_rows_hang_on_the_batch_is_read_row_by_row() -> None:
    """One row's draft would decide what another row says."""
    model = tiny("Llama")
    forward = model.forward

    def mixed(*args: Any, **more: Any) -> Any:
        read = forward(*args, **more)
        read.logits += 0.5 * read.logits.roll(1, dims=0)
        return read

    model.forward = mixed
    mixed.__signature__ = signature(forward)  # type: ignore[attr-defined]  # what it takes
    source = loaded(model)
    assert not source.session.batches
    rows = [source.open(prompts)[1] for prompts in (["The king", "A"], ["The king", "The queen"])]
    assert torch.equal(rows[0][0], rows[1][0])


@pytest.mark.parametrize("side", ["llm", "slm"])
def test_neither_the_llm_nor_the_slm_may_look_ahead(side: str) -> None:
    bad = loaded(looking_ahead(tiny("Llama"), 1))
    models = {"llm": both()[1], "slm": both()[1], side: bad}
    with pytest.raises(ModelError, match="only causal models can be fused"):
        Purifier.load(models["llm"], models["slm"]).generate("The king")


def test_a_model_from_a_folder_is_tried_as_it_is_loaded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever the configuration says of itself: what was loaded is tried."""
    from purify_hooks.local import causality

    monkeypatch.setattr(causality, "_both_ways", lambda model: "SelfAttention")
    with pytest.raises(ModelError, match="its SelfAttention is not causal"):
        LocalSource.load(SLM)


def test_a_model_is_tried_once() -> None:
    source = loaded(tiny("Llama"))
    calls: list[int] = []
    source.model.register_forward_hook(lambda *_: calls.append(1))
    for turn in range(2):
        calls.clear()
        session, _ = source.open(["The king"])
        session.close()
        assert (len(calls) > 2 * len(LENGTHS)) if turn == 0 else len(calls) == 1


def test_a_draft_is_read_under_a_mask_of_our_own() -> None:
    """What a configuration comes to say of attention has no part in it."""
    source, ids = loaded(tiny("Llama")), torch.tensor([[5, 6, 7, 8]])
    session, _ = source.open([(1, 2, 3)])
    before = session.extend(ids)
    session.rewind(torch.tensor([0]))
    for part in (source.model.config, *source.model.modules()):
        part.is_causal = False
    torch.testing.assert_close(session.extend(ids), before)
    bare = source.model(torch.tensor([[1, 2, 3, 5, 6, 7, 8]])).logits[:, 3:]
    assert not torch.allclose(bare[:, :3], before[:, :3], atol=1e-3)  # the model itself now reads both ways
