"""What a model offers: `LogitSource` and `Session`, with every optional member and its default.

Subclass these. Whatever wraps a source or a session subclasses `SourceWrapper` or `SessionWrapper`
(`purify_plugins.sources.wrapper`), which forward every member named here.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

from purify_plugins.errors import SourceError

if TYPE_CHECKING:
    from torch import Tensor

    from purify_plugins.threat import Engine
    from purify_plugins.types import Prompt, ScoredPrompt, Vocabulary

    member = property
else:

    class member:
        """A property that an instance, or a dataclass's field, may replace with a value of its own.

        A plain property would refuse both: it has no setter, and `dataclass` takes what a class
        inherits under a field's name for that field's default.
        """

        def __init__(self, default: Callable[[Any], Any]) -> None:
            self.default, self.__doc__ = default, default.__doc__

        def __get__(self, instance: Any, owner: type) -> Any:
            if instance is None:
                raise AttributeError
            return self.default(instance)


@dataclass(frozen=True)
class Capabilities:
    """What a model behind a server can do; a source that has one offers it as `capabilities`.

    `ids_in` and `ids_out`: it takes, and names, token ids. `max_n`: how many tokens of a row it shows.
    `raw`: its rows are the model's own (None: not known). `scores_draft`: several tokens in one request.
    `streams_rows`: it drafts by itself, a row with every token; its sessions then offer `read_ahead`.
    """

    ids_in: bool
    ids_out: bool
    max_n: int
    raw: bool | None
    scores_draft: bool
    streams_rows: bool


@dataclass(frozen=True)
class Reading:
    """How a model is read, in words, as far as it is known on this side.

    `cache`: whether what has been read is kept from token to token ("on", or "off" and why). `trees`:
    whether one pass reads several continuations of a text. `attention`: the implementation's name.
    """

    cache: str = "not known here"
    trees: str = "off"
    attention: str = "not known here"


class Session(ABC):
    """One open batch on one model. Owns the KV cache or the connection; a context manager.

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
        normalises them once, in float32. A model of which only the top of a row is seen returns V + 1
        columns: minus infinity for tokens not shown, and last the log of their mass together; see
        `decode/completing.py`. Raises SourceError; `rewind` then brings back what was before.
        """

    @abstractmethod
    def rewind(self, lengths: Tensor) -> None:
        """Forget what follows the first `lengths` (rows,) tokens after each row's prompt."""

    def close(self) -> None:  # noqa: B027  # a session that owns nothing has nothing to free
        """Free the cache or the connection; calling it twice is harmless."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def each(self, tokens: Tensor) -> Iterator[Tensor] | None:
        """What `extend` returns, one (rows, V) after another, each read only when it is asked for.

        None, with nothing appended: this session reads all of them in one pass; call `extend`.
        """
        return None

    @member
    def readings(self) -> Sequence[tuple[int, ...]]:
        """All that was read of each row's prompt, by every model behind this: what keys a seed's draws.

        A source that reads a prompt with several models tells what each of them read.
        """
        return [prompt.tokens for prompt in self.prompts]

    @member
    def full(self) -> Collection[int] | None:
        """The rows that have used up the model's context, where its ids are not the model's own tokens.

        None: they are, and `context_length` says how many there may be.
        """
        return None

    @member
    def keeps(self) -> bool:
        """Whether `keep` may be called: true of a class that has one."""
        return type(self).keep is not Session.keep

    def keep(self, rows: Sequence[int]) -> None:
        """Drop all rows but these (their places): only these are read and answered, in this order."""
        raise _not_offered(self, "keep")

    @member
    def branches(self) -> bool:
        """Whether `branch` and `select` may be called, in place of `extend` and `rewind`."""
        return False

    def branch(self, tokens: Tensor, seen: Tensor) -> Tensor:
        """Append (rows, n) tokens, not all of one text; (rows, n, V) logits of the token after each.

        `seen` (rows, n, m + n) bool says what each follows: which of the m columns read since the
        prompt, and of the new ones, itself among them. Raises SourceError.
        """
        raise _not_offered(self, "branch")

    def select(self, columns: Tensor) -> None:
        """Keep only these columns (rows, n) of those that `branch` read, in this order."""
        raise _not_offered(self, "select")

    def read_ahead(self, limit: int, live: Collection[int]) -> list[list[int]]:
        """The server's own draft after each row, at most `limit` tokens, equally many for each live row.

        The rows after these tokens have come: `extend` will not wait for them. Rows not in `live` are
        over. A session that drafts nothing returns an empty draft for each row.
        """
        return [[] for _ in self.prompts]

    def mark(self) -> Any:
        """What `undo` needs to forget the passes that follow."""
        raise _not_offered(self, "mark")

    def undo(self, mark: Any) -> None:
        """Forget what was read after the mark, even by a pass that failed half way."""
        raise _not_offered(self, "undo")


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
        """How many tokens, prompt and answer together, the model can read; None: no limit."""
        raise NotImplementedError(f"{type(self).__name__} needs a `context_length`, None for no limit")

    @abstractmethod
    def open(self, prompts: Sequence[Prompt], scored: int = 0) -> tuple[Session, Tensor]:
        """Read the prompts; return the session and the first token's logits, (rows, V).

        The last `scored` tokens of each prompt are scored for policies that look back.
        Raises PromptError for a prompt it cannot read, SourceError when the model fails.
        """

    @abstractmethod
    def identity(self) -> Mapping[str, Any]:
        """Who this is, for certificates: name, kind, dtype, digests of the files."""

    @member
    def capabilities(self) -> Capabilities | None:
        """What the model's server can do; None: the model runs in this process."""
        return None

    @member
    def engine(self) -> Engine:
        """What runs the model; "untrusted", which is shown no draft, unless the class says otherwise.

        A source that computes in this process, by weights that cannot look ahead, says "in-process".
        """
        return "untrusted"

    @member
    def reading(self) -> Reading:
        """How the model is read, in words: for `purify check`."""
        return Reading()

    @member
    def parameters(self) -> int | None:
        """How many numbers the model has; None: not known."""
        return None

    @member
    def tokenizer(self) -> Any:
        """The transformers tokenizer that belongs to the model; None where there is none here."""
        return None

    @member
    def encodes(self) -> bool:
        """Whether `encode` may be called: true of a class that has one."""
        return type(self).encode is not LogitSource.encode

    def encode(self, prompt: Prompt) -> tuple[int, ...]:
        """The ids that this source reads in a prompt, found without asking the model."""
        raise _not_offered(self, "encode")

    @member
    def joins(self) -> bool:
        """Whether several sessions may be read in one pass: true of a class with its own `extend_all`."""
        return type(self).extend_all is not LogitSource.extend_all

    def extend_all(self, sessions: Sequence[Any], tokens: Sequence[Tensor]) -> list[Tensor]:
        """What each session's `extend` would return for its (rows, n) tokens; n may differ.

        Where it raises, every session is as it was before.
        """
        return [session.extend(new) for session, new in zip(sessions, tokens, strict=True)]

    def branch_all(
        self, sessions: Sequence[Any], tokens: Sequence[Tensor], seen: Sequence[Tensor]
    ) -> list[Tensor]:
        """What each session's `branch` would return for its tokens and what they see."""
        calls = zip(sessions, tokens, seen, strict=True)
        return [session.branch(new, sees) for session, new, sees in calls]

    @member
    def symbolic(self) -> bool:
        """Whether the ids are symbols smaller than the model's own tokens, as two tokenizers need."""
        return False

    @member
    def rough(self) -> bool:
        """Whether rows are only an estimate of the model's, so that nothing can be guaranteed by them."""
        return False

    def to_own(self, tokens: Sequence[int]) -> tuple[int, ...]:
        """The model's own ids of these tokens. Raises SourceError where symbols stand for none."""
        return tuple(tokens)

    def from_own(self, tokens: Sequence[int]) -> tuple[int, ...]:
        """The ids here of the model's own tokens; -2 - i for a token i that has none here."""
        return tuple(tokens)

    @member
    def inner(self) -> LogitSource:
        """The source behind any that only present it otherwise; itself where there is none."""
        return self

    def over(self, change: Callable[[LogitSource], LogitSource]) -> LogitSource:
        """This source with every source that it presents or combines changed; itself where it has none."""
        return self


def _not_offered(thing: object, method: str) -> SourceError:
    return SourceError(
        f"{type(thing).__name__} offers no `{method}`: what it offers stands in its other members "
        "(`keeps`, `branches`, `encodes`, …); ask these first"
    )
