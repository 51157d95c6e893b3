"""An open batch on a mixture: the members' sessions, read side by side."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor

from purify_plugins.errors import SourceError
from purify_plugins.protocols import Session
from purify_plugins.types import Prompt, ScoredPrompt

if TYPE_CHECKING:
    from purify_plugins.protocols import LogitSource

KEPT = 64
"""How many of an answer's last tokens have the members' rows after them kept, for a rewind to them."""
ALL = 2**31
"""More tokens than any prompt has: all are scored."""


class Weighted(NamedTuple):
    """The members of a mixture, their weights, which sum to 1, and the share; see `MixtureSource`."""

    members: Sequence[LogitSource]
    weights: Sequence[float]
    share: float | None


def opened(mixture: Weighted, prompts: Sequence[Prompt], scored: int) -> tuple[Session, Tensor]:
    """The session of a mixture over these prompts, and the first token's log-probabilities (rows, V)."""
    asked = scored if mixture.share is None else ALL
    sessions: list[Session] = []
    rows: list[Tensor] = []
    with ExitStack() as stack:
        for member in mixture.members:
            session, first = member.open(prompts, asked)
            stack.callback(session.close)
            sessions.append(session)
            rows.append(first)
        _require_one_reading(sessions)
        prior = torch.tensor(mixture.weights, dtype=torch.float64).log()
        rows = _normalised(rows)
        made: MixtureSession
        if mixture.share is None:
            made = MixtureSession(sessions, prior, scored)
            first = mixed(rows, prior)
        else:
            made = PosteriorSession(sessions, prior, scored, float(mixture.share))
            first = made.begin(rows)
        stack.pop_all()
    return made, first


def _require_one_reading(sessions: Sequence[Session]) -> None:
    """Raise SourceError where two members have read a prompt as different ids."""
    first, *others = ([prompt.tokens for prompt in session.prompts] for session in sessions)
    if any(read != first for read in others):
        raise SourceError("the members of the mixture read the prompt as different tokens; give it as text")


def _normalised(rows: Sequence[Tensor]) -> list[Tensor]:
    """Each member's log-probabilities (…, V) in float32, all on the first one's device."""
    return [torch.log_softmax(row.to(rows[0].device).float(), dim=-1) for row in rows]


def mixed(rows: Sequence[Tensor], weights: Tensor) -> Tensor:
    """The mixture's log-probabilities (…, V) of members' (…, V), under log-weights (…, M) or (M,)."""
    by_member = weights.to(rows[0].device).float().unbind(-1)
    out = rows[0] + by_member[0][..., None]
    for row, weight in zip(rows[1:], by_member[1:], strict=True):
        out = torch.logaddexp(out, row + weight[..., None])
    return out


class MixtureSession(Session):
    """Members' sessions under fixed log-weights (M,), with the optional members that all have."""

    def __init__(self, sessions: Sequence[Session], weights: Tensor, scored: int) -> None:
        self.sessions, self._prior = sessions, weights
        self.prompts: Sequence[ScoredPrompt] = self._scored(scored)

    def _scored(self, scored: int) -> Sequence[ScoredPrompt]:
        """The prompts with the mixture's log-probabilities of their last `scored` tokens."""
        found = []
        for told in zip(*(session.prompts for session in self.sessions), strict=True):
            scores = torch.tensor([prompt.logprobs for prompt in told], dtype=torch.float64).T  # (n, M)
            scores = scores[len(scores) - scored :] if scored < len(scores) else scores
            found.append(ScoredPrompt(told[0].tokens, self._predicted(scores)))
        return found

    def _predicted(self, scores: Tensor) -> tuple[float, ...]:
        """The mixture's log-probabilities of n tokens, from the members' (n, M)."""
        return tuple((scores + self._prior).logsumexp(-1).tolist())

    @property
    def readings(self) -> Sequence[tuple[int, ...]]:
        """The ids that the first member read, which all have read."""
        return self.sessions[0].readings

    def extend(self, tokens: Tensor) -> Tensor:
        return mixed(self._read(tokens), self._prior)

    def _read(self, tokens: Tensor) -> list[Tensor]:
        return _normalised([session.extend(tokens) for session in self.sessions])

    def rewind(self, lengths: Tensor) -> None:
        for session in self.sessions:
            session.rewind(lengths)

    @property
    def full(self) -> Collection[int] | None:
        found = [session.full for session in self.sessions]
        return None if found.count(None) == len(found) else {row for each in found for row in each or ()}

    @property
    def keeps(self) -> bool:
        return all(session.keeps for session in self.sessions)

    def keep(self, rows: Sequence[int]) -> None:
        self.prompts = [self.prompts[row] for row in rows]
        for session in self.sessions:
            session.keep(rows)

    @property
    def branches(self) -> bool:
        return all(session.branches for session in self.sessions)

    def branch(self, tokens: Tensor, seen: Tensor) -> Tensor:
        rows = _normalised([session.branch(tokens, seen) for session in self.sessions])
        return mixed(rows, self._prior)

    def select(self, columns: Tensor) -> None:
        for session in self.sessions:
            session.select(columns)

    def mark(self) -> Any:
        return [session.mark() for session in self.sessions]

    def undo(self, mark: Any) -> None:
        for session, each in zip(self.sessions, mark, strict=True):
            session.undo(each)

    def close(self) -> None:
        with ExitStack() as stack:
            for session in self.sessions:
                stack.callback(session.close)


class _After(NamedTuple):
    """What is known after a row's first n tokens: log-weights (M,), and each member's row (V,) if kept."""

    weights: Tensor
    rows: Sequence[Tensor] | None


class PosteriorSession(MixtureSession):
    """Members' sessions under weights that follow the text.

    The weights before a token do not depend on it: the mixture's probabilities of the tokens multiply to
    that of the text, as any language model's do.
    """

    def __init__(self, sessions: Sequence[Session], weights: Tensor, scored: int, share: float) -> None:
        self._share = share
        self._weights: list[Tensor] = []  # of each row, after its prompt
        super().__init__(sessions, weights, ALL)
        self._tokens: list[list[int]] = [[] for _ in self.prompts]
        self._after: list[list[_After]] = []
        self.prompts = [
            prompt._replace(logprobs=prompt.logprobs[max(len(prompt.logprobs) - scored, 0) :])
            for prompt in self.prompts
        ]

    def _predicted(self, scores: Tensor) -> tuple[float, ...]:
        weights, found = self._prior, []
        for token in scores:
            found.append(float((weights + token).logsumexp(-1)))
            weights = self._updated(weights, token)
        self._weights.append(weights)
        return tuple(found)

    def _updated(self, weights: Tensor, scores: Tensor) -> Tensor:
        """Log-weights (…, M) after a token of these log-probabilities (…, M)."""
        joint = weights + scores.to(weights)
        total = joint.logsumexp(-1, keepdim=True)
        posterior = torch.where(total.isneginf(), weights, joint - total)  # no member allowed the token
        if not self._share:
            return posterior
        return ((1 - self._share) * posterior.exp() + self._share * self._prior.exp()).log()

    def begin(self, rows: Sequence[Tensor]) -> Tensor:
        """Take the members' first rows (rows, V); the mixture's."""
        weights = torch.stack(self._weights)
        self._after = [[_After(weights[at], [each[at] for each in rows])] for at in range(len(self.prompts))]
        return mixed(rows, weights)

    def extend(self, tokens: Tensor) -> Tensor:
        rows, out = self._read(tokens), []
        weights = torch.stack([after[-1].weights for after in self._after])
        for column, new in enumerate(tokens.cpu().T):
            scores = torch.tensor([
                [float(row[token]) for row in after[-1].rows or ()]
                for after, token in zip(self._after, new.tolist(), strict=True)
            ])  # fmt: skip
            weights = self._updated(weights, scores)
            now = [each[:, column] for each in rows]
            out.append(mixed(now, weights))
            self._note(new.tolist(), weights, now)
        return torch.stack(out, dim=1)

    def _note(self, tokens: Sequence[int], weights: Tensor, rows: Sequence[Tensor]) -> None:
        for at, (token, after) in enumerate(zip(tokens, self._after, strict=True)):
            self._tokens[at].append(token)
            after.append(_After(weights[at], [each[at] for each in rows]))
            if len(after) > KEPT + 1:  # the first, after the prompt, is always kept
                after[-KEPT - 1] = after[-KEPT - 1]._replace(rows=None)

    def rewind(self, lengths: Tensor) -> None:
        for read, after, length in zip(self._tokens, self._after, lengths.tolist(), strict=True):
            del read[length:], after[length + 1 :]
        if any(after[-1].rows is None for after in self._after):
            self._reread(lengths)
        super().rewind(lengths)

    def _reread(self, lengths: Tensor) -> None:
        """Ask the members for their rows after the last tokens that are left, where these were let go."""
        before = (lengths - 1).clamp(min=0)
        super().rewind(before)
        last = torch.tensor([[read[-1] if read else 0] for read in self._tokens])
        rows = self._read(last)
        for at, after in enumerate(self._after):
            if after[-1].rows is None:
                after[-1] = after[-1]._replace(rows=[each[at, 0] for each in rows])

    def keep(self, rows: Sequence[int]) -> None:
        super().keep(rows)
        self._tokens = [self._tokens[row] for row in rows]
        self._after = [self._after[row] for row in rows]

    @property
    def branches(self) -> bool:
        """False: each branch would need weights of its own."""
        return False

    def mark(self) -> Any:
        return super().mark(), [len(read) for read in self._tokens]

    def undo(self, mark: Any) -> None:
        members, lengths = mark
        super().undo(members)
        for read, after, length in zip(self._tokens, self._after, lengths, strict=True):
            del read[length:], after[length + 1 :]
