"""Which token wrote which characters of an answer, as TGI reports it."""

from __future__ import annotations

import codecs
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from purify_adapters.gateway.asking import Ask
from purify_plugins.decode.detokenizer import Writer
from purify_plugins.types import Completion, Token, Vocabulary


@dataclass(frozen=True)
class Piece:
    """A token and its text; control tokens are `special`, and their text is no part of the answer's."""

    token: Token
    text: str
    special: bool


def spelled(token: Token, vocabulary: Vocabulary) -> Piece:
    """A token as if it stood alone."""
    name = vocabulary.control.get(token.id)
    text = name or vocabulary.tokens[token.id].decode(errors="replace")
    return Piece(token, text, name is not None)


def others(token: Token, vocabulary: Vocabulary) -> list[Piece]:
    """The likeliest tokens of the row that one was drawn from, each as if it stood alone."""
    return [spelled(token._replace(id=other, fused=logprob), vocabulary) for other, logprob in token.top]


def full_text(completion: Completion, stop: Sequence[str], vocabulary: Vocabulary) -> str:
    """The answer as TGI gives it: the stop string that ended it stays."""
    if completion.finish_reason != "stop":
        return completion.text
    spelled = vocabulary.spell(completion.tokens).decode(errors="replace")
    ends = [end for end in stop if spelled.startswith(end, len(completion.text))]
    return completion.text + min(ends, key=len, default="")


class Speller:
    """Splits an answer into its tokens' texts while it is written.

    A token that may be the last is held back until the answer has ended or gone on: TGI's last event
    is the last token's. What is not held, adds up to the answer's text.
    """

    def __init__(self, ask: Ask, vocabulary: Vocabulary) -> None:
        self.ask, self.vocabulary = ask, vocabulary
        self.count = 0
        self.text = ""
        self._decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
        self._stops = Writer(ask.sampling.stop)
        self._held: Token | None = None

    def take(self, tokens: Sequence[Token]) -> Iterator[Piece]:
        """The pieces that are certain now."""
        for token in tokens:
            if self._held is not None:
                yield self._piece(self._held)
            self._held = token
            if not self._may_end(token):
                yield self._piece(token)
                self._held = None

    def _may_end(self, token: Token) -> bool:
        self.count += 1
        self._stops.write(self.vocabulary.tokens[token.id])
        full = self.count >= self.ask.sampling.max_tokens
        return full or self._stops.stopped or token.id in self.vocabulary.eos

    def _piece(self, token: Token) -> Piece:
        if token.id in self.vocabulary.control:
            return Piece(token, self.vocabulary.control[token.id], True)
        text = self._decoder.decode(self.vocabulary.tokens[token.id])
        self.text += text
        return Piece(token, text, False)

    def last(self, completion: Completion) -> Piece:
        """The last piece, with whatever the answer's text still lacks.

        An answer that ended where nobody expected it gets a last piece without text.
        """
        token, text = (
            self._held or completion.steps[-1],
            full_text(completion, self._stops.stop, self.vocabulary),
        )
        if self._held is not None and token.id in self.vocabulary.control:
            return Piece(token, self.vocabulary.control[token.id], True)
        return Piece(token, text[len(self.text) :], False)


def pieces(completion: Completion, ask: Ask, vocabulary: Vocabulary) -> list[Piece]:
    """Every piece of a finished answer."""
    speller = Speller(ask, vocabulary)
    taken = list(speller.take(completion.steps))
    return [*taken, speller.last(completion)] if len(taken) < len(completion.steps) else taken
