"""Chains of request stages under evaluation, as configuration files describe them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from purify_plugins.configuration.chain import request_options, stage
from purify_plugins.configuration.config import Config, Named
from purify_plugins.configuration.find import find_config, read_table
from purify_plugins.errors import ConfigError, UnknownNameError
from purify_plugins.stages.options import RequestOptions

if TYPE_CHECKING:
    from purify_plugins.plugin.manager import Plugins
    from purify_plugins.stages.stage import Stage

REFUSED = "Refused."
"""What a reader gets on a refusal while a chain is measured; it counts as no text of the answer."""


@dataclass(frozen=True)
class Chain:
    """The tables `[[stage]]` and `[request]` of a file; `name` is the file's stem."""

    name: str
    stages: tuple[Named, ...]
    request: Named

    @property
    def names(self) -> tuple[str, ...]:
        """The stages' names, the outermost first."""
        return tuple(table["name"] for table in self.stages)

    def made(self, plugins: Plugins) -> tuple[Stage, ...]:
        """The stages, the outermost first. Raises ConfigError."""
        return tuple(stage(plugins, table) for table in self.stages)

    @property
    def options(self) -> RequestOptions:
        """The chain's own limits; a refusal gives a text, so that what was released before it is seen."""
        given = request_options(self.request)
        return RequestOptions(
            calls=given.calls, tokens=given.tokens, on_refusal="text", refusals={"default": REFUSED}
        )


def read_chain(file: Path, plugins: Plugins) -> Chain:
    """The chain in a file, which may be a whole configuration. Raises ConfigError, UnknownNameError."""
    table = read_table(file)
    known = [each.name for each in fields(Config)]
    for key in table:
        if key not in known:
            raise UnknownNameError(f"{file}: key", key, known)
    if not _tables(table.get("stage")):
        raise ConfigError(f"{file} has no stage; write [[stage]] with a name, see `purify stages`")
    found = Chain(
        file.stem,
        tuple(
            Named.at(f"{file}: [[stage]] {at}:", each, file.parent)
            for at, each in enumerate(table["stage"], 1)
        ),
        Named.at(f"{file}: [request]", table.get("request", {})),
    )
    found.made(plugins)
    _ = found.options
    return found


def _tables(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(each, Mapping) for each in value)


def own_chain(config: Path | None, plugins: Plugins) -> list[Chain]:
    """The chain of the configuration, if it has one."""
    file = find_config(config)
    return [read_chain(file, plugins)] if read_table(file).get("stage") else []


def chains(files: Sequence[Path], plugins: Plugins) -> list[Chain]:
    """The chains in files, each named by its stem. Raises ConfigError where two have one name."""
    found = [read_chain(file, plugins) for file in files]
    names = [each.name for each in found]
    for name in names:
        if names.count(name) > 1:
            raise ConfigError(f"two files of --stages are called {name!r}; rename one")
    return found
