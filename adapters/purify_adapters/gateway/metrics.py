"""The gateway's metrics, under TGI's names and by prometheus_client, added up over the workers of a port.

Where $PROMETHEUS_MULTIPROC_DIR is set before prometheus_client is imported, as `purify serve --workers` does,
each process writes its values into files there, and `/metrics` of any of them returns the sum.
"""

from __future__ import annotations

import asyncio
import os
import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, Metric, generate_latest, values
from prometheus_client.multiprocess import MultiProcessCollector, mark_process_dead
from prometheus_client.registry import Collector

from purify_adapters.processes import is_running
from purify_plugins.errors import ConfigError

SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0)
TOKENS = tuple(2.0**power for power in range(15))
INTERVAL = 1.0
"""Seconds between two writes of a worker's gauges; its counters are written as they count."""
COUNTERS = {
    "tgi_request_count": "Requests for text.",
    "tgi_request_success": "Requests answered whole.",
    "purify_slm_only_tokens": "Tokens that the SLM wrote alone.",
    "purify_answers_without_guarantee": "Answers whose certificate claims no guarantee.",
    "purify_upstream_requests": "Requests sent to models' servers.",
}
TENANTS = {
    "requests": "Requests of a tenant that were answered whole.",
    "generated_tokens": "Tokens of a tenant's answers.",
    "failures": "Requests of a tenant that got no whole answer.",
}
FAILURES = "tgi_request_failure"
HISTOGRAMS = {
    "tgi_request_duration": ("Seconds of a request.", SECONDS),
    "tgi_request_validation_duration": ("Seconds of a request's validation.", SECONDS),
    "tgi_request_queue_duration": ("Seconds that a request waited for its slot.", SECONDS),
    "tgi_request_inference_duration": ("Seconds of decoding.", SECONDS),
    "tgi_request_mean_time_per_token_duration": ("Seconds of decoding for each token.", SECONDS),
    "tgi_request_input_length": ("Tokens of a prompt.", TOKENS),
    "tgi_request_max_new_tokens": ("Tokens that a request allowed.", TOKENS),
    "tgi_request_generated_tokens": ("Tokens of an answer.", TOKENS),
}
GAUGES = {
    "tgi_queue_size": "Requests that wait for a slot.",
    "tgi_batch_current_size": "Answers that are decoded.",
    "purify_upstream_resting": "Whether the LLM's server has failed too often to be asked now.",
    "purify_answers_without_record": "Answers that the store of certificates could not record.",
}
SUFFIX = re.compile(rf"^(# HELP |# TYPE )?({'|'.join((*COUNTERS, FAILURES))})_total\b", re.MULTILINE)
"""What prometheus_client appends to a counter's name; TGI's dashboards ask for names without it."""


def shared_folder() -> str | None:
    """The folder in which the processes of one port write their values; None: this one serves alone."""
    return None if values.ValueClass is values.MutexValue else os.environ.get("PROMETHEUS_MULTIPROC_DIR")


class Metrics:
    """The counters, histograms and gauges of one worker. Raises ConfigError where they cannot be written."""

    def __init__(self) -> None:
        self.folder, self.registry = shared_folder(), CollectorRegistry()
        try:
            self.counters = {
                name: Counter(name, about, registry=self.registry) for name, about in COUNTERS.items()
            }
            self.failures = Counter(
                FAILURES, "Requests that got no whole answer.", ["err"], registry=self.registry
            )
            self.tenants = {
                name: Counter(f"purify_tenant_{name}", about, ["tenant"], registry=self.registry)
                for name, about in TENANTS.items()
            }
            self.histograms = {
                name: Histogram(name, about, buckets=bounds, registry=self.registry)
                for name, (about, bounds) in HISTOGRAMS.items()
            }
            self.gauges: dict[str, Gauge] = {}
        except OSError as error:
            raise ConfigError(
                f"cannot write metrics into {self.folder!r} ({error.strerror}); name a writable directory in "
                "PROMETHEUS_MULTIPROC_DIR"
            ) from error

    def count(self, name: str, number: int = 1) -> None:
        self.counters[name].inc(number)

    def fail(self, kind: str, tenant: str = "") -> None:
        self.failures.labels(kind).inc()
        if tenant:
            self.tenants["failures"].labels(tenant).inc()

    def answered(self, tenant: str, tokens: int) -> None:
        """Count an answer, and its tokens, for a tenant of the configuration."""
        if tenant:
            self.tenants["requests"].labels(tenant).inc()
            self.tenants["generated_tokens"].labels(tenant).inc(tokens)

    def observe(self, name: str, number: float) -> None:
        self.histograms[f"tgi_request_{name}"].observe(number)

    def set(self, gauges: Mapping[str, int]) -> None:
        """Set the gauges to their present values."""
        for name, number in gauges.items():
            if name not in self.gauges:
                self.gauges[name] = Gauge(
                    name, GAUGES[name], registry=self.registry, multiprocess_mode="livesum"
                )
            self.gauges[name].set(number)

    def text(self, gauges: Mapping[str, int]) -> str:
        """Everything in Prometheus' text format: of all workers, those that have ended included.

        The gauges are those of the workers that run, up to INTERVAL seconds old.
        """
        self.set(gauges)
        collector: Collector = Uncreated(self.registry)
        if self.folder is not None:
            _forget_dead(self.folder)
            collector = MultiProcessCollector(CollectorRegistry(), self.folder)  # type: ignore[no-untyped-call]  # it has no types
        return SUFFIX.sub(r"\1\2", generate_latest(collector).decode())

    async def keep_writing(self, gauges: Callable[[], Mapping[str, int]]) -> None:
        """Write the gauges every INTERVAL seconds, for the others' `/metrics`."""
        while self.folder is not None:
            self.set(gauges())
            await asyncio.sleep(INTERVAL)


class Uncreated(Collector):
    """A registry's metrics without the times at which they were made, which no sum over workers has."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.registry = registry

    def collect(self) -> Iterator[Metric]:
        for metric in self.registry.collect():
            metric.samples = [each for each in metric.samples if not each.name.endswith("_created")]
            yield metric


def _forget_dead(folder: str) -> None:
    """Remove the gauges of processes that have ended."""
    found = {int(file.stem.rpartition("_")[2]) for file in Path(folder).glob("gauge_live*.db")}
    for process in found:
        if not is_running(process):
            mark_process_dead(process, folder)  # type: ignore[no-untyped-call]  # it has no types
