"""The arguments of the Serve application, as `serve run` and a Serve config file pass them."""

from __future__ import annotations

from typing import Any, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

CHECKED = 2.0
"""Seconds between two checks whether a replica lives: in Serve's own 10 s a dead one is not replaced."""


class ServeArguments(BaseModel):
    """How many replicas serve a configuration, and on what; an unknown argument is an error."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    config: str | None = None
    """The configuration; None: $PURIFY_CONFIG, else `purify.toml` here."""
    replicas: int = Field(1, ge=1)
    """Replicas, or the least number of them where `max_replicas` is given."""
    max_replicas: int | None = Field(None, ge=1)
    """The most replicas, which makes their number follow the queue; None: the number is fixed."""
    target_ongoing: float = Field(16.0, gt=0)
    """Requests for each replica, running and queued, that autoscaling aims at."""
    cpus: float = Field(1.0, ge=0)
    """Cores that a replica reserves."""
    gpus: float = Field(0.0, ge=0)
    """GPUs that a replica reserves for the SLM; a fraction lets several replicas share one."""
    max_concurrent: int = Field(128, ge=1)
    """Answers that a replica decodes at once."""
    queue: int = Field(256, ge=0)
    """Requests that may wait at a proxy for a replica; one more gets 503 with `Retry-After`."""
    deadline: float = Field(300.0, gt=0)
    """Seconds an answer may take in a replica."""
    drain: float = Field(20.0, gt=0)
    """Seconds that running answers have left when a replica is stopped."""
    model_id: str | None = None
    """What clients see as the model's name."""
    api_key_env: str | None = None
    """The environment variable, of the replicas, with the key that clients must send."""
    require_guarantee: bool = False
    """Refuse requests whose answer could claim no guarantee."""

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.max_replicas is not None and self.max_replicas < self.replicas:
            raise ValueError(
                f"max_replicas is {self.max_replicas} and replicas {self.replicas}: the most is less"
            )
        return self

    @property
    def most(self) -> int:
        """The most replicas there may be."""
        return self.max_replicas or self.replicas

    @property
    def settings(self) -> dict[str, Any]:
        """The gateway's settings, all but the key."""
        names = {"max_concurrent", "queue", "deadline", "drain", "model_id", "require_guarantee"}
        given = self.model_dump(include=names)
        # Each replica uses its share of the slots of the LLM's server, as each worker of `purify serve` does.
        return {**given, "workers": self.most}

    @property
    def options(self) -> dict[str, Any]:
        """The deployment's options, as Serve names them."""
        return {
            "name": "purify",
            "ray_actor_options": {"num_cpus": self.cpus, "num_gpus": self.gpus},
            "max_ongoing_requests": self.max_concurrent,
            "max_queued_requests": self.queue,
            "graceful_shutdown_timeout_s": self.drain,
            "health_check_period_s": CHECKED,
            **self._number,
        }

    @property
    def _number(self) -> dict[str, Any]:
        if self.max_replicas is None:
            return {"num_replicas": self.replicas}
        scaling = {
            "min_replicas": self.replicas,
            "max_replicas": self.max_replicas,
            "target_ongoing_requests": self.target_ongoing,
        }
        return {"num_replicas": None, "autoscaling_config": scaling}
