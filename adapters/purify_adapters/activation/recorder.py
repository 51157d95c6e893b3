"""The counts of calls in this process, by model or server, and the names of what was refused."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass

from purify_plugins.errors import PurifyError
from purify_plugins.utils.locks import ForkedLock


@dataclass(frozen=True)
class Counts:
    """How many calls were answered, and how."""

    purified: int = 0
    refused: int = 0
    trusted: int = 0
    guaranteed: int = 0
    """Of the purified: those whose every answer carries a guarantee."""


class Recorder:
    """Counts calls; `publish` is called after each. `refused` are the packages and classes refused."""

    def __init__(self, publish: Callable[[], None]) -> None:
        self.publish = publish
        self.counts: dict[str, Counts] = {}
        self.refused: set[str] = set()
        self._lock = ForkedLock(reentrant=True)

    def count(self, name: str, *how: str) -> None:
        """Note one call of `name` that was "purified" (and perhaps "guaranteed"), "refused" or "trusted"."""
        with self._lock:
            so_far = asdict(self.counts.get(name, Counts()))
            self.counts[name] = Counts(**{**so_far, **{each: so_far[each] + 1 for each in how}})
            self.publish()

    @contextmanager
    def refusals(self, name: str) -> Iterator[None]:
        """Note a call of `name` that ends with a PurifyError as refused."""
        try:
            yield
        except PurifyError:
            self.count(name, "refused")
            raise
