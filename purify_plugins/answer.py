"""One row's answer while it is being written."""

from __future__ import annotations

from typing import TYPE_CHECKING

from purify_plugins.certificate import certify
from purify_plugins.decode.text import Writer
from purify_plugins.types import Chunk, Completion

if TYPE_CHECKING:
    from purify_plugins.purifier import Purifier
    from purify_plugins.types import FinishReason, Sampling, Step, Token

Cited = tuple[tuple[str, str], ...]
"""The id and SHA-256 of every text that was put into a prompt."""


class Answer:
    """Collects one row's tokens; what it has released is exactly what it has recorded."""

    def __init__(self, purifier: Purifier, sampling: Sampling, row: int, context: Cited = ()) -> None:
        self.purifier, self.sampling, self.row, self.context = purifier, sampling, row, context
        self.steps: list[Token] = []
        self.reason: FinishReason = "length"
        self.finished = False
        self._writer = Writer(sampling.stop)
        self._text: list[str] = []
        self._prompt: tuple[int, ...] = ()

    def take(self, step: Step) -> Chunk | None:
        """This row's part of a step, as far as its text is certain; None when it has none."""
        token = step.tokens[self.row]
        if self.finished or token is None:
            return None
        self._prompt = step.prompts[self.row]
        self.steps.append(token)
        text = self._write(self._writer.write(self.purifier.vocabulary.tokens[token.id]))
        if self._writer.stopped:
            self._end("stop")
        elif token.id in self.purifier.vocabulary.eos:
            self._end("eos")
        return Chunk(text, (token,))

    def _end(self, reason: FinishReason) -> None:
        self.finished, self.reason = True, reason

    def _write(self, text: str) -> str:
        self._text.append(text)
        return text

    def finish(self) -> Chunk:
        """The held-back rest of the text, and the completion."""
        self.finished = True
        rest = self._write(self._writer.close())
        if self._writer.stopped:
            self.reason = "stop"
        text, tokens = "".join(self._text), tuple(token.id for token in self.steps)
        certificate = certify(
            self.purifier, self.sampling, self._prompt, self.steps, text, self.reason, self.context
        )
        return Chunk(rest, (), Completion(text, tokens, self.reason, tuple(self.steps), certificate))
