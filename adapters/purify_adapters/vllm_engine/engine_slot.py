"""What Model Runner V2's processor keeps of one request."""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from random import SystemRandom
from typing import TYPE_CHECKING

import torch

from purify_adapters.vllm_engine.ledger import OTHERS
from purify_plugins.decode.random_streams import widest

if TYPE_CHECKING:
    from torch import Tensor

    from purify_adapters.vllm_engine.ledger import RequestRecord
    from purify_plugins.decode.draw_keys import KeyedPlaces
    from purify_plugins.sampling import Sampling

SYSTEM = SystemRandom()
log = logging.getLogger(__name__)


@dataclass(eq=False)
class EngineSlot:
    """One request: its ids, what the SLM has read of them, and the step that vLLM has not answered yet.

    `answer` holds the tokens that vLLM has taken, `total` counts them with the prompt's (0: nothing is known
    yet), `shown` is what vLLM says of it in this step. `drafts` are the tokens that it shows beyond them, at
    the step's rows `places`, and `drawn` the tokens of these rows up to the first draft that is another. The
    first `read` tokens of the text, with the drafts, are in the SLM's cache; its logits of this step begin at
    row `base`. `seen` is the last step with a row of it. `refused`: its prompt cannot be read by the SLM.
    `kept` is the policy's memory of a request that has left its slot. A seed's `numbers` draw its tokens.
    """

    index: int
    sampling: Sampling
    seed: int | None
    prompt: tuple[int, ...] = ()
    asked: bytes = b""
    numbers: KeyedPlaces | None = None
    answer: list[int] = field(default_factory=list)
    total: int = 0
    shown: int = 0
    places: Sequence[int] = ()
    drafts: Sequence[int] = ()
    drawn: list[int] = field(default_factory=list)
    read: int = 0
    base: int = 0
    seen: int = 0
    alone: bool = False
    refused: bool = False
    record: RequestRecord | None = None
    kept: Sequence[Tensor] = ()

    def luck(self, offset: int) -> float:
        """The uniform in [0, 1) that draws the token after so many drafts; a seed fixes it by position."""
        if self.numbers is None:
            return SYSTEM.random()
        return self.numbers.at(len(self.answer) + offset)

    def accepted(self, tokens: Sequence[int]) -> bool:
        """Whether tokens are the first that were drawn in the last step."""
        return len(tokens) <= len(self.drawn) and self.drawn[: len(tokens)] == list(tokens)

    def goes_on(self, offset: int) -> bool:
        """Whether the token drawn at an offset is the draft's: else no later row is the answer's."""
        return offset < len(self.drafts) and self.drafts[offset] == self.drawn[offset]

    def unread(self) -> tuple[int, list[int]]:
        """How much of the text the SLM keeps, and what it reads after that: at least the last token."""
        start = min(self.read, self.total - 1)
        past = start - len(self.prompt)
        text = self.answer[past:] if past >= 0 else [*self.prompt[start:], *self.answer]
        return start, [*text, *self.drafts]

    def last(self) -> tuple[int, list[int]]:
        """What `unread` returns where that is the last token alone."""
        return self.read, [self.answer[-1] if self.answer else self.prompt[-1]]

    def take(self, new: list[int]) -> int:
        """Go on after tokens that vLLM has taken; how many of them were drawn here, all or none.

        After any that were not, the SLM goes on alone.
        """
        count = len(new)
        right = self.drawn[:count] == new
        if right:
            if self.read >= self.total + count:
                self.read = self.total + count - 1
        else:
            log.error("vLLM took tokens that were not drawn from the fused row; the SLM goes on alone")
            self.alone, self.read = True, min(self.read, self.total)
        if self.record is not None:
            self.record.take(count) if right else self.record.refuse(OTHERS)
        self.answer += new
        self.total += count
        return count if right else 0

    def was(self, slot: EngineSlot) -> bool:
        """Whether this held the request that another slot resumes: its tokens, then what was drawn last."""
        if self is slot or self.asked != slot.asked or self.sampling != slot.sampling:
            return False
        rest = slot.answer[len(self.answer) :]
        return slot.answer[: len(self.answer)] == self.answer and (not rest or self.accepted(rest))


def alike(going: Sequence[EngineSlot]) -> list[list[EngineSlot]]:
    """The slots that can be fused together."""
    first, alone = going[0].sampling, going[0].alone
    if all([slot.sampling is first and slot.alone is alone for slot in going]):  # noqa: C419  # twice as fast
        return [list(going)]
    groups: dict[tuple[int, bool], list[EngineSlot]] = {}
    for slot in going:
        groups.setdefault((id(slot.sampling), slot.alone), []).append(slot)
    return list(groups.values())


def luck(slots: Sequence[EngineSlot], offset: int, device: torch.device) -> Tensor | None:
    """The uniforms (rows,) that draw the tokens at an offset; None for greedy requests."""
    if slots[0].sampling.greedy:
        return None
    if any([slot.numbers is not None for slot in slots]):  # noqa: C419  # twice as fast
        numbers = torch.tensor([slot.luck(offset) for slot in slots], dtype=torch.float64)
    else:
        # One system call for all: on some hosts each costs as much as the rest of a row.
        words = torch.frombuffer(bytearray(os.urandom(8 * len(slots))), dtype=torch.int64)
        numbers = (words & (1 << 53) - 1).double() * 2.0**-53
    return numbers.to(device, widest(device))
