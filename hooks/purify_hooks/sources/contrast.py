"""Expert minus anti-expert as one source, for the `offset` policy: three models, still two rows."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from purify_plugins.errors import ConfigError, VocabularyError
from purify_plugins.protocols import LogitSource, Reading, Session
from purify_plugins.threat import Engine, weakest
from purify_plugins.types import Prompt, ScoredPrompt, Vocabulary

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Contrast(LogitSource):
    """Score a token by how much more the expert likes it than the anti-expert does.

    `expert` and `anti` are models: a directory or hub id each, or a table with a `source` and its keys.
    Both run here and have one tokenizer. Logits are z_expert - z_anti in float32; a token that either
    rules out is ruled out. Prompts are not scored: a difference of two models gives them no probability.
    Raises VocabularyError for two vocabularies, ConfigError for a model behind a server.
    """

    expert: LogitSource
    anti: LogitSource

    def __post_init__(self) -> None:
        for side, source in (("expert", self.expert), ("anti-expert", self.anti)):
            if source.capabilities is not None:
                raise ConfigError(
                    f"the {side} is behind a server, which shows parts of rows, and those cannot be "
                    "subtracted; run both models here"
                )
        ours, theirs = self.expert.vocabulary, self.anti.vocabulary
        if ours.fingerprint != theirs.fingerprint:
            raise VocabularyError(
                f"the expert speaks {ours.name!r} ({len(ours)} tokens) and the anti-expert {theirs.name!r} "
                f"({len(theirs)}); take two models with one tokenizer"
            )

    @property
    def vocabulary(self) -> Vocabulary:
        return self.expert.vocabulary

    @property
    def context_length(self) -> int | None:
        known = [n for n in (self.expert.context_length, self.anti.context_length) if n is not None]
        return min(known, default=None)

    @property
    def engine(self) -> Engine:
        """What runs the models: the less trusted of the two."""
        return weakest(self.expert.engine, self.anti.engine)

    @property
    def reading(self) -> Reading:
        """How both are read, the expert first where they differ; never side by side."""
        one, other = self.expert.reading, self.anti.reading
        same = one.cache == other.cache and one.attention == other.attention
        return (
            Reading(one.cache, attention=one.attention)
            if same
            else Reading(f"{one.cache}; {other.cache}", attention=f"{one.attention}; {other.attention}")
        )

    @property
    def parameters(self) -> int | None:
        expert, anti = self.expert.parameters, self.anti.parameters
        return None if expert is None or anti is None else expert + anti

    @property
    def in_thread(self) -> bool:
        return self.expert.in_thread and self.anti.in_thread

    @property
    def tokenizer(self) -> Any:
        """The expert's, which renders and reads prompts."""
        return self.expert.tokenizer

    @property
    def encodes(self) -> bool:
        return self.expert.encodes

    def encode(self, prompt: Prompt) -> tuple[int, ...]:
        return self.expert.encode(prompt)

    def over(self, change: Callable[[LogitSource], LogitSource]) -> LogitSource:
        return Contrast(change(self.expert), change(self.anti))

    def open(self, prompts: Sequence[Prompt], scored: int = 0) -> tuple[Session, Tensor]:
        expert, liked = self.expert.open(prompts)
        try:
            anti, disliked = self.anti.open(prompts)
        except BaseException:
            expert.close()
            raise
        return _Contrasted(expert, anti), _difference(liked, disliked)

    def identity(self) -> Mapping[str, Any]:
        both = {"expert": dict(self.expert.identity()), "anti": dict(self.anti.identity())}
        return {"name": "contrast", "kind": "contrast", **both}


class _Contrasted(Session):
    """Two open batches read as one, with the optional members that both have."""

    def __init__(self, expert: Session, anti: Session) -> None:
        self._expert, self._anti = expert, anti

    @property
    def prompts(self) -> Sequence[ScoredPrompt]:
        return [ScoredPrompt(prompt.tokens) for prompt in self._expert.prompts]

    @property
    def readings(self) -> Sequence[tuple[int, ...]]:
        """Both models' token ids, separated by -1: their templates may differ."""
        both = zip(self._expert.readings, self._anti.readings, strict=True)
        return [(*expert, -1, *anti) for expert, anti in both]

    def extend(self, tokens: Tensor) -> Tensor:
        return _difference(self._expert.extend(tokens), self._anti.extend(tokens))

    def asks(self, tokens: Tensor) -> float:
        return max(self._expert.asks(tokens), self._anti.asks(tokens))

    def rewind(self, lengths: Tensor) -> None:
        self._expert.rewind(lengths)
        self._anti.rewind(lengths)

    @property
    def full(self) -> Collection[int] | None:
        found = [each.full for each in (self._expert, self._anti)]
        rows = [row for full in found if full is not None for row in full]
        return None if found == [None, None] else rows

    @property
    def keeps(self) -> bool:
        return self._expert.keeps and self._anti.keeps

    def keep(self, rows: Sequence[int]) -> None:
        self._expert.keep(rows)
        self._anti.keep(rows)

    @property
    def branches(self) -> bool:
        return self._expert.branches and self._anti.branches

    def branch(self, tokens: Tensor, seen: Tensor) -> Tensor:
        return _difference(self._expert.branch(tokens, seen), self._anti.branch(tokens, seen))

    def select(self, columns: Tensor) -> None:
        self._expert.select(columns)
        self._anti.select(columns)

    def mark(self) -> Any:
        return self._expert.mark(), self._anti.mark()

    def undo(self, mark: Any) -> None:
        self._expert.undo(mark[0])
        self._anti.undo(mark[1])

    def close(self) -> None:
        try:
            self._expert.close()
        finally:
            self._anti.close()


def _difference(expert: Tensor, anti: Tensor) -> Tensor:
    """expert - anti, (…, V); -inf wherever either is, NaN or +inf kept for the loop to refuse."""
    import torch

    expert, anti = expert.float(), anti.to(expert.device).float()
    out = torch.isneginf(expert) | torch.isneginf(anti)
    return torch.where(out, -torch.inf, expert - anti)
