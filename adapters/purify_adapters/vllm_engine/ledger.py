"""What was drawn for each request inside vLLM, by vLLM's request id, and its certificate.

Nothing is recorded until the worker's extension (`worker`) has said how a request's id is found.
"""

from __future__ import annotations

import re
from array import array
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from purify_plugins.canonical_json import options
from purify_plugins.certificates import certify
from purify_plugins.decode.detokenizer import Detokenizer
from purify_plugins.decode.draw_record import Drawn, Limit
from purify_plugins.decode.token_records import to_host, token_record
from purify_plugins.errors import NoCertificateError
from purify_plugins.requests.answer import AnswerOptions
from purify_plugins.threat import IN_ENGINE

if TYPE_CHECKING:
    Figures = array[float]
    from torch import Tensor

    from purify_plugins.decode.fusion import FusedLogits
    from purify_plugins.purifier import Purifier
    from purify_plugins.sampling import Sampling
from purify_plugins.types import Certificate, FinishReason, Piece, Token

KEPT = 1 << 20
"""How many tokens' records are kept in all, 40 bytes each; beyond, the oldest requests' are dropped."""
FIGURES = 10
"""How many numbers `to_host` returns for a token."""
REQUESTS = 4096
"""How many requests' records are kept."""
OTHERS = "the engine put tokens into it that were not drawn here"


@dataclass(eq=False)
class RequestRecord:
    """What was drawn for one request: `figures` of the tokens that vLLM has taken, FIGURES numbers each.

    `drawn` are those of the step that it has not answered yet. `void` says why nothing can be certified.
    """

    sampling: Sampling
    prompt: tuple[int, ...] = ()
    figures: Figures = field(default_factory=lambda: array("f"))
    drawn: Figures = field(default_factory=lambda: array("f"))
    void: str = ""
    issued: tuple[int, str] | None = None
    """The tokens a certificate was issued for, and its text: it is signed once, however often asked for."""

    def take(self, tokens: int) -> None:
        """vLLM has taken so many of the drawn tokens."""
        self.figures += self.drawn[: FIGURES * tokens]
        self.drawn = array("f")

    def refuse(self, why: str) -> None:
        """Nothing can be certified of the answer any more."""
        self.void = why

    def resume(self, before: RequestRecord | None) -> None:
        """Go on with what was recorded of the request before vLLM took it out; None: nothing was."""
        if before is None:
            self.void = "a part of its answer was drawn before anything was recorded"
        else:
            # Copies: an alike request may go on from the same record.
            self.figures, self.drawn, self.void = before.figures[:], before.drawn[:], before.void

    def __len__(self) -> int:
        return len(self.figures) // FIGURES


class Ledger:
    """The records of one engine's requests. `id_of` finds a request's id by its slot (None: it has none)."""

    def __init__(self, purifier: Purifier) -> None:
        self.purifier = purifier
        self.id_of: Callable[[int], str | None] | None = None
        self.records: OrderedDict[str, RequestRecord] = OrderedDict()

    def begin(self, slot: int, asked: Sampling, params: Any) -> RequestRecord | None:
        """The record of a request that takes a slot; None where nothing is recorded."""
        name = None if self.id_of is None else self.id_of(slot)
        if name is None:
            return None
        most: int = params.max_tokens or self.purifier.llm.context_length or 1
        stop = [params.stop] if isinstance(params.stop, str) else params.stop or ()
        self.records[name] = found = RequestRecord(
            replace(asked, max_tokens=most, seed=params.seed, stop=tuple(stop))
        )
        self.records.move_to_end(name)
        self._bound()
        return found

    def _bound(self) -> None:
        """Drop the oldest records."""
        total = sum(map(len, self.records.values()))
        while total > KEPT or len(self.records) > REQUESTS:
            total -= len(self.records.popitem(last=False)[1])

    def answers(self, response: str) -> list[tuple[str, RequestRecord]]:
        """The records of a response's answers, in the order of its choices. Raises NoCertificateError."""
        found = sorted((place, name) for name in self.records if (place := _place(name, response)))
        if not found:
            raise NoCertificateError(f"nothing is recorded of a request {response!r}; old ones are dropped")
        return [(name, self.records[name]) for _, name in found]

    def certificate(self, record: RequestRecord) -> Certificate:
        """The certificate of what was drawn. Raises NoCertificateError where nothing can be certified."""
        if record.void:
            raise NoCertificateError(f"the answer has no certificate: {record.void}")
        tokens, text, ended = self._read(record)
        if not tokens:
            raise NoCertificateError("the answer has no certificate: no token of it was drawn")
        how, purifier = self._drawn(record, len(tokens), ended is not None), self.purifier
        actors = purifier.plugins.actors(purifier.policy)
        return certify(how, tokens, text, ended or "length", (), actors, purifier.calibration)

    def issued(self, record: RequestRecord) -> str:
        """The certificate as it is handed out, signed and recorded as the configuration says.

        Raises NoCertificateError, ConfigError where a key or the log fails, and StoreError.
        """
        if record.issued is None or record.issued[0] != len(record):
            made, purifier = self.certificate(record), self.purifier
            how = AnswerOptions(record.sampling, signer=purifier.signer, store=purifier.store)
            record.issued = len(record), how.issued(made).issued
        return record.issued[1]

    def ended(self, record: RequestRecord) -> bool:
        """Whether the answer has come to its end, by a token, a text or its length."""
        tokens, _, ended = self._read(record)
        return ended is not None or len(tokens) == record.sampling.max_tokens

    def _read(self, record: RequestRecord) -> tuple[list[Token], str, FinishReason | None]:
        """The answer's tokens up to its end, their text, and what ended it, if something has."""
        detokenizer = Detokenizer(self.purifier.vocabulary, record.sampling.stop)
        tokens: list[Token] = []
        pieces: list[Piece] = []
        for numbers in _rows(record.figures + record.drawn):
            tokens.append(token_record(numbers))
            pieces += detokenizer.feed(tokens[-1])[1]
            if detokenizer.ended or len(tokens) == record.sampling.max_tokens:
                break
        pieces += detokenizer.close()
        return tokens, "".join(piece.text for piece in pieces), detokenizer.ended

    def _drawn(self, record: RequestRecord, tokens: int, ended: bool) -> Drawn:
        """How an answer was drawn, and what limited it."""
        purifier, asked = self.purifier, record.sampling
        policy, name_of = purifier.policy, purifier.name_of
        limit, length = Limit(asked.max_tokens, "max_tokens"), purifier.llm.context_length
        if length is not None and length - len(record.prompt) < limit.tokens:
            limit = Limit(max(length - len(record.prompt), 1), "context")
        if not ended and tokens != limit.tokens:
            limit = Limit(tokens, "engine")
        named = policy, name_of(policy), options(policy, name_of)
        return Drawn(IN_ENGINE, *named, asked, purifier.llm, purifier.slm, record.prompt, limit)


def note(records: Sequence[RequestRecord | None], column: FusedLogits, tokens: Tensor, greedy: bool) -> None:
    """Record the tokens (rows,) drawn from a column; a row without a record is passed by."""
    if all(record is None for record in records):
        return
    for record, numbers in zip(records, to_host(column, tokens, greedy).tolist(), strict=True):
        if record is not None:
            record.drawn.extend(numbers)


def _rows(figures: Figures) -> Iterator[list[float]]:
    return (figures[at : at + FIGURES].tolist() for at in range(0, len(figures), FIGURES))


def _place(name: str, response: str) -> tuple[int, int] | None:
    """The place in a response of the answer that vLLM calls `name`: its prompt's number, and its own of n.

    vLLM puts its number before the response's id (`1_…`), and its prompt's (`…-0`) and 8 random digits after.
    """
    if response not in name:
        return None
    found = re.fullmatch(rf"(?:(\d+)_)?{re.escape(response)}(?:[-_](\d{{1,6}}))?(?:-[0-9a-f]{{8}})?", name)
    return found and (int(found[2] or 0), int(found[1] or 0))
