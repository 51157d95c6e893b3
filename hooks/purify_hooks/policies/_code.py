"""Whether the text is code: which tokens have its signs, and how many of the last ones do."""

from __future__ import annotations

from typing import TYPE_CHECKING

from purify_plugins.types import Vocabulary

from ._numbers import ids_tensor

if TYPE_CHECKING:
    from torch import Tensor

SIGNS = frozenset("(){}[]=_;<>#*\\/+@|&^%$~`")
"""What stands in code and hardly in prose."""
SPAN = 24.0
"""Tokens over which these signs are counted."""
MOST = 0.2
"""The share of tokens with such signs above which a text is code; where nothing is known it is at that."""


def is_code(text: str) -> bool:
    """Whether a piece of text has a sign of code, or is an indentation."""
    blank = text.strip(" \t") == "" and len(text) > 2
    return blank or not SIGNS.isdisjoint(text) or "\n  " in text or "\n\t" in text


def code_tokens(vocabulary: Vocabulary) -> tuple[int, ...]:
    """The ids of the tokens that have signs of code."""
    spelled = (token.decode("utf-8", "replace") for token in vocabulary.tokens)
    return tuple(at for at, text in enumerate(spelled) if is_code(text))


def followed_code(share: Tensor, tokens: Tensor, signs: tuple[int, ...]) -> Tensor:
    """The share of code (rows,) after these tokens (rows,): an exponential average over `SPAN` tokens."""
    import torch

    found = torch.isin(tokens.to(share.device), ids_tensor(signs, str(share.device)))
    return share + (found.to(share.dtype) - share) / SPAN
