"""The logits processor of vLLM's Model Runner V2, under its own speculation too.

V2 keeps each request in a numbered slot and shows, each step, the rows of all of them: one row after the last
token, and one after each token of the engine's draft. All of a step's rows are fused, each with the policy's
memory along its request's tokens, and a token is drawn from each here; vLLM gets rows with a single token.
Its verification accepts a draft's token if it is the one drawn, and else puts that in its place: the answer
is the one drawn here, whatever was drafted and by whom.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import pad

from purify_adapters.vllm_engine.running import LEFT, asked_of, one_token_rows, purifier_of, unscored
from purify_plugins.decode.batch import settings
from purify_plugins.decode.draw_keys import keyed, request, system
from purify_plugins.decode.fusion import FusedLogits, advance_state, fuse
from purify_plugins.decode.processors import LogitsProcessors
from purify_plugins.errors import ConfigError, SourceError

if TYPE_CHECKING:
    from purify_plugins.policy import State
    from purify_plugins.protocols import Session
    from purify_plugins.sampling import Sampling

VERIFICATIONS = (None, "standard", "block")
"""The ways of verifying a draft that keep to the rows; the others accept tokens that were not drawn."""
log = logging.getLogger(__name__)


class StepRow(NamedTuple):
    """A row of a step: where it stands, the token read there (-1: none yet), and that token's position."""

    place: int
    token: int
    position: int


@dataclass(eq=False)
class EngineSlot:
    """One request: its ids, the SLM's session, and the step that vLLM has not answered yet.

    `answer` holds the tokens that vLLM has taken. `drafts` are those that it shows beyond them in this step;
    `states` the policy's memory after each, the first before all; `columns` the fused rows, `drawn` their
    tokens. The SLM has read the answer but its last token, and the drafts; `opened` of it with the prompt.
    """

    sampling: Sampling
    seed: int | None
    prompt: tuple[int, ...] = ()
    asked: bytes = b""
    answer: list[int] = field(default_factory=list)
    drafts: list[int] = field(default_factory=list)
    states: list[State] = field(default_factory=list)
    columns: list[FusedLogits | None] = field(default_factory=list)
    drawn: list[int] = field(default_factory=list)
    slm: Tensor = field(default_factory=lambda: torch.empty(0))
    session: Session | None = None
    opened: int = 0
    alone: bool = False

    def luck(self, offset: int) -> float:
        """The uniform in [0, 1) that draws the token after so many drafts; a seed fixes it by position."""
        at = len(self.answer) + offset
        return next(system() if self.seed is None else keyed(self.seed, self.asked, at))

    def accepted(self, tokens: Sequence[int]) -> bool:
        """Whether tokens are some of the last step's drafts and then the token that was drawn there."""
        taken = len(tokens) - 1
        return taken < len(self.drawn) and [*self.drafts[:taken], self.drawn[taken]] == list(tokens)

    def close(self) -> None:
        """Free the SLM's cache."""
        if self.session is not None:
            self.session.close()
        self.session = None


class SlotLogitsProcessor:
    """Replaces the rows of Model Runner V2 by rows with one token, drawn from the fused row.

    `PurifyLogitsProcessor` makes it, where V2 runs. Raises ConfigError, ModelError or VocabularyError where
    vLLM runs what could not be purified.
    """

    def __init__(self, vllm_config: Any, req_states: Any) -> None:
        _check(vllm_config)
        self.purifier, self.defaults = purifier_of(vllm_config.model_config)
        self.policy, self.slm, self.requests = self.purifier.policy, self.purifier.slm, req_states
        self.slots: dict[int, EngineSlot] = {}
        self.left: deque[EngineSlot] = deque(maxlen=LEFT)
        self.shape = lru_cache(maxsize=LEFT)(self._shape)

    def _shape(self, sampling: Sampling) -> LogitsProcessors:
        return LogitsProcessors(sampling, self.purifier.vocabulary, self.policy.shift_invariant)

    def add_request(self, req_idx: int, sampling_params: Any) -> bool:
        """Take a slot for a request, whose tokens come with `apply`. True: none of its rows is left raw."""
        before = self.slots.pop(req_idx, None)
        if before is not None:
            before.close()
            self.left.append(before)
        self.slots[req_idx] = EngineSlot(asked_of(sampling_params, self.defaults), sampling_params.seed)
        return True

    def apply_staged_writes(self) -> None:
        """Nothing is staged."""

    @torch.inference_mode()
    def apply(self, logits: Tensor, ctx: Any) -> Tensor:
        """vLLM's logits (rows, V) -> the same with one token left in each row.

        A row that vLLM draws nothing from, of half a prompt or after no draft, keeps an end token. Raises
        SourceError for a row of an unknown request.
        """
        live = dict(self._started(_rows_by_slot(ctx)))
        self._give_up(live, logits)
        self._read(live)
        closed = torch.full_like(logits, -torch.inf)
        closed[:, min(self.purifier.vocabulary.eos, default=0)] = 0.0
        for offset in range(max(map(len, live.values()), default=0)):
            for slots, column in self._fused(live, offset, logits):
                luck = None if slots[0].sampling.greedy else [slot.luck(offset) for slot in slots]
                weights = one_token_rows(column, luck)
                _remember(slots, column, weights)
                at = [live[slot][offset].place for slot in slots]
                closed[at] = pad(weights, (0, logits.shape[-1] - weights.shape[-1]), value=-torch.inf)
        return logits.copy_(closed)

    def _started(self, step: Mapping[int, list[StepRow]]) -> Iterator[tuple[EngineSlot, list[StepRow]]]:
        """The slots that a token is drawn for, brought up to vLLM's answer, and their rows."""
        totals = self.requests.total_len.gpu[list(step)].tolist()
        for (index, rows), total in zip(step.items(), totals, strict=True):
            if index not in self.slots:
                raise SourceError("vLLM shows a row of a request that it has not added")
            if rows[0].position + 1 != total:
                continue  # half a prompt
            slot = self.slots[index]
            self._catch_up(slot, index, total)
            read = next((at for at, row in enumerate(rows) if at and row.token < 0), len(rows))
            slot.drafts = [row.token for row in rows[1:read]]
            yield slot, rows[:read]

    def _give_up(self, live: Mapping[EngineSlot, list[StepRow]], logits: Tensor) -> None:
        """With on_llm_failure "slm", requests with a row that is not finite go on with the SLM alone."""
        if self.purifier.on_llm_failure == "slm":
            sound = torch.isfinite(logits.amax(dim=-1)).tolist()
            for slot, rows in live.items():
                slot.alone |= not all(sound[row.place] for row in rows)

    def _catch_up(self, slot: EngineSlot, index: int, total: int) -> None:
        """Take over the tokens that vLLM has added, and the policy's memory of them."""
        known = len(slot.prompt) + len(slot.answer)
        new = self.requests.all_token_ids.gpu[index, known:total].tolist()
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
        if not answer:
            return
        known = next((each for each in self._past() if _is_before(each, slot, answer)), None)
        if known is None:
            slot.answer, slot.alone = answer, bool(slot.states[0])
            return
        slot.answer, slot.alone, slot.states = known.answer, known.alone, known.states
        slot.drafts, slot.columns, slot.drawn = known.drafts, known.columns, known.drawn
        if new := answer[len(known.answer) :]:
            self._take(slot, new)

    def _past(self) -> Iterator[EngineSlot]:
        """Slots that may hold a request that was taken out."""
        yield from self.left
        yield from self.slots.values()

    def _take(self, slot: EngineSlot, new: list[int]) -> None:
        """Advance over tokens that vLLM has taken; if they were not drawn here, the SLM goes on alone."""
        at = len(new) - 1
        if slot.accepted(new):
            slot.states = [self._after(slot, at, new[-1])]
            if slot.session is not None:
                slot.session.rewind(torch.tensor([len(slot.answer) + at - slot.opened]))
        else:
            log.error("vLLM took tokens that were not drawn from the fused row; the SLM goes on alone")
            slot.close()
            slot.alone = True
        slot.answer = slot.answer + new

    def _after(self, slot: EngineSlot, offset: int, token: int) -> State:
        """The policy's memory after a token of the row at an offset."""
        state, column = slot.states[offset], slot.columns[offset]
        if column is None:
            return state
        return advance_state(self.policy, state, torch.tensor([token], device=column.fused.device), column)

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
        self, live: Mapping[EngineSlot, list[StepRow]], offset: int, logits: Tensor
    ) -> Iterator[tuple[list[EngineSlot], FusedLogits]]:
        """The fused rows at an offset, of slots with the same settings at once."""
        groups: dict[tuple[Sampling, bool], list[EngineSlot]] = {}
        for slot, rows in live.items():
            if offset < len(rows):
                groups.setdefault((slot.sampling, slot.alone), []).append(slot)
        for (asked, alone), slots in groups.items():
            shown = logits[[live[slot][offset].place for slot in slots], : len(self.purifier.vocabulary)]
            yield slots, self._fuse(asked, alone, slots, offset, shown)

    def _fuse(
        self, asked: Sampling, alone: bool, slots: Sequence[EngineSlot], offset: int, llm: Tensor
    ) -> FusedLogits:
        for slot in slots:
            self._advance(slot, offset)
        slm = torch.stack([slot.slm[offset] for slot in slots]).to(llm.device)
        slm = slm.masked_fill(llm == -torch.inf, -torch.inf)  # a grammar of vLLM's
        parts = zip(*(slot.states[offset] for slot in slots), strict=True)
        state = tuple(torch.cat(part) for part in parts)
        history = [(slot.prompt, [*slot.answer, *slot.drafts[:offset]]) for slot in slots]
        return fuse(self.policy, self.shape(asked), None if alone else llm, slm, state, history)

    def _advance(self, slot: EngineSlot, offset: int) -> None:
        """The policy's memory before the row at an offset, as if the draft up to it had been drawn."""
        if offset:
            slot.states.append(self._after(slot, offset - 1, slot.drafts[offset - 1]))
        else:
            slot.columns, slot.drawn, slot.states = [], [], slot.states[:1]


def _remember(slots: Sequence[EngineSlot], column: FusedLogits, weights: Tensor) -> None:
    """Keep each slot's token, and for a policy with memory its fused row, till vLLM says what it took."""
    for at, (slot, token) in enumerate(zip(slots, weights.argmax(dim=-1).tolist(), strict=True)):
        slot.columns.append(column.at([at]) if slot.states[0] else None)
        slot.drawn.append(token)


def _is_before(known: EngineSlot, slot: EngineSlot, answer: Sequence[int]) -> bool:
    """Whether a slot held the request that another one resumes: its tokens, and then what was drawn last."""
    same = known is not slot and known.prompt == slot.prompt and known.sampling == slot.sampling
    rest = list(answer[len(known.answer) :])
    return same and list(answer[: len(known.answer)]) == known.answer and (not rest or known.accepted(rest))


def _rows_by_slot(ctx: Any) -> dict[int, list[StepRow]]:
    """Each slot's rows in the order of its tokens."""
    columns = ctx.expanded_idx_mapping, ctx.expanded_local_pos, ctx.input_ids, ctx.pos
    rows: dict[int, list[tuple[int, StepRow]]] = {}
    for at, (slot, local, *read) in enumerate(zip(*(each.tolist() for each in columns), strict=True)):
        rows.setdefault(slot, []).append((local, StepRow(at, *read)))
    return {slot: [row for _, row in sorted(each)] for slot, each in rows.items()}


def _check(vllm_config: Any) -> None:
    """Raise ConfigError for what would change or bypass the fused rows, or draw them anew on each device."""
    speculation = getattr(vllm_config, "speculative_config", None)
    method = getattr(speculation, "rejection_sample_method", None)
    if method not in VERIFICATIONS:
        raise ConfigError(
            f"rejection_sample_method={method!r} accepts tokens of a draft that were not drawn from the "
            "fused row; leave it out of --speculative-config"
        )
    parallel = getattr(vllm_config, "parallel_config", None)
    if getattr(parallel, "tensor_parallel_size", 1) > 1:
        raise ConfigError(
            "with tensor parallelism each device would draw by itself; run one device a replica, or "
            "`purify serve` in front of vLLM (source = 'vllm')"
        )
    if getattr(vllm_config.model_config, "enable_prompt_embeds", False):
        raise ConfigError("the SLM reads tokens, not embeddings; start vLLM without --enable-prompt-embeds")
