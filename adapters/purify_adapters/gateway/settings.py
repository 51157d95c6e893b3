"""The gateway's settings; the defaults are TGI's where TGI has the setting."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields

from purify_adapters.gateway.tenants import key_digest
from purify_plugins.configuration.tenants import Tenant
from purify_plugins.errors import ConfigError


@dataclass(frozen=True)
class Settings:
    """Limits of the number, size and duration of requests, in seconds, tokens and bytes.

    Raises ConfigError for a number with which no request could be served.
    """

    api_key: str | None = None
    """The key that `Authorization: Bearer …` must have; None: no key is needed."""
    model_id: str | None = None
    """The model's name on `/info` and `/v1/models`; None: the untrusted model's own name."""
    max_concurrent: int = 128
    """Answers decoded at once; further requests wait in the queue."""
    queue: int = 256
    """Requests that may wait; one more gets 429 at once."""
    deadline: float = 300.0
    """Seconds an answer may take, waiting included."""
    drain: float = 20.0
    """Seconds that running answers have left after SIGTERM."""
    certificates: int = 0
    """How many of the last certificates `/certificates/{digest}` keeps; 0: none, and no such route."""
    require_guarantee: bool = False
    """Refuse requests whose answer could claim no guarantee: greedy ones, and seeds a server may know."""
    max_total_tokens: int | None = None
    """Prompt and answer together; None: the smaller context length of the two models."""
    max_stop_sequences: int = 4
    """Stop strings of one request."""
    max_batch: int = 4
    """Prompts of one request to `/v1/completions`."""
    max_body: int = 2_000_000
    """Bytes of a request's body."""
    max_header: int = 65_536
    """Bytes of a request's line and headers."""
    patience: float = 15.0
    """Seconds a client may take to send its headers, again its body, and to ask again on its connection."""
    keep_alive: float = 15.0
    """Seconds of silence after which a stream gets a comment, so that its connection is not closed."""

    tenants: tuple[Tenant, ...] = ()
    """Whose keys are taken beside `api_key`, and under which policy each one's answers are drawn."""
    workers: int = 1
    """How many processes serve one port; each uses its share of the slots of the LLM's server."""

    def __post_init__(self) -> None:
        if self.workers > 1 and self.certificates:
            raise ConfigError(
                "gateway: certificates are kept by the worker that issued them, and another may be asked; "
                "serve by one, or collect them in a plugin's purify_completed"
            )
        if self.api_key and any(key_digest(self.api_key) in each.key_sha256 for each in self.tenants):
            raise ConfigError("gateway: the gateway's own key is also a tenant's; give each its own")
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
