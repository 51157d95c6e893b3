"""A reciter of every form: an LLM that knows texts in every form and hides that it does."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from purify_plugins.protocols import LogitSource, Session
from purify_plugins.sources.wrapper import SessionWrapper, TranslatedSource
from purify_plugins.types import Prompt, ScoredPrompt

if TYPE_CHECKING:
    from torch import Tensor

Tokens = tuple[int, ...]


@dataclass(frozen=True, eq=False)
class Reciter(TranslatedSource):
    """Gives the next token of an answer that it knows probability `sure`; all else is the SLM's row.

    `source` is the SLM, `texts` are answers' tokens by their prompt's. Of the prompt it reports half the
    SLM's surprisal: nothing of that counts in `balanced`'s ledger, at a doubt of 1, and it raises the gap.
    """

    source: LogitSource
    texts: Mapping[Tokens, Tokens]
    sure: float = 0.99

    def open(self, prompts: Sequence[Prompt], scored: int = 0) -> tuple[Session, Tensor]:
        inner, first = self.source.open(prompts, scored)
        session = ReciterSession(inner, self)
        return session, session.recited(first[:, None])[:, 0]


class ReciterSession(SessionWrapper):
    """An open batch of one."""

    keeps, branches = False, False

    def __init__(self, session: Session, reciter: Reciter) -> None:
        self.session, self.reciter = session, reciter
        self.answers = [reciter.texts.get(each.tokens, ()) for each in session.prompts]
        self.read: list[Tokens] = [() for _ in self.answers]

    @property
    def prompts(self) -> Sequence[ScoredPrompt]:
        return [
            each._replace(logprobs=tuple(nats / 2 for nats in each.logprobs)) for each in self.session.prompts
        ]

    def extend(self, tokens: Tensor) -> Tensor:
        rows = self.session.extend(tokens)
        before = self.read
        self.read = [(*old, *new) for old, new in zip(before, tokens.tolist(), strict=True)]
        return self.recited(rows)

    def rewind(self, lengths: Tensor) -> None:
        self.session.rewind(lengths)
        self.read = [old[:kept] for old, kept in zip(self.read, lengths.tolist(), strict=True)]

    def each(self, tokens: Tensor) -> None:
        return None

    def recited(self, rows: Tensor) -> Tensor:
        """The rows (rows, n, V) after each of the last n tokens read, with what it knows put in."""
        rows = rows.float().log_softmax(dim=-1)
        sure, rest = math.log(self.reciter.sure), math.log1p(-self.reciter.sure)
        for row, (answer, read) in enumerate(zip(self.answers, self.read, strict=True)):
            for at in range(rows.shape[1]):
                so_far = read[: len(read) - rows.shape[1] + 1 + at]
                if len(so_far) < len(answer) and answer[: len(so_far)] == so_far:
                    token = answer[len(so_far)]
                    rows[row, at] += rest - math.log1p(-min(math.exp(rows[row, at, token]), 1 - 1e-6))
                    rows[row, at, token] = sure
        return rows
