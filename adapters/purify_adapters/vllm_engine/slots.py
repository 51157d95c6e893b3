"""The logits processor of vLLM's Model Runner V2, under its own speculation too.

V2 keeps each request in a numbered slot and shows, each step, the rows of all of them: one row after the last
token, and one after each token of the engine's draft. They are fused in the order of their request's tokens,
with the policy's memory, and a token is drawn from each here, as long as the draft says the same; vLLM gets
rows with a single token. Its verification accepts a draft's token if it is the one drawn, and else puts that
in its place: the answer is the one drawn here, whatever was drafted and by whom.
"""

from __future__ import annotations

import logging
from array import array
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.nn.functional import pad

from purify_adapters.vllm_engine.contracts import refuse_shown
from purify_adapters.vllm_engine.engine_checks import require_purifiable
from purify_adapters.vllm_engine.ledger import OTHERS, Ledger, RequestRecord, note
from purify_adapters.vllm_engine.running import (
    LEFT,
    asked_of,
    ending,
    finite_rows,
    one_token_rows,
    purifier_of,
    shapes,
    sound,
    unreadable,
    unscored,
)
from purify_adapters.vllm_engine.step_rows import StepRow, rows_by_slot
from purify_plugins.decode.batch import settings
from purify_plugins.decode.draw_keys import keyed, request, system
from purify_plugins.decode.fusion import FusedLogits, advance_state, fuse
from purify_plugins.errors import SourceError

if TYPE_CHECKING:
    from purify_plugins.policy import State
    from purify_plugins.protocols import Session
    from purify_plugins.sampling import Sampling

IDLE = 256
"""After so many steps without a row a request's SLM cache is freed: vLLM does not say that one has ended."""
log = logging.getLogger(__name__)


@dataclass(eq=False)
class EngineSlot:
    """One request: its ids, the SLM's session, and the step that vLLM has not answered yet.

    `answer` holds the tokens that vLLM has taken. `drafts` are those that it shows beyond them in this step,
    `drawn` the tokens of the rows up to the first draft that is another, `states` the policy's memory before
    them and after each. The SLM has read the answer but its last token, and the drafts; `opened` of it with
    the prompt. `seen` is the last step with a row of it. `refused`: its prompt cannot be read by the SLM.
    """

    sampling: Sampling
    seed: int | None
    prompt: tuple[int, ...] = ()
    asked: bytes = b""
    answer: list[int] = field(default_factory=list)
    drafts: list[int] = field(default_factory=list)
    states: list[State] = field(default_factory=list)
    drawn: list[int] = field(default_factory=list)
    slm: Tensor = field(default_factory=lambda: torch.empty(0))
    session: Session | None = None
    opened: int = 0
    seen: int = 0
    alone: bool = False
    refused: bool = False
    record: RequestRecord | None = None

    def luck(self, offset: int) -> float:
        """The uniform in [0, 1) that draws the token after so many drafts; a seed fixes it by position."""
        at = len(self.answer) + offset
        return next(system() if self.seed is None else keyed(self.seed, self.asked, at))

    def accepted(self, tokens: Sequence[int]) -> bool:
        """Whether tokens are the first that were drawn in the last step."""
        return len(tokens) <= len(self.drawn) and self.drawn[: len(tokens)] == list(tokens)

    def goes_on(self, offset: int) -> bool:
        """Whether the token drawn at an offset is the draft's: else no later row is the answer's."""
        return offset < len(self.drafts) and self.drafts[offset] == self.drawn[offset]

    def close(self) -> None:
        """Free the SLM's cache and rows."""
        if self.session is not None:
            self.session.close()
        self.session, self.slm = None, torch.empty(0)


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
        self.steps = 0
        self.ledger = Ledger(self.purifier)
        self.shape = shapes(self.purifier)

    def add_request(self, req_idx: int, sampling_params: Any) -> bool:
        """Take a slot for a request, whose tokens come with `apply`. True: none of its rows is left raw.

        Raises SourceError for one that would show the LLM's rows and that no frontend has refused.
        """
        refuse_shown(sampling_params)
        before = self.slots.pop(req_idx, None)
        if before is not None:
            before.close()
            self.left.append(before)
        asked = asked_of(sampling_params, self.defaults)
        record = self.ledger.begin(req_idx, asked, sampling_params)
        self.slots[req_idx] = EngineSlot(asked, sampling_params.seed, record=record)
        return True

    def apply_staged_writes(self) -> None:
        """Nothing is staged."""

    @torch.inference_mode()
    def apply(self, logits: Tensor, ctx: Any) -> Tensor:
        """vLLM's logits (rows, V) -> the same with one token left in each row.

        A row that vLLM draws nothing from, of half a prompt or after no draft, keeps an end token. Raises
        SourceError for a row of an unknown request.
        """
        live = dict(self._started(rows_by_slot(ctx, len(self.purifier.vocabulary))))
        self._give_up(live, logits)
        self._read(live)
        closed = ending(logits, self.purifier)
        going, offset = list(live), 0
        while going:
            for slots, column in self._fused(going, live, offset, logits):
                luck = None if slots[0].sampling.greedy else [slot.luck(offset) for slot in slots]
                weights = one_token_rows(column, luck)
                self._remember(slots, offset, column, weights.argmax(dim=-1))
                at = [live[slot][offset].place for slot in slots]
                closed[at] = pad(weights, (0, logits.shape[-1] - weights.shape[-1]), value=-torch.inf)
            going = [slot for slot in going if slot.goes_on(offset)]
            offset += 1
        return logits.copy_(closed)

    def _started(self, step: Mapping[int, list[StepRow]]) -> Iterator[tuple[EngineSlot, list[StepRow]]]:
        """The slots that a token is drawn for, brought up to vLLM's answer, and their rows."""
        self._free_idle(step)
        totals = self.requests.total_len.gpu[list(step)].tolist()
        # Others have read half a prompt, or are no requests: vLLM warms up with rows of its own.
        whole = [
            (each, total)
            for each, total in zip(step, totals, strict=True)
            if step[each][0].position + 1 == total
        ]
        whole = [(index, total) for index, total in whole if not self.slots[index].refused]
        for (index, _), new in zip(whole, self._new(whole), strict=True):
            slot = self.slots[index]
            self._catch_up(slot, index, new)
            slot.drafts = [row.token for row in step[index][1:]]
            slot.drawn, slot.states = [], slot.states[:1]
            if slot.record is not None:
                slot.record.drawn = array("f")
            if not slot.refused:
                yield slot, step[index]

    def _free_idle(self, step: Mapping[int, list[StepRow]]) -> None:
        """Count the step, and free what requests without rows hold. Raises SourceError for others."""
        self.steps += 1
        for index in step:
            if index not in self.slots:
                raise SourceError("vLLM shows a row of a request that it has not added")
            self.slots[index].seen = self.steps
        for slot in self.slots.values():
            if slot.seen + IDLE < self.steps:
                slot.close()  # should it go on, the SLM reads it again

    def _new(self, whole: Sequence[tuple[int, int]]) -> Iterator[list[int]]:
        """What each slot's request has grown by, up to its total; read from the device at once."""
        known = [(index, len(self.slots[index].prompt) + len(self.slots[index].answer)) for index, _ in whole]
        spans = [
            (index, range(start, total)) for (index, start), (_, total) in zip(known, whole, strict=True)
        ]
        rows = [index for index, span in spans for _ in span]
        ids = iter(self.requests.all_token_ids.gpu[rows, [at for _, span in spans for at in span]].tolist())
        return (list(islice(ids, len(span))) for _, span in spans)

    def _give_up(self, live: Mapping[EngineSlot, list[StepRow]], logits: Tensor) -> None:
        """With on_llm_failure "slm", requests with a row that is not finite go on with the SLM alone."""
        if self.purifier.on_llm_failure == "slm":
            finite = finite_rows(logits)
            for slot, rows in live.items():
                slot.alone |= not all(finite[row.place] for row in rows)

    def _catch_up(self, slot: EngineSlot, index: int, new: list[int]) -> None:
        """Take over the tokens that vLLM has added, and the policy's memory of them."""
        if not slot.prompt:
            self._begin(slot, tuple(new), int(self.requests.prompt_len.np[index]))
        elif new:
            self._take(slot, new)
        else:
            slot.close()  # vLLM draws anew where it drew before

    def _begin(self, slot: EngineSlot, tokens: tuple[int, ...], prompt: int) -> None:
        """Start a request, or resume one that vLLM had taken out: then with what is remembered of it."""
        slot.prompt, answer = tokens[:prompt], list(tokens[prompt:])
        slot.asked = request([slot.prompt], settings(self.purifier, slot.sampling))
        slot.states = [self.policy.start(unscored(slot.sampling.greedy, self.requests.device))]
        slot.refused = unreadable(tokens, self.purifier)
        if slot.record is not None:
            slot.record.prompt = slot.prompt
        if not answer or slot.refused:
            return
        known = next((each for each in self._past() if _is_before(each, slot, answer)), None)
        if slot.record is not None:
            slot.record.resume(known.record if known else None)
        if known is None:
            slot.answer, slot.alone = answer, bool(slot.states[0])
            return
        slot.answer, slot.alone, slot.states = known.answer, known.alone, known.states
        slot.drawn = known.drawn
        if new := answer[len(known.answer) :]:
            self._take(slot, new)

    def _past(self) -> Iterator[EngineSlot]:
        """Slots that may hold a request that was taken out."""
        yield from self.left
        yield from self.slots.values()

    def _take(self, slot: EngineSlot, new: list[int]) -> None:
        """Go on after tokens that vLLM has taken; if they were not drawn here, with the SLM alone."""
        if slot.accepted(new):
            slot.states = [slot.states[len(new)]]
            if slot.record is not None:
                slot.record.take(len(new))
            if slot.session is not None:
                slot.session.rewind(torch.tensor([len(slot.answer) + len(new) - 1 - slot.opened]))
        else:
            log.error("vLLM took tokens that were not drawn from the fused row; the SLM goes on alone")
            slot.close()
            slot.alone = True
            if slot.record is not None:
                slot.record.void = OTHERS
        slot.answer = slot.answer + new

    def _read(self, live: Mapping[EngineSlot, list[StepRow]]) -> None:
        """The SLM's rows of a step: one forward pass for all who go on, and one for each who begins."""
        going = [slot for slot in live if slot.session is not None]
        for slot in live:
            if slot.session is None:
                self._open(slot)
        if not going:
            return
        sessions: list[Any] = [slot.session for slot in going]
        tokens = [torch.tensor([self._unread(slot)]) for slot in going]
        for slot, rows in zip(going, self.slm.extend_all(sessions, tokens), strict=True):
            slot.slm = rows[0, -len(slot.drafts) - 1 :]

    def _unread(self, slot: EngineSlot) -> list[int]:
        """What the SLM has not read: tokens of the answer, at least the last, and the drafts."""
        assert slot.session is not None
        return [*slot.answer[-1:], *slot.drafts]

    def _open(self, slot: EngineSlot) -> None:
        """Let the SLM read the prompt, what there is of an answer, and a draft."""
        session, first = self.slm.open([(*slot.prompt, *slot.answer)])
        slot.session, slot.opened, slot.slm = session, len(slot.answer), first
        if slot.drafts:
            slot.slm = torch.cat([first, session.extend(torch.tensor([slot.drafts]))[0]])

    def _fused(
        self,
        going: Sequence[EngineSlot],
        live: Mapping[EngineSlot, list[StepRow]],
        offset: int,
        logits: Tensor,
    ) -> Iterator[tuple[list[EngineSlot], FusedLogits]]:
        """The fused rows at an offset, of slots with the same settings at once."""
        groups: dict[tuple[Sampling, bool], list[EngineSlot]] = {}
        for slot in going:
            groups.setdefault((slot.sampling, slot.alone), []).append(slot)
        for (asked, alone), slots in groups.items():
            shown = logits[[live[slot][offset].place for slot in slots], : len(self.purifier.vocabulary)]
            yield slots, sound(self._fuse(asked, alone, slots, offset, shown))

    def _fuse(
        self, asked: Sampling, alone: bool, slots: Sequence[EngineSlot], offset: int, llm: Tensor
    ) -> FusedLogits:
        slm = torch.stack([slot.slm[offset] for slot in slots]).to(llm.device)
        slm = slm.masked_fill(llm == -torch.inf, -torch.inf)  # a grammar of vLLM's
        history = [(slot.prompt, [*slot.answer, *slot.drafts[:offset]]) for slot in slots]
        state = _state(slots, offset)
        return fuse(self.policy, self.shape(asked), None if alone else llm, slm, state, history)

    def _remember(
        self, slots: Sequence[EngineSlot], offset: int, column: FusedLogits, tokens: Tensor
    ) -> None:
        """Keep each slot's token, and the policy's memory of it, till vLLM says what it took."""
        note([slot.record for slot in slots], column, tokens, slots[0].sampling.greedy)
        after = advance_state(self.policy, _state(slots, offset), tokens, column)
        for at, (slot, token) in enumerate(zip(slots, tokens.tolist(), strict=True)):
            slot.drawn.append(token)
            slot.states.append(tuple(part[at : at + 1] for part in after))


def _state(slots: Sequence[EngineSlot], offset: int) -> State:
    """The policy's memory of slots before their rows at an offset."""
    return tuple(torch.cat(part) for part in zip(*(slot.states[offset] for slot in slots), strict=True))


def _is_before(known: EngineSlot, slot: EngineSlot, answer: Sequence[int]) -> bool:
    """Whether a slot held the request that another one resumes: its tokens, and then what was drawn last."""
    same = known is not slot and known.asked == slot.asked and known.sampling == slot.sampling
    rest = list(answer[len(known.answer) :])
    return same and list(answer[: len(known.answer)]) == known.answer and (not rest or known.accepted(rest))
