"""The commands of `purify`: the core's and those of plugins in use, each imported when it is used."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import cached_property
from pkgutil import resolve_name
from typing import Any

import typer
from typer.main import get_command

from purify_plugins.cli.options import in_use
from purify_plugins.errors import ConfigError, PluginError, ours
from purify_plugins.plugin.hookspecs import hookimpl
from purify_plugins.plugin.manager import Plugins, load_plugins

HERE = "purify_plugins.cli"
COMMANDS = {
    "generate": f"{HERE}.generate:generate",
    "chat": f"{HERE}.chat:chat",
    "serve": f"{HERE}.serve:serve",
    "run": f"{HERE}.run:program",
    "check": f"{HERE}.check:check",
    "verify": f"{HERE}.verify:verify",
    "detect": f"{HERE}.detect:detect",
    "keys": f"{HERE}.keys:keys",
    "store": f"{HERE}.store:store",
    "policies": f"{HERE}.inspect:policies",
    "stages": f"{HERE}.stages:stages",
    "plugins": f"{HERE}.inspect:plugins",
    "status": f"{HERE}.run:status",
    "allow": f"{HERE}.run:allow",
}
"""The core's own commands; a new one is a file and a line here."""


class Core:
    """Offers the core's commands through the hook that plugins use: two of one name are an error."""

    @hookimpl(trylast=True)  # which pluggy lists first
    def purify_commands(self) -> Mapping[str, str]:
        return COMMANDS


class Commands(Mapping[str, Any]):
    """Every command by name, as typer runs it; plugins are loaded, and commands imported, when asked for.

    Bundled commands are looked up first, without reading the configuration: they run whatever it says.
    """

    @cached_property
    def bundled(self) -> Offered:
        return Offered(load_plugins(()))

    @cached_property
    def in_use(self) -> Offered:
        """With those of the plugins that the configuration here or $PURIFY_PLUGINS names."""
        try:
            return Offered(in_use(None))
        except ConfigError:  # one that cannot be read names no plugin; a command that needs it raises this
            return self.bundled

    def __getitem__(self, name: str) -> Any:
        offered = self.bundled if name in self.bundled.commands else self.in_use
        return offered.command(name)

    def __iter__(self) -> Iterator[str]:
        return iter(self.in_use.commands)

    def __len__(self) -> int:
        return len(self.in_use.commands)


class Offered:
    """The commands that some plugins and the core offer. Raises PluginError for two of one name."""

    def __init__(self, plugins: Plugins) -> None:
        self.plugins = plugins
        plugins.register(Core(), name=HERE)
        self.commands = plugins.offers("purify_commands")

    def command(self, name: str) -> Any:
        """A command as typer runs it. Raises PluginError, naming the plugin, for one that cannot be built."""
        offered = self.commands[name]
        owner = self.plugins.offering("purify_commands", name)
        with ours(lambda error: PluginError(f"plugin {owner!r}: command {name!r} does not load: {error}")):
            command = get_command(_app(resolve_name(offered) if isinstance(offered, str) else offered))
        command.name = name
        _escape(command)
        return command


def _app(offered: typer.Typer | Callable[..., Any]) -> typer.Typer:
    """An app with one command for a function; an app with several is a group."""
    if isinstance(offered, typer.Typer):
        return offered
    if not callable(offered):
        raise TypeError(f"it must be a function, a typer app or 'module:name', not {offered!r}")
    app = typer.Typer(add_completion=False)
    app.command()(offered)
    return app


def _escape(command: Any) -> None:
    """Let a help text mean what it says: `[the SLM's]` is a default, and no style of rich's."""
    from rich.markup import escape

    for parameter in command.params:
        if help_ := getattr(parameter, "help", None):  # click's arguments have none
            parameter.help = escape(help_)
    command.help = escape(command.help) if command.help else command.help
    for inner in getattr(command, "commands", {}).values():  # click's groups have some
        _escape(inner)
