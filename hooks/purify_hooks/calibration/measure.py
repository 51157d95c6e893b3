"""Both models' log-probabilities of the tokens of ordinary text: each reads a text once, nothing is drawn.

Each model reads in its own tokens. Where their tokenizers differ, the text is cut where a token of both ends,
and a piece's log-probability is the sum of its tokens'.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, NamedTuple

from purify_hooks.calibration.sample import TextPassage, TextSample
from purify_hooks.copying.copyist import Copyist
from purify_hooks.policies._code import is_code
from purify_plugins.errors import ConfigError

if TYPE_CHECKING:
    from torch import Tensor

    from purify_plugins.protocols import LogitSource
    from purify_plugins.types import Prompt, ScoredPrompt, Vocabulary

LOGITS = 2**27
"""Logits that one model may hold at a time, 512 MiB in float32."""
Done = Callable[[int, int, str], object]


class ScoredPassage(NamedTuple):
    """A passage's kind, and the log-probabilities (n,) in nats of its pieces under the LLM and the SLM.

    `copied` are those under the SLM beside a copyist of what it has read; `signs` (n,) is 1 for a piece with
    signs of code.
    """

    kind: str
    llm: Tensor
    slm: Tensor
    copied: Tensor
    signs: Tensor


def score_texts(
    llm: LogitSource, slm: LogitSource, sample: TextSample, done: Done = lambda count, total, what: None
) -> list[ScoredPassage]:
    """Each passage's scores under both models; passages that the two spell differently are left out.

    `done` is called with the number of readings made, their total and the model that reads. Raises
    PromptError, SourceError; ConfigError for a model that does not score what it reads.
    """
    total, made = 2 * len(sample.passages), 0
    done(0, total, "the LLM reads")
    readings = []
    for side, source in (("LLM", llm), ("SLM", slm)):
        found = []
        for scored in _readings(side, source, sample.passages):
            found += scored
            done(made := made + len(scored), total, f"the {side} reads")
        readings.append(found)
    triples = zip(sample.passages, *readings, strict=True)
    passages = (_joined(llm.vocabulary, slm.vocabulary, *each) for each in triples)
    return [each for each in passages if len(each.llm)]


def left_out(passages: int, found: int) -> str:
    """A sentence on passages that were read and not compared; "" where all were."""
    if found == passages:
        return ""
    return (
        f"{passages - found} of {passages} passages could not be compared and are left out: a model's "
        "tokenizer changes them, or they are a few characters long"
    )


def _readings(
    side: str, source: LogitSource, passages: Sequence[TextPassage]
) -> Iterator[list[ScoredPrompt]]:
    """The scored prompts of the passages, in order, a few at a time."""
    prompts = [_prompt(source, each) for each in passages]
    # In bytes: a tokenizer that does not know an alphabet has a token for each.
    longest = max(len((each.ask + each.text).encode()) for each in passages)
    # A token of ordinary text has two characters or more, on average.
    rows = max(1, 2 * LOGITS // (longest * len(source.vocabulary)))
    for at in range(0, len(prompts), rows):
        session, _ = source.open(prompts[at : at + rows], scored=longest)
        with session:
            scored = list(session.prompts)
        if not any(each.logprobs for each in scored):
            raise ConfigError(
                f"the {side} does not show how likely it finds a text that it reads, so nothing can be "
                "measured of it; run it in this process, or behind a server that scores prompts (vLLM, TGI, "
                "llama.cpp)"
            )
        yield scored


def _prompt(source: LogitSource, passage: TextPassage) -> Prompt:
    """The whole passage as this model reads it; a chat in its template, if it can be tokenised here."""
    if not passage.ask:
        return passage.text
    if not source.encodes:
        return f"{passage.ask}\n\n{passage.text}"
    answer = source.encode(passage.text)
    opened = answer[0] in source.vocabulary.control
    return (*source.encode(passage.chat), *answer[opened:])


def _joined(
    theirs: Vocabulary, ours: Vocabulary, passage: TextPassage, llm: ScoredPrompt, slm: ScoredPrompt
) -> ScoredPassage:
    """The passage's pieces with both models' scores; none where the two do not spell the same text."""
    import torch

    from purify_hooks.copying.session import rescored

    text = passage.scored.encode()
    copied = rescored(slm, Copyist(slm.tokens))
    sums = [_sums(*each, text) for each in ((theirs, llm), (ours, slm), (ours, copied))]
    shared = sorted(sums[0].keys() & sums[1].keys(), reverse=True)
    pieces = [[total[start] - total[end] for start, end in pairwise(shared)] for total in sums]
    spelled = (text[len(text) - start : len(text) - end] for start, end in pairwise(shared))
    pieces.append([float(is_code(piece.decode("utf-8", "replace"))) for piece in spelled])
    return ScoredPassage(passage.kind, *torch.tensor(pieces, dtype=torch.float64).reshape(4, -1))


def _sums(vocabulary: Vocabulary, scored: ScoredPrompt, text: bytes) -> dict[int, float]:
    """For each token's beginning, in bytes from the text's end, the log-probability of all from there on.

    Empty where the tokens do not spell the text: some tokenizers change it.
    """
    tokens = scored.tokens[len(scored.tokens) - len(scored.logprobs) :]
    if not vocabulary.spell(tokens).endswith(text):
        return {}
    found, length, total = {0: 0.0}, 0, 0.0
    for token, logprob in zip(reversed(tokens), reversed(scored.logprobs), strict=True):
        if spelled := vocabulary.tokens[token]:
            length, total = length + len(spelled), total + logprob
        if spelled and length <= len(text):
            found[length] = total
    return found


def perplexity(passages: Sequence[Tensor]) -> float:
    """exp of the mean surprisal of the pieces of these texts, (n,) log-probabilities each."""
    pieces = sum(map(len, passages))
    return math.exp(min(-sum(float(each.sum()) for each in passages) / max(pieces, 1), 700.0))


def by_kind(passages: Sequence[ScoredPassage]) -> dict[str, list[ScoredPassage]]:
    """The passages of each kind, kinds in the order in which they first come."""
    kinds = dict.fromkeys(each.kind for each in passages)
    return {kind: [each for each in passages if each.kind == kind] for kind in kinds}


def perplexities(passages: Sequence[ScoredPassage]) -> tuple[float, float]:
    """The LLM's perplexity on these passages, and the SLM's."""
    return perplexity([each.llm for each in passages]), perplexity([each.slm for each in passages])
