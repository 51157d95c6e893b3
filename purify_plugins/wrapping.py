"""What a source around another says of it unchanged."""

from __future__ import annotations

from typing import TYPE_CHECKING

from purify_plugins.threat import Engine, engine

if TYPE_CHECKING:
    from purify_plugins.types import LogitSource


class Wrapping:
    """A source around another."""

    source: LogitSource

    @property
    def context_length(self) -> int | None:
        return self.source.context_length

    @property
    def engine(self) -> Engine:
        """What runs the model."""
        return engine(self.source)

    @property
    def parameters(self) -> int | None:
        """How many numbers the model has, where the source knows."""
        return getattr(self.source, "parameters", None)
