"""`purify check`: what would run, what both models make of a text, and warnings about the pair."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from pkgutil import resolve_name
from typing import TYPE_CHECKING, Annotated, Any

import typer

from purify_plugins.certificates.explain import AGAINST
from purify_plugins.cli.inspect import as_table, fact_text, print_table, would_run
from purify_plugins.cli.options import (
    AsJson,
    ModelOptions,
    SamplingOptions,
    checked,
    configured,
    load_pair,
    spread,
)
from purify_plugins.errors import PluginError, ours
from purify_plugins.types import Remarks

if TYPE_CHECKING:
    from purify_plugins.configuration.config import Config
    from purify_plugins.purifier import Purifier

SECONDS = 20.0
"""How long the checks of plugins may take by default, in all."""
Texts = Annotated[
    list[Path] | None,
    typer.Option(metavar="FILE", help="Text of your kind to measure both models on; repeatable. [a sample]"),
]
Seconds = Annotated[float, typer.Option(min=0.0, help="How long to measure the models; 0: not at all.")]


@spread
def check(
    models: ModelOptions,
    draws: SamplingOptions,
    text: Texts = None,
    seconds: Seconds = SECONDS,
    as_json: AsJson = False,
) -> None:
    """Validate the configuration, load both models, say what would run and warn about the pair."""
    config = configured(models, draws)
    ready = checked(config)
    typer.echo("loading both models", err=True)
    writer = load_pair(ready)
    typer.echo("comparing their vocabularies, and how each reads", err=True)
    facts = would_run(writer)
    show(facts, remarks(writer, config, text or (), seconds), as_json)


def remarks(writer: Purifier, config: Config, texts: Sequence[Path], seconds: float) -> dict[str, Remarks]:
    """What each check that plugins offer says of the pair. Raises PurifyError."""
    found = {"stages": Remarks({}, [remark for stage in writer.stages for remark in stage.remarks()])}
    for name, offered in writer.plugins.offers("purify_checks").items():
        owner = writer.plugins.offering("purify_checks", name)
        with ours(partial(_failed, owner, name)):
            look = resolve_name(offered) if isinstance(offered, str) else offered
            found[name] = look(writer, config, texts, seconds)
    return found


def _failed(owner: str, name: str, error: Exception) -> PluginError:
    return PluginError(f"plugin {owner!r} failed in its check {name!r}: {error!r}")


def show(facts: Mapping[str, Any], found: Mapping[str, Remarks], as_json: bool) -> None:
    """Print the facts as tables, or as JSON with the warnings in it; the warnings on standard error."""
    warnings = [warning for each in found.values() for warning in each.warnings]
    parts = {name: dict(each.facts) for name, each in found.items() if each.facts}
    if as_json:
        typer.echo(json.dumps({**facts, **parts, "warnings": warnings}))
        return
    _put("what would run", {**facts, "adversary": AGAINST[facts["adversary"]]})
    for name, part in parts.items():
        _put(name, part)
    for warning in warnings:
        typer.echo(f"warning: {warning}", err=True)


def _put(title: str, facts: Mapping[str, Any]) -> None:
    rows = [(key, fact_text(value)) for key, value in facts.items()]
    print_table(as_table(("", title), rows))
