"""Optional packages: checked before the work, with the command that installs them in the error."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from importlib import import_module
from importlib.metadata import PackageNotFoundError, requires

from purify_plugins.errors import ConfigError

MODULES = {
    "gguf": ("gguf",),
    "llama-cpp": ("xllamacpp",),
    "eval": ("matplotlib", "rouge_score", "rapidfuzz"),
    "privacy": ("phonenumbers", "presidio_analyzer"),
    "ray": ("ray.serve",),
    "sign": ("cryptography",),
    "model-signing": ("model_signing", "OpenSSL"),
    "pkcs11": ("pkcs11",),
    "timestamp": ("rfc3161_client",),
    "tgi": ("httpx", "msgspec", "starlette", "uvicorn", "h11", "prometheus_client"),
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
    """The requirements of an extra, quoted for pip: `'matplotlib>=3.9'`; module names if there are none."""
    try:
        asked = requires("purify-plugins") or []
    except PackageNotFoundError:
        asked = []
    found = [line.partition(";") for line in asked]
    marks = (f"extra == '{extra}'", f'extra == "{extra}"')
    named = [what.strip() for what, _, when in found if when.strip() in marks]
    yield from map(shlex.quote, named or MODULES[extra])
