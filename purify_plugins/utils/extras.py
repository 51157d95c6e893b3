"""Packages that some of what we do needs: looked for before the work, named with what installs them."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from importlib import import_module
from importlib.metadata import PackageNotFoundError, requires

from purify_plugins.errors import ConfigError

MODULES = {
    "eval": ("matplotlib", "rouge_score", "rapidfuzz"),
    "tgi": ("httpx", "msgspec", "starlette", "uvicorn", "h11"),
}
"""Extra -> the modules that its packages bring."""


def require_extra(extra: str, what: str) -> None:
    """Raise ConfigError, with the line that installs it, unless every module of an extra can be imported."""
    for module in MODULES[extra]:
        try:
            import_module(module)
        except ImportError as error:
            raise ConfigError(
                f"{what} needs {module}, which is not installed; run pip install {' '.join(packages(extra))}"
            ) from error


def packages(extra: str) -> Iterator[str]:
    """What an extra asks for, as pip takes it: `'matplotlib>=3.9'`; the modules' names where nobody knows."""
    try:
        asked = requires("purify-plugins") or []
    except PackageNotFoundError:
        asked = []
    found = [line.partition(";") for line in asked]
    marks = (f"extra == '{extra}'", f'extra == "{extra}"')
    named = [what.strip() for what, _, when in found if when.strip() in marks]
    yield from map(shlex.quote, named or MODULES[extra])
