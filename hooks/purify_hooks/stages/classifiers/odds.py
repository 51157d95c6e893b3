"""The SLM's own odds of yes against no, when it is asked about a text."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from purify_plugins.errors import ConfigError
from purify_plugins.types import Chat, Vocabulary

if TYPE_CHECKING:
    from purify_plugins.protocols import LogitSource


class SlmOdds:
    """The SLM's probability that it answers yes, of yes and no, to a question about each text.

    The first token decides: all tokens that begin to spell the word count, in any case, after a space or not.
    It is asked in a conversation, which a model without a chat template reads as plain paragraphs.
    """

    def __init__(self, slm: LogitSource, question: str) -> None:
        self.slm, self.question = slm, question
        self.words = {word: beginning(slm.vocabulary, word) for word in ("yes", "no")}
        for word, tokens in self.words.items():
            if not tokens:
                raise ConfigError(f"stage 'guardian': the SLM has no token that begins to spell {word!r}")

    def scores(self, texts: Sequence[str]) -> list[float]:
        return [self._score(text) for text in texts]

    def _score(self, text: str) -> float:
        content = f"{self.question}\n\n<text>\n{text}\n</text>\n\nAnswer with yes or no only."
        session, rows = self.slm.open([Chat(({"role": "user", "content": content},))])
        with session:
            row = rows[0].float().log_softmax(-1)
            yes, no = (row[list(self.words[word])].logsumexp(0) for word in ("yes", "no"))
            return float((yes - no).sigmoid())


def beginning(vocabulary: Vocabulary, word: str) -> tuple[int, ...]:
    """The tokens that spell a word or its beginning."""
    spelled = (token.decode(errors="replace").strip().lower() for token in vocabulary.tokens)
    return tuple(number for number, text in enumerate(spelled) if text and word.startswith(text))
