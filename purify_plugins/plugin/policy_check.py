"""What a policy must be: a frozen dataclass, a claim that can be certified, a state that is a row each."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import fields, is_dataclass
from typing import TYPE_CHECKING, Any, cast

from purify_plugins.errors import ConfigError, NumericError

if TYPE_CHECKING:
    from purify_plugins.policy import FusionPolicy, Guarantee, State

FIELDS: Mapping[Guarantee, tuple[str, ...]] = {
    "none": (),
    "mean": ("budget",),
    "window": ("budget", "window"),
    "passage": ("budget", "doubt"),
    "path": ("total",),
}
"""Each guarantee and the fields, in nats or tokens, that the sentence of its certificate names."""


def require_claimable(policy: FusionPolicy) -> None:
    """Raise ConfigError for a policy whose options or whose claim no certificate can hold."""
    kind = type(policy.original)
    _require_frozen(kind)
    if policy.guarantee not in FIELDS:
        raise ConfigError(
            f"the policy {kind.__name__!r} claims the guarantee {policy.guarantee!r}, and a certificate may "
            f"claim {', '.join(map(repr, FIELDS))}; a new kind cannot be added: claim one of these"
        )
    lacking = [name for name in FIELDS[policy.guarantee] if not _number(policy.original, name)]
    if lacking and policy.holds(()) is not None:  # of one that cannot tell, no claim is ever issued
        names = " and ".join(f"`{name}`" for name in lacking)
        raise ConfigError(
            f"the policy {kind.__name__!r} claims the guarantee {policy.guarantee!r}, whose certificate "
            f"names its {names}; give it a field of that name, a number, or claim 'none'"
        )


def require_rows(policy: FusionPolicy, state: State, rows: int) -> State:
    """The state that a policy started with. Raises NumericError unless each of its tensors is (rows, …)."""
    if isinstance(state, tuple) and all(each.ndim and len(each) == rows for each in state):
        return state
    shapes = ", ".join(str(tuple(each.shape)) for each in state) if isinstance(state, tuple) else "no tuple"
    raise NumericError(
        f"the policy {type(policy.original).__name__} starts {rows} rows with a state of {shapes}; `start` "
        "returns a tuple of tensors whose first dimension is the row: (rows, …), or () for no memory"
    )


def _require_frozen(kind: type) -> None:
    """Raise ConfigError unless the class is a dataclass, and frozen."""
    if not is_dataclass(kind):
        raise ConfigError(f"{kind.__name__!r} is not a dataclass: put @dataclass(frozen=True) above it")
    if not cast("Any", kind).__dataclass_params__.frozen:
        raise ConfigError(
            f"{kind.__name__!r} is a dataclass whose options can be changed while it runs: put "
            "@dataclass(frozen=True) above it"
        )


def _number(policy: Any, name: str) -> bool:
    """Whether a policy has a number of this name, itself or in a policy that is one of its fields."""
    own = {each.name: getattr(policy, each.name) for each in fields(policy)}
    if isinstance(own.get(name), int | float):
        return True
    return any(_number(inner, name) for inner in _inside(own))


def _inside(own: Mapping[str, Any]) -> Iterator[Any]:
    """The policies among a policy's options, as their authors wrote them."""
    from purify_plugins.plugin.adapting import adapted_policy, is_policy

    return (adapted_policy(each).original for each in own.values() if is_policy(each))
