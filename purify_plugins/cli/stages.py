"""`purify stages`: what is offered."""

from __future__ import annotations

import inspect
import json
from collections.abc import Callable
from dataclasses import MISSING, fields, is_dataclass
from typing import Annotated, Any

import typer

from purify_plugins.certificates.explain import assignments
from purify_plugins.cli.inspect import as_table, print_table
from purify_plugins.cli.options import AsJson, ConfigFile, in_use


def stages(
    name: Annotated[str | None, typer.Argument(help="Tell all about this one.")] = None,
    config: ConfigFile = None,
    as_json: AsJson = False,
) -> None:
    """List the request stages, or tell all about one."""
    loaded = in_use(config)
    offers = loaded.offers("purify_stages")
    if name is not None:
        loaded.require_offered("purify_stages", name)
    described = {each: _described(offers[each]) for each in ([name] if name else sorted(offers))}
    if as_json:
        typer.echo(json.dumps(described[name] if name else described))
    elif name:
        typer.echo(f"{name}\n\n{described[name]['about']}\n\nfields: {_fields(described[name]) or 'none'}")
    else:
        rows = [
            (each, facts["about"].partition("\n")[0], _fields(facts)) for each, facts in described.items()
        ]
        print_table(as_table(("stage", "what it does", "fields"), rows))


def _described(factory: Callable[..., Any]) -> dict[str, Any]:
    """A stage's docstring, and its fields with their defaults."""
    made = {each.name: each.default_factory for each in fields(factory)} if is_dataclass(factory) else {}
    found = {}
    for name, parameter in inspect.signature(factory).parameters.items():
        make = made.get(name, MISSING)
        default = parameter.default if make is MISSING else make()
        found[name] = None if default is parameter.empty else default
    return {"about": inspect.getdoc(factory) or "", "fields": json.loads(json.dumps(found, default=str))}


def _fields(facts: dict[str, Any]) -> str:
    """The fields and their defaults; only the name of one that has none, or that is empty."""
    given = {name: None if value in ("", [], {}) else value for name, value in facts["fields"].items()}
    return assignments(given)
