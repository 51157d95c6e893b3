"""The policies that a certificate is checked with: of plugins in use, or those that a verifier comes with."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Protocol

from purify_plugins.policy import FusionPolicy


class Policies(Protocol):
    """What `Plugins` is, as far as a check needs it."""

    def offers(self, hook: str) -> Mapping[str, Callable[..., Any]]:
        """What is offered through a hook, by name."""

    def policy(self, policy: Any, parameters: Mapping[str, Any] | None = None) -> FusionPolicy:
        """The policy of this name and these options. Raises ConfigError."""

    def name_of(self, policy: FusionPolicy) -> str:
        """The name a policy is offered under."""
