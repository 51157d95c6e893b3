"""The loop: ask both models, fuse, draw, repeat. Other decoders have the same distribution of answers."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing
from functools import partial
from typing import TYPE_CHECKING

import torch

from purify_plugins.decode.batch import Batch
from purify_plugins.decode.fusion import advance_state, fuse, select
from purify_plugins.decode.isolation import isolate, records
from purify_plugins.decode.sessions import SessionPair
from purify_plugins.decode.token_records import to_host

if TYPE_CHECKING:
    from torch import Tensor

    from purify_plugins.decode.decoder import Decoder
    from purify_plugins.decode.row import Row
    from purify_plugins.policy import FusionPolicy, State
    from purify_plugins.sampling import Sampling
    from purify_plugins.types import Prompt, Steps

BLOCK = 64
"""Given tokens read in one pass; bounds the logits in memory to rows x 64 x V."""


def lockstep(
    decoder: Decoder,
    prompts: Sequence[Prompt | Row],
    sampling: Sampling,
    finished: set[int] | None = None,
    given: Sequence[Sequence[int]] | None = None,
    walk: str = "lockstep",
) -> Steps:
    """Yield one Step per token of the longest answer; closing it frees both sessions.

    Rows that the caller adds to `finished` get no more tokens. For answers that begin with tokens `given`
    (rows, n) see `resumed` and `continuing`; without a `walk` steps bear no mark. Raises PromptError before
    the first token, SourceError whenever a model fails.
    """
    with closing(SessionPair(decoder, prompts)) as pair:
        policy = decoder.policy
        batch = Batch(decoder, pair, sampling, walk, finished)
        state, (llm, slm) = batch.state, pair.first
        if given is not None and len(given[0]):
            state, llm, slm = _follow(policy, pair, batch, given)
            batch.retire()
        while batch.live:
            with torch.inference_mode():
                inputs = policy, batch.processors, llm, slm, state, batch.history, batch.active, pair.lost
                rows = isolate(batch, partial(fuse, *inputs))
                tokens = rows.draw(batch.streams.next())
                numbers = to_host(rows, tokens, batch.sampling.greedy, batch.top).tolist()
                column = records(batch, numbers, batch.active)
            yield batch.step(column)
            batch.live -= batch.finished
            if not batch.live:
                return
            with torch.inference_mode():
                state = isolate(batch, partial(advance_state, policy, state, tokens, rows))
                if places := batch.drop():
                    state, tokens = select(places, state), tokens[places]
                llms = pair.extend_llm(tokens[:, None])
                llm = None if llms is None else llms[:, 0]
                slm = pair.extend_slm(tokens[:, None])[:, 0]


def continuing(
    decoder: Decoder,
    prompts: Sequence[Prompt],
    given: Sequence[Sequence[int]],
    sampling: Sampling,
    finished: set[int] | None = None,
) -> Steps:
    """`lockstep` for answers that begin with given tokens (rows, n), as if these had been drawn.

    The policy's state advances over them, and they count towards `max_tokens`; steps are yielded for what
    follows, without a mark: they make no answer. Evaluation finds late failures this way.
    """
    return lockstep(decoder, prompts, sampling, finished, given, walk="")


def resumed(decoder: Decoder, row: Prompt | Row, given: Sequence[int], sampling: Sampling) -> Steps:
    """The steps that follow `given`, the first tokens of this row's answer, which were drawn before.

    What `redo` goes on with, whether the SLM writes alone (`Decoder.alone`, up to `max_tokens`) or fused
    again. The policy's state is advanced over the given tokens; they count towards `max_tokens`; penalties,
    the grammar and constraints read them. A step has the row's next token alone, and is marked as drawn by
    this decoder. Give the row a `label` of its own each time: under one seed its numbers would otherwise be
    those that drew the given tokens. No step where the given tokens are all that the answer may have, or end
    it. Raises as `lockstep`.
    """
    # The given tokens were drawn by the decoder's own strategy, and the certificate covers them too.
    walk = decoder.walk if decoder.llm_asked or not decoder.alone else "lockstep"
    if decoder.vocabulary.eos.isdisjoint(given):
        yield from lockstep(decoder, [row], sampling, given=[given], walk=walk)


@torch.inference_mode()
def _follow(
    policy: FusionPolicy, pair: SessionPair, batch: Batch, given: Sequence[Sequence[int]]
) -> tuple[State, Tensor | None, Tensor]:
    """The policy's state and both models' logits (rows, V) after the given tokens (rows, n)."""
    state, (llm, slm) = batch.state, pair.first
    for block in torch.tensor(given, device=slm.device).split(BLOCK, dim=1):
        llms, slms = pair.extend(block)
        for at, drawn in enumerate(block.unbind(dim=1)):
            if state:
                rows = fuse(policy, batch.processors, llm, slm, state, batch.history, batch.active, pair.lost)
                state = advance_state(policy, state, drawn, rows)
            for answer, token in zip(batch.answers, drawn.tolist(), strict=True):
                answer.append(token)
            llm, slm = None if llms is None else llms[:, at], slms[:, at]
    return state, llm, slm
