"""Find plugins, load the allowed ones, and build what a configuration names.

Bundled plugins come through the same entry point group, `purify`, as everyone's. Third-party ones
are off until named: code in this process could switch the protection off.
"""

from __future__ import annotations

import dataclasses
import inspect
import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from importlib.metadata import EntryPoint
from typing import Any

import pluggy

from purify_plugins.errors import PluginError, UnknownNameError, ours
from purify_plugins.foreign import BareSource, adapted, resolved_policy
from purify_plugins.plugin import hookspecs
from purify_plugins.plugin.arguments import built, check_arguments, require_arguments, sources_of
from purify_plugins.plugin.installed import DISTRIBUTION, GROUP, bundled, distribution, installed, names_of
from purify_plugins.plugin.preview import named, place_of
from purify_plugins.policy import FusionPolicy
from purify_plugins.protocols import LogitSource
from purify_plugins.vouching.options import VouchingOptions, without
from purify_plugins.vouching.vouched import require_files, vouched

BUILT_IN = "decoder"
OFFERS = {
    "purify_policies": "policy",
    "purify_sources": "source",
    "purify_adapters": "adapter",
    "purify_tool_formats": "tool format",
    "purify_suites": "suite",
    "purify_commands": "command",
    "purify_checks": "check",
    "purify_stages": "stage",
}
"""Offering hook -> the kind of thing it offers, in words."""
REQUEST_HOOKS = ("purify_request", "purify_decode", "purify_completed")
"""The hooks that a request goes through."""


@dataclass(frozen=True)
class Actor:
    """A third-party plugin that took part in an answer; an object registered by hand has no distribution."""

    name: str
    distribution: str
    version: str


class Plugins(pluggy.PluginManager):
    """The plugins in use and what they offer."""

    def __init__(self) -> None:
        super().__init__(GROUP)
        self.add_hookspecs(hookspecs)
        self.entries: dict[str, EntryPoint] = {}
        self._known: dict[Any, Any] = {}  # looked up once for the plugins registered now
        self.register(_BuiltIn(), name=BUILT_IN)

    def register(self, plugin: object, name: str | None = None) -> str | None:
        """Register a plugin; any error of its hooks becomes a PluginError that names it and the hook."""
        self._known.clear()
        registered = super().register(plugin, name)
        for caller in self.get_hookcallers(plugin) or ():
            for each in caller.get_hookimpls():
                if each.plugin is plugin and caller.name in REQUEST_HOOKS:
                    name = self._actor(each.plugin_name, plugin).name
                    each.function = guarded(name, caller.name, each)  # type: ignore[misc]  # ours to call
        return registered

    def unregister(self, plugin: object = None, name: str | None = None) -> Any:
        self._known.clear()
        return super().unregister(plugin, name)

    def implementing(self, hook: str) -> list[str]:
        """The names of the plugins that implement a hook; the built-in decoder is not among them."""
        if hook not in self._known:
            found = getattr(self.hook, hook).get_hookimpls()
            others = [each for each in found if each.plugin_name != BUILT_IN]
            self._known[hook] = [self._actor(each.plugin_name, each.plugin).name for each in others]
        names: list[str] = self._known[hook]
        return names

    def offers(self, hook: str) -> dict[str, Callable[..., Any]]:
        """Everything offered through an offering hook, by name.

        Raises PluginError, naming both plugins, when two offer the same name.
        """
        found: dict[str, Callable[..., Any]] = {}
        owner: dict[str, str] = {}
        for implementation in getattr(self.hook, hook).get_hookimpls():
            for name, factory in _ask(implementation, hook).items():
                if name in found:
                    raise PluginError(
                        f"{owner[name]!r} and {implementation.plugin_name!r} both offer the "
                        f"{OFFERS[hook]} {name!r}; name only one of them in `plugins`"
                    )
                found[name], owner[name] = factory, implementation.plugin_name
        return found

    def offering(self, hook: str, name: str) -> str:
        """The plugin that offers `name` through an offering hook."""
        found = getattr(self.hook, hook).get_hookimpls()
        return next(str(each.plugin_name) for each in found if name in _ask(each, hook))

    def offered(self, hook: str, made_by: object) -> tuple[str, Actor | None]:
        """The name that a factory is offered by, and the plugin that does; "" and None: no plugin in use."""
        for each in getattr(self.hook, hook).get_hookimpls():
            for name, factory in _ask(each, hook).items():
                if factory is made_by:
                    return name, self._actor(each.plugin_name, each.plugin)
        return "", None

    def make(self, hook: str, name: str, parameters: Mapping[str, Any]) -> Any:
        """Build the `name` that `hook` offers; its parameters are the factory's arguments.

        Raises UnknownNameError for an unknown name or parameter, ConfigError for a bad value.
        """
        return built(f"{OFFERS[hook]} {name!r}", self.require_offered(hook, name), parameters)

    def check(self, hook: str, name: str, parameters: Iterable[str]) -> Callable[..., Any]:
        """The factory that `hook` offers as `name`, checked to take these parameters; nothing is built.

        Raises UnknownNameError.
        """
        factory = self.require_offered(hook, name)
        check_arguments(f"{OFFERS[hook]} {name!r} option", factory, parameters)
        return factory

    def require_offered(self, hook: str, name: str) -> Callable[..., Any]:
        """The factory `hook` offers as `name`.

        Raises UnknownNameError where no plugin in use offers it, and names installed ones not in use.
        """
        offers = self.offers(hook)
        if name in offers:
            return offers[name]
        error = UnknownNameError(OFFERS[hook], name, offers)
        if idle := [repr(entry.name) for entry in installed() if not self.has_plugin(entry.name)]:
            several = "s" * (len(idle) > 1)
            error.args = (
                f"{error}; if the plugin{several} {', '.join(idle)}, installed and not in use, should offer "
                "it, name it in `plugins` or in PURIFY_PLUGINS",
            )
        raise error

    def source(self, model: Any) -> LogitSource:
        """The LogitSource that `model` stands for: itself, a local directory, or a mapping.

        With a `card` or a `signature`, the model's files must be as these say, whatever the source.

        Sources that it combines (`contrast` has an `expert` and an `anti`, `mixture` a list of `members`) may
        be given in the same ways.
        """
        if isinstance(model, LogitSource | BareSource):
            return adapted(model)
        table = dict(model) if isinstance(model, Mapping) else {"model": model}
        vouching, keys = VouchingOptions.of(table), without(table)
        name = str(keys.pop("source", "local"))
        factory = self.check("purify_sources", name, keys)
        require_arguments(f"source {name!r}", factory, keys)  # before a model within it is loaded
        if vouching is None:
            return self._load(name, factory, keys)
        place = require_files(place_of(factory, keys), named(name, keys))
        return vouched(place, vouching.read(named(name, keys)), partial(self._load, name, factory, keys))

    def _load(self, name: str, factory: Callable[..., Any], keys: Mapping[str, Any]) -> LogitSource:
        inside = sources_of(factory)
        made = {key: self._inner(each) if key in inside else each for key, each in keys.items()}
        return adapted(self.make("purify_sources", name, made))

    def _inner(self, model: Any) -> Any:
        """A source inside another, or a list of them."""
        return [*map(self.source, model)] if isinstance(model, list | tuple) else self.source(model)

    def policy(self, policy: Any, parameters: Mapping[str, Any] | None = None) -> FusionPolicy:
        """The FusionPolicy that `policy` stands for: itself, a name, or a mapping with a name.

        A field that holds a policy (as `consistency` has) may be given as a name or mapping too.
        """
        return resolved_policy(
            policy, parameters, self._made_policy, "[policy] needs a name; see `purify policies`"
        )

    def _made_policy(self, name: str, options: Mapping[str, Any]) -> Any:
        factory = self.require_offered("purify_policies", name)
        _refuse_derived(f"policy {name!r} option", factory, options)
        return self.make("purify_policies", name, options)

    def actors(self, policy: FusionPolicy) -> tuple[Actor, ...]:
        """The third-party plugins with a hook on requests, or that offer the policy."""
        kind = type(policy.original)
        if kind not in self._known:
            self._known[kind] = self._actors(kind)
        found: tuple[Actor, ...] = self._known[kind]
        return found

    def _actors(self, kind: type) -> tuple[Actor, ...]:
        acting = [each for hook in REQUEST_HOOKS for each in getattr(self.hook, hook).get_hookimpls()]
        offering = [
            each
            for each in self.hook.purify_policies.get_hookimpls()
            if kind in _ask(each, "purify_policies").values()
        ]
        found = {each.plugin_name: each.plugin for each in (*acting, *offering)}
        theirs = (self._actor(name, plugin) for name, plugin in found.items() if not self._ours(name))
        return tuple(sorted(theirs, key=lambda actor: actor.name))

    def _ours(self, name: str) -> bool:
        return name == BUILT_IN or (name in self.entries and bundled(self.entries[name]))

    def _actor(self, name: str, plugin: object) -> Actor:
        if (entry := self.entries.get(name)) is not None:
            return Actor(name, distribution(entry), entry.dist.version if entry.dist else "")
        if name == str(id(plugin)):  # pluggy's name for an object without one
            name = f"{type(plugin).__module__}.{type(plugin).__qualname__}"
        return Actor(name, "", "")

    def name_of(self, policy: FusionPolicy) -> str:
        """The name a policy is offered under; its class's where no plugin offers it."""
        if "names" not in self._known:
            self._known["names"] = {kind: name for name, kind in self.offers("purify_policies").items()}
        kind = type(policy.original)
        name: str = self._known["names"].get(kind, kind.__name__)
        return name


class _BuiltIn:
    """The built-in decoder, called last: other plugins' `purify_decode` wraps or replaces it."""

    @hookspecs.hookimpl(trylast=True)
    def purify_decode(self, purifier: Any, prompts: Any, sampling: Any) -> Any:
        return purifier.decode(prompts, sampling)


def failed(plugin: str, hook: str, error: Exception) -> PluginError:
    """The error of a failed hook; `plugin` is the plugin's name, in quotes."""
    return PluginError(f"plugin {plugin} failed in {hook}: {error!r}")


def guarded(plugin: str, hook: str, implementation: pluggy.HookImpl) -> Callable[..., Any]:
    """A hook's implementation whose errors name the plugin and the hook.

    A list that `purify_request` returns takes the place of the prompts, for the plugins after it too.
    """
    function: Callable[..., Any] = implementation.function
    broken = partial(failed, repr(plugin), hook)

    def asked(*arguments: Any) -> Any:
        with ours(broken):
            found = function(*arguments)
            if hook != "purify_request" or found is None or "prompts" not in implementation.argnames:
                return found
            arguments[implementation.argnames.index("prompts")][:] = found
        return None

    def wrapping(*arguments: Any) -> Any:
        with ours(broken):
            return (yield from function(*arguments))

    return wrapping if implementation.wrapper or implementation.hookwrapper else asked


def _ask(implementation: Any, hook: str) -> Mapping[str, Callable[..., Any]]:
    with ours(partial(failed, repr(implementation.plugin_name), hook)):
        offered = implementation.function()
    if not isinstance(offered, Mapping):
        raise PluginError(f"plugin {implementation.plugin_name!r} must return a mapping from {hook}")
    return offered


def load_plugins(allowed: Iterable[str] | None = None) -> Plugins:
    """Load the bundled plugins and the third-party ones named in `allowed`.

    A name is an entry point's or its distribution's. `PURIFY_PLUGINS`, a comma-separated list, stands
    in for `allowed` when it is set; empty means the bundled ones alone. Raises PluginError when a
    named plugin is missing, broken, or named by two distributions.
    """
    named = set(_from_environment() if allowed is None else allowed)
    plugins = Plugins()
    missing = set(named)
    for entry in installed():
        if bundled(entry) or named & names_of(entry):
            missing -= names_of(entry)
            _register(plugins, entry)
    if missing:
        known = {name for entry in installed() for name in names_of(entry)} - {DISTRIBUTION}
        raise PluginError(str(UnknownNameError("plugin", min(missing), known)) + " (is it installed?)")
    plugins.check_pending()
    return plugins


def _from_environment() -> list[str]:
    names = os.environ.get("PURIFY_PLUGINS", "").split(",")
    return [name.strip() for name in names if name.strip()]


def _register(plugins: Plugins, entry: EntryPoint) -> None:
    if plugins.has_plugin(entry.name):
        raise PluginError(f"two distributions install a plugin named {entry.name!r}; uninstall one")
    # An import can raise anything; a named plugin that breaks is fatal.
    with ours(lambda error: PluginError(f"plugin {entry.name!r} does not load: {error}")):
        plugins.register(entry.load(), name=entry.name)
        plugins.entries[entry.name] = entry
        plugins.check_pending()


def _refuse_derived(what: str, factory: Callable[..., Any], arguments: Iterable[str]) -> None:
    """Raise UnknownNameError for what a policy fills in itself (`repr=False`): it is no option."""
    fields = dataclasses.fields(factory) if dataclasses.is_dataclass(factory) else ()
    derived = {field.name for field in fields if not field.repr}
    for argument in arguments:
        if argument in derived:
            raise UnknownNameError(what, argument, inspect.signature(factory).parameters.keys() - derived)
