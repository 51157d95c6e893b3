"""The request stages of a configuration: `[[stage]]` and `[request]`."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path

from purify_plugins.configuration.config import Named, placed, where
from purify_plugins.configuration.find import Table
from purify_plugins.errors import ConfigError, UnknownNameError
from purify_plugins.plugin.manager import Plugins
from purify_plugins.stages.adapted import adapted_stage
from purify_plugins.stages.options import RequestOptions
from purify_plugins.stages.stage import Stage


def request_options(table: Table) -> RequestOptions:
    """How much the stages of a request may ask for. Raises UnknownNameError, ConfigError."""
    known = [each.name for each in fields(RequestOptions)]
    with placed(where(table)):
        for key in table:
            if key not in known:
                raise UnknownNameError("request option", key, known)
        return RequestOptions(**table)


def stage(plugins: Plugins, table: Table) -> Stage:
    """The stage that a table describes. Raises ConfigError, saying where."""
    with placed(where(table)):
        given = dict(table)
        name = given.pop("name", None)
        if not isinstance(name, str):
            raise ConfigError("a stage needs a name; see `purify stages`")
        factory = plugins.check("purify_stages", name, given)
        paths = factory.paths if isinstance(factory, type) and issubclass(factory, Stage) else ()
        folder = table.folder if isinstance(table, Named) else Path()
        rooted = {
            key: str(folder / value) if key in paths and isinstance(value, str) else value
            for key, value in given.items()
        }
        return adapted_stage(plugins.make("purify_stages", name, rooted))
