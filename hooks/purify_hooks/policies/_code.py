"""Whether the text is code: which tokens have its signs, and how many of the last ones do."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from purify_plugins.types import Vocabulary

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


class CodeSigns:
    """The tokens that have signs of code, as a mask that is made once for each device."""

    def __init__(self, ids: Sequence[int]) -> None:
        self.ids = ids
        self.masks: dict[str, Tensor] = {}

    def followed(self, share: Tensor, tokens: Tensor) -> Tensor:
        """The share of code (rows,) after these tokens (rows,): an exponential average over `SPAN` tokens.

        An id that is no token of the vocabulary, as a prompt's negative ones, has no sign.
        """
        mask = self._mask(str(share.device))
        found = mask[tokens.to(share.device).clamp(-1, len(mask) - 1)]
        return share + (found.to(share.dtype) - share) / SPAN

    def _mask(self, device: str) -> Tensor:
        """1.0 for the tokens with signs, 0.0 for others; the last stands for all other ids."""
        if device not in self.masks:
            import torch

            with torch.inference_mode(False):
                mask = torch.zeros(max(self.ids, default=-1) + 2, dtype=torch.float32, device=device)
                mask[torch.tensor(self.ids, dtype=torch.long, device=device)] = 1.0
            self.masks[device] = mask
        return self.masks[device]
