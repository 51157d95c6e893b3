"""What is wrong with a model, found before any of its weights is read."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from purify_plugins.errors import ConfigError
from purify_plugins.plugin.arguments import require_arguments, sources_of

if TYPE_CHECKING:
    from purify_plugins.plugin.manager import Plugins


@dataclass(frozen=True)
class Preview:
    """What is known of a model that is not loaded.

    `place` is its directory and `numbers` counts its weights, where they are here. `settle` finds out the
    rest that can be known: what takes a second to import. `refuse` raises PromptError for a text that the
    model could not read.
    """

    place: Path | None = None
    numbers: int | None = None
    settle: Callable[[], None] = lambda: None
    refuse: Callable[[str], None] = lambda text: None


class Checked:
    """A source's factory that can say what is wrong before it loads anything large.

    `preview` takes the factory's own arguments. Raises what loading would, as far as it can be known.
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
    """The preview of the model that `model` stands for, as `plugins.source` takes it; of those within, too.

    Raises what loading it would, as far as it can be known: ConfigError, ModelError, SourceError.
    """
    if not isinstance(model, str | Path | Mapping):
        return Preview()  # it is loaded
    keys = dict(model) if isinstance(model, Mapping) else {"model": model}
    name = str(keys.pop("source", "local"))
    factory = plugins.check("purify_sources", name, keys)
    require_arguments(f"source {name!r}", factory, keys)
    inside = sources_of(factory)
    within = [foreseen(plugins, value) for key, value in keys.items() if key in inside]
    found = factory.preview(**keys) if isinstance(factory, Checked) else Preview()
    return replace(found, settle=lambda: _settle([*within, found])) if within else found


def require_two(plugins: Plugins, llm: Any, slm: Any) -> tuple[Preview, Preview]:
    """The previews of an LLM and an SLM, settled. Raises PurifyError for what cannot be loaded, or is one."""
    found = foreseen(plugins, llm), foreseen(plugins, slm)
    refuse_one(*found)
    _settle(found)
    return found


def refuse_one(llm: Preview, slm: Preview) -> None:
    """Raise ConfigError for a model that is to purify itself."""
    if llm.place is not None and llm.place == slm.place:
        raise ConfigError(
            f"the LLM and the SLM are one model, {llm.place}: whom you do not trust cannot vouch for itself; "
            "name a benign model as the SLM"
        )


def _settle(previews: Iterable[Preview]) -> None:
    for each in previews:
        each.settle()
