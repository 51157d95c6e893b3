"""`Preview`: a model before it is loaded; `Checked`: a factory that can give one."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar


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
    `of_files`: it loads files of this machine, or models that may.
    """

    of_files: ClassVar[bool] = False

    def preview(self, **keys: Any) -> Preview:
        raise NotImplementedError

    def __call__(self, *args: Any, **keys: Any) -> Any:
        raise NotImplementedError


class Weighty(Checked):
    """The factory `load`, with `look` as its preview."""

    of_files = True

    def __init__(self, load: Callable[..., Any], look: Callable[..., Preview]) -> None:
        functools.update_wrapper(self, load)
        self.load, self.look = load, look

    def preview(self, **keys: Any) -> Preview:
        return self.look(**keys)

    def __call__(self, *args: Any, **keys: Any) -> Any:
        return self.load(*args, **keys)


def preview_of(factory: Callable[..., Any], keys: Mapping[str, Any]) -> Preview:
    """A source's preview; an empty one where its factory gives none. Raises the errors of loading."""
    return factory.preview(**keys) if isinstance(factory, Checked) else Preview()


def place_of(factory: Callable[..., Any], keys: Mapping[str, Any]) -> Path | None:
    """Where a model's files are; None where its factory loads none, which is not asked then."""
    return factory.preview(**keys).place if isinstance(factory, Checked) and factory.of_files else None


def named(source: str, keys: Mapping[str, Any]) -> str:
    """A model in words, for errors."""
    model = keys.get("model")
    return repr(str(model)) if isinstance(model, str | Path) else f"source {source!r}"
