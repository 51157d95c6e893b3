"""Log-likelihood of texts under the fused model: teacher-forced, the policy's state included.

>>> [score] = loglikelihoods(purifier, [("Once upon a", " time")])
>>> score.nats, score.greedy
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from purify_plugins.errors import VocabularyError
from purify_plugins.sampling import Sampling

if TYPE_CHECKING:
    from purify_plugins.decode.decoder import Decoder
    from purify_plugins.protocols import LogitSource
    from purify_plugins.types import Prompt


@dataclass(frozen=True)
class Likelihood:
    """Each token of a continuation, its fused log-probability (nats), and whether it is the arg-max."""

    tokens: tuple[int, ...]
    logprobs: tuple[float, ...]
    leads: tuple[bool, ...]

    @property
    def nats(self) -> float:
        """log p of the whole; minus infinity where a token has probability 0."""
        return math.fsum(self.logprobs)

    @property
    def greedy(self) -> bool:
        """Whether greedy decoding would produce it."""
        return all(self.leads)


def loglikelihoods(
    decoder: Decoder, pairs: Sequence[tuple[str, str]], batch_size: int = 32
) -> list[Likelihood]:
    """The likelihood of each continuation after its prompt, in the distribution that answers are drawn from.

    A text is tokenised whole and split where its prompt ends. Raises PromptError, SourceError.
    """
    parted = [split(decoder.slm, prompt, continuation) for prompt, continuation in pairs]
    prompts, answers = [prompt for prompt, _ in parted], [answer for _, answer in parted]
    return [
        score
        for at in range(0, len(parted), batch_size)
        for score in judged(decoder, prompts[at : at + batch_size], answers[at : at + batch_size])
    ]


def judged(decoder: Decoder, prompts: Sequence[Prompt], answers: Sequence[Sequence[int]]) -> list[Likelihood]:
    """The likelihood of answers (token ids) after prompts, one batch."""
    import torch

    from purify_plugins.decode.logits import argmax
    from purify_plugins.decode.replay import forced

    logprobs, leads = [], []
    with torch.inference_mode():
        for tokens, rows in forced(decoder, prompts, answers, Sampling()):
            logprobs.append(rows.logprobs(tokens)[:, 2].tolist())
            leads.append((rows.ids(argmax(rows.fused)) == tokens).tolist())
    return [
        Likelihood(
            tuple(answer),
            tuple(row[at] for row in logprobs[:length]),
            tuple(row[at] for row in leads[:length]),
        )
        for at, (answer, length) in enumerate(zip(answers, map(len, answers), strict=True))
    ]


def split(source: LogitSource, prompt: str, continuation: str) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """The prompt's tokens and the continuation's, of the whole text's tokens.

    Where the two run together in one token, that token counts as the continuation's; a prompt always
    keeps at least one. An empty prompt becomes the token that the model's texts begin with: its own first
    control token, or else an end token.
    """
    if not prompt:
        return _opened(source, read(source, continuation))
    whole, alone = read(source, prompt + continuation), read(source, prompt)
    pairs = enumerate(zip(alone, whole, strict=False))
    shared = next((at for at, (one, other) in pairs if one != other), min(len(alone), len(whole)))
    at = max(1, min(shared, len(whole) - 1))
    return whole[:at], whole[at:]


def _opened(source: LogitSource, tokens: tuple[int, ...]) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """The token that texts begin with, and the text's tokens after it."""
    if tokens[0] in source.vocabulary.control:
        return tokens[:1], tokens[1:]
    return (min(source.vocabulary.eos, default=tokens[0]),), tokens


def require_tokens(*sources: LogitSource) -> None:
    """Raise VocabularyError for models in symbols smaller than tokens: the figures here are per token."""
    if any(source.symbolic for source in sources):
        raise VocabularyError(
            "the two models have different tokenizers, and what is measured here is counted in the tokens "
            "of one; choose an SLM with the LLM's own tokenizer"
        )


def read(source: LogitSource, text: str) -> tuple[int, ...]:
    """The tokens a model reads in a text. Raises VocabularyError."""
    require_tokens(source)
    if source.encodes:
        return source.encode(text)
    session, _ = source.open([text])
    with session:
        return session.prompts[0].tokens
