"""The harness's documents: cut on the left to both models' contexts, and none of them ends a run."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Generic, TypeVar

from purify_plugins.errors import NumericError, PromptError, RefusedError, SourceError
from purify_plugins.tokenizers.prompt_encoder import PromptEncoder
from purify_plugins.types import Chat

if TYPE_CHECKING:
    from purify_plugins.purifier import Purifier

OF_A_DOCUMENT = (PromptError, RefusedError, SourceError, NumericError)
"""Errors that may concern one document alone."""
MARGIN = 2
"""Tokens that a text may gain when its end is tokenised anew."""
T = TypeVar("T")
log = logging.getLogger("purify.lm_eval")


class Documents(Generic[T]):
    """The documents of one call of the harness, in groups; `blank` is the result of one that fails."""

    def __init__(self, blank: T) -> None:
        self.blank, self.count = blank, 0
        self.errors: list[Exception] = []

    def answered(self, count: int, size: int, ask: Callable[[range], list[T]]) -> list[T]:
        """What `ask` finds for each of `count` more documents, `size` at a time; failures are logged.

        A batch that fails is asked one by one.
        """
        found: list[T] = []
        self.count += count
        for start in range(0, count, size):
            batch = range(start, min(start + size, count))
            try:
                found += ask(batch)
                continue
            except OF_A_DOCUMENT as error:
                if len(batch) == 1:
                    found.append(self._failed(error))
                    continue
            for at in batch:
                try:
                    found += ask(range(at, at + 1))
                except OF_A_DOCUMENT as error:
                    found.append(self._failed(error))
        return found

    def _failed(self, error: Exception) -> T:
        log.warning("a document has no result, and counts as %r: %s", self.blank, error)
        self.errors.append(error)
        return self.blank

    def require_one(self) -> None:
        """Raise the first error where every document failed: the fault is in the models, or in the task."""
        if self.errors and len(self.errors) == self.count:
            raise self.errors[0]


def answered(count: int, size: int, ask: Callable[[range], list[T]], blank: T) -> list[T]:
    """What `ask` finds for each document, all in one group. Raises as `Documents.require_one`."""
    documents = Documents(blank)
    found = documents.answered(count, size, ask)
    documents.require_one()
    return found


@dataclass(frozen=True, eq=False)
class Room:
    """Both models' contexts, and the tokenizers that measure a text by them."""

    purifier: Purifier

    @cached_property
    def length(self) -> int | None:
        """The shorter context of the two, in its model's own tokens; None: neither has a limit."""
        lengths = (source.inner.context_length for source in (self.purifier.llm, self.purifier.slm))
        return min((each for each in lengths if each is not None), default=None)

    @cached_property
    def _encoders(self) -> list[PromptEncoder]:
        """The SLM's tokenizer and the LLM's, of models that have one here."""
        sources = (self.purifier.slm.inner, self.purifier.llm.inner)
        return [PromptEncoder(each.tokenizer, "", each.vocabulary) for each in sources if each.tokenizer]

    def tokens(self, text: str) -> tuple[int, ...]:
        """The SLM's tokens of a text of any length, as the two models share them. Raises PromptError."""
        inner = self.purifier.slm.inner
        if inner.tokenizer is None:
            raise PromptError("the text is longer than the SLM's context, and its tokenizer is not here")
        return self.purifier.slm.from_own(
            PromptEncoder(inner.tokenizer, "", inner.vocabulary).tokenised(text)
        )

    def cut(self, prompt: Sequence[int], answer: Sequence[int]) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """A prompt and its continuation, the prompt without its beginning where the two are too long.

        Raises PromptError for a continuation that does not fit by itself.
        """
        if self.length is None or len(prompt) + len(answer) <= self.length:
            return tuple(prompt), tuple(answer)
        left = self.length - len(answer)
        if left < 1:
            raise PromptError(
                f"a continuation of {len(answer)} tokens does not fit a context of {self.length}"
            )
        log.info("a context of %d tokens is cut on the left to %d", len(prompt), left)
        return tuple(prompt[-left:]), tuple(answer)

    def fitted(self, prompt: str | Chat, answer: int) -> str | Chat:
        """The prompt's end, or the chat without its first turns, that leaves room for so many tokens.

        Where they are more than the context, the prompt may take half of it.
        """
        if self.length is None:
            return prompt
        most = self.length - answer if answer < self.length else self.length // 2
        if isinstance(prompt, Chat):
            return next((each for each in _shorter(prompt) if self._fits(each, most)), prompt)
        return self._end(prompt, most)

    def _end(self, text: str, most: int) -> str:
        """The end of a text, of at most so many tokens of either model."""
        for encoder in self._encoders:
            tokens = encoder.tokenised(text) if text else ()
            if len(tokens) > most:
                log.info("a prompt of %d tokens is cut on the left to %d", len(tokens), most)
                end = tokens[-max(most - MARGIN, 1) :]
                text = str(encoder.tokenizer.decode(list(end), skip_special_tokens=True))
        return text

    def _fits(self, chat: Chat, most: int) -> bool:
        return all(len(encoder.tokens(chat)) <= most for encoder in self._encoders)


def _shorter(chat: Chat) -> Iterator[Chat]:
    """The chat, then without its first turns, two messages at a time; a system message stays."""
    system = tuple(each for each in chat.messages[:1] if each.get("role") == "system")
    rest = chat.messages[len(system) :]
    for first in range(0, len(rest), 2):
        yield Chat((*system, *rest[first:]), chat.tools)
