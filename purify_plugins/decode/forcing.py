"""Teacher forcing for many policies: both models read a text once, every policy is run over these rows."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

from purify_plugins.decode.decoder import lookback
from purify_plugins.decode.forced_text import ForcedText, Likelihood
from purify_plugins.decode.fusion import advance_state, fuse, start_state
from purify_plugins.decode.logits import argmax, normalise
from purify_plugins.decode.processors import LogitsProcessors
from purify_plugins.decode.replay import BLOCK, columns
from purify_plugins.decode.sessions import SessionPair
from purify_plugins.sampling import Sampling
from purify_plugins.types import Chat, Prompt

if TYPE_CHECKING:
    from purify_plugins.decode.decoder import Decoder
    from purify_plugins.policy import FusionPolicy, State

LOGITS = 2**26
"""Logits of one model held at a time, 256 MiB in float32: they bound how many texts are read together."""
TOGETHER = 64
"""Texts read together at most."""
GREEDILY = (False, True)
PLAIN = Sampling()
Places = Sequence[int]
"""Indices into the list of texts."""


@torch.inference_mode()
def judged_by(
    decoder: Decoder,
    policies: Sequence[FusionPolicy],
    texts: Sequence[ForcedText],
    done: Callable[[int], object] = lambda count: None,
    sampling: Sampling = PLAIN,
) -> list[tuple[Likelihood, ...]]:
    """Of each text the likelihood of what is asked of it under each policy; the models read it once.

    The policies are bound to the vocabulary. `sampling` shapes both models' rows as it does for answers.
    Texts are read in batches, whose rows are dropped when every policy has been run over them; texts with the
    same prompt share its reading. `done` is called with the number of texts after each batch. Raises
    PromptError, SourceError.
    """
    found: dict[int, tuple[Likelihood, ...]] = {}
    scored = max((lookback(policy, decoder.vocabulary) for policy in policies), default=0)
    for batch in batches(texts, LOGITS // len(decoder.vocabulary), scored):
        with closing(SessionPair(decoder, [texts[same[0]].prompt for same in batch], scored)) as pair:
            for turn in range(max(map(len, batch))):
                # A prompt with fewer answers than others is given its last one again.
                places = [same[min(turn, len(same) - 1)] for same in batch]
                scores = _turn(pair, policies, [texts[at] for at in places], sampling)
                found.update(zip(places, scores, strict=True))
                pair.rewind(torch.zeros(len(batch), dtype=torch.long))
        done(sum(map(len, batch)))
    return [found[at] for at in range(len(texts))]


def batches(texts: Sequence[ForcedText], most: int, scored: int = 0) -> Iterator[list[Places]]:
    """The texts in batches of alike ones: a list of texts (their places) for each prompt.

    The logits of a batch, and those of its prompts that are scored, are about `most` rows or fewer.
    """
    shapes: dict[int, Shape] = {}
    for places in by_prompt(texts):
        longest, length = max(len(texts[at].tokens) for at in places), size(texts[places[0]].prompt)
        shapes[places[0]] = Shape(places, len(places), length.bit_length(), longest, length)

    batch: list[Places] = []
    wide = 0
    # Rows are padded to the longest, so prompts of about one length come together, and answers.
    for shape in sorted(shapes.values(), key=lambda shape: shape[1:]):
        wide = max(wide, min(shape.longest, BLOCK), min(scored, shape.length) + 1)
        if batch and ((len(batch) + 1) * wide > most or len(batch) == TOGETHER):
            yield batch
            batch, wide = [], max(min(shape.longest, BLOCK), min(scored, shape.length) + 1)
        batch.append(shape.places)
    if batch:
        yield batch


class Shape(NamedTuple):
    """The texts with one prompt: how many, and how long prompt and answers are."""

    places: Places
    answers: int
    magnitude: int
    longest: int
    length: int


def by_prompt(texts: Sequence[ForcedText]) -> list[list[int]]:
    """The texts' places, those with one prompt together."""
    same: dict[str, list[int]] = {}
    for at, text in enumerate(texts):
        same.setdefault(repr(text.prompt), []).append(at)
    return list(same.values())


def size(prompt: Prompt) -> int:
    """About how many tokens a prompt has; text has three characters a token or more."""
    if isinstance(prompt, Chat):
        return sum(len(str(message.get("content"))) // 3 + 8 for message in prompt.messages)
    return len(prompt) // 3 + 1 if isinstance(prompt, str) else len(prompt)


def _turn(
    pair: SessionPair, policies: Sequence[FusionPolicy], texts: Sequence[ForcedText], sampling: Sampling
) -> list[tuple[Likelihood, ...]]:
    """Of each text (one for each row of the pair) its likelihood under each policy."""
    answers = [text.tokens for text in texts]
    runs = [_Runs(policy, pair) for policy in policies]
    for at, (tokens, theirs, ours) in enumerate(columns(pair, answers)):
        processors, llm, slm = _normalised(pair, theirs, ours, sampling)
        history = [(prompt, answer[:at]) for prompt, answer in zip(pair.prompts, answers, strict=True)]
        active = [at < len(answer) for answer in answers]
        for run in runs:
            run.column(processors, tokens, llm, slm, history, active)
    every = [run.likelihoods(texts) for run in runs]
    return list(zip(*every, strict=True))


def _normalised(
    pair: SessionPair, llm: Tensor | None, slm: Tensor, sampling: Sampling
) -> tuple[LogitsProcessors, Tensor | None, Tensor]:
    """A column of logits (rows, V) as every policy reads it, and its processors.

    Where nothing is done to a row but to normalise it, that is done here, once for all policies.
    """
    vocabulary, constraints = pair.decoder.vocabulary, pair.decoder.constraints
    plain = sampling == PLAIN and not constraints
    shared = plain and llm is not None and llm.shape == slm.shape and not bool(pair.lost.any())
    if llm is None or not shared:  # a server's partial row is completed first, and a lost one replaced
        return LogitsProcessors(sampling, vocabulary, constraints=constraints), llm, slm
    processors = LogitsProcessors(sampling, vocabulary, normalized=True)
    own = normalise(slm, "the SLM")
    return processors, normalise(llm.to(slm.device), "the LLM"), own


@dataclass
class _Runs:
    """One policy over one batch of rows: for draws, and for greedy answers if it treats these otherwise."""

    policy: FusionPolicy
    pair: SessionPair
    states: list[State] = field(init=False)
    logprobs: list[Tensor] = field(default_factory=list)
    likeliest: list[Tensor] = field(default_factory=list)

    def __post_init__(self) -> None:
        looked = lookback(self.policy, self.pair.decoder.vocabulary)
        drawn, greedy = (start_state(self.policy, self.pair.context(mode, looked)) for mode in GREEDILY)
        # From equal states the same tokens lead to equal states: a policy is a function of these alone.
        alike = all(torch.equal(one, other) for one, other in zip(drawn, greedy, strict=True))
        self.states = [drawn] if alike else [drawn, greedy]

    def column(
        self,
        processors: LogitsProcessors,
        tokens: Tensor,
        llm: Tensor | None,
        slm: Tensor,
        history: Sequence[tuple[Sequence[int], Sequence[int]]],
        active: Sequence[bool],
    ) -> None:
        """Fuse a column of logits (rows, V), note its figures and go on with tokens (rows,)."""
        for at, state in enumerate(self.states):
            rows = fuse(self.policy, processors, llm, slm, state, history, active, self.pair.lost)
            if at == 0:
                self.logprobs.append(rows.logprobs(tokens)[:, 2])
            if at == len(self.states) - 1:
                self.likeliest.append(rows.ids(argmax(rows.fused)))
            self.states[at] = advance_state(self.policy, state, tokens, rows)

    def likelihoods(self, texts: Sequence[ForcedText]) -> list[Likelihood]:
        """Each row's figures."""
        logprobs, likeliest = (torch.stack(each, dim=1).tolist() for each in (self.logprobs, self.likeliest))
        asked = [slice(text.given, len(text.tokens)) for text in texts]
        return [
            Likelihood(text.tokens[of], tuple(nats[of]), tuple(first[of]))
            for of, text, nats, first in zip(asked, texts, logprobs, likeliest, strict=True)
        ]
