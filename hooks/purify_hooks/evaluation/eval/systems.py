"""Systems under evaluation: each model alone, and both under a policy at one setting."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields, is_dataclass, replace
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from purify_plugins.certificates.explain import said
from purify_plugins.errors import ConfigError, UnknownNameError

if TYPE_CHECKING:
    from purify_hooks.evaluation.eval.chains import Chain
    from purify_plugins.plugin.manager import Plugins

FACTORS = (0.25, 0.5, 1.0, 2.0, 4.0)
"""What a sweep multiplies a default by, where the policy declares no `sweep` of that parameter."""


@dataclass(frozen=True)
class System:
    """A system: one model alone, or both under a policy, with a chain of request stages or without."""

    key: str
    label: str
    policy: str
    parameters: Mapping[str, Any] = field(default_factory=dict)
    named: bool = False
    """Whether its setting was named by the user rather than part of a sweep."""
    chain: Chain | None = None
    """The request stages around it; only suites of `staged` answers measure such a system."""

    @property
    def alone(self) -> bool:
        """Whether it is one of the two models, not a policy."""
        return self.key in ("llm", "slm")

    def asks(self, other: System) -> bool:
        """Whether both are the same policy at the same setting, whatever their names."""
        mine, others = ((each.alone, each.policy, each.parameters, each.chain) for each in (self, other))
        return mine == others

    def within(self, chain: Chain) -> System:
        """This system with request stages around it."""
        key, label = (f"{name} + {chain.name}" for name in (self.key, self.label))
        return replace(self, key=key, label=label, named=True, chain=chain)

    @property
    def swept(self) -> bool:
        """Whether it is a policy at a setting of a sweep, neither its default nor named by the user."""
        return not self.alone and not self.named and self.key != self.policy


ALONE = (
    System("llm", "LLM alone", "geometric", {"alpha": 1.0}),
    System("slm", "SLM alone", "geometric", {"alpha": 0.0}),
)
"""Each model alone, as an end of the geometric mean: the ceiling and the floor."""


def policies(plugins: Plugins) -> list[str]:
    """Every policy that can be measured at its defaults."""
    skipped = unfit(plugins)
    return [name for name in plugins.offers("purify_policies") if name not in skipped]


def unfit(plugins: Plugins) -> dict[str, str]:
    """The policies in use that cannot be measured at their defaults, and why."""
    reasons = {
        name: unfit_reason(plugins, System(name, name, name)) for name in plugins.offers("purify_policies")
    }
    return {name: why for name, why in reasons.items() if why}


def unfit_reason(plugins: Plugins, system: System) -> str:
    """Why a policy cannot be measured at these parameters; "" where it can."""
    try:
        return plugins.policy(system.policy, system.parameters).unmeasured
    except ConfigError as error:
        return str(error)


def systems_for(plugins: Plugins, only: Collection[str] = (), sweep: bool = False) -> list[System]:
    """Both models alone and the policies named (none: all), or these over their settings too.

    A name alone is a policy at its defaults; `name:key=value` sets an option, and there may be several.
    Raises UnknownNameError, ConfigError.
    """
    asked = [named(plugins, text) for text in only or policies(plugins)]
    chosen = dict.fromkeys(each.policy for each in asked)
    swept = [each for name in chosen if sweep for each in settings(plugins, name)]
    return _once((*ALONE, *asked, *swept))


def with_chains(systems: Sequence[System], chains: Iterable[Chain]) -> list[System]:
    """The systems; each policy, at its default or a setting that was named, in every chain too."""
    chosen = list(chains)
    return [
        each
        for system in systems
        for each in (system, *(() if system.alone or system.swept else map(system.within, chosen)))
    ]


def _once(systems: Iterable[System]) -> list[System]:
    """The systems without duplicate settings; the first one stays."""
    found: list[System] = []
    for each in systems:
        if each.alone or not any(each.asks(other) for other in found):
            found.append(each)
    return found


def named(plugins: Plugins, text: str) -> System:
    """The policy that `name` or `name:key=value:key=value` stands for. Raises ConfigError."""
    name, *told = (part.strip() for part in text.split(":"))
    plugins.require_offered("purify_policies", name)
    parameters = dict(_option(each) for each in told)
    if why := plugins.policy(name, parameters).unmeasured:
        raise ConfigError(f"policy {name!r} cannot be evaluated on two models: {why}")
    words = [f"{key} {brief(value)}" for key, value in parameters.items()]
    return System(":".join([name, *told]), " ".join([name, *words]), name, parameters, named=True)


def brief(value: Any) -> str:
    """An option's value as shown in a label."""
    return f"{value:g}" if isinstance(value, float) else said(value)


def _option(text: str) -> tuple[str, Any]:
    """`key=value` of a policy's name on the command line. Raises ConfigError."""
    from purify_plugins.verifying.wanted import key_value

    if "=" not in text:
        raise ConfigError(f"--policies takes NAME:KEY=VALUE, such as balanced:budget=2, not {text!r}")
    return key_value(text)


def left_out(plugins: Plugins) -> str:
    """A note on the policies that `all` leaves out, and why; "" where there are none."""
    found = [f"{name} ({why})" for name, why in unfit(plugins).items()]
    return f"left out: {', '.join(found)}" if found else ""


def settings(plugins: Plugins, name: str) -> Iterator[System]:
    """A policy at each value of its sweep except its default."""
    found = main_parameter(plugins, name)
    if found is None:
        return
    key, values, usual = found
    yield from (
        each for value in values if value != usual and not unfit_reason(plugins, each := at(name, key, value))
    )


def at(name: str, parameter: str, value: float, fixed: Mapping[str, Any] = MappingProxyType({})) -> System:
    """A policy at one value of one parameter, its others as they are `fixed`."""
    return System(f"{name}-{value:g}", f"{name} {parameter} {value:g}", name, {**fixed, parameter: value})


def main_parameter(
    plugins: Plugins, name: str, parameter: str = "", fixed: Mapping[str, Any] = MappingProxyType({})
) -> tuple[str, Sequence[float], float] | None:
    """A policy's main or named parameter, the values to try and its default; None: it has no parameter.

    Options in `fixed` keep these values. Raises UnknownNameError for an unknown policy, or a parameter
    that is no number of the policy's.
    """
    plugins.require_offered("purify_policies", name)
    policy = plugins.policy(name, fixed)
    numbers = dict(_numbers(policy.original))
    if parameter and parameter not in numbers:
        raise UnknownNameError(f"number of policy {name!r}", parameter, numbers)
    main, values = policy.sweep or ("", ())
    key = parameter or (main if main in numbers else next(iter(numbers), ""))
    if not key:
        return None
    usual = numbers[key]
    return key, values if key == main else [usual * each for each in FACTORS], usual


def _numbers(made: Any) -> Iterable[tuple[str, float]]:
    """A policy's fields that are numbers above 0, with their values."""
    for each in fields(made) if is_dataclass(made) else ():
        value = getattr(made, each.name)
        if isinstance(value, float) and value > 0:
            yield each.name, value
