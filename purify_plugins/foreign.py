"""Sources and policies of classes that do not subclass ours: checked, and given every optional member."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import fields, is_dataclass
from typing import TYPE_CHECKING, Any, Protocol, cast, runtime_checkable

from purify_plugins.errors import ConfigError
from purify_plugins.policy import Context, FusionPolicy, State
from purify_plugins.protocols import LogitSource, Session
from purify_plugins.types import Guarantee, Prompt, Vocabulary

if TYPE_CHECKING:
    from torch import Tensor


@runtime_checkable
class BareSource(Protocol):
    """The members that a source of another class must have; `adapted` adds the others."""

    @property
    def vocabulary(self) -> Vocabulary: ...

    @property
    def context_length(self) -> int | None: ...

    def open(self, prompts: Sequence[Prompt], scored: int = 0) -> tuple[Any, Tensor]: ...

    def identity(self) -> Mapping[str, Any]: ...


@runtime_checkable
class BarePolicy(Protocol):
    """The members that a policy of another class must have; `adapted_policy` adds the others."""

    @property
    def guarantee(self) -> Guarantee: ...

    @property
    def lookback(self) -> int: ...

    def start(self, context: Context) -> State: ...

    def fuse(self, llm: Tensor, slm: Tensor, state: State) -> Tensor: ...

    def advance(self, state: State, tokens: Tensor, llm: Tensor, slm: Tensor, fused: Tensor) -> State: ...


REQUIRED = ("vocabulary", "context_length", "open", "identity")


def adapted(source: Any) -> LogitSource:
    """The source itself, or one around an object that has a source's four members. Raises ConfigError."""
    if isinstance(source, LogitSource):
        return source
    if isinstance(source, BareSource):
        return AdaptedSource(source)
    lacking = ", ".join(repr(name) for name in REQUIRED if not hasattr(source, name))
    raise ConfigError(
        f"a model is a LogitSource, and a {type(source).__name__} is none: it has no {lacking}; "
        "subclass purify_plugins.LogitSource, or name a model's directory to Purifier.load"
    )


def is_policy(value: Any) -> bool:
    """Whether a value is a fusion policy, of our class or another."""
    return isinstance(value, FusionPolicy | BarePolicy) and not isinstance(value, type)


def resolved_policy(
    policy: Any,
    parameters: Mapping[str, Any] | None,
    make: Callable[[str, Mapping[str, Any]], Any],
    unnamed: str,
) -> FusionPolicy:
    """The policy that `policy` stands for: itself, a name that `make` knows, or a mapping with a name.

    Raises ConfigError, with the words `unnamed` for what has no name.
    """
    given = dict(parameters or {})
    if isinstance(policy, Mapping):
        given = {**policy, **given}
        policy = given.pop("name", None)
    if is_policy(policy):
        return adapted_policy(policy)
    if not isinstance(policy, str):
        raise ConfigError(unnamed)
    if "policy" in given:
        given["policy"] = resolved_policy(given["policy"], None, make, unnamed)
    return adapted_policy(make(policy, given))


def adapted_policy(policy: Any) -> FusionPolicy:
    """The policy itself, or one around an object that has a policy's five members.

    Raises ConfigError, for a policy too whose options or claim no certificate could hold.
    """
    if not is_policy(policy):
        raise ConfigError(
            f"{policy!r} is no fusion policy; name one of `purify policies`, or subclass "
            "purify_plugins.FusionPolicy and give an instance"
        )
    whole = policy if isinstance(policy, FusionPolicy) else AdaptedPolicy(policy)
    require_claimable(whole)
    return whole


class _Adapted:
    """Looks a member up in the foreign object first, then in this class and its base class.

    One rule for all members, so that members which a base class gains later are covered too.
    """

    def __init__(self, foreign: Any) -> None:
        self._foreign = foreign

    def __getattribute__(self, name: str) -> Any:
        if not name.startswith("_") and name not in vars(type(self)):
            foreign = object.__getattribute__(self, "_foreign")
            if hasattr(foreign, name):
                return getattr(foreign, name)
        return object.__getattribute__(self, name)


class AdaptedSource(_Adapted, LogitSource):
    """A source of another class, with the defaults for members it lacks."""

    def open(self, prompts: Sequence[Prompt], scored: int = 0) -> tuple[Session, Tensor]:
        session, logits = self._foreign.open(prompts, scored)
        return session if isinstance(session, Session) else AdaptedSession(session), logits

    def identity(self) -> Mapping[str, Any]:
        found: Mapping[str, Any] = self._foreign.identity()
        return found

    @property
    def inner(self) -> LogitSource:
        return self

    def over(self, change: Callable[[LogitSource], LogitSource]) -> LogitSource:
        return self

    @property
    def encodes(self) -> bool:
        return bool(getattr(self._foreign, "encodes", hasattr(self._foreign, "encode")))

    @property
    def joins(self) -> bool:
        return bool(getattr(self._foreign, "joins", hasattr(self._foreign, "extend_all")))

    def extend_all(self, sessions: Sequence[Any], tokens: Sequence[Tensor]) -> list[Tensor]:
        if not self.joins:
            return super().extend_all(sessions, tokens)
        found: list[Tensor] = self._foreign.extend_all([_theirs(each) for each in sessions], tokens)
        return found

    def branch_all(
        self, sessions: Sequence[Any], tokens: Sequence[Tensor], seen: Sequence[Tensor]
    ) -> list[Tensor]:
        if not hasattr(self._foreign, "branch_all"):
            return super().branch_all(sessions, tokens, seen)
        found: list[Tensor] = self._foreign.branch_all([_theirs(each) for each in sessions], tokens, seen)
        return found


class AdaptedSession(_Adapted, Session):
    """A session of another class, with the defaults for members it lacks."""

    def extend(self, tokens: Tensor) -> Tensor:
        found: Tensor = self._foreign.extend(tokens)
        return found

    def rewind(self, lengths: Tensor) -> None:
        self._foreign.rewind(lengths)

    def __enter__(self) -> Session:  # type: ignore[override]  # what enters is this wrapper
        self._foreign.__enter__()
        return self

    def __exit__(self, *exc: object) -> None:
        self._foreign.__exit__(*exc)

    @property
    def keeps(self) -> bool:
        return bool(getattr(self._foreign, "keeps", hasattr(self._foreign, "keep")))


class AdaptedPolicy(_Adapted, FusionPolicy):
    """A policy of another class, with the defaults for members it lacks; equal to the policy inside it."""

    def fuse(self, llm: Tensor, slm: Tensor, state: State) -> Tensor:
        found: Tensor = self._foreign.fuse(llm, slm, state)
        return found

    @property
    def binds(self) -> bool:
        return bool(getattr(self._foreign, "binds", hasattr(self._foreign, "bind")))

    def bind(self, vocabulary: Vocabulary) -> FusionPolicy:
        return adapted_policy(self._foreign.bind(vocabulary)) if hasattr(self._foreign, "bind") else self

    def in_symbols(self, per_token: float) -> FusionPolicy:
        counts = hasattr(self._foreign, "in_symbols")
        return adapted_policy(self._foreign.in_symbols(per_token)) if counts else self

    def tightened(self, factor: float) -> FusionPolicy | None:
        found = self._foreign.tightened(factor) if hasattr(self._foreign, "tightened") else None
        return None if found is None else adapted_policy(found)

    @property
    def original(self) -> Any:
        return self._foreign

    def __eq__(self, other: object) -> bool:
        return bool(self._foreign == (other._foreign if isinstance(other, AdaptedPolicy) else other))

    def __hash__(self) -> int:
        return hash(self._foreign)

    def __repr__(self) -> str:
        return repr(self._foreign)


def _theirs(session: Any) -> Any:
    return session._foreign if isinstance(session, AdaptedSession) else session


# What a policy must be

FIELDS: Mapping[Guarantee, tuple[str, ...]] = {
    "none": (),
    "mean": ("budget",),
    "window": ("budget", "window"),
    "passage": ("budget", "doubt"),
    "path": ("total",),
}
"""Each guarantee and the policy fields (nats or tokens) that its sentence in a certificate names."""


def require_claimable(policy: FusionPolicy) -> None:
    """Raise ConfigError for a policy whose options or claim a certificate cannot record."""
    kind = type(policy.original)
    _require_frozen(kind)
    if policy.guarantee not in FIELDS:
        raise ConfigError(
            f"the policy {kind.__name__!r} claims the guarantee {policy.guarantee!r}, and a certificate may "
            f"claim {', '.join(map(repr, FIELDS))}; a new kind cannot be added: claim one of these"
        )
    lacking = [name for name in FIELDS[policy.guarantee] if not _number(policy.original, name)]
    if lacking and policy.holds(()) is not None:  # no claim is ever issued for a policy without `holds`
        names = " and ".join(f"`{name}`" for name in lacking)
        raise ConfigError(
            f"the policy {kind.__name__!r} claims the guarantee {policy.guarantee!r}, whose certificate "
            f"names its {names}; give it a field of that name, a number, or claim 'none'"
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
    """Whether a policy, or a policy inside it, has a number of this name."""
    own = {each.name: getattr(policy, each.name) for each in fields(policy)}
    if isinstance(own.get(name), int | float):
        return True
    return any(_number(inner, name) for inner in _inside(own))


def _inside(own: Mapping[str, Any]) -> Iterator[Any]:
    """The policies among a policy's options, as their authors' own objects."""
    return (adapted_policy(each).original for each in own.values() if is_policy(each))
