"""TGI's response bodies: `/generate`, `/generate_stream`, `POST /`, `/tokenize`.

Every log-probability in them is the fused row's.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from purify_adapters.gateway.rejections import Rejected
from purify_adapters.gateway.request_validation import Generation
from purify_adapters.openai_schema import TGI_FINISH_REASONS, Json, alternatives, number
from purify_plugins.types import Chunk, Completion, DrawnToken, Token, Vocabulary


def _token(piece: DrawnToken, vocabulary: Vocabulary) -> Json:
    """A token; control tokens are `special`, and their text is not part of the answer's."""
    name = vocabulary.control.get(piece.token.id)
    return {
        "id": piece.token.id,
        "text": piece.text if name is None else name,
        "logprob": number(piece.token.fused),
        "special": name is not None,
    }


def _operator_token(text: str, vocabulary: Vocabulary) -> Json:
    """An operator's text, which no token wrote: under the id of an end, which spells nothing."""
    return {"id": min(vocabulary.eos, default=0), "text": text, "logprob": None, "special": False}


def _operator_text(completion: Completion) -> str | None:
    """The operator's text that ends an answer, if one does."""
    last = completion.pieces[-1] if completion.pieces else None
    return last.text if last and last.token is None else None


def _top_tokens(token: Token, vocabulary: Vocabulary) -> list[Json]:
    """The likeliest tokens of the row that a token was drawn from."""
    return [_token(other, vocabulary) for other in alternatives(token, vocabulary)]


def _seed(generation: Generation) -> int | None:
    return None if generation.sampling.greedy else generation.sampling.seed


def _full_text(completion: Completion, stop: Sequence[str]) -> str:
    """The answer with the stop string that ended it, which TGI keeps."""
    if completion.finish_reason != "stop":
        return completion.text
    decoded = "".join(text for _, text in completion.drawn)
    ends = [end for end in stop if decoded.startswith(end, len(completion.text))]
    return completion.text + min(ends, key=len, default="")


def _tokens(completion: Completion, stop: Sequence[str], vocabulary: Vocabulary) -> list[Json]:
    """The tokens of an answer with their texts, which join to `_full_text`."""
    if (said := _operator_text(completion)) is not None:
        drawn = [_token(piece, vocabulary) for piece in completion.drawn]
        return [*drawn, _operator_token(said, vocabulary)]
    *before, last = completion.drawn
    written = sum(len(text) for _, text in before)
    last = last._replace(text=_full_text(completion, stop)[written:])
    return [_token(piece, vocabulary) for piece in (*before, last)]


def purified(completion: Completion) -> Json:
    """Fields of a stream's last event that TGI does not have."""
    certificate = completion.certificate
    return {
        "certificate": certificate.digest,
        "guarantee": certificate.guarantee,
        "slm_only": slm_only(completion),
        **(staged(completion) if certificate.staged else {}),
    }


def staged(completion: Completion) -> Json:
    """Fields of an answer that stages made: why it ended, and how many tokens its recorded drafts have."""
    drafts = completion.certificate.body["drafts"]
    drawn = sum(len(each["certificate"]["steps"]) for each in drafts)
    return {"finish_reason": completion.finish_reason, "drawn_tokens": drawn}


def slm_only(completion: Completion) -> int:
    """How many tokens were drawn from the SLM's row alone."""
    return sum(step.slm_only for step in completion.steps)


def generated(
    completion: Completion, generation: Generation, vocabulary: Vocabulary, details: bool, prefix: str = ""
) -> Json:
    """The answer; `details` are left out, not null, unless they were requested."""
    stop = generation.sampling.stop
    text = prefix + _full_text(completion, stop)
    if not details:
        return {"generated_text": text}
    found = {
        "finish_reason": TGI_FINISH_REASONS[completion.finish_reason],
        "generated_tokens": len(completion.tokens),
        "seed": _seed(generation),
        "prefill": [],
        "tokens": _tokens(completion, stop, vocabulary),
    }
    if generation.top:
        found["top_tokens"] = [_top_tokens(step, vocabulary) for step in completion.steps]
    return {"generated_text": text, "details": found}


class TokenEvents:
    """The events of `/generate_stream`, one a token; the last one has the whole text.

    The answer's last token is held until the answer is whole: the last event is that token's, or the
    operator's text where one ends the answer. An answer that a plugin ended early has one event more, whose
    token has no text.
    """

    done: str | None = None

    def __init__(
        self, generation: Generation, vocabulary: Vocabulary, details: bool, prefix: str = ""
    ) -> None:
        self.generation, self.vocabulary = generation, vocabulary
        self.details, self.prefix = details, prefix
        self.index = self.length = 0

    def take(self, chunk: Chunk) -> Iterator[Json]:
        held = chunk.ended and all(piece.token for piece in chunk.pieces)
        for piece in chunk.drawn[:-1] if held else chunk.drawn:
            self.length += len(piece.text)
            yield self._event(piece)
        if chunk.completion:
            yield self._last(chunk.completion)

    def _event(self, piece: DrawnToken) -> Json:
        top = {"top_tokens": _top_tokens(piece.token, self.vocabulary)} if self.generation.top else {}
        return self._numbered(_token(piece, self.vocabulary), top)

    def _numbered(self, token: Json, top: Mapping[str, object]) -> Json:
        self.index += 1
        return {"index": self.index, "token": token, **top, "generated_text": None, "details": None}

    def _last(self, completion: Completion) -> Json:
        text, said = _full_text(completion, self.generation.sampling.stop), _operator_text(completion)
        if said is None:
            last = self._event(DrawnToken(completion.steps[-1], text[self.length :]))
        else:
            last = self._numbered(_operator_token(said, self.vocabulary), {})
        return {
            **last,
            "generated_text": self.prefix + text,
            "details": self._details(completion) if self.details else None,
            "purify": purified(completion),
        }

    def _details(self, completion: Completion) -> Mapping[str, object]:
        return {
            "finish_reason": TGI_FINISH_REASONS[completion.finish_reason],
            "generated_tokens": len(completion.tokens),
            "seed": _seed(self.generation),
            "input_length": self.generation.input_length,
        }

    def error(self, why: Rejected) -> Json:
        return {"error": why.error, "error_type": why.error_type or "validation"}


def tokenized(tokens: Sequence[int], vocabulary: Vocabulary, text: str | None = None) -> list[Json]:
    """Each token, and the range of bytes of `text` that it covers; control tokens cover none."""
    spelled = [vocabulary.tokens[token] for token in tokens]
    surplus = 0 if text is None else max(len(b"".join(spelled)) - len(text.encode()), 0)
    found, at = [], -surplus  # a SentencePiece model writes a space before the first word
    for token, piece in zip(tokens, spelled, strict=True):
        start, at = max(at, 0), at + len(piece)
        name = vocabulary.control.get(token, piece.decode(errors="replace"))
        found.append({"id": token, "text": name, "start": start, "stop": max(at, 0)})
    return found


def templated(tokens: Sequence[int], vocabulary: Vocabulary) -> str:
    """The text of a rendered chat, control tokens by their names."""
    named = (vocabulary.control.get(t, "").encode() or vocabulary.tokens[t] for t in tokens)
    return b"".join(named).decode(errors="replace")
