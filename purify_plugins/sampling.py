"""How tokens are drawn and when an answer ends: `Sampling`, checked when it is made."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from numbers import Integral, Real
from typing import Any, Self

from purify_plugins.errors import ConfigError, UnknownNameError
from purify_plugins.grammar import Grammar

COLDEST = 1e-6
"""The lowest temperature that draws: logits of a hundred become figures of 1e8, which float32 knows to 8."""


def _whole(value: object) -> bool:
    return isinstance(value, Integral) and not isinstance(value, bool)


def _number(value: object) -> bool:
    return isinstance(value, Real) and not isinstance(value, bool)


def _texts(value: object) -> bool:
    return isinstance(value, tuple) and all(isinstance(each, str) for each in value)


CHECKS: Sequence[tuple[str, Callable[[Any], bool], str]] = (
    ("max_tokens", _whole, "a whole number"),
    ("temperature", _number, "a number"),
    ("top_k", _whole, "a whole number"),
    ("top_p", _number, "a number"),
    ("min_p", _number, "a number"),
    ("typical_p", _number, "a number"),
    ("repetition_penalty", _number, "a number"),
    ("frequency_penalty", _number, "a number"),
    ("seed", lambda seed: seed is None or _whole(seed), "a whole number"),
    ("stop", _texts, "a text, or a list of texts"),
    ("ignore_eos", lambda value: isinstance(value, bool), "True or False"),
    ("max_tokens", lambda n: n >= 1, "at least 1"),
    (
        "temperature",
        lambda t: t == 0 or COLDEST <= t < math.inf,
        f"0 (greedy), or finite and at least {COLDEST}",
    ),
    ("top_k", lambda n: n >= 0, "0 (off) or more"),
    ("top_p", lambda p: 0 < p <= 1, "above 0 and at most 1"),
    ("min_p", lambda p: 0 <= p <= 1, "between 0 and 1"),
    ("typical_p", lambda p: 0 < p <= 1, "above 0 and at most 1"),
    ("repetition_penalty", lambda factor: 0 < factor < math.inf, "above 0"),
    ("frequency_penalty", lambda nats: abs(nats) < math.inf, "finite"),
    ("seed", lambda seed: seed is None or seed >= 0, "0 or more"),
    ("stop", all, "without empty strings"),
    ("stop", lambda texts: not re.search("[\ud800-\udfff]", "".join(texts)), "valid Unicode"),
    ("grammar", lambda grammar: grammar is None or isinstance(grammar, Grammar), "a Grammar"),
)
"""Checks of each sampling option and what is expected, types before ranges."""


@dataclass(frozen=True)
class Sampling:
    """How tokens are drawn, and when an answer ends.

    Penalties, the grammar, temperature, top_k, top_p, min_p and typical_p shape *both* models' rows
    before they are fused; nothing touches the fused row. `temperature` 0 takes the arg-max of the fused
    row. Row i of a batch draws from `seed` + i, so that a batch equals its rows.
    """

    max_tokens: int = 256
    """The most tokens an answer may have; a model's context may leave fewer."""
    temperature: float = 1.0
    """Divides both models' logits: below 1 steadier, above 1 bolder, 0 the fused row's arg-max. Nothing
    between 0 and 1e-06: float32 could not tell such a row's tokens apart."""
    top_k: int = 0
    """Each model keeps its `top_k` likeliest tokens; 0 keeps all."""
    top_p: float = 1.0
    """Each model keeps its likeliest tokens until they hold this much of the probability."""
    min_p: float = 0.0
    """Each model keeps the tokens at least this many times as likely as its likeliest; 0 keeps all."""
    typical_p: float = 1.0
    """Each model keeps the tokens whose surprisal is nearest to its average, until they hold this much of
    the probability (locally typical sampling, arXiv 2202.00666); 1 keeps all."""
    repetition_penalty: float = 1.0
    """Above 1, tokens that the prompt or the answer has used become less likely; 1 is off."""
    frequency_penalty: float = 0.0
    """Nats taken from a token for each time the answer has used it; below 0 they are given."""
    seed: int | None = None
    """Repeats the draws within this process; in another one too only if both have the same `PURIFY_SECRET`.
    None draws anew each time."""
    stop: tuple[str, ...] = ()
    """Texts that end the answer where the first of them would appear; none of it is released. The name of a
    control token ends it where that token is drawn."""
    ignore_eos: bool = False
    """Rules out every end token, so that only `stop` and `max_tokens` end the answer."""
    grammar: Grammar | None = None
    """A constraint on the answer's text: a table with `kind` ("json_schema", "regex", "lark") and `text`.
    Where the LLM rules out all that may come next, the SLM goes on alone; the SLM's doing so is an error."""

    def __new__(cls, *args: Any, **options: Any) -> Self:
        # a dataclass raises a TypeError for an unknown name, without the nearest known one
        for name in options:
            if name not in cls.__dataclass_fields__:
                raise UnknownNameError("sampling option", name, cls.__dataclass_fields__)
        return super().__new__(cls)

    def __post_init__(self) -> None:
        if isinstance(self.grammar, Mapping):
            object.__setattr__(self, "grammar", Grammar.of(self.grammar))
        if isinstance(self.stop, str | list):
            object.__setattr__(self, "stop", (self.stop,) if isinstance(self.stop, str) else tuple(self.stop))
        for name, fine, expected in CHECKS:
            value = getattr(self, name)
            if not fine(value):
                raise ConfigError(f"sampling: {name} must be {expected}, not {value!r}")
        if self.ignore_eos and self.grammar:
            raise ConfigError("sampling: ignore_eos must be off: a grammar ends its answer, not True")

    @property
    def greedy(self) -> bool:
        return self.temperature == 0

    def of_row(self, row: int) -> Self:
        """The settings with which row `row` of a batch is drawn alone: its seed is `seed` + `row`."""
        return self if self.seed is None else replace(self, seed=self.seed + row)
