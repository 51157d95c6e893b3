"""Checks the values of an untrusted config.json: bounded numbers, and strings that are no paths."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from purify_plugins.errors import ModelError

ROTATION = 1e12
"""The largest number about positions; the largest published theta has eleven digits."""
DTYPES = ("float64", "float32", "float16", "bfloat16")
WORD = re.compile(r"[\w .,:;+*=()\[\]|-]{0,512}", re.ASCII)
"""A string setting: no path and no repository, both of which need a slash."""


LIMITS: tuple[tuple[str, int], ...] = (
    (
        r"max_position_embeddings|n_positions|n_ctx|max_seq_len|seq_length|original_max_position_embeddings",
        2**24,
    ),
    (r".*(num|n)_\w*layers?|n_layer|.*_layers|.*_types", 4096),
    (r".*(heads?|experts?|groups?)", 2**17),
    (r"rope.*", 2**63),
    (r".*", 2**31),
)
"""The largest number by key: transformers makes a list, a layer or a table of that size."""


def endless(key: str, value: Any) -> Any:
    """A setting whose infinity transformers writes as a table: a state-space model's longest step."""
    if isinstance(value, list):
        return [endless(key, each) for each in value]
    return float("inf") if value == {"__float__": "Infinity"} else value


def check_value(where: str, key: str, value: Any, file: Path) -> None:
    """Raise ModelError for a value out of these bounds."""
    for each in _leaves(value):
        if isinstance(each, str) and not WORD.fullmatch(each):
            raise ModelError(
                f"{file}: {where} holds {each[:80]!r}, which could name a file or a repository; refused"
            )
        if (
            isinstance(each, float)
            and not math.isfinite(each)
            and not key.endswith(("step_limit", "dt_limit"))
        ):
            raise ModelError(f"{file}: {where} is {each}, which is no number; correct the file")
        if isinstance(each, int) and abs(each) > _limit(key):
            raise ModelError(
                f"{file}: {where} is {each}, at most {_limit(key)} makes sense; correct the file"
            )
    if key.startswith("rope"):
        for each in _leaves(value):
            if isinstance(each, int | float) and not 0 <= each <= ROTATION:
                raise ModelError(f"{file}: {where} holds {each!r}, which turns nothing; correct the file")
    if key in ("dtype", "torch_dtype") and value is not None and value not in DTYPES:
        raise ModelError(f"{file}: {where} must be one of {', '.join(DTYPES)}, not {value!r}")
    if re.fullmatch(LIMITS[0][0], key) and value is not None and (type(value) is not int or value < 1):
        raise ModelError(f"{file}: {where} must be a number of tokens, at least 1, not {value!r}")


def _limit(key: str) -> int:
    return next(most for pattern, most in LIMITS if re.fullmatch(pattern, key))


def _leaves(value: Any) -> Iterator[Any]:
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else None
    if inner is None:
        yield value
        return
    for each in inner:
        yield from _leaves(each)
