"""Errors of a model's configuration or files, found before its weights are read."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from purify_plugins.errors import ConfigError
from purify_plugins.plugin.arguments import require_arguments, sources_of

if TYPE_CHECKING:
    from purify_plugins.plugin.manager import Plugins


@dataclass(frozen=True)
class Preview:
    """A model before it is loaded.

    `place` is its directory and `numbers` the number of its parameters, where the files are here. `settle`
    runs the checks that take a second to import. `refuse` raises PromptError for a text that the model cannot
    read. `inside` are the models that it is made of; where it `mixes` them, what one of them says it may say,
    so that none may be the LLM.
    """

    place: Path | None = None
    numbers: int | None = None
    settle: Callable[[], None] = lambda: None
    refuse: Callable[[str], None] = lambda text: None
    inside: tuple[Preview, ...] = ()
    mixes: bool = False

    @property
    def places(self) -> set[Path]:
        """The directories of the models whose word its own is."""
        own = set() if self.place is None else {self.place}
        return own.union(*(each.places for each in self.inside)) if self.mixes else own


class Checked:
    """A source's factory that can check its arguments before it loads anything large.

    `preview` takes the factory's own arguments and raises the errors of loading, as far as they can be known.
    """

    def preview(self, **keys: Any) -> Preview:
        raise NotImplementedError

    def __call__(self, *args: Any, **keys: Any) -> Any:
        raise NotImplementedError


class Weighty(Checked):
    """The factory `load`, with `look` as its preview."""

    def __init__(self, load: Callable[..., Any], look: Callable[..., Preview]) -> None:
        functools.update_wrapper(self, load)
        self.load, self.look = load, look

    def preview(self, **keys: Any) -> Preview:
        return self.look(**keys)

    def __call__(self, *args: Any, **keys: Any) -> Any:
        return self.load(*args, **keys)


def foreseen(plugins: Plugins, model: Any) -> Preview:
    """The preview of a model in any form that `plugins.source` takes, with those of models inside it.

    Raises the errors of loading, as far as they can be known: ConfigError, ModelError, SourceError.
    """
    if not isinstance(model, str | Path | Mapping):
        return Preview()  # it is loaded already
    keys = dict(model) if isinstance(model, Mapping) else {"model": model}
    name = str(keys.pop("source", "local"))
    factory = plugins.check("purify_sources", name, keys)
    require_arguments(f"source {name!r}", factory, keys)
    inside = sources_of(factory)
    found = factory.preview(**keys) if isinstance(factory, Checked) else Preview()
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
