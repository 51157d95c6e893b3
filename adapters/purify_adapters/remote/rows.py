"""What a server says of the next token, read as strictly as a stranger's word should be."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, NamedTuple

from purify_plugins.errors import NumericError, SourceError

if TYPE_CHECKING:
    from numpy.typing import NDArray
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
    """JSON without NaN or infinities. Raises SourceError.

    orjson, since most of the time over a server went into reading rows. Of a key given twice it keeps
    the last; nobody else reads the same bytes, who could keep the first.
    """
    import orjson

    try:
        return orjson.loads(content)
    except ValueError as error:
        raise SourceError("the LLM's server sent no valid JSON; see what answers at its url") from error


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
    import numpy
    import torch

    tokens, logprobs = _columns(pairs)
    if not tokens:
        raise SourceError("the LLM's server shows no likeliest tokens; it must be one that can")
    ids, values = _ids(tokens, size), _logprobs(logprobs, tolerance)
    shown = float(numpy.exp(values).sum())
    if shown > 1 + tolerance:
        raise NumericError(
            f"the LLM's server reports probabilities that add up to {shown:.4f}; if it computes in half "
            "precision, give its source a larger tolerance"
        )
    filled = torch.full((size + 1,), -torch.inf)
    filled[torch.from_numpy(ids)] = torch.from_numpy(values).float()
    filled[-1] = math.log1p(-shown) if shown < 1 and len(ids) < size else -math.inf
    return filled


def _columns(pairs: Iterable[tuple[Any, Any]]) -> tuple[list[Any], list[Any]]:
    """Pairs as two lists."""
    found = list(pairs)
    return [token for token, _ in found], [logprob for _, logprob in found]


def _ids(tokens: list[Any], size: int) -> NDArray[Any]:
    """Token ids as an array (n,) int64, each below `size` and given once. Raises SourceError."""
    import numpy

    if set(map(type, tokens)) != {int} or not (min(tokens) >= 0 and max(tokens) < size):
        raise SourceError("the LLM's server names a token that its tokenizer here lacks; name its own")
    if len(set(tokens)) < len(tokens):
        raise SourceError("the LLM's server gives one token twice in a row; see what answers at its url")
    return numpy.array(tokens, dtype=numpy.int64)


def _logprobs(values: list[Any], tolerance: float) -> NDArray[Any]:
    """Log-probabilities as an array (n,) float64. Raises NumericError."""
    import numpy

    if set(map(type, values)) <= {int, float} and all(-1e30 < value <= tolerance for value in values):
        return numpy.array(values, dtype=numpy.float64)
    raise NumericError("the LLM's server reports a log-probability that is none (NaN, null or above 0)")


def nothing(size: int) -> Tensor:
    """(size + 1,) the row of which nothing was shown: completed, it is the SLM's own."""
    import torch

    return torch.full((size + 1,), -torch.inf).index_fill(0, torch.tensor(size), 0.0)
