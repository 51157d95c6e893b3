"""The plugins that are installed, by their entry points; nothing is imported."""

from __future__ import annotations

from functools import cache
from importlib.metadata import EntryPoint, entry_points

from purify_plugins.errors import PluginError

GROUP = "purify"
DISTRIBUTION = "purify-plugins"


@cache
def installed() -> tuple[EntryPoint, ...]:
    """Every installed entry point of the group `purify`, bundled ones first."""
    found = entry_points(group=GROUP)
    if not any(map(bundled, found)):
        raise PluginError("purify-plugins is not installed; run `pip install -e .` once in its checkout")
    return tuple(sorted(set(found), key=lambda entry: (not bundled(entry), entry.name)))


def distribution(entry: EntryPoint) -> str:
    """The name of the distribution that installs a plugin."""
    return entry.dist.name if entry.dist else "unknown"


def bundled(entry: EntryPoint) -> bool:
    """Whether a plugin comes with this package."""
    return distribution(entry) == DISTRIBUTION


def names_of(entry: EntryPoint) -> set[str]:
    """The names by which a plugin may be asked for: its own, and its distribution's."""
    return {entry.name, distribution(entry)}
