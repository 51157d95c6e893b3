"""A stand-in for vLLM's Model Runner V2, no more than its source says of it (0.33), around a local model.

Before any request it warms up, with slots that were added and hold none. Slots come from a free list and are
not cleared; prompts are read in chunks; requests are taken out and
resumed in another slot, with what they had answered as part of what is read; each step's requests stand in
any order, with a row for each token of a draft; verification is standard rejection sampling against the
processor's rows, in several calls where the rows are many.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from random import Random
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor

from tests.adapters.engine import SamplingParams

Drafter = Callable[[Sequence[int]], Sequence[int]]
"""A draft to follow these token ids."""


@dataclass(eq=False)
class Running:
    """A request: its `slot` while it runs, and how many of its ids the LLM has `computed`."""

    prompt: tuple[int, ...]
    params: SamplingParams
    answer: list[int] = field(default_factory=list)
    slot: int | None = None
    computed: int = 0
    filled: int = 0
    """The ids that are read before the next token is drawn: the prompt, on resumption the answer too."""
    name: str = ""
    """vLLM's own id of it."""

    @property
    def ids(self) -> list[int]:
        return [*self.prompt, *self.answer]


def buffers(slots: int, length: int, vocabulary: int) -> SimpleNamespace:
    """`LogitsProcRequestState`: the buffers of all slots, with what earlier requests left in them."""
    numbers = {
        name: torch.zeros(slots, dtype=torch.int32) for name in ("prompt_len", "prefill_len", "total_len")
    }
    kept = {name: SimpleNamespace(gpu=each, np=each.numpy()) for name, each in numbers.items()}
    del kept["total_len"].np  # it is advanced on the device
    ids = SimpleNamespace(gpu=torch.full((slots, length), 7, dtype=torch.int32))
    facts = {"device": torch.device("cpu"), "max_num_reqs": slots, "vocab_size": vocabulary}
    return SimpleNamespace(all_token_ids=ids, **kept, **facts)


class RunnerV2:
    """The runner's loop. `random` orders the batch, cuts prompts and decides on drafts."""

    def __init__(
        self,
        llm: Any,
        make: Callable[[Any], Any],
        random: Random,
        drafter: Drafter = lambda ids: (),
        slots: int = 6,
        chunk: int = 1000,
        at_once: int = 1000,
        padding: int = 3,
        length: int = 256,
    ) -> None:
        self.llm, self.random, self.drafter, self.chunk = llm, random, drafter, chunk
        self.at_once, self.padding, self.length = at_once, padding, length
        self.state = buffers(slots, length, len(llm.vocabulary))
        self.processor = make(self.state)
        self.free = list(range(slots))
        self.names: dict[int, str] = {}
        self.running: list[Running] = []
        self.rows = 0
        self.mask: Callable[[Running, Sequence[int]], Tensor | None] = lambda request, ids: None
        self.warm_up()

    def warm_up(self) -> None:
        """What the profiling run shows: a row for each slot, at position 0, of requests that are none."""
        for slot in self.free:
            self.processor.add_request(slot, SamplingParams.for_sampler_warmup())
        logits = torch.zeros(len(self.free), len(self.llm.vocabulary) + self.padding)
        self.processor.apply(logits, _context([(slot, 0, 0, 0) for slot in self.free]))

    def add(self, request: Running) -> Running:
        """Give a request a slot, or one that was taken out another."""
        slot = self.free.pop()
        self.names[slot] = request.name
        ids = torch.tensor(request.ids, dtype=torch.int32)
        request.slot, request.computed, request.filled = slot, 0, len(ids)
        self.state.prompt_len.gpu[slot] = len(request.prompt)
        self.state.prefill_len.gpu[slot] = self.state.total_len.gpu[slot] = len(ids)
        self.state.all_token_ids.gpu[slot, : len(ids)] = ids
        assert self.processor.add_request(slot, request.params), "a declined request gets raw rows"
        self.processor.apply_staged_writes()
        self.running.append(request)
        return request

    def take_out(self, request: Running) -> None:
        """Free a request's slot: it has ended, or makes room."""
        assert request.slot is not None
        self.running.remove(request)
        self.free.append(request.slot)
        del self.names[request.slot]
        request.slot = None

    def step(self) -> None:
        """One pass over some of the requests, in any order."""
        batch = self.random.sample(self.running, len(self.running))
        planned = [(request, *self._scheduled(request)) for request in batch]
        while planned:
            part = [planned.pop()]
            while planned and sum(1 + len(drafts) for _, _, drafts in part) < self.at_once:
                part.append(planned.pop())
            self._sampled(part)

    def _scheduled(self, request: Running) -> tuple[int, list[int]]:
        """The position of the request's first row, and the draft after it."""
        if request.computed < request.filled:
            end = min(request.computed + self.random.randint(1, self.chunk), request.filled)
            request.computed = end
            return end - 1, []
        room = self.length - 1 - len(request.ids)
        return len(request.ids) - 1, list(self.drafter(request.ids))[: max(room, 0)]

    def _sampled(self, part: Sequence[tuple[Running, int, list[int]]]) -> None:
        logits, columns = [], []
        for request, position, drafts in part:
            ids = [*request.ids[: position + 1], *drafts]
            for at in range(len(drafts) + 1):
                row = self._row(ids[: position + 1 + at])
                blocked = self.mask(request, ids[len(request.prompt) : position + 1 + at])
                if blocked is not None:
                    row[0, : len(blocked)][blocked] = -torch.inf
                logits.append(row)
                columns.append((request.slot, at, ids[position + at], position + at))
        self.rows += len(logits)
        fused = self.processor.apply(torch.cat(logits), _context(columns))
        for request, position, drafts in part:
            rows, fused = fused[: len(drafts) + 1], fused[len(drafts) + 1 :]
            self._take(request, position, drafts, rows)

    def _row(self, ids: Sequence[int]) -> Tensor:
        session, logits = self.llm.open([tuple(ids)])
        session.close()
        return torch.nn.functional.pad(logits.float(), (0, self.padding), value=9.0)

    def _take(self, request: Running, position: int, drafts: Sequence[int], rows: Tensor) -> None:
        """What vLLM does with the rows: nothing for half a prompt; else it verifies the draft and draws."""
        if position + 1 < request.filled and request.computed < request.filled:
            return
        taken = verified(rows, drafts, request.params.temperature, self.random)
        slot, total = request.slot, len(request.ids)
        taken = taken[: request.params.max_tokens - len(request.answer)]
        self.state.all_token_ids.gpu[slot, total : total + len(taken)] = torch.tensor(
            taken, dtype=torch.int32
        )
        self.state.total_len.gpu[slot] += len(taken)
        ends = [at for at, each in enumerate(taken) if each in self.llm.vocabulary.eos]
        ends = [] if request.params.ignore_eos else ends
        request.answer += taken[: ends[0] + 1] if ends else taken
        if ends or len(request.answer) >= request.params.max_tokens:
            self.take_out(request)

    def run(self) -> None:
        while self.running:
            self.step()


def verified(rows: Tensor, drafts: Sequence[int], temperature: float, random: Random) -> list[int]:
    """Standard rejection sampling of a draft that was proposed for sure, and the token after what is kept."""
    taken: list[int] = []
    for row, draft in zip(rows, [*drafts, None], strict=True):
        weights = (row / (temperature or 1.0)).softmax(dim=-1)
        if not temperature:
            weights = torch.zeros_like(weights).scatter(0, row.argmax(keepdim=True), 1.0)
        if draft is not None and random.random() < float(weights[draft]):
            taken.append(draft)
            continue
        if draft is not None:
            weights[draft] = 0.0  # what remains of the row once the draft's own chance is taken off
        return [*taken, random.choices(range(len(weights)), weights.tolist())[0]]
    raise AssertionError("the last row has no draft")


def _context(columns: Sequence[tuple[Any, int, int, int]]) -> SimpleNamespace:
    """`LogitsContext` of a step's rows: slot, offset, the token read, its position."""
    slots, locals_, tokens, positions = (torch.tensor(each) for each in zip(*columns, strict=True))
    own = torch.tensor(list(dict.fromkeys(slots.tolist())))
    return SimpleNamespace(
        expanded_idx_mapping=slots,
        idx_mapping=own,
        idx_mapping_np=own.numpy(),
        expanded_local_pos=locals_,
        input_ids=tokens,
        pos=positions,
        seq_lens_upper_bound_np=None,
    )
