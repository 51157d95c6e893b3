"""Two models and a policy by name: what is wrong with the names is said before a weight is read."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from purify_plugins.errors import ModelError
from purify_plugins.plugin.manager import Plugins, load_plugins

HUB_ID = re.compile(r"[\w-][\w.-]*(/[\w.-]+)?")


def require_named(llm: Any, slm: Any, policy: Any, policy_options: Mapping[str, Any]) -> None:
    """Raise ConfigError or ModelError for names that nobody offers, or paths where there is no model.

    What may be a hub id is not looked up: that takes a network, and waits for the first call.
    """
    plugins = load_plugins()
    plugins.policy(policy, policy_options)
    for model in (llm, slm):
        _require(plugins, model)


def _require(plugins: Plugins, model: Any) -> None:
    if isinstance(model, Mapping):
        keys = dict(model)
        source = str(keys.pop("source", "local"))
        plugins.check("purify_sources", source, keys)
        model = keys.get("model") if source == "local" else None
    if not isinstance(model, str | Path):
        return  # it is loaded, or on a server
    folder = Path(model).expanduser()
    if folder.exists():
        from purify_hooks.local.loading import find_model

        find_model(model)
    elif isinstance(model, Path) or not HUB_ID.fullmatch(model):
        raise ModelError(f"there is no model directory {str(model)!r}; give a directory or a hub id")
