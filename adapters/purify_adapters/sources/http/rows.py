"""Parse and check a server's answers: JSON, token ids and log-probabilities."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NamedTuple

from purify_plugins.errors import NumericError, PurifyError, SourceError

log = logging.getLogger("purify.remote")

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor

TOLERANCE = 1e-3
"""How far above 1 the probabilities of a row may add up, for rounding."""


class ServerToken(NamedTuple):
    """The row (V + 1,) float32 at one position, in nats, and the token that the server chose there.

    Tokens that were not shown are minus infinity, and the last column is the log of their mass.
    """

    row: Tensor
    token: int


def strict_json(content: bytes, shape: Any = Any) -> Any:
    """JSON without NaN or infinities, of a `shape` from `shapes.py`. Raises SourceError.

    Of a key given twice the last counts.
    """
    import msgspec

    try:
        return msgspec.json.decode(content, type=shape)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
        if shape is not Any and isinstance(error, msgspec.ValidationError):
            raise SourceError(
                f"the LLM's server sent what it should not ({error}); see its version"
            ) from None
        raise SourceError("the LLM's server sent no valid JSON; see what answers at its url") from error


def field(value: Any, *path: str | int) -> Any:
    """The value at `path` in parsed JSON. Raises SourceError if there is none."""
    for key in path:
        try:
            value = value[key]
        except (KeyError, IndexError, TypeError):
            value = None
        if value is None:
            raise SourceError(f"the LLM's server left out {path[-1]!r}; see what answers at its url")
    return value


def listed(value: Any, *path: str | int) -> list[Any]:
    """The list at `path` in parsed JSON. Raises SourceError if there is none."""
    found = field(value, *path)
    if not isinstance(found, list):
        what = repr(path[-1]) if path else "a list"
        raise SourceError(f"the LLM's server left out {what}; see what answers at its url")
    return found


@contextmanager
def readable() -> Iterator[None]:
    """Around the parsing of an answer: any error becomes a SourceError.

    Its message has nothing of the original one, which may quote the answer.
    """
    try:
        yield
    except PurifyError:
        raise
    except Exception as error:
        log.warning("an answer cannot be read: %s", type(error).__name__)
        raise SourceError("the LLM's server sent what cannot be read; see what answers at its url") from None


def token_id(value: Any, size: int) -> int:
    """A token id below `size`. Raises SourceError."""
    if type(value) is not int or not 0 <= value < size:
        raise SourceError("the LLM's server names a token that its tokenizer here lacks; name its own")
    return value


def row(tokens: Sequence[Any], logprobs: Sequence[Any], size: int, tolerance: float = TOLERANCE) -> Tensor:
    """(size + 1,) from token ids and their log-probabilities, in any order and of any number.

    Raises SourceError for a token that is unknown or given twice, NumericError for a figure that is no
    log-probability or for probabilities that add up to more than 1 + `tolerance`.
    """
    import numpy
    import torch

    if not tokens:
        raise SourceError("the LLM's server shows no likeliest tokens; it must be one that can")
    ids, values = _ids(tokens, size), _logprobs(logprobs, tolerance)
    shown = float(numpy.exp(values).sum())
    if shown > 1 + tolerance:
        raise NumericError(
            f"the LLM's server reports probabilities that add up to {shown:.4f}; if it computes in half "
            "precision, give its source a larger tolerance"
        )
    filled = numpy.full(size + 1, -numpy.inf, dtype=numpy.float32)
    filled[ids] = values
    if numpy.count_nonzero(filled != -numpy.inf) < len(ids):
        raise SourceError("the LLM's server gives one token twice in a row; see what answers at its url")
    filled[-1] = math.log1p(-shown) if shown < 1 and len(ids) < size else -math.inf
    return torch.from_numpy(filled)


def _ids(tokens: Sequence[Any], size: int) -> NDArray[Any]:
    """Token ids as an array (n,) int64, each below `size`. Raises SourceError."""
    import numpy

    if set(map(type, tokens)) == {int} and min(tokens) >= 0 and max(tokens) < size:
        return numpy.array(tokens, dtype=numpy.int64)
    raise SourceError("the LLM's server names a token that its tokenizer here lacks; name its own")


def _logprobs(values: Sequence[Any], tolerance: float) -> NDArray[Any]:
    """Log-probabilities as an array (n,) float64. Raises NumericError."""
    import numpy

    if set(map(type, values)) <= {int, float}:
        try:
            found = numpy.array(values, dtype=numpy.float64)
        except OverflowError:  # JSON's integers have no end
            found = numpy.array([-numpy.inf])
        if found.min() > -1e30 and found.max() <= tolerance:  # NaN is neither
            return found
    raise NumericError("the LLM's server reports a log-probability that is none (NaN, null or above 0)")


def unrevealed_row(size: int) -> Tensor:
    """(size + 1,) a row of which no token is shown; completed from the SLM it is the SLM's own row."""
    import torch

    return torch.full((size + 1,), -torch.inf).index_fill(0, torch.tensor(size), 0.0)
