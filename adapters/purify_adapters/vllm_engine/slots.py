"""The logits processor of vLLM's Model Runner V2, under its own speculation too.

V2 keeps each request in a numbered slot and shows, each step, the rows of all of them: one row after the last
token, and one after each token of the engine's draft. They are fused in the order of their request's tokens,
with the policy's memory, and a token is drawn from each here, as long as the draft says the same; vLLM gets
rows with a single token. Its verification accepts a draft's token if it is the one drawn, and else puts that
in its place: the answer is the one drawn here, whatever was drafted and by whom.
"""

from __future__ import annotations

from array import array
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from purify_adapters.vllm_engine.contracts import refuse_shown
from purify_adapters.vllm_engine.engine_checks import require_purifiable
from purify_adapters.vllm_engine.engine_slot import EngineSlot, alike, luck
from purify_adapters.vllm_engine.ledger import Ledger, note
from purify_adapters.vllm_engine.policy_states import PolicyStates
from purify_adapters.vllm_engine.running import (
    LEFT,
    asked_of,
    finite_rows,
    forgotten,
    purifier_of,
    shapes,
    sound,
    unreadable,
    unscored,
)
from purify_adapters.vllm_engine.session_slots import without_slots
from purify_adapters.vllm_engine.step_rows import StepRows, rows_by_slot
from purify_plugins.decode.batch import settings
from purify_plugins.decode.draw_keys import KeyedPlaces, request
from purify_plugins.decode.fusion import FusedLogits, advance_state, fuse
from purify_plugins.errors import SourceError

if TYPE_CHECKING:
    from purify_plugins.policy import State
    from purify_plugins.types import History

IDLE = 256
"""After so many steps without a row a request's SLM cache is freed: vLLM does not say that one has ended."""


class SlotLogitsProcessor:
    """Replaces the rows of Model Runner V2 by rows with one token, drawn from the fused row.

    `PurifyLogitsProcessor` makes it, where V2 runs. Raises ConfigError, ModelError or VocabularyError where
    vLLM runs what could not be purified.
    """

    def __init__(self, vllm_config: Any, req_states: Any) -> None:
        require_purifiable(vllm_config)
        self.purifier, self.defaults = purifier_of(vllm_config.model_config)
        self.policy, self.slm, self.requests = self.purifier.policy, self.purifier.slm, req_states
        self.slots: dict[int, EngineSlot] = {}
        # vLLM may take out all its requests at once.
        self.left: deque[EngineSlot] = deque(maxlen=max(LEFT, req_states.max_num_reqs))
        self.texts = self.slm.slots() or without_slots(self.slm)
        self.states = PolicyStates(req_states.max_num_reqs)
        self.steps = 0
        self.ledger = Ledger(self.purifier)
        self.shape = shapes(self.purifier)
        self.end = min(self.purifier.vocabulary.eos, default=0)
        # One object for equal settings, so that a step's rows are grouped by identity.
        self._asked = lru_cache(maxsize=LEFT)(lambda asked: asked)

    def add_request(self, req_idx: int, sampling_params: Any) -> bool:
        """Take a slot for a request, whose tokens come with `apply`. True: none of its rows is left raw.

        Raises SourceError for one that would show the LLM's rows and that no frontend has refused.
        """
        refuse_shown(sampling_params)
        before = self.slots.pop(req_idx, None)
        if before is not None and before.total:
            before.kept = self.states.kept(req_idx)
            self.left.append(before)
        self.texts.release(req_idx)
        asked = self._asked(asked_of(sampling_params, self.defaults))
        record = self.ledger.begin(req_idx, asked, sampling_params)
        self.slots[req_idx] = EngineSlot(req_idx, asked, sampling_params.seed, record=record)
        return True

    def apply_staged_writes(self) -> None:
        """Nothing is staged."""

    @torch.inference_mode()
    def apply(self, logits: Tensor, ctx: Any) -> Tensor:
        """vLLM's logits (rows, V) -> the same with one token left in each row.

        A row that vLLM draws nothing from, of half a prompt or after no draft, keeps an end token. Raises
        SourceError for a row of an unknown request.
        """
        live, partly = self._started(rows_by_slot(ctx, len(self.purifier.vocabulary)))
        self._give_up(live, logits)
        slm = self._read(live, partly)
        chosen = torch.full((len(logits), 1), self.end, device=logits.device)
        going, offset = live, 0
        while going:
            for slots in alike(going):
                places = torch.tensor([slot.places[offset] for slot in slots], device=logits.device)
                chosen[places, 0] = self._drawn(slots, offset, logits.index_select(0, places), slm)
            going = [slot for slot in going if slot.drafts and slot.goes_on(offset)]
            offset += 1
        return logits.fill_(-torch.inf).scatter_(1, chosen, 0.0)

    def _started(self, step: Mapping[int, StepRows]) -> tuple[list[EngineSlot], list[tuple[EngineSlot, int]]]:
        """The slots that a token is drawn for, brought up to date; those of half a prompt, and its end.

        Others are no requests: vLLM warms up with rows of its own.
        """
        self._free_idle(step)
        index = torch.tensor(list(step), device=self.requests.total_len.gpu.device)
        totals = self.requests.total_len.gpu[index].tolist()
        live: list[EngineSlot] = []
        partly: list[tuple[EngineSlot, int]] = []
        for (at, rows), total in zip(step.items(), totals, strict=True):
            slot, end = self.slots[at], rows.position + 1
            if end == total and not slot.refused:
                slot.places, slot.drafts, slot.shown = rows.places, rows.drafts, total
                live.append(slot)
            elif slot.read < end < total and not slot.refused:
                partly.append((slot, end))
        self._catch_up(live)
        return [slot for slot in live if not slot.refused], partly

    def _free_idle(self, step: Mapping[int, StepRows]) -> None:
        """Count the step, and free what requests without rows hold. Raises SourceError for others."""
        self.steps += 1
        if not step.keys() <= self.slots.keys():
            raise SourceError("vLLM shows a row of a request that it has not added")
        for slot in self.slots.values():
            if slot.index in step:
                slot.seen = self.steps
            elif slot.seen + IDLE < self.steps and slot.read:
                self.texts.release(slot.index)
                slot.read = 0  # should it go on, the SLM reads it again

    def _catch_up(self, live: Sequence[EngineSlot]) -> None:
        """Take over the tokens that vLLM has added, and the policy's memory of them."""
        grown = [slot for slot in live if 0 < slot.total < slot.shown]
        index = torch.tensor([slot.index for slot in grown], device=self.requests.device, dtype=torch.long)
        taken = [slot.take(new) for slot, new in zip(grown, self._new(grown, index), strict=True)]
        if not all(taken):  # what was not drawn here leaves the memory where it was
            index = index[[at for at, count in enumerate(taken) if count]]
        self.states.commit(index, [count for count in taken if count])
        for slot in live:
            slot.drawn = []  # before any request asks whose past it has
        if self.ledger.records:
            for slot in live:
                if slot.record is not None:
                    slot.record.drawn = array("f")
        for slot in [each for each in live if not each.total]:
            self._begin(slot, tuple(self._ids(slot.index, 0, slot.shown)))

    def _new(self, grown: Sequence[EngineSlot], index: Tensor) -> Sequence[list[int]]:
        """What each slot's request has grown by, slots (n,) of `index`; read from the device at once."""
        if not grown:
            return []
        ids = self.requests.all_token_ids.gpu
        counts = [slot.shown - slot.total for slot in grown]
        if (most := max(counts)) > 1:  # an accepted draft
            at = torch.tensor([slot.total for slot in grown])
            places = (at[:, None] + torch.arange(most)).clamp(max=ids.shape[1] - 1).to(ids.device)
            found: list[list[int]] = ids[index[:, None], places].tolist()
            return [row[:count] for row, count in zip(found, counts, strict=True)]
        last = ids[index, self.requests.total_len.gpu[index].long() - 1]
        return [[token] for token in last.tolist()]

    def _ids(self, index: int, start: int, end: int) -> list[int]:
        """A part of a request's ids."""
        found: list[int] = self.requests.all_token_ids.gpu[index, start:end].tolist()
        return found

    def _give_up(self, live: Sequence[EngineSlot], logits: Tensor) -> None:
        """With on_llm_failure "slm", requests with a row that is not finite go on with the SLM alone."""
        if self.purifier.on_llm_failure == "slm":
            finite = finite_rows(logits)
            for slot in live:
                slot.alone |= not all(finite[place] for place in slot.places)

    def _begin(self, slot: EngineSlot, tokens: tuple[int, ...]) -> None:
        """Start a request, or resume one that vLLM had taken out: then with what is remembered of it."""
        prompt, slot.total = int(self.requests.prompt_len.np[slot.index]), len(tokens)
        slot.prompt, slot.answer = tokens[:prompt], list(tokens[prompt:])
        slot.asked = request([slot.prompt], settings(self.purifier, slot.sampling))
        slot.numbers = None if slot.seed is None else KeyedPlaces(slot.seed, slot.asked)
        state = self.policy.start(unscored(slot.sampling.greedy, self.requests.device))
        self.states.put(torch.tensor([slot.index], device=self.requests.device), 0, state)
        slot.refused = unreadable(tokens, self.purifier)
        if slot.record is not None:
            slot.record.prompt = slot.prompt
        if slot.answer and not slot.refused:
            self._resume(slot, bool(state))

    def _resume(self, slot: EngineSlot, remembers: bool) -> None:
        """Go on where a request was; where that is unknown and the policy `remembers`, with the SLM alone."""
        known = next((each for each in self._past() if each.was(slot)), None)
        if slot.record is not None:
            slot.record.resume(known.record if known else None)
        if known is None:
            slot.alone = remembers and forgotten()
            return
        current = self.slots.get(known.index) is known
        self.states.restore(slot.index, self.states.kept(known.index) if current else known.kept)
        slot.alone = known.alone
        count = len(slot.answer) - len(known.answer)
        self.states.commit(torch.tensor([slot.index], device=self.requests.device), [count])
        if slot.record is not None:
            slot.record.take(count)

    def _past(self) -> Iterator[EngineSlot]:
        """Slots that may hold a request that was taken out."""
        yield from self.left
        yield from self.slots.values()

    def _read(self, live: Sequence[EngineSlot], partly: Sequence[tuple[EngineSlot, int]]) -> Tensor:
        """The SLM's logits after the last token and each draft of the `live`; it reads other prompts too."""
        slots: list[int] = []
        starts: list[int] = []
        tokens: list[list[int]] = []
        wanted: list[int] = []
        base = 0
        for slot in live:
            start, unread = slot.unread() if slot.drafts or slot.read != slot.total - 1 else slot.last()
            slot.base, slot.read = base, start + len(unread)
            base += len(slot.drafts) + 1
            slots.append(slot.index)
            starts.append(start)
            tokens.append(unread)
            wanted.append(len(slot.drafts) + 1)
        for slot, end in partly:
            some = self._ids(slot.index, slot.read, end)
            slot.refused = unreadable(some, self.purifier)
            if not slot.refused:
                slots.append(slot.index)
                starts.append(slot.read)
                tokens.append(some)
                wanted.append(0)
                slot.read = end
        return self.texts.read(slots, starts, tokens, wanted) if slots else torch.empty(0)

    def _drawn(self, slots: Sequence[EngineSlot], offset: int, llm: Tensor, slm: Tensor) -> Tensor:
        """Draw a token for each slot at an offset, and keep it till vLLM says what it took."""
        index = torch.tensor([slot.index for slot in slots], device=llm.device)
        own = torch.tensor([slot.base + offset for slot in slots], device=slm.device)
        state = self.states.at(index, offset)
        llm, slm = llm[:, : len(self.purifier.vocabulary)], slm.index_select(0, own).to(llm.device)
        column = sound(self._fuse(slots, offset, llm, slm, state))
        tokens = column.draw(luck(slots, offset, llm.device))
        if self.ledger.records:
            note([slot.record for slot in slots], column, tokens, slots[0].sampling.greedy)
        self.states.put(index, offset + 1, advance_state(self.policy, state, tokens, column))
        for slot, token in zip(slots, tokens.tolist(), strict=True):
            slot.drawn.append(token)
        return tokens

    def _fuse(
        self, slots: Sequence[EngineSlot], offset: int, llm: Tensor, slm: Tensor, state: State
    ) -> FusedLogits:
        """The fused rows at an offset, of slots with the same settings, from both models' (rows, V)."""
        shape, alone = self.shape(slots[0].sampling), slots[0].alone
        slm = slm.masked_fill(llm == -torch.inf, -torch.inf)  # a grammar of vLLM's
        history: History = ()
        if shape.reads_history:
            history = [(slot.prompt, [*slot.answer, *slot.drafts[:offset]]) for slot in slots]
        return fuse(self.policy, shape, None if alone else llm, slm, state, history)
