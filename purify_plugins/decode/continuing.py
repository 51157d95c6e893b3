"""An answer that goes on from tokens somebody gives: what it turns into late is found this way."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch

from purify_plugins.decode.batch import Batch
from purify_plugins.decode.fusion import forward, fuse
from purify_plugins.decode.loop import write
from purify_plugins.decode.sessions import Pair

if TYPE_CHECKING:
    from torch import Tensor

    from purify_plugins.decode.decoder import Decoder
    from purify_plugins.policy import FusionPolicy, State
    from purify_plugins.sampling import Sampling
    from purify_plugins.types import Prompt, Steps

BLOCK = 64
"""Given tokens read in one pass; bounds the logits in memory to rows x 64 x V."""


def continuing(
    decoder: Decoder,
    prompts: Sequence[Prompt],
    given: Sequence[Sequence[int]],
    sampling: Sampling,
    finished: set[int] | None = None,
) -> Steps:
    """`lockstep` for answers that begin with given tokens (rows, n), as if these had been drawn.

    The policy's memory goes over them; steps are yielded for what follows. They count towards
    `max_tokens`. What an answer turns into late is found this way.
    """
    with Pair(decoder, prompts) as pair:
        batch = Batch(decoder, pair, sampling, finished=finished)
        for answer, tokens in zip(batch.answers, given, strict=True):
            answer += tokens
        yield from write(decoder.policy, pair, batch, sampling, *follow(decoder.policy, pair, batch, given))


@torch.inference_mode()
def follow(
    policy: FusionPolicy, pair: Pair, batch: Batch, given: Sequence[Sequence[int]]
) -> tuple[State, Tensor | None, Tensor]:
    """The policy's state and both models' logits (rows, V) after the given tokens (rows, n)."""
    state, (llm, slm) = batch.state, pair.first
    for block in torch.tensor(given, device=slm.device).split(BLOCK, dim=1):
        llms, slms = pair.extend(block)
        for at, tokens in enumerate(block.unbind(dim=1)):
            rows = fuse(policy, batch.shape, llm, slm, state, batch.history, pair.lost)
            rows.require(batch.going)
            state = forward(policy, state, tokens, rows)
            llm, slm = None if llms is None else llms[:, at], slms[:, at]
    return state, llm, slm
