"""Which plugins are installed, and which of them are in use."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from purify_plugins.plugin.installed import distribution, installed

if TYPE_CHECKING:
    from purify_plugins.plugin.manager import Plugins


@dataclass(frozen=True)
class Found:
    """A plugin that is installed, and whether it is in use."""

    name: str
    distribution: str
    version: str
    active: bool
    hooks: tuple[str, ...] = ()


def listing(plugins: Plugins) -> list[Found]:
    """Every installed plugin and whether it is in use; those that are not are never imported."""
    return [
        Found(
            entry.name,
            distribution(entry),
            entry.dist.version if entry.dist else "",
            plugins.has_plugin(entry.name),
            _hooks(plugins, entry.name),
        )
        for entry in installed()
    ]


def _hooks(plugins: Plugins, name: str) -> tuple[str, ...]:
    plugin = plugins.get_plugin(name)
    callers = plugins.get_hookcallers(plugin) if plugin is not None else None
    return tuple(sorted(caller.name for caller in callers or ()))
