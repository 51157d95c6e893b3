"""Errors of a model's configuration or files, found before its weights are read."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from purify_plugins.errors import ConfigError
from purify_plugins.plugin.arguments import require_arguments, sources_of
from purify_plugins.plugin.preview import Preview, named, place_of, preview_of
from purify_plugins.vouching.options import VouchingOptions, without
from purify_plugins.vouching.vouched import require_files

if TYPE_CHECKING:
    from purify_plugins.plugin.manager import Plugins


def foreseen(plugins: Plugins, model: Any) -> Preview:
    """The preview of a model in any form that `plugins.source` takes, with those of models inside it.

    Raises the errors of loading, as far as they can be known: ConfigError, ModelError, SourceError.
    """
    if not isinstance(model, str | Path | Mapping):
        return Preview()  # it is loaded already
    table = dict(model) if isinstance(model, Mapping) else {"model": model}
    vouching, keys = VouchingOptions.of(table), without(table)
    name = str(keys.pop("source", "local"))
    factory = plugins.check("purify_sources", name, keys)
    require_arguments(f"source {name!r}", factory, keys)
    inside = sources_of(factory)
    if vouching is not None:
        require_files(place_of(factory, keys), named(name, keys))
        vouching.read(named(name, keys))
    found = preview_of(factory, keys)
    within = tuple(
        foreseen(plugins, each) for key, value in keys.items() if key in inside for each in listed(value)
    )
    if not within:
        return found

    def refuse(text: str) -> None:
        for each in (*within, found):
            each.refuse(text)

    return replace(found, settle=lambda: _settle([*within, found]), refuse=refuse, inside=within)


def listed(model: Any) -> Sequence[Any]:
    """A model, or the models of a list."""
    return model if isinstance(model, list | tuple) else [model]


def require_two(plugins: Plugins, llm: Any, slm: Any) -> tuple[Preview, Preview]:
    """The settled previews of an LLM and an SLM. Raises PurifyError for bad models, or one given twice."""
    found = foreseen(plugins, llm), foreseen(plugins, slm)
    refuse_one(*found)
    _settle(found)
    return found


def refuse_one(llm: Preview, slm: Preview) -> None:
    """Raise ConfigError if the LLM and the SLM are the same model."""
    if len(llm.places) != 1 or not llm.places <= slm.places:
        return
    [place] = llm.places
    what = "the LLM is a member of the SLM's mixture" if slm.mixes else "the LLM and the SLM are one model"
    raise ConfigError(
        f"{what}, {place}: whom you do not trust cannot vouch for itself; name a benign model as the SLM"
    )


def _settle(previews: Iterable[Preview]) -> None:
    for each in previews:
        each.settle()
