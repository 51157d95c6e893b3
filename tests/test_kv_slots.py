"""Many texts in one KV cache: rows are those of each text read alone, whatever is read beside it."""

from __future__ import annotations

from random import Random
from typing import Any

import pytest
import torch
from torch import Tensor

from purify_hooks.local import slots as kv
from purify_hooks.local.slots import KVSlots
from purify_plugins.sources.wrapper import SourceWrapper
from purify_plugins.testing import ToySource, letters
from tests.toys import both

NEAR = 2e-4


def alone(source: Any, text: list[int], wanted: int) -> Tensor:
    """The logits after the last tokens of a text, in a session of its own."""
    if wanted == 0:
        return torch.empty(0, len(source.vocabulary))
    first = len(text) - wanted + 1
    session, logits = source.open([tuple(text[:first])])
    with session:
        rest = session.extend(torch.tensor([text[first:]]))[0] if wanted > 1 else logits[:0]
    return torch.cat([logits, rest])


def cache() -> KVSlots:
    found = both()[1].slots()
    assert isinstance(found, KVSlots)
    return found


@pytest.mark.parametrize("block", [1024, 5])
def test_rows_are_those_of_each_text_alone(block: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Prompts in pieces beside single tokens and drafts; drafts taken back; slots freed and used anew."""
    monkeypatch.setattr(kv, "BLOCK", block)
    random, source, texts = Random(1), both()[1], cache()
    kept: dict[int, list[int]] = {}
    for _ in range(25):
        chosen = random.sample(range(9), random.randint(1, 6))
        starts, tokens, wanted = [], [], []
        for slot in chosen:
            if random.random() < 0.2:
                texts.release(slot)
                kept.pop(slot, None)
            old = kept.get(slot, [])
            starts.append(random.randint(max(len(old) - 3, 0), len(old)) if old else 0)
            new = [random.randrange(3, 400) for _ in range(random.choice([1, 1, 2, 4, 23]))]
            tokens.append(new)
            wanted.append(random.randint(0, min(len(new), 3)))
            kept[slot] = old[: starts[-1]] + new
        found = texts.read(chosen, starts, tokens, wanted)
        expected = torch.cat(
            [alone(source, kept[slot], each) for slot, each in zip(chosen, wanted, strict=True)]
        )
        torch.testing.assert_close(found.log_softmax(-1), expected.log_softmax(-1), atol=NEAR, rtol=1e-4)


def test_those_that_go_on_are_one_pass_with_short_prompts_and_two_with_long_ones() -> None:
    texts = cache()
    texts.read([0, 1, 2], [0, 0, 0], [[5, 6], [7], [8]], [1, 1, 1])
    assert texts.passes == 1
    texts.read([0, 1, 2], [2, 1, 1], [[5], [7, 9], [8]], [1, 2, 1])
    assert texts.passes == 2
    texts.read([0, 1, 2, 3], [3, 3, 2, 0], [[5], [7], [8], [4] * 40], [1, 1, 1, 1])
    assert texts.passes == 4, "the long prompt is read apart"


def test_the_places_of_texts_that_are_gone_are_used_again() -> None:
    texts = cache()
    for slot in range(40):
        texts.read([slot], [0], [[slot + 3, 4]], [1])
        texts.release(slot)
        texts.release(slot)
    assert texts._cache.layers[0].buffers[0].shape[0] == 1


def test_a_source_without_such_a_cache_says_so() -> None:
    """What wraps a source changes its rows, so the inner source's cache is not the wrapper's."""
    assert ToySource(letters("ab"), 1).slots() is None

    class Wrapped(SourceWrapper):
        def __init__(self, source: Any) -> None:
            self.source = source

    assert Wrapped(both()[1]).slots() is None
