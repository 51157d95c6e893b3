"""The answer to one prompt of a batch while it is decoded."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from purify_plugins.certificates import certify
from purify_plugins.certificates.calibration_record import CalibrationRecord
from purify_plugins.certificates.citations import Cited
from purify_plugins.decode.detokenizer import Detokenizer, joined
from purify_plugins.types import Chunk, Completion, DrawnToken, Piece, Token

if TYPE_CHECKING:
    from collections.abc import Sequence

    from purify_plugins.decode.decoder import Decoder
    from purify_plugins.decode.provenance import StepReader
    from purify_plugins.errors import PurifyError
    from purify_plugins.plugin.manager import Actor
    from purify_plugins.sampling import Sampling
    from purify_plugins.signing.signer import Signer
    from purify_plugins.store.store import CertificateStore
    from purify_plugins.types import Certificate, FinishReason, Step


@dataclass(frozen=True)
class AnswerOptions:
    """How a request's answers are drawn, the sources its prompts quote, and the plugins that take part.

    `calibration` is what the policy's options were set by, None where nothing was recorded.
    `configuration` is the digest of what a service runs by; None: not recorded.
    `given` are the tokens that an answer begins with, which were drawn before. `signer` signs the
    certificates that are handed out, and `store` records them; None: nothing does.
    """

    sampling: Sampling
    context: Cited = ()
    actors: tuple[Actor, ...] = ()
    calibration: CalibrationRecord | None = None
    configuration: str | None = None
    given: tuple[Token, ...] = ()
    signer: Signer | None = None
    store: CertificateStore | None = None

    def issued(self, certificate: Certificate) -> Certificate:
        """The certificate as it is handed out, once it is recorded. Raises ConfigError, StoreError."""
        found = certificate if self.signer is None else self.signer.signed(certificate)
        if self.store is not None:
            self.store.add(found)
        return found


class RowOutput:
    """One row's tokens, text and finish reason; the tokens released are exactly those certified."""

    def __init__(self, decoder: Decoder, options: AnswerOptions, row: int, reader: StepReader) -> None:
        self.options, self.row, self.reader = options, row, reader
        self.drawn: list[DrawnToken] = []
        self.reason: FinishReason = "length"
        self.finished = self.stopped = False
        self.error: PurifyError | None = None
        self._detokenizer = Detokenizer(decoder.vocabulary, options.sampling.stop)
        self._pieces: list[Piece] = []
        self._begun = self._given(options.given) if options.given else ()

    def take(self, step: Step) -> Chunk | None:
        """Take this row's token of a step, if it has one."""
        token = step.tokens[self.row]
        if not self.ended:
            self.error = self.reader.errors.get(self.row)
        if self.ended or token is None:
            return None
        drawn, pieces = self._detokenizer.feed(token)
        self.drawn.append(drawn)
        pieces, self._begun = (*self._begun, *pieces), ()
        self._pieces += pieces
        if reason := self._detokenizer.ended:
            self._end(reason)
        return Chunk(pieces, (drawn,), ended=self._whole)

    def _given(self, tokens: Sequence[Token]) -> tuple[Piece, ...]:
        """Take the tokens that the answer begins with; their pieces, which come with those of the next."""
        found: list[Piece] = []
        for token in tokens:
            drawn, pieces = self._detokenizer.feed(token)
            self.drawn.append(drawn)
            found += pieces
        return (*found, *self._detokenizer.settle()) if tokens else ()

    def stop(self) -> None:
        """End the answer where it is: its reader wants no more of it."""
        if not self.ended:
            self.stopped = True
            self.reader.finished.add(self.row)

    @property
    def ended(self) -> bool:
        """Whether the row needs no more tokens: it is complete, or it has failed."""
        return self.error is not None or self._whole

    def fail(self, error: PurifyError) -> None:
        """Record an error in place of the answer, unless the answer is complete."""
        if not self._whole:
            self.error = self.error or self.reader.errors.get(self.row) or error

    @property
    def _whole(self) -> bool:
        limits = self.reader.limits
        return self.finished or self.stopped or (bool(limits) and len(self.drawn) >= limits[self.row].tokens)

    def _end(self, reason: FinishReason) -> None:
        self.finished, self.reason = True, reason
        self.reader.finished.add(self.row)

    def finish(self) -> Chunk:
        """The last chunk, with the rest of the text, and the completion."""
        rest = (*self._begun, *self._detokenizer.close())
        if self._detokenizer.ended == "stop":
            self._end("stop")
        drawn = self.reader.drawn(self.row, len(self.drawn), self.finished, self.options.sampling.stop)
        pieces, tokens = joined([*self._pieces, *rest]), tuple(token.id for token, _ in self.drawn)
        text, steps = "".join(text for _, text in pieces), [token for token, _ in self.drawn]
        options = self.options
        parts = options.context, options.actors, options.calibration, options.configuration
        made = certify(drawn, steps, text, self.reason, *parts)
        certificate = options.issued(made) if options.signer or options.store else made
        whole = Completion(text, tokens, self.reason, tuple(self.drawn), certificate, pieces)
        return Chunk(rest, (), whole)
