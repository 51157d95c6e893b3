"""The bundled policies, and no plugin's."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from purify_hooks.policies import POLICIES
from purify_plugins.errors import UnknownNameError
from purify_plugins.foreign import resolved_policy
from purify_plugins.plugin.arguments import built
from purify_plugins.policy import FusionPolicy


class Shelf:
    """What `Plugins` is to a check, without plugins."""

    def offers(self, hook: str) -> Mapping[str, Callable[..., Any]]:
        """The policies, by name."""
        return POLICIES if hook == "purify_policies" else {}

    def policy(self, policy: Any, parameters: Mapping[str, Any] | None = None) -> FusionPolicy:
        """The policy of this name, or of a table with a name, with these options. Raises ConfigError."""
        return resolved_policy(policy, parameters, _made, "a policy needs a name")

    def name_of(self, policy: FusionPolicy) -> str:
        """The name a policy is offered under."""
        kind = type(policy.original)
        return next((name for name, each in POLICIES.items() if each is kind), kind.__name__)


def _made(name: str, options: Mapping[str, Any]) -> Any:
    if name not in POLICIES:
        raise UnknownNameError("policy", name, POLICIES)
    return built(f"policy {name!r}", POLICIES[name], options)
