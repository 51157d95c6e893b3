"""What is evaluated: each model alone, and both under a policy at one setting."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields, is_dataclass
from typing import TYPE_CHECKING, Any

from purify_plugins.errors import ConfigError, UnknownNameError

if TYPE_CHECKING:
    from purify_plugins.plugins import Plugins

LEFT_OUT: Mapping[str, str] = {
    "offset": "it needs an expert and an anti-expert in the SLM's place",
    "learned_mix": "until it is fitted it is linear",
}
"""Policies that say nothing of two models as they are, and why."""
SWEEPS: Mapping[str, tuple[str, tuple[float, ...]]] = {
    "geometric": ("alpha", (0.1, 0.3, 0.5, 0.7, 0.9)),
    "linear": ("weight", (0.1, 0.3, 0.5, 0.7)),
    "windowed": ("budget", (2.0, 4.0, 6.0, 8.0, 10.0)),
    "anchored": ("budget", (0.05, 0.15, 0.5, 1.0, 2.0)),
    "capped": ("cap", (0.25, 0.5, 1.0, 2.0, 3.0)),
    "clean_gen": ("ratio", (2.0, 5.0, 20.0)),
    "safe_decoding": ("alpha", (0.3, 1.0, 3.0)),
    "consistency": ("beta", (0.5, 2.0, 8.0)),
    "contrastive": ("alpha", (0.1, 0.5)),
}
"""Each policy's main parameter and the settings that a sweep tries; of others, the first number there is."""


FACTORS = (0.25, 0.5, 1.0, 2.0, 4.0)
"""What a sweep multiplies the default of any other parameter by."""


@dataclass(frozen=True)
class System:
    """Something that answers: one model alone, or both under a policy."""

    key: str
    label: str
    policy: str = "geometric"
    parameters: Mapping[str, Any] = field(default_factory=dict)

    @property
    def alone(self) -> bool:
        """Whether it is one of the two models, not a policy."""
        return self.key in ("llm", "slm")

    @property
    def swept(self) -> bool:
        """Whether it is a policy at another setting than its default."""
        return not self.alone and self.key != self.policy


ALONE = (
    System("llm", "LLM alone", parameters={"alpha": 1.0}),
    System("slm", "SLM alone", parameters={"alpha": 0.0}),
)
"""The ceiling and the floor."""


def policies(plugins: Plugins) -> list[str]:
    """Every policy that two models as they are can be given."""
    return [name for name in plugins.offers("purify_policies") if name not in LEFT_OUT]


def lineup(plugins: Plugins, only: Collection[str] = (), sweep: bool = False) -> list[System]:
    """Both models alone and the policies named (none: all) at their defaults, or over their settings too.

    Raises UnknownNameError, ConfigError.
    """
    known = policies(plugins)
    for name in only:
        if name in LEFT_OUT:
            raise ConfigError(f"policy {name!r} cannot be evaluated on two models: {LEFT_OUT[name]}")
        if name not in known:
            raise UnknownNameError("policy", name, known)
    chosen = list(only) or known
    systems = [*ALONE, *(System(name, name, name) for name in chosen)]
    return [*systems, *(each for name in chosen if sweep for each in settings(plugins, name))]


def settings(plugins: Plugins, name: str) -> Iterator[System]:
    """A policy over its main parameter, less its default."""
    found = main_parameter(plugins, name)
    if found is None:
        return
    key, values, usual = found
    yield from (each for value in values if value != usual and valid(plugins, each := at(name, key, value)))


def at(name: str, parameter: str, value: float) -> System:
    """A policy at one value of one parameter."""
    return System(f"{name}-{value:g}", f"{name} {parameter} {value:g}", name, {parameter: value})


def main_parameter(
    plugins: Plugins, name: str, parameter: str = ""
) -> tuple[str, Sequence[float], float] | None:
    """A policy's main parameter, or the one named, the settings to try and its default; None: it has none.

    Raises UnknownNameError for a policy nobody offers, or a parameter that is no number of its own.
    """
    offers = plugins.offers("purify_policies")
    if name not in offers:
        raise UnknownNameError("policy", name, offers)
    numbers = dict(_numbers(offers[name]))
    if parameter and parameter not in numbers:
        raise UnknownNameError(f"number of policy {name!r}", parameter, numbers)
    main, values = SWEEPS.get(name, ("", ()))
    key = parameter or (main if main in numbers else next(iter(numbers), ""))
    if not key:
        return None
    usual = numbers[key]
    return key, values if key == main else [usual * each for each in FACTORS], usual


def _numbers(kind: Any) -> Iterable[tuple[str, float]]:
    """A policy's fields that are numbers above 0, with their defaults."""
    made: Any = kind()
    for each in fields(made) if is_dataclass(made) else ():
        value = getattr(made, each.name)
        if isinstance(value, float) and value > 0:
            yield each.name, value


def valid(plugins: Plugins, system: System) -> bool:
    """Whether the policy takes these parameters."""
    try:
        plugins.policy(system.policy, system.parameters)
    except ConfigError:
        return False
    return True
