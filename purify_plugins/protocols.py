"""`LogitSource` and `Session`: the interface of a model, with every optional member and its default.

Subclass these. Whatever wraps a source or a session subclasses `SourceWrapper` or `SessionWrapper`
(`purify_plugins.sources.wrapper`), which forward every member named here.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, Self

from purify_plugins.errors import SourceError

if TYPE_CHECKING:
    from torch import Tensor

    from purify_plugins.threat import Engine
    from purify_plugins.types import Prompt, ScoredPrompt, Vocabulary

    member = property
else:

    class member:
        """A property that an instance attribute or a dataclass field may override.

        A plain property allows neither: it has no setter, and `dataclass` takes an inherited class attribute
        of a field's name for that field's default.
        """

        def __init__(self, default: Callable[[Any], Any]) -> None:
            self.default, self.__doc__ = default, default.__doc__

        def __get__(self, instance: Any, owner: type) -> Any:
            if instance is None:
                raise AttributeError
            return self.default(instance)


@dataclass(frozen=True)
class Capabilities:
    """Capabilities of a model's server.

    `ids_in` and `ids_out`: it accepts and returns token ids. `max_n`: how many tokens of a row it shows.
    `raw`: its rows are the model's own, without sampling settings (None: unknown). `scores_draft`: it scores
    several tokens in one request. `streams_rows`: it generates by itself and returns a row with every token;
    its sessions then offer `read_ahead`.
    """

    ids_in: bool
    ids_out: bool
    max_n: int
    raw: bool | None
    scores_draft: bool
    streams_rows: bool


@dataclass(frozen=True)
class Reading:
    """How a model is run, in words, for `purify check`.

    `cache`: whether a KV cache is used ("on", or "off" and why). `trees`: whether one forward pass evaluates
    several continuations (tree attention). `attention`: the attention implementation's name.
    """

    cache: str = "not known here"
    trees: str = "off"
    attention: str = "not known here"


class Session(ABC):
    """One open batch on one model; owns the KV cache or the connection. A context manager.

    A subclass has `prompts`, `extend` and `rewind`; the other members have defaults.
    """

    @member
    def prompts(self) -> Sequence[ScoredPrompt]:
        """Each row's prompt as this model read it."""
        raise NotImplementedError(f"{type(self).__name__} needs `prompts`")

    @abstractmethod
    def extend(self, tokens: Tensor) -> Tensor:
        """Append (rows, n) token ids; return (rows, n, V) logits of the token after each.

        Logits are log-probabilities up to a constant per row, in the model's own dtype; the loop
        normalises them once, in float32. A server that shows only the top of a row returns V + 1 columns:
        minus infinity for tokens not shown, and last the log of their total mass; see
        `decode/partial_rows.py`. Raises SourceError; `rewind` then restores the state before the call.
        """

    @abstractmethod
    def rewind(self, lengths: Tensor) -> None:
        """Remove all but the first `lengths` (rows,) tokens after each row's prompt."""

    def close(self) -> None:  # noqa: B027  # a session that owns nothing has nothing to free
        """Free the cache or the connection; calling it twice is harmless."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def each(self, tokens: Tensor) -> Iterator[Tensor] | None:
        """The logits of `extend`, one (rows, V) after another, each computed when it is requested.

        None, with nothing appended: this session computes all of them in one pass; call `extend`.
        """
        return None

    def asks(self, tokens: Tensor) -> float:
        """The share of the rows for which `extend` of these tokens (rows, 1) takes a forward pass.

        1 where ids are the model's own tokens. Of symbols smaller than these most need none.
        """
        return 1.0

    @member
    def readings(self) -> Sequence[tuple[int, ...]]:
        """The token ids that all models behind this session read of each row's prompt; they key seeded draws.

        A source that combines several models returns the ids of all of them.
        """
        return [prompt.tokens for prompt in self.prompts]

    @member
    def full(self) -> Collection[int] | None:
        """The rows whose context is full, for a session whose ids are not the model's own tokens.

        None: they are its own tokens, and `context_length` is their limit.
        """
        return None

    @member
    def keeps(self) -> bool:
        """Whether `keep` may be called: true of a class that overrides it."""
        return type(self).keep is not Session.keep

    def keep(self, rows: Sequence[int]) -> None:
        """Drop all rows but these (indices); later calls take and return them in this order."""
        raise _not_offered(self, "keep")

    @member
    def branches(self) -> bool:
        """Whether `branch` and `select` may be called, in place of `extend` and `rewind`."""
        return False

    def branch(self, tokens: Tensor, seen: Tensor) -> Tensor:
        """Append (rows, n) tokens of a tree; (rows, n, V) logits of the token after each.

        `seen` (rows, n, m + n) bool is the attention mask: for each new token, which of the m columns read
        since the prompt and of the n new ones it attends to, itself included. Raises SourceError.
        """
        raise _not_offered(self, "branch")

    def select(self, columns: Tensor) -> None:
        """Keep only these cached columns (rows, n), in this order."""
        raise _not_offered(self, "select")

    def read_ahead(self, limit: int, live: Collection[int]) -> list[list[int]]:
        """The server's draft for each row, at most `limit` tokens, equally many for each live row.

        The logits after these tokens are buffered: `extend` returns them without a request. Rows not in
        `live` have ended. A session that does not draft returns an empty draft for each row.
        """
        return [[] for _ in self.prompts]

    def mark(self) -> Any:
        """A checkpoint that `undo` takes."""
        raise _not_offered(self, "mark")

    def undo(self, mark: Any) -> None:
        """Restore the state at a checkpoint, even after a forward pass that failed half way."""
        raise _not_offered(self, "undo")


class Slots(ABC):
    """One KV cache of many texts, each in a numbered slot, so that one forward pass reads any of them."""

    @abstractmethod
    def read(
        self,
        slots: Sequence[int],
        starts: Sequence[int],
        tokens: Sequence[Sequence[int]],
        wanted: Sequence[int],
    ) -> Tensor:
        """Keep the first `starts` tokens of each slot's text, and read its `tokens` (one or more) after them.

        Returns the logits (sum of `wanted`, V) after the last `wanted` tokens of each, slot by slot. A slot
        occurs once. Raises SourceError; what was to be kept then still is.
        """

    @abstractmethod
    def release(self, slot: int) -> None:
        """Forget a slot's text, so that its memory can be used for another; harmless where there is none."""


class Follower(Protocol):
    """One answer's position in a constraint."""

    def allowed(self, answer: Sequence[int]) -> Tensor:
        """The tokens (V,) bool that may follow an answer's token ids; after an end token, anything but none.

        Asked several times for one position, and for any answer: a draft is rolled back, a row goes on in
        another's place. It is mostly the last one with some tokens more or fewer.
        """


class Constraint(Protocol):
    """Which tokens may follow; it rules the others out in both models' rows, before the policy."""

    def follower(self, vocabulary: Vocabulary) -> Follower:
        """A new answer's follower."""

    def public(self) -> Mapping[str, Any]:
        """What certificates say of it, as JSON: its kind, a digest and a count, never its texts."""


class LogitSource(ABC):
    """A model that scores every next token.

    A subclass has `vocabulary`, `context_length`, `open` and `identity`; the other members have defaults.
    """

    @member
    def vocabulary(self) -> Vocabulary:
        """What each token id spells."""
        raise NotImplementedError(f"{type(self).__name__} needs a `vocabulary`")

    @member
    def context_length(self) -> int | None:
        """The longest sequence, prompt and answer together, in tokens; None: no limit."""
        raise NotImplementedError(f"{type(self).__name__} needs a `context_length`, None for no limit")

    @abstractmethod
    def open(self, prompts: Sequence[Prompt], scored: int = 0) -> tuple[Session, Tensor]:
        """Read the prompts; return the session and the first token's logits, (rows, V).

        The last `scored` tokens of each prompt are scored for policies that look back.
        Raises PromptError for a prompt it cannot read, SourceError when the model fails.
        """

    @abstractmethod
    def identity(self) -> Mapping[str, Any]:
        """The model's identity, for certificates: name, kind, dtype, digests of its files."""

    @member
    def capabilities(self) -> Capabilities | None:
        """The capabilities of the model's server; None: the model runs in this process."""
        return None

    @member
    def engine(self) -> Engine:
        """The engine that runs the model; the default "untrusted" is never shown a draft.

        A source that computes in this process, with causal attention, is "in-process".
        """
        return "untrusted"

    @member
    def reading(self) -> Reading:
        """How the model is run, in words: for `purify check`."""
        return Reading()

    @member
    def parameters(self) -> int | None:
        """The number of the model's parameters; None: unknown."""
        return None

    @member
    def in_thread(self) -> bool:
        """Whether the thread that asks computes the pass: then its CPU time says what the pass costs."""
        return False

    @member
    def tokenizer(self) -> Any:
        """The model's transformers tokenizer; None where there is none."""
        return None

    @member
    def encodes(self) -> bool:
        """Whether `encode` may be called: true of a class that overrides it."""
        return type(self).encode is not LogitSource.encode

    def encode(self, prompt: Prompt) -> tuple[int, ...]:
        """The token ids of a prompt, without a forward pass."""
        raise _not_offered(self, "encode")

    @member
    def joins(self) -> bool:
        """Whether several sessions can be read in one pass: true of a class that overrides `extend_all`."""
        return type(self).extend_all is not LogitSource.extend_all

    def extend_all(self, sessions: Sequence[Any], tokens: Sequence[Tensor]) -> list[Tensor]:
        """The result of each session's `extend` for its (rows, n) tokens; n may differ.

        If it raises, every session is unchanged.
        """
        return [session.extend(new) for session, new in zip(sessions, tokens, strict=True)]

    def branch_all(
        self, sessions: Sequence[Any], tokens: Sequence[Tensor], seen: Sequence[Tensor]
    ) -> list[Tensor]:
        """The result of each session's `branch` for its tokens and attention mask."""
        calls = zip(sessions, tokens, seen, strict=True)
        return [session.branch(new, sees) for session, new, sees in calls]

    def slots(self) -> Slots | None:
        """A new, empty cache of many texts; None: this source has none, and every text is a session."""
        return None

    @member
    def symbolic(self) -> bool:
        """Whether the ids are symbols smaller than the model's own tokens, as two tokenizers need."""
        return False

    @member
    def rough(self) -> bool:
        """Whether rows only approximate the model's, so that nothing can be guaranteed."""
        return False

    def to_own(self, tokens: Sequence[int]) -> tuple[int, ...]:
        """The model's own ids of these tokens. Raises SourceError for symbols, which have none."""
        return tuple(tokens)

    def from_own(self, tokens: Sequence[int]) -> tuple[int, ...]:
        """The ids here of the model's own tokens; -2 - i for an own token i that has none here."""
        return tuple(tokens)

    @member
    def inner(self) -> LogitSource:
        """The innermost source behind wrappers; itself where there is no wrapper."""
        return self

    def over(self, change: Callable[[LogitSource], LogitSource]) -> LogitSource:
        """This source with `change` applied to every source that it wraps or combines; itself without any."""
        return self


def _not_offered(thing: object, method: str) -> SourceError:
    return SourceError(
        f"{type(thing).__name__} offers no `{method}`: what it offers stands in its other members "
        "(`keeps`, `branches`, `encodes`, …); ask these first"
    )
