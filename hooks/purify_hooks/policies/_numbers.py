"""Runs of digits: which tokens write them, and what the run under way has taken from the LLM."""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from typing import TYPE_CHECKING

from purify_plugins.types import Vocabulary

if TYPE_CHECKING:
    from torch import Tensor

JOINERS = frozenset(" -./:()")
"""What may stand inside a number: telephone and card numbers, dates, addresses of machines."""


def number_tokens(vocabulary: Vocabulary) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """The ids of tokens that have a digit and no letter, and of those that join digits to one number."""
    spelled = [token.decode("utf-8", "replace") for token in vocabulary.tokens]
    joiners = (at for at, text in enumerate(spelled) if text and JOINERS.issuperset(text))
    return tuple(_digits(spelled)), tuple(joiners)


def _digits(spelled: list[str]) -> Iterator[int]:
    for at, text in enumerate(spelled):
        if any(map(str.isdigit, text)) and not any(map(str.isalpha, text)):
            yield at


@lru_cache(maxsize=16)
def ids_tensor(ids: tuple[int, ...], device: str) -> Tensor:
    """The ids as an integer tensor (n,) on this device, made once."""
    import torch

    with torch.inference_mode(False):
        return torch.tensor(ids, dtype=torch.long, device=device)


@lru_cache(maxsize=16)
def parts_of_numbers(
    digits: tuple[int, ...], joiners: tuple[int, ...], size: int, device: str
) -> tuple[Tensor, Tensor]:
    """Which of `size` tokens write numbers, and which may stand in one, as 0.0 and 1.0 (size,), made once."""
    import torch

    with torch.inference_mode(False):
        writes, stands = torch.zeros(2, size, dtype=torch.float32, device=device)
        writes[ids_tensor(digits, device)] = stands[ids_tensor(digits + joiners, device)] = 1.0
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
