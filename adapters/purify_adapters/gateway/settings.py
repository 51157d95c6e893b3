"""What the operator decides; the numbers are TGI's own wherever it has them."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields

from purify_plugins.errors import ConfigError


@dataclass(frozen=True)
class Settings:
    """How many requests, how large and for how long. Seconds, tokens and bytes.

    Raises ConfigError for a number that would serve nobody.
    """

    api_key: str | None = None
    """What `Authorization: Bearer …` must hold; None lets everyone in."""
    model_id: str | None = None
    """What `/info` and `/v1/models` call the model; None: the untrusted model's own name."""
    max_concurrent: int = 128
    """Answers written at once; one more is refused, or waits in the queue."""
    queue: int = 256
    """Requests that may wait for their turn; one more gets 429 at once."""
    deadline: float = 300.0
    """Seconds an answer may take, waiting included."""
    drain: float = 20.0
    """Seconds that running answers have left when the gateway is told to stop."""
    certificates: int = 0
    """How many of the last certificates `/certificates/{digest}` keeps; 0: none, and no such route."""
    require_guarantee: bool = False
    """Refuse what no guarantee could hold for: greedy requests, and seeds that a server may have seen."""
    max_total_tokens: int | None = None
    """Prompt and answer together; None: what both models can read."""
    max_stop_sequences: int = 4
    """Stop strings of one request."""
    max_batch: int = 4
    """Prompts of one request to `/v1/completions`."""
    max_body: int = 2_000_000
    """Bytes of a request's body."""
    max_header: int = 65_536
    """Bytes of a request's line and headers."""
    patience: float = 15.0
    """Seconds a client may take to send its headers, and again its body."""
    keep_alive: float = 15.0
    """Seconds of silence after which a stream gets a comment, so that nobody hangs up."""

    workers: int = 1
    """How many gateways serve one port; each takes its part of the slots of the LLM's server."""
    shared: str | None = None
    """A folder in which they find each other's counters; `/metrics` tells their sum."""

    def __post_init__(self) -> None:
        if self.workers > 1 and self.certificates:
            raise ConfigError(
                "gateway: certificates are kept by the worker that issued them, and another may be asked; "
                "serve by one, or collect them in a plugin's purify_completed"
            )
        least = {"queue": 0, "certificates": 0, "drain": 0}
        for field in fields(self):
            value = getattr(self, field.name)
            if value == "":
                raise ConfigError(f"gateway: {field.name} must not be empty; leave it out, or say what it is")
            if isinstance(value, bool) or not isinstance(value, int | float):
                continue
            if not math.isfinite(value):
                raise ConfigError(f"gateway: {field.name} must be a finite number, not {value!r}")
            if value < least.get(field.name, 1 if isinstance(value, int) else 1e-3):
                raise ConfigError(
                    f"gateway: {field.name} must be {least.get(field.name, 1)} or more, not {value!r}"
                )
