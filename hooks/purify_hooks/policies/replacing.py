"""Replacing some tokens: function words always, suspicious ones when they come up."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import TYPE_CHECKING, ClassVar, Self

from purify_plugins.errors import ConfigError
from purify_plugins.policy import FusionPolicy, State
from purify_plugins.types import Vocabulary

from ._base import require, wide
from ._words import FUNCTION_WORDS

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class TokenSwap(FusionPolicy):
    """Let the SLM choose among the function words; the LLM says how likely one is, and all the rest.

    r(v) = p_llm(v) outside the set G of the tokens that spell " word", and c p_slm(v) inside, with
    c = p_llm(G) / p_slm(G). A recitation needs every "the" and "of" right, so it derails; what a
    text is about stays the LLM's.

    Guarantee "none". Source: 2502.05159; the word list is our own. `bind` finds the tokens.
    """

    name: ClassVar[str] = "token_swap"

    words: tuple[str, ...] | None = None
    """The words to leave to the SLM; None: a list of 124 English function words."""
    ids: tuple[int, ...] = field(default=(), repr=False)
    """The tokens of `words`, which `bind` fills in; not an option to set by hand."""

    def __post_init__(self) -> None:
        if self.words is None:
            return
        object.__setattr__(self, "words", tuple(self.words) if not isinstance(self.words, str) else ())
        if not self.words or not all(isinstance(word, str) and word.strip() for word in self.words):
            raise ConfigError(f"{self.name}: words must be a list of words that are not empty")

    def bind(self, vocabulary: Vocabulary) -> Self:
        """The same policy, knowing which tokens its words are. Raises ConfigError if none is one."""
        words = self.words or FUNCTION_WORDS
        spelled = {f" {word.strip()}".encode() for word in words}
        ids = tuple(index for index, token in enumerate(vocabulary.tokens) if token in spelled)
        if not ids:
            raise ConfigError(
                f"{self.name}: none of its {len(words)} words is one token of "
                f"{vocabulary.name!r}; set `words` to words this vocabulary spells whole"
            )
        return replace(self, ids=ids)

    def fuse(self, llm: Tensor, slm: Tensor, state: State) -> Tensor:
        import torch

        if not self.ids:
            raise ConfigError(f"{self.name}: call bind(vocabulary) first, so that it knows its words' tokens")
        fused, words = wide(llm).clone(), _index(self.ids).to(llm.device)
        theirs, ours = fused[:, words], wide(slm)[:, words]
        scale = theirs.logsumexp(dim=-1, keepdim=True) - ours.logsumexp(dim=-1, keepdim=True)
        fused[:, words] = torch.where(scale < torch.inf, ours + scale, theirs)  # NaN, inf: the SLM has none
        return fused


@lru_cache(maxsize=8)
def _index(ids: tuple[int, ...]) -> Tensor:
    import torch

    with torch.inference_mode(False):
        return torch.tensor(ids)


@dataclass(frozen=True)
class CleanGen(FusionPolicy):
    """Draw from the LLM; where the draw looks planted, write the SLM's favourite instead.

    A token is suspicious when p_llm ≥ ratio p_slm. As one distribution: every suspicious token loses its
    mass, all of it goes to the SLM's arg-max, and the rest is the LLM's; drawing from that is the
    same as drawing from the LLM and replacing what is suspicious.

    Guarantee "none": many unsuspicious steps add up. Source: 2406.12257, section 4 (ratio 20).
    """

    name: ClassVar[str] = "clean_gen"
    sweep = ("ratio", (2.0, 5.0, 20.0))

    ratio: float = 20.0

    def __post_init__(self) -> None:
        require(self, "ratio", lambda ratio: 1 <= ratio < math.inf, "a finite number, 1 or more")

    def fuse(self, llm: Tensor, slm: Tensor, state: State) -> Tensor:
        import torch

        llm, slm = wide(llm), wide(slm)
        suspicious = llm - slm >= math.log(self.ratio)
        lost = torch.where(suspicious, llm, -torch.inf).logsumexp(dim=-1, keepdim=True)
        fused = torch.where(suspicious, -torch.inf, llm)
        favourite = slm.argmax(dim=-1, keepdim=True)
        return fused.scatter(-1, favourite, torch.logaddexp(fused.gather(-1, favourite), lost))
