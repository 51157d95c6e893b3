"""One row's answer while it is being written."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from purify_plugins.certificates import certify
from purify_plugins.certificates.citations import Cited
from purify_plugins.decode.detokenizer import Writer, names_an_end
from purify_plugins.types import Chunk, Completion

if TYPE_CHECKING:
    from purify_plugins.decode.decoder import Decoder
    from purify_plugins.decode.provenance import Reader
    from purify_plugins.errors import PurifyError
    from purify_plugins.plugin.manager import Actor
    from purify_plugins.types import FinishReason, Sampling, Step, Token


@dataclass(frozen=True)
class Asked:
    """One request: how its answers are drawn, what its prompts quote, and which plugins have a part in it.

    With `held` the last text of each answer is kept back until it is complete: somebody is to see it first.
    """

    sampling: Sampling
    context: Cited = ()
    actors: tuple[Actor, ...] = ()
    held: bool = False


class Answer:
    """Collects one row's tokens; what it has released is exactly what it has recorded."""

    def __init__(self, decoder: Decoder, asked: Asked, row: int, reader: Reader) -> None:
        self.vocabulary, self.asked, self.row, self.reader = decoder.vocabulary, asked, row, reader
        self.steps: list[Token] = []
        self.reason: FinishReason = "length"
        self.finished = False
        self.error: PurifyError | None = None
        self._writer = Writer(asked.sampling.stop)
        self._text: list[str] = []
        self._held: list[Chunk] = []

    def take(self, step: Step) -> list[Chunk]:
        """This row's part of a step, as far as its text is certain and may go out."""
        token = step.tokens[self.row]
        if not self.ended:
            self.error = self.reader.error(self.row)
        if self.ended or token is None:
            return []
        self.steps.append(token)
        vocabulary, stop = self.vocabulary, self.asked.sampling.stop
        text = self._write(self._writer.write(vocabulary.tokens[token.id]))
        if self._writer.stopped or names_an_end(vocabulary, token.id, stop):
            self._end("stop")
        elif token.id in vocabulary.eos:
            self._end("eos")
        return self._release(Chunk(text, (token,)))

    def _release(self, chunk: Chunk) -> list[Chunk]:
        """The chunk; where the last text is held back, those before the last one that has any."""
        if not self.asked.held:
            return [chunk]
        if not chunk.text:
            self._held.append(chunk)
            return []
        free, self._held = self._held, [chunk]
        return free

    @property
    def ended(self) -> bool:
        """Whether nothing more is wanted of this row: it is whole, or it has failed."""
        return self.error is not None or self._whole

    def fail(self, error: PurifyError) -> None:
        """There will be no answer, unless it is whole already."""
        if not self._whole:
            self.error = self.error or self.reader.error(self.row) or error

    @property
    def _whole(self) -> bool:
        return self.finished or self.reader.full(self.row, len(self.steps))

    def _end(self, reason: FinishReason) -> None:
        self.finished, self.reason = True, reason
        self.reader.finish(self.row)

    def _write(self, text: str) -> str:
        self._text.append(text)
        return text

    def finish(self) -> list[Chunk]:
        """What was held back; the last chunk has the held-back rest of the text, and the completion."""
        rest = self._write(self._writer.close())
        if self._writer.stopped:
            self._end("stop")
        drawn = self.reader.drawn(self.row, len(self.steps), self.finished, self.asked.sampling.stop)
        text, tokens = "".join(self._text), tuple(token.id for token in self.steps)
        asked = self.asked
        certificate = certify(drawn, self.steps, text, self.reason, asked.context, asked.actors)
        whole = Completion(text, tokens, self.reason, tuple(self.steps), certificate)
        return [*self._held, Chunk(rest, (), whole)]
