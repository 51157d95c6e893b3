"""The loop: ask both models, fuse, draw, repeat. The other walks must equal this one."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING

import torch

from purify_plugins.decode.batch import Batch
from purify_plugins.decode.fusion import only, table
from purify_plugins.decode.isolation import apart, forward_at, fuse_at, noted
from purify_plugins.decode.sessions import Pair

if TYPE_CHECKING:
    from torch import Tensor

    from purify_plugins.decode.decoder import Decoder
    from purify_plugins.policy import FusionPolicy, State
    from purify_plugins.sampling import Sampling
    from purify_plugins.types import Prompt, Steps


def lockstep(
    decoder: Decoder, prompts: Sequence[Prompt], sampling: Sampling, finished: set[int] | None = None
) -> Steps:
    """Yield one Step per token of the longest answer; closing it frees both sessions.

    Rows that the caller adds to `finished` get no more tokens.
    Raises PromptError before the first token, SourceError whenever a model fails.
    """
    with Pair(decoder, prompts) as pair:
        batch = Batch(decoder, pair, sampling, "lockstep", finished)
        yield from write(decoder.policy, pair, batch, batch.sampling, batch.state, *pair.first)


def write(
    policy: FusionPolicy,
    pair: Pair,
    batch: Batch,
    sampling: Sampling,
    state: State,
    llm: Tensor | None,
    slm: Tensor,
) -> Steps:
    """Fuse both models' logits (rows, V), draw, yield, read what was drawn; until no row is live."""
    while True:
        with torch.inference_mode():
            inputs = policy, batch.shape, llm, slm, state, batch.history, batch.going, pair.lost
            rows = apart(batch, lambda: batch.going, partial(fuse_at, *inputs))
            tokens = rows.draw(batch.dice.roll())
            numbers = table(rows, tokens, sampling.greedy, batch.top).tolist()
            thoughts = noted(batch, numbers, batch.going)
        yield batch.step(thoughts)
        batch.end()
        if not batch.live:
            return
        with torch.inference_mode():
            state = apart(batch, lambda: batch.going, partial(forward_at, policy, state, tokens, rows))
            if places := batch.drop():
                state, tokens = only(places, state), tokens[places]
            llms, slms = pair.extend(tokens[:, None])
            llm, slm = None if llms is None else llms[:, 0], slms[:, 0]
