"""Log-likelihood of texts under fused models: teacher-forced, the policy's state included.

>>> [score] = loglikelihoods(purifier, [("Once upon a", " time")])
>>> score.nats, score.greedy

`purify_plugins.decode.forcing.judged_by` runs any number of policies over the same rows.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import TYPE_CHECKING

from purify_plugins.decode.forced_text import ForcedText
from purify_plugins.decode.forced_text import Likelihood as Likelihood
from purify_plugins.errors import VocabularyError
from purify_plugins.utils.sequences import leading

if TYPE_CHECKING:
    from purify_plugins.decode.decoder import Decoder
    from purify_plugins.protocols import LogitSource
    from purify_plugins.tokenizers.cross.symbols import SymbolSet
    from purify_plugins.types import Prompt, Vocabulary


def loglikelihoods(decoder: Decoder, pairs: Sequence[tuple[str, str]]) -> list[Likelihood]:
    """The likelihood of each continuation after its prompt, in the distribution that answers are drawn from.

    A text is tokenised whole and split where its prompt ends. Raises PromptError, SourceError.
    """
    return _judged(decoder, [forced(decoder.slm, *pair) for pair in pairs])


def judged(decoder: Decoder, prompts: Sequence[Prompt], answers: Sequence[Sequence[int]]) -> list[Likelihood]:
    """The likelihood of answers (token ids) after prompts."""
    texts = (ForcedText(prompt, tuple(answer)) for prompt, answer in zip(prompts, answers, strict=True))
    return _judged(decoder, list(texts))


def _judged(decoder: Decoder, texts: Sequence[ForcedText]) -> list[Likelihood]:
    from purify_plugins.decode.forcing import judged_by

    return [score for (score,) in judged_by(decoder, [decoder.policy], texts)]


def forced(source: LogitSource, prompt: str, continuation: str) -> ForcedText:
    """A continuation that is forced after its prompt; see `split`.

    Of models in symbols smaller than tokens the prompt stays text, whose end both read in every spelling.
    Raises VocabularyError.
    """
    if not source.symbolic:
        return ForcedText(*split(source, prompt, continuation))
    if not prompt:
        raise VocabularyError("two tokenizers need a prompt of a word at least; split the text after one")
    return ForcedText(prompt, read(source, continuation))


def split(source: LogitSource, prompt: str, continuation: str) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """The prompt's tokens and the continuation's, of the whole text's tokens.

    Where the two run together in one token, that token counts as the continuation's; a prompt always
    keeps at least one. An empty prompt becomes the token that the model's texts begin with: its own first
    control token, or else an end token. Raises VocabularyError for two tokenizers.
    """
    require_tokens(source)
    if not prompt:
        return opened(source.vocabulary, read(source, continuation))
    return parted(read(source, prompt), read(source, prompt + continuation))


def parted(alone: tuple[int, ...], whole: tuple[int, ...]) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """A whole text's tokens, cut after those that its prompt has `alone`; neither part is empty."""
    at = max(1, min(leading(alone, whole), len(whole) - 1))
    return whole[:at], whole[at:]


def opened(vocabulary: Vocabulary, tokens: tuple[int, ...]) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """The token that texts begin with, and the text's tokens after it."""
    if tokens[0] in vocabulary.control:
        return tokens[:1], tokens[1:]
    return (min(vocabulary.eos, default=tokens[0]),), tokens


def require_tokens(*sources: LogitSource) -> None:
    """Raise VocabularyError for models in symbols smaller than tokens: the figures here are per token.

    So for an SLM that only rates another's tokens: it does not read a text in those.
    """
    if any(source.symbolic or source.rough for source in sources):
        raise VocabularyError(
            "the two models have different tokenizers, and what is measured here is counted in the tokens "
            "of one; choose an SLM with the LLM's own tokenizer"
        )


def read(source: LogitSource, text: str) -> tuple[int, ...]:
    """The tokens a model reads in a text, or the symbols. Raises VocabularyError."""
    if source.symbolic:
        return _spelled(source.vocabulary, text)
    if source.encodes:
        return source.encode(text)
    session, _ = source.open([text])
    with session:
        return session.prompts[0].tokens


def _spelled(vocabulary: Vocabulary, text: str) -> tuple[int, ...]:
    found = _symbols(vocabulary).spell(text.encode())
    if found is None:
        raise VocabularyError(f"the symbols that both models share cannot spell {text[:40]!r}; leave it out")
    return found


@cache
def _symbols(vocabulary: Vocabulary) -> SymbolSet:
    """The symbols that both models share, of which a vocabulary's last is the end of a text."""
    from purify_plugins.tokenizers.cross.symbols import SymbolSet

    return SymbolSet("bytes", vocabulary.tokens[:-1])
