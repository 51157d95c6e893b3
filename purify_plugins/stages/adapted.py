"""Stages of classes that do not subclass `Stage`: given its optional members."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, is_dataclass
from inspect import isgeneratorfunction
from typing import Any, Protocol, runtime_checkable

from purify_plugins.canonical_json import jsonable
from purify_plugins.errors import ConfigError
from purify_plugins.protocols import LogitSource
from purify_plugins.stages.options import RequestOptions
from purify_plugins.stages.request import Request
from purify_plugins.stages.stage import Stage


@runtime_checkable
class BareStage(Protocol):
    """The member that a stage of another class must have."""

    def answer(self, request: Request) -> Any: ...


@dataclass(frozen=True)
class AdaptedStage(Stage):
    """A stage of another class."""

    original: BareStage

    @property
    def name(self) -> str:
        return type(self.original).__name__

    @property
    def choices(self) -> int | None:
        unsaid = None if isgeneratorfunction(self.original.answer) else 1
        return getattr(self.original, "choices", unsaid)

    def answer(self, request: Request) -> Any:
        return self.original.answer(request)

    def public(self) -> Mapping[str, Any]:
        found: Mapping[str, Any] = jsonable(self.original) if is_dataclass(self.original) else {}
        return found


def adapted_stage(stage: Any) -> Stage:
    """A Stage for any object that can be one. Raises ConfigError."""
    if isinstance(stage, Stage):
        return stage
    if isinstance(stage, BareStage) and not isinstance(stage, type):
        return AdaptedStage(stage)
    raise ConfigError(f"a stage has a method answer(request), and {stage!r} has none; add it")


def chain_of(stages: Any, options: Any, slm: LogitSource) -> tuple[Stage, ...]:
    """The stages of a Purifier with this SLM, checked, as `options` are. Raises ConfigError."""
    if not isinstance(options, RequestOptions):
        raise ConfigError(f"request must be RequestOptions(...), not {options!r}")
    if not isinstance(stages, list | tuple):
        raise ConfigError(f"stages must be a list of stages, the outermost first, not {stages!r}")
    chain = tuple(adapted_stage(each).bind(slm) for each in stages)
    for stage in chain:
        choices = stage.choices
        if choices is not None and (type(choices) is not int or choices < 1):
            raise ConfigError(
                f"stage {stage.name!r}: choices must be a whole number, at least 1, or None, not {choices!r}"
            )
    return chain
