"""Teacher forcing: the records of given answers, the policy's state included."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import closing
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from purify_plugins.decode.fusion import FusedLogits, advance_state, fuse, start_state
from purify_plugins.decode.logits import normalise
from purify_plugins.decode.processors import LogitsProcessors
from purify_plugins.decode.sessions import SessionPair
from purify_plugins.decode.token_records import token_records
from purify_plugins.sampling import Sampling

if TYPE_CHECKING:
    from purify_plugins.decode.decoder import Decoder
    from purify_plugins.decode.row import Row
    from purify_plugins.protocols import Constraint, LogitSource
    from purify_plugins.types import Prompt, Token

BLOCK = 64
"""Answer tokens read in one pass; bounds the logits in memory to rows x 64 x V."""


@torch.inference_mode()
def replay(
    decoder: Decoder,
    prompts: Sequence[Prompt | Row],
    answers: Sequence[Sequence[int]],
    sampling: Sampling | None = None,
) -> list[list[Token]]:
    """The record of each answer (token ids) as if it had been drawn; one list per row.

    Perplexity is `exp(-mean(token.fused))`. Both models read the answer in blocks, so this is much
    faster than generating. Raises PromptError, SourceError.
    """
    sampling = sampling or Sampling()
    columns = [
        token_records(rows, tokens, sampling.greedy)
        for tokens, rows in forced(decoder, prompts, answers, sampling)
    ]
    records = [list(row) for row in zip(*columns, strict=True)] or [[] for _ in answers]
    return [record[: len(answer)] for record, answer in zip(records, answers, strict=True)]


def forced(
    decoder: Decoder, prompts: Sequence[Prompt | Row], answers: Sequence[Sequence[int]], sampling: Sampling
) -> Iterator[tuple[Tensor, FusedLogits]]:
    """Each position's tokens (rows,) and fused column, with the policy's state after the tokens before.

    Answers that have ended go on with token 0. Use it under `torch.inference_mode`.
    """
    processors = LogitsProcessors(sampling, decoder.vocabulary, constraints=decoder.constraints)
    policy = decoder.policy
    with closing(SessionPair(decoder, prompts)) as pair:
        state = () if decoder.alone else start_state(policy, pair.context(sampling.greedy))
        for at, (tokens, llm, slm) in enumerate(columns(pair, answers)):
            history = [(prompt, answer[:at]) for prompt, answer in zip(pair.prompts, answers, strict=True)]
            active = [at < len(answer) for answer in answers]
            rows = fuse(policy, processors, llm, slm, state, history, active, pair.lost)
            yield tokens, rows
            state = advance_state(policy, state, tokens, rows)


def columns(
    pair: SessionPair, answers: Sequence[Sequence[int]]
) -> Iterator[tuple[Tensor, Tensor | None, Tensor]]:
    """Each position's tokens (rows,) and both models' rows (rows, V) before it."""
    width = max(map(len, answers))
    padded = torch.tensor([[*answer, *[0] * (width - len(answer))] for answer in answers])
    llm, slm = pair.first
    for block in padded.split(BLOCK, dim=1):
        llms, slms = pair.extend(block)
        for at, tokens in enumerate(block.unbind(dim=1)):
            yield tokens.to(slm.device), llm, slm
            llm, slm = None if llms is None else llms[:, at], slms[:, at]


@torch.inference_mode()
def score(
    source: LogitSource,
    prompt: Prompt,
    answer: Sequence[int],
    sampling: Sampling,
    constraints: Sequence[Constraint] = (),
) -> list[float]:
    """One model's own log-probabilities (nats) of an answer, under the sampling settings and constraints."""
    processors = LogitsProcessors(sampling, source.vocabulary, constraints=constraints)
    session, logits = source.open([prompt])
    with session:
        rows = [logits]
        for block in torch.tensor([list(answer)], dtype=torch.long).split(BLOCK, dim=1):
            rows += session.extend(block).unbind(dim=1)
        read = session.prompts[0].tokens
        return [
            float(processors(normalise(row, "the model"), [(read, answer[:at])])[0, token])
            for at, (row, token) in enumerate(zip(rows, answer, strict=False))
        ]
