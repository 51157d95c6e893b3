"""What a server says of the next token, read as strictly as a stranger's word should be."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, NamedTuple

from purify_plugins.errors import NumericError, SourceError

if TYPE_CHECKING:
    from torch import Tensor

TOLERANCE = 1e-3
"""How far above 1 the probabilities of a row may add up, by rounding."""


class Drafted(NamedTuple):
    """One position: the row (V + 1,) float32, log-probabilities in nats, and the server's own next token.

    Tokens that were not shown are minus infinity, and the last column is the log of their mass.
    """

    row: Tensor
    token: int


def strict_json(content: bytes) -> Any:
    """JSON without NaN, infinities or a key given twice. Raises SourceError."""
    try:
        return json.loads(content.decode(), object_pairs_hook=_once, parse_constant=_refuse)
    except (ValueError, RecursionError) as error:
        raise SourceError("the LLM's server sent no valid JSON; see what answers at its url") from error


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("a key is given twice")
    return found


def _refuse(constant: str) -> Any:
    raise ValueError(f"{constant} is not JSON")


def field(value: Any, *path: str | int) -> Any:
    """What stands at `path` in parsed JSON. Raises SourceError where there is no such thing."""
    for key in path:
        try:
            value = value[key]
        except (KeyError, IndexError, TypeError):
            value = None
        if value is None:
            raise SourceError(f"the LLM's server left out {path[-1]!r}; see what answers at its url")
    return value


def token_id(value: Any, size: int) -> int:
    """A token id below `size`. Raises SourceError."""
    if type(value) is not int or not 0 <= value < size:
        raise SourceError("the LLM's server names a token that its tokenizer here lacks; name its own")
    return value


def row(pairs: Iterable[tuple[Any, Any]], size: int, tolerance: float = TOLERANCE) -> Tensor:
    """(size + 1,) from (id, log-probability) pairs in any order, however many tie for the last place.

    Raises SourceError for a token that is unknown or given twice, NumericError for a figure that is no
    log-probability or for probabilities that add up to more than 1 + `tolerance`.
    """
    import torch

    found: dict[int, float] = {}
    for token, logprob in pairs:
        if token_id(token, size) in found:
            raise SourceError("the LLM's server gives one token twice in a row; see what answers at its url")
        found[token] = _logprob(logprob, tolerance)
    if not found:
        raise SourceError("the LLM's server shows no likeliest tokens; it must be one that can")
    shown = math.fsum(map(math.exp, found.values()))
    if shown > 1 + tolerance:
        raise NumericError(
            f"the LLM's server reports probabilities that add up to {shown:.4f}; if it computes in half "
            "precision, give its source a larger tolerance"
        )
    filled = torch.full((size + 1,), -torch.inf)
    filled[list(found)] = torch.tensor(list(found.values()))
    filled[-1] = math.log1p(-shown) if shown < 1 else -math.inf
    return filled


def _logprob(value: Any, tolerance: float) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not -1e30 < value <= tolerance:
        raise NumericError("the LLM's server reports a log-probability that is none (NaN, null or above 0)")
    return float(value)


def nothing(size: int) -> Tensor:
    """(size + 1,) the row of which nothing was shown: completed, it is the SLM's own."""
    import torch

    return torch.full((size + 1,), -torch.inf).index_fill(0, torch.tensor(size), 0.0)
