"""`source = "copying"`: a small model that may copy from its prompt."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from purify_hooks.copying.copyist import CONFIRMED, LONGEST, MOST, PRIOR, SEEN, WORTH
from purify_plugins.errors import ConfigError
from purify_plugins.plugin.preview import Preview
from purify_plugins.protocols import LogitSource, Reading, Session
from purify_plugins.sources.wrapper import closed_on_error
from purify_plugins.threat import Engine
from purify_plugins.types import Prompt, Vocabulary

if TYPE_CHECKING:
    from torch import Tensor

    from purify_hooks.copying.session import CopyingSession

RULE: Mapping[str, Any] = {
    "longest": LONGEST,
    "prior": [*PRIOR],
    "confirmed": [*CONFIRMED],
    "worth": WORTH,
    "most": MOST,
    "seen": SEEN,
}
"""Everything that the copyist's predictions depend on but the text."""


@dataclass(frozen=True, eq=False)
class CopyingSource(LogitSource):
    """Mix a small model with a copyist of what it has read, so that what stands in the prompt costs little.

    p = (1 - w) p_model + w p_copy. The copyist predicts what followed the same tokens (6 at most) earlier in
    the prompt and the answer, and backs off to shorter matches. w is the chance that it gave, on average, to
    the tokens that came after such a match; 0.9 at most. Both are a function of the text alone, which
    a certificate has, so every guarantee is against the mixture, and `recompute` works as with any SLM.

    `model` is a directory or hub id, or a table with a `source` and its keys. It runs here.
    Raises ConfigError for a model behind a server.
    """

    model: LogitSource

    def __post_init__(self) -> None:
        if self.model.capabilities is not None:
            raise ConfigError(
                "the model beside the copyist is behind a server, which shows parts of rows, and those "
                'cannot be mixed; run it here, or leave source = "copying" out'
            )

    @property
    def vocabulary(self) -> Vocabulary:
        return self.model.vocabulary

    @property
    def context_length(self) -> int | None:
        return self.model.context_length

    @property
    def engine(self) -> Engine:
        return self.model.engine

    @property
    def reading(self) -> Reading:
        """How the model is read; never as a tree, whose branches would need a copyist each."""
        return replace(self.model.reading, trees="off")

    @property
    def parameters(self) -> int | None:
        return self.model.parameters

    @property
    def in_thread(self) -> bool:
        return self.model.in_thread

    @property
    def tokenizer(self) -> Any:
        return self.model.tokenizer

    @property
    def encodes(self) -> bool:
        return self.model.encodes

    def encode(self, prompt: Prompt) -> tuple[int, ...]:
        return self.model.encode(prompt)

    @property
    def rough(self) -> bool:
        return self.model.rough

    @property
    def joins(self) -> bool:
        return self.model.joins

    def extend_all(self, sessions: Sequence[CopyingSession], tokens: Sequence[Tensor]) -> list[Tensor]:
        logits = self.model.extend_all([each.session for each in sessions], tokens)
        return [each.extended(*read) for each, *read in zip(sessions, tokens, logits, strict=True)]

    def over(self, change: Callable[[LogitSource], LogitSource]) -> LogitSource:
        return replace(self, model=change(self.model))

    def open(self, prompts: Sequence[Prompt], scored: int = 0) -> tuple[Session, Tensor]:
        from purify_hooks.copying.session import CopyingSession

        session, logits = self.model.open(prompts, scored)
        with closed_on_error(session):
            copying = CopyingSession(session)
            return copying, copying.first(logits)

    def identity(self) -> Mapping[str, Any]:
        """The model's, with the copyist's rule beside its files."""
        from hashlib import sha256

        from purify_plugins.canonical_json import canonical

        told = dict(self.model.identity())
        files = {**told.get("files", {}), "copyist": sha256(canonical(RULE).encode()).hexdigest()}
        return {**told, "copyist": RULE, "files": files}


def looked_at(model: LogitSource) -> Preview:
    """The preview of a model beside a copyist, before it is loaded."""
    return Preview(mixes=True)


def without_copyist(source: LogitSource) -> LogitSource:
    """The model beside the copyist; any other source as it is."""
    return source.model if isinstance(source, CopyingSource) else source
