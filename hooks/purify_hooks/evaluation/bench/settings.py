"""The settings of a benchmark."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from time import perf_counter, process_time
from typing import Any

from purify_plugins.errors import ConfigError

MODES = {"greedy": 0.0, "sampled": 1.0}
"""Mode -> temperature."""

Clock = Callable[[], float]

CLOCKS: Mapping[str, Clock] = {"wall": perf_counter, "cpu": process_time}
"""Clock by name: wall time, or this process's CPU time."""

POLICIES = ("geometric", "windowed", "balanced")
"""Policies timed on vocabularies of every size."""

Progress = Callable[[str], None]
"""Callback with a line of progress."""


def silent(_: str) -> None:
    """Discard progress."""


@dataclass(frozen=True)
class BenchSettings:
    """One measurement; without `llm` and `slm` the test bed's pair, its LLM widened."""

    llm: str | None = None
    slm: str | None = None
    policy: str = "geometric"
    parameters: Mapping[str, Any] = field(default_factory=dict)
    batch: int = 1
    tokens: int = 48
    rounds: int = 5
    prompts: int = 4
    """Answers a round, at least; a batch is never split."""
    threads: int | None = None
    """None: as many as torch likes."""
    clock: str = "wall"
    """One of CLOCKS; on a machine that others use too, "cpu", and one thread."""
    plugins: Sequence[str] | None = None
    """Third-party plugins by name; None: those of $PURIFY_PLUGINS."""

    def require_both(self) -> None:
        """Raise ConfigError for one model without the other."""
        if bool(self.llm) != bool(self.slm):
            raise ConfigError(
                "bench takes both --llm and --slm, or neither: then it brings a pair of its own"
            )

    @property
    def title(self) -> str:
        fields = "".join(f" {key}={value}" for key, value in self.parameters.items())
        return f"{self.policy}{fields}, batch {self.batch}"
