"""Protected works: an index of their prints, and the stage that keeps copies of them out of answers."""

from __future__ import annotations

from collections.abc import Mapping

from purify_plugins.plugin.hookspecs import hookimpl


@hookimpl
def purify_commands() -> Mapping[str, str]:
    return {"protect": "purify_hooks.protected.command:app"}
