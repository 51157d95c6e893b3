"""The options of every framework's model: names of models and policies, and sampling options.

Names are checked before a model is loaded.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import fields
from pathlib import Path
from typing import Any

from purify_adapters.foreign_options import changes_nothing
from purify_plugins.configuration.preflight import foreseen
from purify_plugins.errors import ModelError, UnknownNameError
from purify_plugins.plugin.manager import Plugins, load_plugins
from purify_plugins.sampling import Sampling
from purify_plugins.stages import about
from purify_plugins.vouching.options import VouchingOptions, without

SAMPLING = tuple(field.name for field in fields(Sampling))
"""The names of the sampling options."""

HUB_ID = re.compile(r"[\w-][\w.-]*(/[\w.-]+)?")


def refuse_unknown(what: str, given: Mapping[str, Any], known: Iterable[str]) -> None:
    """Raise UnknownNameError for an option that is not known and would change an answer."""
    names = set(known)
    for name, value in given.items():
        if name not in names and not changes_nothing(name, value):
            raise UnknownNameError(what, name, names)


def asked_by(given: Mapping[str, Any]) -> AbstractContextManager[None]:
    """Says whose the requests of a call are, where the call has a `user`; see `stages.about`."""
    return about(user=str(given["user"])) if given.get("user") else nullcontext()


def require_named(llm: Any, slm: Any, policy: Any, policy_options: Mapping[str, Any]) -> None:
    """Raise ConfigError or ModelError for unknown names, or paths without a model.

    Possible hub ids are not checked: that needs the network, and waits for the first call.
    """
    plugins = load_plugins()
    plugins.policy(policy, policy_options)
    for model in (llm, slm):
        _require(plugins, model)


def _require(plugins: Plugins, model: Any) -> None:
    if isinstance(model, Mapping):
        VouchingOptions.of(model)
        keys = without(model)
        source = str(keys.pop("source", "local"))
        plugins.check("purify_sources", source, keys)
        model = keys.get("model") if source == "local" else None
    if not isinstance(model, str | Path):
        return  # a loaded source, or a server
    folder = Path(model).expanduser()
    if folder.exists():
        foreseen(plugins, model)
    elif isinstance(model, Path) or not HUB_ID.fullmatch(model):
        raise ModelError(f"there is no model directory {str(model)!r}; give a directory or a hub id")
