"""The models that `purify verify` recomputes a certificate with, loaded as it records them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from purify_plugins.configuration.build import preview, source
from purify_plugins.configuration.config import Config, Named, read_config
from purify_plugins.errors import ConfigError
from purify_plugins.plugin.manager import Plugins
from purify_plugins.protocols import LogitSource

if TYPE_CHECKING:
    from purify_plugins.configuration.find import Table
    from purify_plugins.types import Certificate

Side = Literal["slm", "llm"]
SOURCES = {"ngram": "ngram", "llama.cpp": "gguf"}
"""Kinds of models, as certificates name them, that another source than "local" reads from one place."""


def require_recorded(certificate: Certificate, side: Side, plugins: Plugins, model: str) -> None:
    """Raise OtherModelError for a model that is not the certificate's, as far as its small files show.

    Raises ConfigError, ModelError for one that cannot be loaded.
    """
    from purify_plugins.certificates import require_like

    found = preview(plugins, _table(certificate, side, model))
    if found.place is not None:
        require_like(certificate, side, found.place)
    found.settle()


def recorded_source(certificate: Certificate, side: Side, plugins: Plugins, model: str) -> LogitSource:
    """The model at a place, or that of a configuration's file. Raises ConfigError, ModelError."""
    return source(plugins, _table(certificate, side, model))


def _table(certificate: Certificate, side: Side, model: str) -> Table:
    """A configuration's table; or what to load a place with: the recorded kind, in the recorded precision."""
    if Path(model).suffix == ".toml":
        config: Config = read_config(model)
        return config.llm if side == "llm" else config.slm
    told = certificate.decoded["models"][side]
    if several := [key for key in ("members", "expert", "takedown") if key in told]:
        raise ConfigError(
            f"the {side.upper()} of this answer is made of several parts ({several[0]}), and {model!r} is "
            f"one place; give the file whose [{side}] names them, such as --{side} purify.toml"
        )
    table: dict[str, Any] = {"model": model}
    if told["kind"] in SOURCES:
        table["source"] = SOURCES[told["kind"]]
    elif told["kind"] == "transformers" and "dtype" in told:
        table["dtype"] = told["dtype"]
    return Named({"source": "copying", "model": table} if told.get("copyist") else table)
