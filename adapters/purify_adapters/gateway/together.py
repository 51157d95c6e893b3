"""Several gateways of one port: what each has counted stands in a folder, and any of them tells the sum."""

from __future__ import annotations

import asyncio
import json
import os
from collections import Counter
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from purify_adapters.gateway.metrics import Metrics
from purify_adapters.processes import runs
from purify_plugins.errors import ConfigError
from purify_plugins.utils.files import write_whole

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

EVERY = 1.0
"""Seconds after which the others know what one has counted."""


class Together:
    """This process's counters among those in a folder; without one, they are all there is."""

    def __init__(self, metrics: Metrics, folder: str | None) -> None:
        self.metrics = metrics
        self.folder = None if folder is None else Path(folder)

    def note(self, gauges: Mapping[str, int]) -> None:
        """Write down what has been counted; a reader finds the old or the new, and nothing in between."""
        if self.folder is not None:
            state = {**self.metrics.state(), "gauges": dict(gauges)}
            write_whole(self.folder / f"{os.getpid()}.json", json.dumps(state))

    def sum(self, gauges: Mapping[str, int]) -> tuple[Metrics, dict[str, int]]:
        """What all have counted, the dead included, and what is now the case in those that live."""
        self.note(gauges)
        total, now = Metrics(), Counter(gauges)
        total.add(self.metrics.state())
        for file in () if self.folder is None else self.folder.glob("*.json"):
            if file.stem == str(os.getpid()):
                continue
            state = json.loads(file.read_text("utf-8"))
            total.add(state)
            if runs(int(file.stem)):
                now.update(state["gauges"])
        return total, dict(now)

    async def noting(self, gauges: Callable[[], Mapping[str, int]]) -> None:
        """Write it down again and again."""
        while self.folder is not None:
            with suppress(ConfigError):  # the folder goes when the last of all ends
                self.note(gauges())
            await asyncio.sleep(EVERY)
