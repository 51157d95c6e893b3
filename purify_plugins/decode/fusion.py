"""One column's arithmetic, the same for every decoder: process both rows, fuse, check, record.

Rows stay log-weights, and the logarithms of their sums are kept beside them: to normalise a row that is a
hundred thousand tokens wide, only to read one of its entries, costs more than to fuse it.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import pad

from purify_plugins.decode.logits import argmax, exp, log_sum, on_cpu
from purify_plugins.decode.partial_rows import complete
from purify_plugins.decode.random_streams import first_of_race, inverse_cdf
from purify_plugins.errors import NumericError, PluginError, ours

if TYPE_CHECKING:
    from purify_plugins.decode.processors import LogitsProcessors
    from purify_plugins.decode.truncation import Truncation
    from purify_plugins.policy import Context, FusionPolicy, State
    from purify_plugins.types import History

Places = Sequence[int] | None
"""For each place in the batch, the row to read there; None: every row its own."""


class FusedLogits(NamedTuple):
    """One column: log-weights (rows, V) of both models and of their fusion.

    `mass` (rows, V) is proportional to the fused probabilities; `totals` (rows, 3) are the logarithms of the
    three rows' sums (NaN for an LLM's row that need not be normalised). `slm_only` (rows,) marks rows that
    are the SLM's own because nothing could be fused; `no_allowed_token` (rows,) those where the SLM rules out
    all that a grammar or a constraint allows, which have no next token. `columns` (V,) are the token ids that
    the columns stand for, ascending, where only these are possible. `shown` (rows, 2), where the LLM's rows
    were partial, holds the LLM's mass that was shown and the fused mass of tokens that were not. `finite`
    (rows,), on an accelerator, marks the rows that no model and no policy broke, for the host to read later.
    """

    llm: Tensor
    slm: Tensor
    fused: Tensor
    mass: Tensor
    totals: Tensor
    slm_only: Tensor
    columns: Tensor | None = None
    no_allowed_token: Tensor | None = None
    shown: Tensor | None = None
    finite: Tensor | None = None

    def draw(self, uniforms: Tensor | None) -> Tensor:
        """Tokens (rows,) drawn from the fused rows by numbers (rows,) in [0, 1); without, the arg-max.

        Exponential numbers (rows, V) instead draw by a race: see `MarkedStreams`.
        """
        if uniforms is not None and uniforms.dim() == 2:
            race = uniforms if self.columns is None else uniforms[:, self.columns]
            return self.ids(first_of_race(self.mass, race))
        return self.ids(argmax(self.fused) if uniforms is None else inverse_cdf(self.mass, uniforms))

    def ids(self, places: Tensor) -> Tensor:
        """The token ids at places (rows,) of the row."""
        return places if self.columns is None else self.columns[places]

    def places(self, tokens: Tensor) -> Tensor:
        """Where tokens (rows,) stand in the row."""
        if self.columns is None:
            return tokens
        # A token that is not possible gets any place: its row is inactive.
        return torch.searchsorted(self.columns, tokens).clamp(max=len(self.columns) - 1)

    def at(self, rows: Sequence[int]) -> FusedLogits:
        """These rows of the column."""
        columns, index = self.columns, list(rows)
        found = (None if each is None or each is columns else each[index] for each in self)
        return FusedLogits(*found)._replace(columns=columns)  # type: ignore[arg-type]  # what is None may be

    def logprobs(self, tokens: Tensor) -> Tensor:
        """Log-probabilities (rows, 3) of possible tokens (rows,) under the LLM, the SLM and their fusion."""
        places = self.places(tokens)[:, None]
        return torch.cat([row.gather(-1, places) for row in self[:3]], dim=-1) - self.totals

    def coupled(self, tokens: Tensor) -> Tensor:
        """(rows,) how likely the SLM's own draw in the same race would have been the drawn token.

        P(both draw v) is 1 over the sum of max(slm / slm(v), fused / fused(v)) (Daliri et al. 2025).
        """
        slm, fused = (exp(row - self.totals[:, at, None]) for at, row in ((1, self.slm), (2, self.fused)))
        _, own, drawn = self.logprobs(tokens).exp().unbind(dim=-1)
        scaled = slm * (drawn / own.clamp(min=torch.finfo(slm.dtype).tiny))[:, None]
        return 1.0 / torch.maximum(scaled, fused).sum(dim=-1)

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
    processors: LogitsProcessors,
    llm: Tensor | None,
    slm: Tensor,
    state: State,
    history: History,
    active: Sequence[bool] | Tensor | None = None,
    lost: Tensor | None = None,
    places: Places = None,
) -> FusedLogits:
    """Fuse one column of logits (rows, V), at these `places`; `lost` (rows,) marks rows whose LLM failed.

    A row without an LLM, on which the models share no token, or of which the LLM rules out all that
    a grammar allows, falls back to the SLM's own: never to the LLM's. Raises NumericError when a
    model or the policy returns NaN, +inf or a wrong shape, or an `active` row has no token to draw.
    """
    if places is not None:
        inputs = llm, slm, lost, state, history, active
        llm, slm, lost, state, history, active = _at(list(places), *inputs)
    if llm is not None and lost is not None and bool(lost.any()):
        llm = _without_lost(llm, slm, lost)
    shown: Sequence[Tensor] = ()
    if llm is not None and llm.shape[-1] > slm.shape[-1]:
        llm, *shown = complete(llm.to(slm.device), slm)
    slm, none_allowed = processors.process(slm, history, "the SLM")
    if llm is None:
        rows = _slm_alone(slm, processors)
    else:
        llm, fully_masked = processors.process(llm.to(slm.device), history, "the LLM")
        if fully_masked is not None:
            llm = torch.where(fully_masked[:, None], slm, llm)
        cut = processors.truncation
        columns, (llm, slm) = narrow(cut, llm, slm) if cut else (None, [llm, slm])
        with ours(partial(_failed, policy, "fuse")):
            fused = policy.fuse(llm, slm, state).float()
        rows = _with_totals(policy, processors, llm, slm, fused, [fully_masked, lost])
        rows = rows._replace(columns=columns)
        rows = rows._replace(shown=_shown(rows, *shown)) if shown else rows
    return rows if none_allowed is None else _without_token(rows, processors, none_allowed, active)


def _at(
    places: list[int],
    llm: Tensor | None,
    slm: Tensor,
    lost: Tensor | None,
    state: State,
    history: History,
    active: Sequence[bool] | Tensor | None,
) -> tuple[Tensor | None, Tensor, Tensor | None, State, History, Sequence[bool] | None]:
    """The inputs of `fuse` at these places of the batch."""
    return (
        None if llm is None else llm[places],
        slm[places],
        None if lost is None else lost[places],
        select(places, state),
        [history[place] for place in places],
        None if active is None else [bool(active[place]) for place in places],
    )


def _without_lost(llm: Tensor, slm: Tensor, lost: Tensor) -> Tensor:
    """The LLM's logits (rows, V or V + 1 from a server), with the SLM's own in the rows that are lost."""
    own = pad(slm.float().log_softmax(dim=-1), (0, llm.shape[-1] - slm.shape[-1]), value=-torch.inf)
    return torch.where(lost.to(slm.device)[:, None], own.to(llm.dtype), llm.to(slm.device))


def _with_totals(
    policy: FusionPolicy,
    processors: LogitsProcessors,
    llm: Tensor,
    slm: Tensor,
    fused: Tensor,
    without: Sequence[Tensor | None],
) -> FusedLogits:
    """The column of log-weights (rows, V), checked; rows marked by any of `without` (rows,) are the SLM's."""
    if fused.shape != slm.shape:
        shapes = f"{tuple(fused.shape)} for rows of {tuple(slm.shape)}"
        raise NumericError(f"{_name(policy)} returned {shapes}")
    slm_total = log_sum(slm, "the SLM")[0] if processors.raw else slm.new_zeros(len(slm), 1)
    try:
        total, mass = log_sum(fused, policy, may_be_empty=True)
    except NumericError:
        if processors.raw:
            log_sum(llm, "the LLM")  # raises where the fault came through the policy
        raise
    finite = None if on_cpu(total) else _finite(processors, llm, slm, slm_total, total)
    empty = torch.isneginf(total)
    for each in without:
        empty = empty if each is None else empty | each.to(empty.device)[:, None]
    if not on_cpu(empty) or bool(empty.any()):
        fused, total = torch.where(empty, slm, fused), torch.where(empty, slm_total, total)
        mass = torch.where(empty, exp(slm - slm_total), mass)
    llm_total = torch.full_like(total, torch.nan) if processors.raw else slm_total
    totals = torch.cat([llm_total, slm_total, total], dim=-1)
    return FusedLogits(llm, slm, fused, mass, totals, empty[:, 0], finite=finite)


def _without_token(
    rows: FusedLogits,
    processors: LogitsProcessors,
    none_allowed: Tensor,
    active: Sequence[bool] | Tensor | None,
) -> FusedLogits:
    """The column, some of whose rows (rows,) have no allowed token. Raises NumericError if one is `active`.

    On an accelerator such a row is marked as not finite, which the host reads with all else at once. Under a
    grammar, which is followed on the host anyway, the error says what is wrong.
    """
    if rows.finite is not None and not processors.follows_text:
        return rows._replace(finite=rows.finite & ~none_allowed)
    also = "a constraint " if processors.constrained else ""
    if active is not None and bool((torch.as_tensor(active).to(none_allowed) & none_allowed).any()):
        raise NumericError(
            f"the SLM gives no probability to any token that the grammar, {also}or ignore_eos, allows next; "
            "use another grammar, or an SLM that can write it"
        )
    return rows._replace(no_allowed_token=none_allowed)


def _finite(
    processors: LogitsProcessors, llm: Tensor, slm: Tensor, slm_total: Tensor, total: Tensor
) -> Tensor:
    """(rows,) bool: the rows for which `log_sum` and `normalise` raise nothing on a CPU."""
    fused = torch.isfinite(total) | torch.isneginf(total)
    models = torch.isfinite(slm_total) if processors.raw else ~(llm[:, :1].isnan() | slm[:, :1].isnan())
    return (fused & models)[:, 0]


def _shown(rows: FusedLogits, revealed: Tensor, unseen: Tensor) -> Tensor:
    """(rows, 2) the LLM's mass that was shown, and the fused mass of tokens that were not."""
    unseen = unseen if rows.columns is None else unseen[:, rows.columns]
    return torch.stack([revealed, (rows.mass * unseen).sum(dim=-1) / rows.mass.sum(dim=-1)], dim=-1)


def _slm_alone(slm: Tensor, processors: LogitsProcessors) -> FusedLogits:
    """The column of an SLM without an LLM."""
    columns, (slm,) = narrow(processors.truncation, slm) if processors.truncation else (None, [slm])
    total, mass = log_sum(slm, "the SLM")
    alone = torch.ones(len(slm), dtype=torch.bool, device=slm.device)
    finite = None if on_cpu(total) else torch.isfinite(total)[:, 0]
    return FusedLogits(slm, slm, slm, mass, total.expand(-1, 3), alone, columns, finite=finite)


def narrow(truncation: Truncation, *both: Tensor) -> tuple[Tensor, list[Tensor]]:
    """The token ids that any row leaves possible, and the rows (rows, V) on these alone, normalised.

    What is possible in no row is possible in no mixture of them, so nothing is lost.
    """
    kept = [_kept(truncation, rows) for rows in both]
    columns = torch.cat([ids for rows in kept for ids in rows]).unique()
    return columns, [_on(columns, rows, ids) for rows, ids in zip(both, kept, strict=True)]


def _kept(truncation: Truncation, rows: Tensor) -> list[Tensor]:
    totals, _ = log_sum(rows, "a model")
    return [truncation.kept(row, total) for row, total in zip(rows, totals[:, 0].tolist(), strict=True)]


def _on(columns: Tensor, rows: Tensor, kept: list[Tensor]) -> Tensor:
    """Log-probabilities (rows, n) on `columns`: each row's kept tokens, normalised; -inf elsewhere."""
    narrowed = rows.new_full((len(rows), len(columns)), -torch.inf)
    for row, ids, target in zip(rows, kept, narrowed, strict=True):
        target[torch.searchsorted(columns, ids)] = row[ids]
    return torch.log_softmax(narrowed, dim=-1)


def _name(policy: FusionPolicy) -> str:
    return f"the policy {type(policy.original).__name__}"


def _failed(policy: FusionPolicy, method: str, error: Exception) -> PluginError:
    return PluginError(f"{_name(policy)} failed in {method}: {error!r}")


# The policy's state


def start_state(policy: FusionPolicy, context: Context) -> State:
    """The policy's state before the first token, (rows, …) each. Raises NumericError for another shape."""
    with ours(partial(_failed, policy, "start")):
        state, rows = policy.start(context), len(context.lengths)
    if isinstance(state, tuple) and all(each.ndim and len(each) == rows for each in state):
        return state
    shapes = ", ".join(str(tuple(each.shape)) for each in state) if isinstance(state, tuple) else "no tuple"
    raise NumericError(
        f"{_name(policy)} starts {rows} rows with a state of {shapes}; `start` "
        "returns a tuple of tensors whose first dimension is the row: (rows, …), or () for no memory"
    )


def advance_state(
    policy: FusionPolicy, state: State, tokens: Tensor, rows: FusedLogits, places: Places = None
) -> State:
    """The policy's state after tokens (rows,) were drawn, at these `places`; () for one without memory."""
    if not state:
        return state
    if places is not None:
        state, tokens, rows = select(places, state), tokens[list(places)], rows.at(places)
    llm, slm, fused = (_less(row, rows.totals[:, at, None]) for at, row in enumerate(rows[:3]))
    with ours(partial(_failed, policy, "advance")):
        return policy.advance(state, rows.places(tokens), llm, slm, fused)


def _less(row: Tensor, total: Tensor) -> Tensor:
    """Log-weights (rows, V) less the logarithms of their sums (rows, 1); the same tensor if these are 0."""
    return row - total if not on_cpu(total) or bool(total.any()) else row


def select(places: Sequence[int], state: State) -> State:
    """The state of the rows at these places."""
    index = list(places)
    return tuple(each[index] for each in state)


def where_rows(keep: Tensor, new: State, old: State) -> State:
    """`new` for the rows where `keep` (rows,) is true, `old` for the others."""
    return tuple(
        torch.where(keep.reshape(-1, *[1] * (fresh.dim() - 1)), fresh, stale)
        for fresh, stale in zip(new, old, strict=True)
    )
