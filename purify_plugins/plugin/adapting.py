"""The door for sources and policies of somebody else's class: behind it, every optional member is there."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from purify_plugins.errors import ConfigError
from purify_plugins.plugin.policy_check import require_claimable
from purify_plugins.policy import BarePolicy, FusionPolicy
from purify_plugins.protocols import BareSource, LogitSource, Session

if TYPE_CHECKING:
    from torch import Tensor

    from purify_plugins.policy import State
    from purify_plugins.types import Prompt, Vocabulary

REQUIRED = ("vocabulary", "context_length", "open", "identity")


def adapted(source: Any) -> LogitSource:
    """The source itself, or one around an object that has a source's four members. Raises ConfigError."""
    if isinstance(source, LogitSource):
        return source
    if isinstance(source, BareSource):
        return Adapted(source)
    lacking = ", ".join(repr(name) for name in REQUIRED if not hasattr(source, name))
    raise ConfigError(
        f"a model is a LogitSource, and a {type(source).__name__} is none: it has no {lacking}; "
        "subclass purify_plugins.LogitSource, or name a model's directory to Purifier.load"
    )


def is_policy(value: Any) -> bool:
    """Whether a value is a fusion policy, of our class or of somebody else's."""
    return isinstance(value, FusionPolicy | BarePolicy) and not isinstance(value, type)


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
    """Finds a member in the foreign object first, then among this class's own and the defaults.

    One rule for all members, so that a member which a base class gains later is found too.
    """

    def __init__(self, foreign: Any) -> None:
        self._foreign = foreign

    def __getattribute__(self, name: str) -> Any:
        if not name.startswith("_") and name not in vars(type(self)):
            foreign = object.__getattribute__(self, "_foreign")
            if hasattr(foreign, name):
                return getattr(foreign, name)
        return object.__getattribute__(self, name)


class Adapted(_Adapted, LogitSource):
    """A source of somebody else's class and, for what it lacks, the defaults."""

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
    """A session of somebody else's class and, for what it lacks, the defaults."""

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
    """A policy of somebody else's class and, for what it lacks, the defaults; equal to what it is around."""

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
