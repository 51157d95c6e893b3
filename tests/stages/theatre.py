"""A pair that tells stories, programs around it that refuse, block, write again and restore, and what is due.

The pair's tokens are syllables, so that a blocked word begins inside the text and ends in another token.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from typing import Any

import torch

from purify_plugins import Purifier, RefusedError, Sampling
from purify_plugins.stages import Blocked, Check, RequestOptions
from purify_plugins.stages.stage import Stage
from purify_plugins.types import Vocabulary
from tests.toys import Forbidding, pair

SYLLABLES = (
    *("tar", "ben ", "kol", "mid ", "ra", "nu ", "sel"),
    *("vio ", "dak", "pe ", "gol", "im ", "zu", "wef "),
)
END = 256
VOCABULARY = Vocabulary(
    (*(bytes([byte]) for byte in range(256)), b"", *(each.encode() for each in SYLLABLES)),
    frozenset({END}),
    {END: "<end>"},
    frozenset({END}),
    "syllables",
)
SILENT = frozenset(range(END + 1))
PROMPT = "Tell me of the sea"
SAID = "I cannot help with that."
TRUE = "Zebedee 'Quux' O'Hara"
LENGTH = 14
TORCH_SEED = 11
torch.manual_seed(TORCH_SEED)
SEED = int(torch.randint(2**31, ()))
"""The seed that transformers' `generate` draws after `torch.manual_seed(TORCH_SEED)`."""
DRAWN: dict[str, Any] = {"max_tokens": LENGTH, "seed": SEED}


def storyteller(seed: int = 1, url: str = "") -> Forbidding:
    """A toy that writes syllables alone, and never ends by itself; it stands in for a server at any URL."""
    return Forbidding(VOCABULARY, seed, forbidden=SILENT)


@cache
def plain() -> str:
    """What the pair tells without stages."""
    return told().generate([PROMPT], errors="raise")[0].text


@cache
def word() -> str:
    """Two syllables in the middle of that, which stand there once."""
    cut = [text for _, text in told().generate([PROMPT], errors="raise")[0].drawn]
    pairs = ["".join(cut[at : at + 2]).strip() for at in range(4, 9)]
    return next(each for each in pairs if plain().count(each) == 1 and len(each) > 4 and " " not in each)


def told(case: Case | None = None) -> Purifier:
    """The pair, with the program of a case around it."""
    models = storyteller(1), storyteller(2)
    bare = pair(*models, "geometric", sampling=Sampling(**DRAWN))
    return bare if case is None else bare.replace(stages=[case.stage], request=case.options)


class Forbids(Check):
    """Blocks one text."""

    name = "forbids"

    def __init__(self, text: str, redo: int = 0) -> None:
        self.text, self.redo, self.window = text, redo, len(text) - 1

    def clear(self, text: str, last: bool) -> int:
        at = text.find(self.text)
        if at >= 0:
            raise Blocked(at, "blocked")
        ends = range(min(len(self.text) - 1, len(text)), 0, -1)
        held = next((n for n in ends if self.text.startswith(text[-n:])), 0)
        return len(text) if last else len(text) - held


@dataclass(frozen=True)
class OneVault:
    """A surrogate and its true value."""

    surrogate: str

    @property
    def longest(self) -> int:
        return len(self.surrogate)

    def find(self, text: str, start: int) -> tuple[int, int, str, str] | None:
        at = text.find(self.surrogate, start)
        return None if at < 0 else (at, at + len(self.surrogate), "one", TRUE)


@dataclass(frozen=True)
class Programme(Stage):
    """Does with a request what `kind` says; `text` is a word of the answer."""

    kind: str
    text: str = ""
    withheld = ("text",)

    @property
    def choices(self) -> int | None:
        return 2 if self.kind == "picks" else 1

    def answer(self, request: Any) -> Any:
        if self.kind == "blocks":
            return request.checked(Forbids(self.text))
        if self.kind == "writes again":
            return request.checked(Forbids(self.text, redo=1))
        if self.kind == "restores":
            return request.veiled(OneVault(self.text))
        if self.kind == "refuses":
            raise RefusedError("the guard refused this request", key="asked")
        return self._reading(request)

    def _reading(self, request: Any) -> Any:
        drafts = yield [request.seeded(at) for at in range(2)]
        if self.kind == "breaks":
            raise ValueError(f"{drafts[0].text} is not as it should be")
        return drafts[1]


@dataclass(frozen=True)
class Case:
    """A program, what its reader gets, and what nobody may see.

    `before` is what a stream has shown when an error ends it, `tokens` what one of whole tokens has: the last
    one before the span might have gone on. `text` None: what `generate` returns.
    """

    name: str
    kind: str
    on_refusal: Any = "error"
    error: bool = False
    before: str = ""
    tokens: str = ""
    text: str | None = ""
    secrets: Sequence[str] = field(default=(), hash=False)

    @property
    def stage(self) -> Programme:
        return Programme(self.kind, word())

    @property
    def options(self) -> RequestOptions:
        said = {"default": SAID}
        return RequestOptions(on_refusal=self.on_refusal, refusals=said if self.on_refusal == "text" else {})

    @property
    def config(self) -> str:
        """The same as a part of `purify.toml`."""
        text = f'[[stage]]\nname = "programme"\nkind = "{self.kind}"\ntext = "{word()}"\n'
        said = f'[request]\non_refusal = "text"\nrefusals = {{ default = "{SAID}" }}\n'
        return text + (said if self.on_refusal == "text" else "")

    @property
    def due(self) -> str:
        """The whole text."""
        return self.text if self.text is not None else told(self).generate([PROMPT], errors="raise")[0].text


@cache
def cases() -> dict[str, Case]:
    before, _, after = plain().partition(word())
    candidates = [drafted(at) for at in range(2)]
    tokens = next(before.removesuffix(each) for each in SYLLABLES if before.endswith(each))
    found = (
        Case("refused on the way in", "refuses", error=True),
        Case("refused in the operator's words", "refuses", "text", text=SAID),
        Case("blocked in the middle", "blocks", "error", True, before, tokens, secrets=(word(), after)),
        Case("ended in the operator's words", "blocks", "text", text=before + SAID, secrets=(word(), after)),
        Case("redone", "writes again", text=None, secrets=(word(),)),
        Case("restored", "restores", text=f"{before}{TRUE}{after}", secrets=(word(),)),
        Case("picked", "picks", text=candidates[1], secrets=(candidates[0],)),
        Case("broken", "breaks", error=True, secrets=candidates),
    )
    return {each.name: each for each in found}


def drafted(candidate: int) -> str:
    """A candidate of the pair's, released by a program that asks for no other."""

    bare = told()
    choosing = bare.replace(stages=[_Choosing(candidate)], request=replace(bare.request, calls=2))
    return choosing.generate([PROMPT], errors="raise")[0].text


@dataclass(frozen=True)
class _Choosing(Stage):
    candidate: int

    def answer(self, request: Any) -> Any:
        drafts = yield [request.seeded(at) for at in range(2)]
        return drafts[self.candidate]
