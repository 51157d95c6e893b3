"""The times of a request, in TGI's headers and metrics."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from time import perf_counter
from typing import TYPE_CHECKING, Any

from purify_adapters.gateway.tgi_responses import slm_only

if TYPE_CHECKING:
    from purify_adapters.gateway.request_validation import Generation
    from purify_plugins.types import Completion

COMPUTE = "purified"
"""The value of `x-compute-type`, in which TGI names its accelerator."""


class Timing:
    """Seconds from a request's arrival to its slot, to the end of its validation, and to its end."""

    def __init__(self, characters: int) -> None:
        self.characters = characters
        self._start = self._slot = self._valid = self._end = perf_counter()
        self.first: float | None = None
        """Seconds to a stream's first event."""

    @property
    def seconds(self) -> float:
        """Seconds since the request's arrival."""
        return perf_counter() - self._start

    def began(self) -> None:
        """A stream's event is written."""
        self.first = self.seconds if self.first is None else self.first

    def queued(self) -> None:
        """The request has got a slot."""
        self._slot = self._valid = self._end = perf_counter()

    def validated(self) -> None:
        self._valid = self._end = perf_counter()

    def finished(self) -> None:
        self._end = perf_counter()

    def first_headers(self) -> dict[str, str]:
        """The headers that are known before the first token."""
        return {"x-compute-type": COMPUTE, "x-compute-characters": str(self.characters)}

    def headers(self, generations: Sequence[Generation], found: Sequence[Completion]) -> dict[str, str]:
        """All of TGI's headers; times in milliseconds, the compute time in seconds."""
        total, written = self._end - self._start, self._written(found)
        each = {
            "x-total-time": total,
            "x-validation-time": self._valid - self._slot,
            "x-queue-time": self._slot - self._start,
            "x-inference-time": self._end - self._valid,
            "x-time-per-token": (self._end - self._valid) / max(written, 1),
        }
        return {
            **self.first_headers(),
            "x-compute-time": str(total),
            **{name: str(round(1000 * seconds)) for name, seconds in each.items()},
            "x-prompt-tokens": str(sum(each.input_length for each in generations)),
            "x-generated-tokens": str(written),
        }

    def _written(self, found: Sequence[Completion]) -> int:
        return sum(len(each.tokens) for each in found)

    def facts(self, generations: Sequence[Generation], found: Sequence[Completion]) -> Mapping[str, Any]:
        """Fields of the access log: numbers, reasons and digests, no text."""
        return {
            "prompt_tokens": sum(each.input_length for each in generations),
            "generated_tokens": self._written(found),
            "finish_reason": ",".join(each.finish_reason for each in found),
            "certificate": ",".join(each.certificate.digest for each in found),
            "guarantee": ",".join(each.certificate.guarantee for each in found),
            "slm_only": sum(map(slm_only, found)),
        }

    def observations(
        self, generations: Sequence[Generation], found: Sequence[Completion]
    ) -> Mapping[str, float]:
        """Values for the histograms."""
        inference, written = self._end - self._valid, self._written(found)
        return {
            "validation_duration": self._valid - self._slot,
            "queue_duration": self._slot - self._start,
            "inference_duration": inference,
            "mean_time_per_token_duration": inference / max(written, 1),
            "input_length": sum(each.input_length for each in generations),
            "max_new_tokens": max(each.sampling.max_tokens for each in generations),
            "generated_tokens": written,
        }
