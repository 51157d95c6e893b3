"""`source = "ngram"`: a model of n-grams that `purify slm build` made."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from purify_hooks.local.loading import file_digests, file_states
from purify_plugins.errors import ModelError
from purify_plugins.plugin.preview import Preview
from purify_plugins.protocols import LogitSource, Reading, Session
from purify_plugins.tokenizers.prompt_encoder import PromptEncoder
from purify_plugins.types import Prompt, Vocabulary

if TYPE_CHECKING:
    from torch import Tensor

    from purify_hooks.ngram.explain import Explanation
    from purify_hooks.ngram.model import NgramModel
    from purify_hooks.ngram.storage import Record


class NgramSource(LogitSource):
    """Interpolated Kneser-Ney over a tokenizer's tokens, memory-mapped; made by `load`."""

    engine = "in-process"
    context_length = None
    tokenizer: Any
    vocabulary: Vocabulary

    def __init__(self, model: NgramModel, record: Record, tokenizer: Any, vocabulary: Vocabulary) -> None:
        self.model, self.record = model, record
        self.tokenizer, self.vocabulary = tokenizer, vocabulary
        self.folder: Path | None = None
        self._states: Mapping[str, Any] = {}

    @classmethod
    def load(cls, model: str | Path) -> Self:
        """Load a model of n-grams of one's own text: a directory that `purify slm build` has made.

        `model` is the directory. Its tables are memory-mapped. Rows (V,) are log-probabilities in float32
        that depend on the last tokens, one fewer than the order; every token has some
        probability. Raises ModelError for another directory, and for one whose tokenizer was exchanged.
        """
        from purify_hooks.ngram.build import read_tokenizer
        from purify_hooks.ngram.storage import load

        folder = find(model)
        states = file_states(folder)
        tables, record = load(folder)
        tokenizer, vocabulary, _ = read_tokenizer(str(folder))
        if vocabulary.fingerprint != record.fingerprint:
            raise ModelError(
                f"the tokenizer in {str(folder)!r} is not the one its n-grams were counted with; build it "
                "again with `purify slm build`"
            )
        source = cls(tables, record, tokenizer, vocabulary)
        source.folder, source._states = folder, states
        return source

    @property
    def name(self) -> str:
        return self.folder.name if self.folder else "ngram"

    @property
    def parameters(self) -> int:
        """The number of n-grams, of all orders."""
        return sum(len(level.tokens) for level in self.model.levels)

    @property
    def in_thread(self) -> bool:
        return True

    @property
    def reading(self) -> Reading:
        """Nothing is cached, and nothing attends: a row is looked up."""
        return Reading("not needed: a row is looked up", "on", "none")

    def open(self, prompts: Sequence[Prompt], scored: int = 0) -> tuple[Session, Tensor]:
        """Read the prompts; the first row is after BEGIN and the prompt. Raises PromptError."""
        from purify_hooks.ngram.session import NgramSession

        session = NgramSession(self.model, [self.encode(prompt) for prompt in prompts], scored)
        return session, session.first()

    def encode(self, prompt: Prompt) -> tuple[int, ...]:
        """The prompt's token ids, a chat rendered with the template of the tokenizer."""
        return PromptEncoder(self.tokenizer, self.name, self.vocabulary).some_tokens(prompt)

    def explain(self, prompt: Prompt, token: int) -> Explanation:
        """Explain the probability of `token` after `prompt`: counts, discounts, weights and files."""
        from purify_hooks.ngram.explain import explained

        return explained(self.model, self.record, self.vocabulary, self.encode(prompt), token)

    def identity(self) -> Mapping[str, Any]:
        told = {"kind": "ngram", "name": self.name, "dtype": "float32", "order": self.model.order}
        return {**told, "files": self.files}

    @cached_property
    def files(self) -> Mapping[str, str]:
        """SHA-256 of every file of the model, by name; hashed when they are first asked for."""
        return file_digests(self.folder, self._states) if self.folder else {}


def find(model: str | Path) -> Path:
    """The directory of a model of n-grams. Raises ModelError."""
    from purify_hooks.ngram.storage import require_model

    folder = Path(model).expanduser()
    require_model(folder)
    return folder


def looked_at(model: str | Path) -> Preview:
    """The preview of a model of n-grams. Raises ModelError, as loading it would."""
    from purify_plugins.tokenizers.loading import require_tokenizer

    folder = find(model)
    require_tokenizer(folder)
    return Preview(folder.resolve())
