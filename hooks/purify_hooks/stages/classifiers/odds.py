"""The SLM's own odds of yes against no, when it is asked about a text."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from purify_plugins.errors import ConfigError, PurifyError
from purify_plugins.types import Chat, Prompt, Vocabulary

if TYPE_CHECKING:
    from purify_plugins.protocols import LogitSource


class SlmOdds:
    """The SLM's probability that it answers yes, of yes and no, to a question about each text.

    The first token decides: all tokens that begin to spell the word count, in any case, after a space or not.
    The SLM is asked in a conversation where it has a chat template (`asked` is then "chat"), else by a text.
    """

    def __init__(self, slm: LogitSource, question: str) -> None:
        self.slm, self.question = slm, question
        self.words = {word: beginning(slm.vocabulary, word) for word in ("yes", "no")}
        for word, tokens in self.words.items():
            if not tokens:
                raise ConfigError(f"stage 'guardian': the SLM has no token that begins to spell {word!r}")
        self.asked = "chat" if self._chats() else "text"

    def _chats(self) -> bool:
        if not self.slm.encodes:
            return False
        try:
            self.slm.encode(self._chat("a"))
        except PurifyError:
            return False
        return True

    def scores(self, texts: Sequence[str]) -> list[float]:
        return [self._score(self._chat(text) if self.asked == "chat" else self._text(text)) for text in texts]

    def _score(self, prompt: Prompt) -> float:
        session, rows = self.slm.open([prompt])
        with session:
            row = rows[0].float().log_softmax(-1)
            yes, no = (row[list(self.words[word])].logsumexp(0) for word in ("yes", "no"))
            return float((yes - no).sigmoid())

    def _chat(self, text: str) -> Chat:
        content = f"{self.question}\n\n<text>\n{text}\n</text>\n\nAnswer with yes or no only."
        return Chat(({"role": "user", "content": content},))

    def _text(self, text: str) -> str:
        return f"Text: {text}\n\nQuestion: {self.question} Answer yes or no.\nAnswer:"


def beginning(vocabulary: Vocabulary, word: str) -> tuple[int, ...]:
    """The tokens that spell a word or its beginning."""
    spelled = (token.decode(errors="replace").strip().lower() for token in vocabulary.tokens)
    return tuple(number for number, text in enumerate(spelled) if text and word.startswith(text))
