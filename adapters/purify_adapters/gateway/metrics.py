"""Counters and histograms under TGI's names, as Prometheus reads them.

Written without prometheus_client, which appends `_total` to every counter's name: TGI's counters have no such
suffix, and dashboards made for TGI look for their names.
"""

from __future__ import annotations

import asyncio
import json
import os
from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from purify_adapters.processes import is_running
from purify_plugins.errors import ConfigError
from purify_plugins.utils.files import write_whole

SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0)
TOKENS = tuple(2.0**power for power in range(15))
INTERVAL = 1.0
"""Seconds between two writes of a worker's counters."""


class Histogram:
    """A histogram: how many values are at most each bound."""

    def __init__(self, bounds: Sequence[float]) -> None:
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.sum = 0.0

    def observe(self, number: float) -> None:
        self.counts[bisect_left(self.bounds, number)] += 1
        self.sum += number

    def lines(self, name: str) -> Iterator[str]:
        below = 0
        for bound, count in zip([*map(str, self.bounds), "+Inf"], self.counts, strict=True):
            below += count
            yield f'{name}_bucket{{le="{bound}"}} {below}'
        yield f"{name}_sum {self.sum}"
        yield f"{name}_count {below}"


class Metrics:
    """The counters and histograms of one worker."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        self.failures: Counter[str] = Counter()
        self.histograms = {
            "tgi_request_duration": Histogram(SECONDS),
            "tgi_request_validation_duration": Histogram(SECONDS),
            "tgi_request_queue_duration": Histogram(SECONDS),
            "tgi_request_inference_duration": Histogram(SECONDS),
            "tgi_request_mean_time_per_token_duration": Histogram(SECONDS),
            "tgi_request_input_length": Histogram(TOKENS),
            "tgi_request_max_new_tokens": Histogram(TOKENS),
            "tgi_request_generated_tokens": Histogram(TOKENS),
        }
        ours = ("slm_only_tokens", "answers_without_guarantee", "upstream_requests")
        counted = ("tgi_request_count", "tgi_request_success", *(f"purify_{name}" for name in ours))
        self.counts.update(dict.fromkeys(counted, 0))

    def count(self, name: str, number: int = 1) -> None:
        self.counts[name] += number

    def fail(self, kind: str) -> None:
        self.failures[kind] += 1

    def observe(self, name: str, number: float) -> None:
        self.histograms[f"tgi_request_{name}"].observe(number)

    def state(self) -> dict[str, Any]:
        """All values, in the form that `add` takes."""
        histograms = {name: [each.counts, each.sum] for name, each in self.histograms.items()}
        return {"counts": self.counts, "failures": self.failures, "histograms": histograms}

    def add(self, state: Mapping[str, Any]) -> None:
        """Add another worker's values."""
        self.counts.update(state["counts"])
        self.failures.update(state["failures"])
        for name, (counts, total) in state["histograms"].items():
            mine = self.histograms[name]
            mine.counts = [a + b for a, b in zip(mine.counts, counts, strict=True)]
            mine.sum += total

    def text(self, gauges: dict[str, int]) -> str:
        """Everything in Prometheus' text format."""
        return "\n".join([*self._counters(), *self._gauges(gauges), *self._histograms(), ""])

    def _counters(self) -> Iterator[str]:
        for name, number in self.counts.items():
            yield f"# TYPE {name} counter"
            yield f"{name} {number}"
        yield "# TYPE tgi_request_failure counter"
        for kind, number in self.failures.items():
            yield f'tgi_request_failure{{err="{kind}"}} {number}'

    def _gauges(self, gauges: dict[str, int]) -> Iterator[str]:
        for name, number in gauges.items():
            yield f"# TYPE {name} gauge"
            yield f"{name} {number}"

    def _histograms(self) -> Iterator[str]:
        for name, histogram in self.histograms.items():
            yield f"# TYPE {name} histogram"
            yield from histogram.lines(name)


class SharedMetrics:
    """The counters of all workers that serve one port, one file each in `folder`; None: one worker alone."""

    def __init__(self, metrics: Metrics, folder: str | None) -> None:
        self.metrics = metrics
        self.folder = None if folder is None else Path(folder)

    def write(self, gauges: Mapping[str, int]) -> None:
        """Write this worker's counters; a reader finds the old file or the new one."""
        if self.folder is not None:
            state = {**self.metrics.state(), "gauges": dict(gauges)}
            write_whole(self.folder / f"{os.getpid()}.json", json.dumps(state))

    def sum(self, gauges: Mapping[str, int]) -> tuple[Metrics, dict[str, int]]:
        """The counters of all workers, those that have ended included, and the gauges of those that run."""
        self.write(gauges)
        total, now = Metrics(), Counter(gauges)
        total.add(self.metrics.state())
        for file in () if self.folder is None else self.folder.glob("*.json"):
            if file.stem == str(os.getpid()):
                continue
            state = json.loads(file.read_text("utf-8"))
            total.add(state)
            if is_running(int(file.stem)):
                now.update(state["gauges"])
        return total, dict(now)

    async def keep_writing(self, gauges: Callable[[], Mapping[str, int]]) -> None:
        """Write them every INTERVAL seconds."""
        while self.folder is not None:
            with suppress(ConfigError):  # the folder is removed when the last worker ends
                self.write(gauges())
            await asyncio.sleep(INTERVAL)
