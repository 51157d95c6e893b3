"""The processor's own time a step of vLLM's, beside both models and the policy: `pytest -m slow -s -n 0`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from statistics import median
from time import process_time
from typing import Any

import pytest
import torch
from torch import Tensor

from purify_adapters.vllm_engine import slots
from purify_adapters.vllm_engine.slots import SlotLogitsProcessor
from purify_plugins import Purifier, Sampling
from purify_plugins.decode.fusion import FusedLogits
from purify_plugins.plugin.manager import load_plugins
from purify_plugins.protocols import Slots
from purify_plugins.testing import ToySource, letters
from tests.adapters.engine import SamplingParams, config
from tests.adapters.engine_v2 import _context, buffers

ABC = letters("abcdef")
SLOTS, STEPS = 256, 300


class Clock:
    """What was spent inside the functions it times, in seconds."""

    spent = 0.0

    def timed(self, function: Callable[..., Any]) -> Callable[..., Any]:
        def called(*args: Any, **options: Any) -> Any:
            start = process_time()
            found = function(*args, **options)
            self.spent += process_time() - start
            return found

        return called


class Table(Slots):
    """An SLM that looks its rows up by the last token; it counts its passes."""

    passes = 0

    def __init__(self) -> None:
        self.rows = torch.randn(len(ABC), len(ABC))

    def read(
        self,
        slots: Sequence[int],
        starts: Sequence[int],
        tokens: Sequence[Sequence[int]],
        wanted: Sequence[int],
    ) -> Tensor:
        self.passes += 1
        last = [token for each, count in zip(tokens, wanted, strict=True) for token in each[-count:]]
        return self.rows[torch.tensor(last)]

    def release(self, slot: int) -> None: ...


class Tabled(ToySource):
    def slots(self) -> Table:
        return Table()


def own_times(policy: str, seed: int | None, monkeypatch: pytest.MonkeyPatch) -> tuple[list[float], int]:
    """Each step's seconds without the SLM's pass, the policy's arithmetic and the draw; the SLM's passes."""
    made = load_plugins([]).make("purify_policies", policy, {})
    purifier, clock = Purifier(ToySource(ABC, 1), Tabled(ABC, 2), made), Clock()
    monkeypatch.setattr(slots, "purifier_of", lambda model: (purifier, Sampling()))
    for owner, name in ((slots, "fuse"), (slots, "advance_state"), (FusedLogits, "draw"), (Table, "read")):
        monkeypatch.setattr(owner, name, clock.timed(getattr(owner, name)))
    state = buffers(SLOTS, STEPS + 2, len(ABC))
    processor, found = SlotLogitsProcessor(config("x"), state), []
    state.prompt_len.gpu[:] = state.total_len.gpu[:] = state.all_token_ids.gpu[:, 0] = 1
    for slot in range(SLOTS):
        processor.add_request(slot, SamplingParams(max_tokens=STEPS, ignore_eos=True, seed=seed))
    for at in range(STEPS):
        told = [(slot, 0, int(token), at) for slot, token in enumerate(state.all_token_ids.gpu[:, at])]
        logits, before = torch.randn(SLOTS, len(ABC)), clock.spent
        context, start = _context(told), process_time()
        rows = processor.apply(logits, context)
        found.append(process_time() - start - (clock.spent - before))
        state.all_token_ids.gpu[:, at + 1] = rows.argmax(dim=-1)
        state.total_len.gpu += 1
    texts: Any = processor.texts
    return found, texts.passes


@pytest.mark.slow
@pytest.mark.alone
@pytest.mark.parametrize(("policy", "seed"), [("geometric", None), ("balanced", None), ("balanced", 1)])
def test_the_processor_s_own_time(
    policy: str, seed: int | None, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A seed's numbers, a digest for every four tokens, are all that a seeded step takes more."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        times, passes = own_times(policy, seed, monkeypatch)
    finally:
        torch.set_num_threads(threads)
    with capsys.disabled():
        print(
            f"\n{policy}, {'seeded' if seed else 'no seed'}, {SLOTS} slots: least {min(times) * 1e3:.2f} ms, "
            f"median {median(times) * 1e3:.2f} ms a step beside the models and the policy"
        )
    assert passes == STEPS, "one pass of the SLM a step"
    assert min(times) < 2e-3
