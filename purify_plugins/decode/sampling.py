"""Shape both rows before they are fused, and draw from the fused row; nothing comes after."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Collection, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy
import torch
from torch import Tensor

from purify_plugins.errors import NumericError

if TYPE_CHECKING:
    from purify_plugins.types import Sampling, Vocabulary

History = Sequence[tuple[Sequence[int], Sequence[int]]]
"""Per row: the prompt's tokens and the answer's tokens so far."""


SAFE = (1e-30, 1e30)
"""Sums of exponentials that float32 holds without loss; others are computed the slow way."""


def add_up(weights: Tensor, who: str, may_be_empty: bool = False) -> tuple[Tensor, Tensor]:
    """What log-weights (…, V) in float32 add up to: the sum's logarithm (…, 1), and masses (…, V).

    Masses are proportional to probabilities. Raises NumericError, naming `who`, on NaN, +inf, or
    (unless `may_be_empty`) a row without a possible token: a repaired row would be text nobody's
    model wrote.
    """
    mass = exp(weights)
    total = mass.sum(dim=-1, keepdim=True)
    if all(SAFE[0] < each < SAFE[1] for each in total.flatten().tolist()):
        return total.log(), mass
    total = torch.logsumexp(weights, dim=-1, keepdim=True)
    empty = torch.isneginf(total)
    if not bool((torch.isfinite(total) | (empty & may_be_empty)).all()):
        raise _broken(who)
    return total, exp(weights - torch.where(empty, 0.0, total))


def exp(weights: Tensor) -> Tensor:
    """e to the power of each; on a CPU through numpy, which takes half the time."""
    if weights.device.type != "cpu":
        return torch.exp(weights)
    with numpy.errstate(over="ignore"):  # an infinite sum is looked into by whoever adds up
        return torch.from_numpy(numpy.exp(weights.numpy()))


def _broken(who: str) -> NumericError:
    return NumericError(f"{who} returned NaN, +inf or no possible token; check its weights and dtype")


def normalise(logits: Tensor, who: str) -> Tensor:
    """Logits (…, V) of any dtype -> log-probabilities in float32. Raises NumericError as `add_up`."""
    rows = torch.log_softmax(logits.float(), dim=-1)
    if torch.isnan(rows[..., 0]).any():  # one such number makes the whole row NaN
        raise _broken(who)
    return rows


UNDER_SETTINGS = "a model, under these sampling settings,"


class Shaper:
    """What `Sampling` does to a row of log-probabilities before fusion; the same for both models.

    `raw` says that no token is to be weighed anew, at most banned, and that the policy only shifts
    when its rows do: it may be given logits. Rows are `loose`, logits as yet, where they will be
    narrowed first too. `cut`, unless `whole`, finds the few tokens that top-k,
    top-p and min-p leave without sorting the row; on an accelerator, where sorting is cheap, the row
    stays whole.
    """

    def __init__(
        self, sampling: Sampling, vocabulary: Vocabulary, raw: bool = False, whole: bool = True
    ) -> None:
        cut = _cuts(sampling)
        self.cut = None if whole or not cut else Cut(sampling)
        penalties, masks = _penalties(sampling), _masks(sampling, vocabulary)
        bans, warpers = _bans(sampling, vocabulary.eos), _warpers(sampling, bool(self.cut))
        self.steps = [*penalties, *masks, *bans, *warpers]
        self.masked = bool(masks)
        self.looks_back = bool(penalties or masks)
        self.raw = raw and not (penalties or warpers or cut)
        self.loose = self.raw or bool(self.cut and not penalties and not warpers)

    def __call__(self, rows: Tensor, history: History) -> Tensor:
        """Log-probabilities (rows, V) -> log-probabilities (rows, V), normalised again."""
        if not self.steps:
            return rows
        for step in self.steps:
            rows = step(rows, history)
        return normalise(rows, UNDER_SETTINGS)

    def likeliest(self, logits: Tensor, history: History) -> Tensor:
        """The arg-max (rows,) of one model's shaped row, which is only normalised if that could change it."""
        return argmax(self.weigh(logits, history, "a model")[0] if self.steps else logits.float())

    def weigh(self, logits: Tensor, history: History, who: str) -> tuple[Tensor, Tensor | None]:
        """Logits (rows, V) of any dtype -> float32 log-weights (rows, V), normalised unless `loose`.

        Beside them, (rows,) bool: rows in which the model rules out every token that the grammar
        allows. All their weights are equal and mean nothing. None: there are no such rows.
        """
        rows = logits.float() if self.loose else normalise(logits, who)
        for step in self.steps:
            rows = step(rows, history)
        barred = torch.isneginf(rows.amax(dim=-1)) if self.masked else None
        if barred is not None and bool(barred.any()):
            rows = torch.where(barred[:, None], 0.0, rows)
        else:
            barred = None
        return rows if self.loose or not self.steps else normalise(rows, UNDER_SETTINGS), barred


def _cuts(sampling: Sampling) -> bool:
    return not sampling.greedy and (sampling.top_k > 0 or sampling.top_p < 1 or sampling.min_p > 0)


PART = 512
"""Tokens whose likeliest, or whose masses together, are looked at first."""


class Cut:
    """Top-k, top-p and min-p by looking only at the likeliest tokens; what transformers would keep."""

    def __init__(self, sampling: Sampling) -> None:
        self.top_k, self.top_p, self.min_p = sampling.top_k, sampling.top_p, sampling.min_p

    def kept(self, weights: Tensor, total: float) -> Tensor:
        """The ids, ascending, that stay possible in log-weights (V,) on a CPU that add up to `total`."""
        values = weights.numpy()
        for least in _thresholds(weights):
            ids = (values >= least).nonzero()[0]
            order = ids[values[ids].argsort(kind="stable")[::-1]]
            number = self._count(values[order] - total, len(ids) == len(values), values[order[0]] - least)
            if number:
                break
        return torch.from_numpy(numpy.sort(order[:number]))

    def _count(self, logprobs: Any, complete: bool, depth: float) -> int:
        """How many of the likeliest tokens stay, likeliest first; 0 if more must be looked at."""
        mass = numpy.exp(logprobs, dtype="float64")
        if not complete and not self._reaches(mass, depth):
            return 0
        number = len(mass)
        if self.top_k:
            number = int((logprobs >= logprobs[min(self.top_k, number) - 1]).sum())
        if self.top_p < 1:
            part = mass[:number] / (mass[:number].sum() if self.top_k else 1.0)
            number = max(1, int((part.cumsum() - part < self.top_p).sum()))
        if self.min_p:
            number = max(1, int((mass[:number] >= self.min_p * mass[0]).sum()))
        return number

    def _reaches(self, mass: Any, depth: float) -> bool:
        """Whether what lies below `depth` could neither be kept nor count in what is."""
        enough = bool(self.top_k and len(mass) > self.top_k)
        if self.top_k and self.top_p < 1:
            return enough
        nucleus = self.top_p < 1 and mass.sum() > self.top_p
        return bool(enough or nucleus or (self.min_p and self.min_p > math.exp(-depth)))


Shaping = Callable[[Tensor, History], Tensor]


def _penalties(sampling: Sampling) -> list[Shaping]:
    found: list[Shaping] = []
    if sampling.repetition_penalty != 1.0:
        found.append(lambda rows, history: _discourage(rows, history, sampling.repetition_penalty))
    if sampling.frequency_penalty:
        found.append(lambda rows, history: _punish(rows, history, sampling.frequency_penalty))
    return found


def _masks(sampling: Sampling, vocabulary: Vocabulary) -> list[Shaping]:
    if not sampling.grammar:
        return []
    from purify_plugins.decode.grammar import Mask

    return [Mask(sampling.grammar, vocabulary)]


def _bans(sampling: Sampling, eos: Collection[int]) -> list[Shaping]:
    if not sampling.ignore_eos:
        return []
    banned = torch.tensor(sorted(eos))
    return [lambda rows, history: rows.index_fill(-1, banned.to(rows.device), -torch.inf)]


def _warpers(sampling: Sampling, cut: bool) -> list[Shaping]:
    """Temperature, top-k, top-p and min-p, in transformers' order; none when greedy.

    With `cut` the last three are left to Cut.
    """
    if sampling.greedy:
        return []
    from transformers import (
        LogitsProcessor,
        MinPLogitsWarper,
        TemperatureLogitsWarper,
        TopKLogitsWarper,
        TopPLogitsWarper,
    )

    chosen: list[LogitsProcessor] = []
    if sampling.temperature != 1.0:
        chosen.append(TemperatureLogitsWarper(float(sampling.temperature)))
    if cut:
        return [_warping(warper) for warper in chosen]
    if sampling.top_k:
        chosen.append(TopKLogitsWarper(top_k=sampling.top_k))
    if sampling.top_p < 1.0:
        chosen.append(TopPLogitsWarper(top_p=float(sampling.top_p)))
    if sampling.min_p:
        chosen.append(MinPLogitsWarper(min_p=float(sampling.min_p)))
    return [_warping(warper) for warper in chosen]


def _warping(warper: Callable[[Tensor, Tensor], Tensor]) -> Shaping:
    unused = torch.empty(0, dtype=torch.long)
    return lambda rows, history: warper(unused, rows)


def _discourage(rows: Tensor, history: History, penalty: float) -> Tensor:
    """Multiply the log-probability of every token in the prompt or the answer, whatever its count."""
    rows = rows.clone()
    for row, (prompt, answer) in zip(rows, history, strict=True):
        seen = {token for token in (*prompt, *answer) if token >= 0}  # -1: the models do not share it
        row[torch.tensor(sorted(seen), dtype=torch.long, device=row.device)] *= penalty
    return rows


def _punish(rows: Tensor, history: History, penalty: float) -> Tensor:
    """Take `penalty` nats from a token for each time the answer has used it."""
    rows = rows.clone()
    for row, (_, answer) in zip(rows, history, strict=True):
        used = torch.tensor(answer, dtype=torch.long, device=row.device)
        row.index_add_(0, used, torch.full(used.shape, -penalty, device=row.device))
    return rows


def _thresholds(weights: Tensor) -> Iterator[float]:
    """Log-weights to look above, in turn: what half of the row's parts reach, what all do, any."""
    parts = len(weights) // PART
    if parts > 8:
        tops = weights[: parts * PART].view(parts, PART).amax(dim=-1).numpy()
        yield from numpy.partition(tops, (0, parts // 2))[[parts // 2, 0]]
    yield -math.inf


class Dice:
    """One stream of random numbers per row, so that a batch draws what its rows would."""

    def __init__(self, sampling: Sampling, rows: int) -> None:
        self.greedy = sampling.greedy
        seed = sampling.seed
        self.streams = [random.Random() if seed is None else random.Random(seed + row) for row in range(rows)]

    def uniform(self, row: int) -> float:
        """The row's next number in [0, 1)."""
        return self.streams[row].random()

    def draw(self, weights: Tensor, going: Sequence[bool] | None = None) -> Tensor:
        """Tokens (rows,) drawn from log-weights (rows, V); the arg-max when greedy.

        A row that is not `going` uses up no randomness, whatever its neighbours do.
        """
        if self.greedy:
            return argmax(weights)
        return invert(weights, self.uniforms(len(weights), going))

    def uniforms(self, rows: int, going: Sequence[bool] | None = None) -> list[float]:
        """A number for each row; a row that is not `going` keeps its own for later."""
        return [self.uniform(row) if going is None or going[row] else 0.5 for row in range(rows)]


def argmax(weights: Tensor) -> Tensor:
    """The largest weight's token (rows,); on a CPU through numpy, which is fifteen times as fast."""
    if weights.device.type == "cpu":
        return torch.from_numpy(weights.numpy().argmax(axis=-1))
    return weights.argmax(dim=-1)


def invert(weights: Tensor, uniforms: Sequence[float]) -> Tensor:
    """The inverse of each row's cumulative distribution at `uniforms` in [0, 1): tokens (rows,).

    The log-weights (rows, V) need not be normalised.
    """
    return pick(exp(weights - weights.amax(dim=-1, keepdim=True)), uniforms)


def pick(mass: Tensor, uniforms: Sequence[float]) -> Tensor:
    """`invert` for masses (rows, V) of any sum; one copy from the device."""
    rows = zip(mass.cpu(), uniforms, strict=True)
    return torch.tensor([_pick(row, uniform) for row, uniform in rows], device=mass.device)


def _pick(mass: Tensor, uniform: float) -> int:
    """First a part of the row (V,), then a token in it, in float64."""
    if len(mass) <= 2 * PART:
        return _find(mass.numpy(), uniform * float(mass.sum(dtype=torch.float64)))[0]
    whole = len(mass) // PART * PART
    parts = [*mass[:whole].view(-1, PART).sum(dim=-1).tolist(), float(mass[whole:].sum())]
    part, rest = _find(numpy.array(parts), uniform * math.fsum(parts))
    start = part * PART
    return start + _find(mass[start : start + PART].numpy(), rest)[0]


def _find(mass: Any, target: float) -> tuple[int, float]:
    """Where the running sum first exceeds `target`, and by how much it had not.

    Rounding may put the target at the very end: it is then the last place with any mass.
    """
    running = mass.cumsum(dtype="float64")
    at = int(running.searchsorted(min(target, numpy.nextafter(running[-1], 0.0)), side="right"))
    return at, max(target - (running[at] - mass[at]), 0.0)
