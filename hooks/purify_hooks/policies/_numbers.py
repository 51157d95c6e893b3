"""Runs of digits: which tokens write them, and what the run under way has taken from the LLM."""

from __future__ import annotations

import math
from collections.abc import Iterator
from functools import lru_cache
from typing import TYPE_CHECKING, NamedTuple

from purify_plugins.types import Vocabulary

if TYPE_CHECKING:
    from torch import Tensor

DIGIT = math.log(10)
"""The most nats that a digit takes: which of ten it is. That one comes at all is no part of the number."""
JOINERS = frozenset(" -./:()")
"""What may stand inside a number: telephone and card numbers, dates, addresses of machines."""


class NumberTokens(NamedTuple):
    """The ids of tokens that have digits and no letter, how many each has, and the ids of what joins them."""

    digits: tuple[int, ...]
    lengths: tuple[int, ...]
    joiners: tuple[int, ...]


def number_tokens(vocabulary: Vocabulary) -> NumberTokens:
    """The tokens of a vocabulary that numbers are written with."""
    spelled = [token.decode("utf-8", "replace") for token in vocabulary.tokens]
    joiners = (at for at, text in enumerate(spelled) if text and JOINERS.issuperset(text))
    digits = dict(_digits(spelled))
    return NumberTokens(tuple(digits), tuple(digits.values()), tuple(joiners))


def _digits(spelled: list[str]) -> Iterator[tuple[int, int]]:
    for at, text in enumerate(spelled):
        if (length := sum(map(str.isdigit, text))) and not any(map(str.isalpha, text)):
            yield at, length


@lru_cache(maxsize=16)
def worths(lengths: tuple[int, ...], device: str) -> Tensor:
    """The most nats (n,) that tokens of so many digits can take of a number's budget, made once."""
    import torch

    with torch.inference_mode(False):
        return DIGIT * torch.tensor(lengths, dtype=torch.float32, device=device)


def number_caps(cap: Tensor, left: Tensor, lengths: tuple[int, ...]) -> Tensor:
    """The caps (rows, n) of the tokens that write numbers, of which nats (rows,) are `left`.

    A token that is worth no more than what is left has the others' `cap` (rows,).
    """
    import torch

    free = worths(lengths, str(left.device)) <= left[:, None]
    return torch.where(free, cap[:, None], cap.minimum(left)[:, None])


@lru_cache(maxsize=16)
def ids_tensor(ids: tuple[int, ...], device: str) -> Tensor:
    """The ids as an integer tensor (n,) on this device, made once."""
    import torch

    with torch.inference_mode(False):
        return torch.tensor(ids, dtype=torch.long, device=device)


@lru_cache(maxsize=16)
def parts_of_numbers(number: NumberTokens, size: int, device: str) -> tuple[Tensor, Tensor]:
    """The most nats that each token can take of a number's budget, and which may stand in one, 1.0.

    Both (size,), 0.0 for other tokens, made once.
    """
    import torch

    with torch.inference_mode(False):
        writes, stands = torch.zeros(2, size, dtype=torch.float32, device=device)
        writes[ids_tensor(number.digits, device)] = worths(number.lengths, device)
        stands[ids_tensor(number.digits + number.joiners, device)] = 1.0
    return writes, stands


def in_last_number(
    tokens: Tensor, taken: Tensor, digits: tuple[int, ...], joiners: tuple[int, ...], spent: Tensor
) -> Tensor:
    """What the number that ends each row of a prompt took, in nats, (rows,).

    `tokens` and `taken` are (rows, n). What joins digits counts too, since the score of several symbols
    stands at the first of them; without a digit it is no number, as in "A:". `spent` (rows,) is what comes
    out where there is no number.
    """
    import torch

    device = str(tokens.device)
    writes = torch.isin(tokens, ids_tensor(digits, device))
    stands = writes | torch.isin(tokens, ids_tensor(joiners, device))
    begun, none = writes.new_zeros(len(tokens)), spent
    for more, digit, part in zip(taken.unbind(-1), writes.unbind(-1), stands.unbind(-1), strict=True):
        spent = torch.where(part, spent + more.to(spent.dtype), none)
        begun = (begun | digit) & part
    return torch.where(begun, spent, none)
