"""One column's arithmetic, the same for every walk: shape both rows, fuse, check, record.

Rows stay log-weights and their totals are kept beside them: to normalise a row that is a hundred
thousand tokens wide, only to look at one of them, costs more than to fuse it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import pad

from purify_plugins.decode.logits import MULTIPLIED, add_up, argmax, exp, near
from purify_plugins.decode.partial_rows import complete
from purify_plugins.decode.random_streams import pick
from purify_plugins.errors import NumericError, PluginError, ours
from purify_plugins.foreign import require_rows
from purify_plugins.types import Token

if TYPE_CHECKING:
    from purify_plugins.decode.processors import Shaper
    from purify_plugins.decode.truncation import Cut
    from purify_plugins.policy import Context, FusionPolicy, State
    from purify_plugins.types import History


class Rows(NamedTuple):
    """One column: log-weights (rows, V) of both models and of their fusion.

    `mass` (rows, V) is proportional to the fused probabilities; `totals` (rows, 3) are the
    logarithms of what the three rows' weights add up to (NaN for an LLM's row that nobody needed
    added up). `slm_only` (rows,) marks rows that are the SLM's own because nothing could be
    fused; `stuck` (rows,) those where the SLM rules out all that a grammar allows, which have no next
    token. `columns` (V,) are the token ids the columns stand for, ascending, when only these are
    possible. `shown` (rows, 2), where the LLM's rows were partial, holds the LLM's mass that was shown and
    the fused mass of tokens that were not. `sound` (rows,), on an accelerator, marks the rows that no model
    and no policy broke; nobody has looked at it yet.
    """

    llm: Tensor
    slm: Tensor
    fused: Tensor
    mass: Tensor
    totals: Tensor
    slm_only: Tensor
    columns: Tensor | None = None
    stuck: Tensor | None = None
    shown: Tensor | None = None
    sound: Tensor | None = None

    def require(self, going: Sequence[bool] | Tensor) -> None:
        """Raise NumericError if a row that is `going` on has no next token."""
        if self.stuck is not None and bool((torch.as_tensor(going).to(self.stuck) & self.stuck).any()):
            raise NumericError(
                "the SLM gives no probability to any token that the grammar, or ignore_eos, allows next; "
                "use another grammar, or an SLM that can write it"
            )

    def draw(self, luck: Tensor | None) -> Tensor:
        """Tokens (rows,) drawn from the fused row by numbers (rows,) in [0, 1); the arg-max without any."""
        return self.named(argmax(self.fused) if luck is None else pick(self.mass, luck))

    def named(self, places: Tensor) -> Tensor:
        """The token ids at places (rows,) of the row."""
        return places if self.columns is None else self.columns[places]

    def places(self, tokens: Tensor) -> Tensor:
        """Where tokens (rows,) stand in the row."""
        if self.columns is None:
            return tokens
        # An impossible token stands anywhere: it is one of a row that nobody needs.
        return torch.searchsorted(self.columns, tokens).clamp(max=len(self.columns) - 1)

    def at(self, places: Sequence[int]) -> Rows:
        """The rows at these places."""
        columns, index = self.columns, list(places)
        rows = (None if each is None or each is columns else each[index] for each in self)
        return Rows(*rows)._replace(columns=columns)  # type: ignore[arg-type]  # what is None may be

    def logprobs(self, tokens: Tensor) -> Tensor:
        """Log-probabilities (rows, 3) of possible tokens (rows,) under the LLM, the SLM and their fusion."""
        places = self.places(tokens)[:, None]
        return torch.cat([row.gather(-1, places) for row in self[:3]], dim=-1) - self.totals

    def excess(self, rows: Tensor) -> Tensor:
        """(n, V) how much likelier each token is in the fused row than in the SLM's, or 0, at rows (n,).

        Where rounding leaves nothing the two are equal, and the fused row stands in.
        """
        slm = exp(self.slm[rows] - self.totals[rows, 1:2])
        fused = exp(self.fused[rows] - self.totals[rows, 2:3])
        over = (fused - slm).clamp(min=0.0)
        return torch.where(over.any(dim=-1, keepdim=True), over, fused)


def fuse(
    policy: FusionPolicy,
    shape: Shaper,
    llm: Tensor | None,
    slm: Tensor,
    state: State,
    history: History,
    lost: Tensor | None = None,
) -> Rows:
    """Fuse one column of logits (rows, V); `lost` (rows,) marks rows whose LLM has failed.

    A row without an LLM, on which the models share no token, or of which the LLM rules out all that
    a grammar allows, falls back to the SLM's own: never to the LLM's. Raises NumericError when a
    model or the policy returns NaN, +inf or a wrong shape.
    """
    columns, partial = None, None
    if llm is not None and lost is not None:
        llm = _replaced(llm, slm, lost)
    if llm is not None and llm.shape[-1] > slm.shape[-1]:
        llm, *partial = complete(llm.to(slm.device), slm)
    slm, stuck = shape.weigh(slm, history, "the SLM")
    if llm is None:
        return _unstuck(_alone(slm, shape)._replace(stuck=stuck), shape)
    llm, barred = shape.weigh(llm.to(slm.device), history, "the LLM")
    if barred is not None:
        llm = torch.where(barred[:, None], slm, llm)
    if shape.cut:
        columns, (llm, slm) = narrow(shape.cut, llm, slm)
    fused = _fused(policy, llm, slm, state)
    slm_total = _total(slm, shape)
    total, mass = _add_up(policy, shape, llm, fused)
    sound = None if near(total) else _sound(shape, llm, slm, slm_total, total)
    empty = _marked(torch.isneginf(total), barred, lost)
    if not near(empty) or bool(empty.any()):
        fused, total = torch.where(empty, slm, fused), torch.where(empty, slm_total, total)
        mass = torch.where(empty, exp(slm - slm_total), mass)
    llm_total = torch.full_like(total, torch.nan) if shape.raw else slm_total
    totals = torch.cat([llm_total, slm_total, total], dim=-1)
    shown = _shown(partial, mass, columns) if partial else None
    return _unstuck(Rows(llm, slm, fused, mass, totals, empty[:, 0], columns, stuck, shown, sound), shape)


def _fused(policy: FusionPolicy, llm: Tensor, slm: Tensor, state: State) -> Tensor:
    """The policy's row of log-weights (rows, V) in float32. Raises NumericError for another shape."""
    with _asking(policy, "fuse"):
        fused = policy.fuse(llm, slm, state).float()
    if fused.shape != slm.shape:
        raise NumericError(f"{_name(policy)} returned {tuple(fused.shape)} for rows of {tuple(slm.shape)}")
    return fused


def _marked(empty: Tensor, *others: Tensor | None) -> Tensor:
    """The rows (rows, 1) that are empty, or marked (rows,) for another reason."""
    for each in others:
        empty = empty if each is None else empty | each.to(empty.device)[:, None]
    return empty


def _replaced(llm: Tensor, slm: Tensor, lost: Tensor) -> Tensor:
    """The LLM's logits (rows, V or V + 1 from a server), with the SLM's own in the rows that are lost."""
    if not bool(lost.any()):
        return llm
    own = pad(slm.float().log_softmax(dim=-1), (0, llm.shape[-1] - slm.shape[-1]), value=-torch.inf)
    return torch.where(lost.to(slm.device)[:, None], own.to(llm.dtype), llm.to(slm.device))


def _unstuck(rows: Rows, shape: Shaper) -> Rows:
    """The column; on an accelerator a stuck row is not sound, which the host sees with all else at once.

    Not so under a grammar, which is followed on the host anyway: there `require` says what is wrong.
    """
    if rows.stuck is None or rows.sound is None or shape.followed:
        return rows
    return rows._replace(stuck=None, sound=rows.sound & ~rows.stuck)


def _sound(shape: Shaper, llm: Tensor, slm: Tensor, slm_total: Tensor, total: Tensor) -> Tensor:
    """(rows,) what `add_up` and `normalise` would have raised of, had they looked."""
    fused = torch.isfinite(total) | torch.isneginf(total)
    models = torch.isfinite(slm_total) if shape.raw else ~(llm[:, :1].isnan() | slm[:, :1].isnan())
    return (fused & models)[:, 0]


def _shown(partial: Sequence[Tensor], mass: Tensor, columns: Tensor | None) -> Tensor:
    """(rows, 2) the LLM's mass that was shown, and the fused mass of tokens that were not."""
    revealed, unseen = partial
    unseen = unseen if columns is None else unseen[:, columns]
    return torch.stack([revealed, (mass * unseen).sum(dim=-1) / mass.sum(dim=-1)], dim=-1)


def _total(slm: Tensor, shape: Shaper) -> Tensor:
    """(rows, 1) what the SLM's weights add up to: 0 where they are probabilities already."""
    return add_up(slm, "the SLM")[0] if shape.raw else slm.new_zeros(len(slm), 1)


def _add_up(policy: FusionPolicy, shape: Shaper, llm: Tensor, fused: Tensor) -> tuple[Tensor, Tensor]:
    """`add_up` of the fused row; a fault that came through the policy is put down to the LLM."""
    try:
        return add_up(fused, _name(policy), may_be_empty=True)
    except NumericError:
        if shape.raw:
            add_up(llm, "the LLM")
        raise


def _alone(slm: Tensor, shape: Shaper) -> Rows:
    """The column of an SLM without an LLM."""
    columns, (slm,) = narrow(shape.cut, slm) if shape.cut else (None, [slm])
    total, mass = add_up(slm, "the SLM")
    alone = torch.ones(len(slm), dtype=torch.bool, device=slm.device)
    sound = None if near(total) else torch.isfinite(total)[:, 0]
    return Rows(slm, slm, slm, mass, total.expand(-1, 3), alone, columns, sound=sound)


def narrow(cut: Cut, *both: Tensor) -> tuple[Tensor, list[Tensor]]:
    """The token ids that any row leaves possible, and the rows (rows, V) on these alone, normalised.

    What is possible in no row is possible in no mixture of them, so nothing is lost.
    """
    kept = [_kept(cut, rows) for rows in both]
    columns = torch.cat([ids for rows in kept for ids in rows]).unique()
    return columns, [_on(columns, rows, ids) for rows, ids in zip(both, kept, strict=True)]


def _kept(cut: Cut, rows: Tensor) -> list[Tensor]:
    totals, _ = add_up(rows, "a model")
    return [cut.kept(row, total) for row, total in zip(rows, totals[:, 0].tolist(), strict=True)]


def _on(columns: Tensor, rows: Tensor, kept: list[Tensor]) -> Tensor:
    """Log-probabilities (rows, n) on `columns`: each row's kept tokens, normalised; -inf elsewhere."""
    narrowed = torch.full((len(rows), len(columns)), -torch.inf)
    for row, ids, target in zip(rows, kept, narrowed, strict=True):
        target[torch.searchsorted(columns, ids)] = row[ids]
    return torch.log_softmax(narrowed, dim=-1)


def _name(policy: FusionPolicy) -> str:
    return f"the policy {type(policy.original).__name__}"


def _asking(policy: FusionPolicy, method: str) -> AbstractContextManager[None]:
    """Where a policy's method runs: PluginError, which names both, for an error that is not ours."""
    return ours(lambda error: PluginError(f"{_name(policy)} failed in {method}: {error!r}"))


def record(rows: Rows, tokens: Tensor, greedy: bool, top: int = 0) -> list[Token]:
    """What was thought of each drawn token (rows,), and of the row's `top` likeliest, in one copy."""
    return [thought(numbers) for numbers in table(rows, tokens, greedy, top).tolist()]


def table(rows: Rows, tokens: Tensor, greedy: bool, top: int = 0) -> Tensor:
    """All that the host must know of a column, (rows, 10 + 2 top) float32, for `thought` to read.

    A row is the token, what `Token` records of it, whether the row is sound, then the `top` likeliest
    tokens, likeliest first, and their log-probabilities.
    """
    logprobs = rows.logprobs(tokens)
    spent = _point_mass(logprobs) if greedy else _divergences(rows)
    shown = spent.new_tensor([1.0, 0.0]).expand_as(spent) if rows.shown is None else rows.shown
    sound = torch.ones_like(rows.slm_only) if rows.sound is None else rows.sound
    best = _best(rows, top) if top else []
    numbers = [tokens[:, None], logprobs, spent, shown, rows.slm_only[:, None], sound[:, None], *best]
    return torch.cat(numbers, dim=-1)


def _best(rows: Rows, top: int) -> list[Tensor]:
    """Each fused row's likeliest tokens and their log-probabilities, (rows, n), likeliest first."""
    weights, places = rows.fused.topk(min(top, rows.fused.shape[-1]), dim=-1)
    return [rows.named(places), weights - rows.totals[:, 2:3]]


def thought(numbers: Sequence[float]) -> Token:
    """One row of a `table`. Raises NumericError unless the row is sound."""
    token, llm, slm, fused, kl, peak, revealed, hidden, slm_only, sound, *best = numbers
    if not sound:
        raise NumericError(
            "a model or the policy returned NaN, +inf or no possible token (on a CPU this says which of "
            f"them); check the models' weights and dtype, and that {MULTIPLIED}"
        )
    own = None if llm != llm else llm
    half = len(best) // 2
    top = [(int(at), logprob) for at, logprob in zip(best[:half], best[half:], strict=True)]
    possible = tuple(each for each in top if each[1] > -math.inf)
    return Token(int(token), own, slm, fused, kl, peak, revealed, bool(slm_only), hidden, possible)


def _point_mass(logprobs: Tensor) -> Tensor:
    """(rows, 2) KL and largest log-ratio of a row that is sure of one token: the SLM's surprisal."""
    return -logprobs[:, 1:2].expand(-1, 2)


def _divergences(rows: Rows) -> Tensor:
    """(rows, 2) KL(fused || slm) and the largest log fused/slm of any token that could be drawn.

    One whose mass float32 does not tell from 0 could not: its two figures may be hundreds of millions, and
    their difference nothing but what rounding left of them.
    """
    ratio, mass = rows.fused - rows.slm, rows.mass
    at = argmax(ratio)[:, None]
    both = torch.stack([torch.linalg.vecdot(mass, ratio), ratio.gather(-1, at)[:, 0]], dim=-1)
    if not near(both) or not bool((torch.isfinite(both) & (mass.gather(-1, at) > 0)).all()):
        peak = torch.where(mass > 0, ratio, -torch.inf).amax(dim=-1)
        both = torch.stack([torch.where(mass > 0, mass * ratio, 0.0).sum(dim=-1), peak], dim=-1)
    both[:, 0] /= mass.sum(dim=-1)
    return both + (rows.totals[:, 1:2] - rows.totals[:, 2:3])


def begin(policy: FusionPolicy, context: Context) -> State:
    """The policy's state before the first token, (rows, …) each. Raises NumericError for another shape."""
    with _asking(policy, "start"):
        return require_rows(policy, policy.start(context), context.rows)


def forward(policy: FusionPolicy, state: State, tokens: Tensor, rows: Rows) -> State:
    """The policy's state after tokens (rows,) were drawn; a policy without memory is not asked."""
    if not state:
        return state
    llm, slm, fused = (row - rows.totals[:, at, None] for at, row in enumerate(rows[:3]))
    with _asking(policy, "advance"):
        return policy.advance(state, rows.places(tokens), llm, slm, fused)


def only(places: Sequence[int], state: State) -> State:
    """The state of the rows at these places."""
    return tuple(each[places] for each in state)


def choose(keep: Tensor, new: State, old: State) -> State:
    """`new` for the rows where `keep` (rows,) is true, `old` for the others."""
    return tuple(
        torch.where(keep.reshape(-1, *[1] * (fresh.dim() - 1)), fresh, stale)
        for fresh, stale in zip(new, old, strict=True)
    )
