"""A model behind llama-cpp-python's server: text in, tokens by their text out."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

from purify_adapters.sources.http.options import ServerOptions
from purify_adapters.sources.http.protocol import Position
from purify_adapters.sources.http.rows import ServerToken, field, listed, row, unrevealed_row
from purify_adapters.sources.http.source import SAMPLE
from purify_adapters.sources.http.text import TextSource
from purify_plugins.errors import SourceError
from purify_plugins.protocols import Capabilities

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class LlamaPythonOptions(ServerOptions):
    """Reach a model behind llama-cpp-python's server at `url`, without the `/v1`.

    Start it with `--logits_all True`. `top_n` likeliest tokens are asked for.
    """


class LlamaPythonSource(TextSource):
    """A model behind `python -m llama_cpp.server --logits_all True`.

    Tokens without a text of their own (several ids with one text, parts of characters, ends) cannot be
    identified: their mass counts as not shown. A draft is scored by one request that echoes its text.
    """

    kind = "llama_cpp_python"
    sign = ("/v1/models", "data")
    Options = LlamaPythonOptions

    async def probe(self, top_n: int | None) -> None:
        """Check that the server has the same tokens, and the same text for each."""
        ask = self.http.post
        found, _ = await self.http.with_retries(lambda: ask("/extras/tokenize", {"input": SAMPLE}))
        ids = self.reader.tokenised(SAMPLE)
        if tuple(listed(found, "tokens")) != ids:
            raise self.another()
        answer = await self._request(SAMPLE, len(ids), echo=True, shown=1)
        spelled = [self._spelled(token) for token in ids if token not in self.vocabulary.control]
        if listed(answer, "tokens")[: len(spelled)] != spelled:
            raise self.another()
        shown = min(self.top_n, len(self.ids))
        self.capabilities = Capabilities(False, False, shown, True, True, streams_rows=False)

    def _spelled(self, token: int) -> str:
        return self.vocabulary.tokens[token].decode(errors="ignore")

    @cached_property
    def ids(self) -> Mapping[str, int]:
        """The ids of the tokens whose text no other token has."""
        spelled = {token: self._spelled(token) for token in range(len(self.vocabulary))}
        times = Counter(spelled.values())
        return {text: token for token, text in spelled.items() if text and times[text] == 1}

    async def _request(self, text: str, length: int, echo: bool, shown: int | None = None) -> Any:
        """The log-probabilities after a text of `length` tokens, and with `echo` of each of its tokens.

        `shown` tokens of each row are requested, `top_n` if None. Ends are biased away as the next token,
        since the server shows no row with one; rows are raw, so the bias does not change them.
        """
        ends = {str(token): -100 for token in self.vocabulary.eos}
        parameters = {"prompt": text, "max_tokens": 1, "temperature": 0, "logprobs": shown or self.top_n}
        body = {**parameters, "logit_bias": ends, "echo": echo}
        answer, _ = await self.http.post("/v1/completions", body, length if echo else 1)
        self.require_read(field(answer, "usage", "prompt_tokens"), length)
        return field(answer, "choices", 0, "logprobs")

    async def row(self, position: Position) -> ServerToken:
        answer = await self._request(*self.inputs(position), echo=False)
        with self.http.reading("/v1/completions"):
            return ServerToken(self._row(_last(answer, "top_logprobs", 1)), -1)

    async def rows(self, position: Position, lengths: Sequence[int]) -> list[Tensor]:
        """One request where the draft's text has the draft's tokens, else one for each length.

        An answer has a row for every token of the text, which may be too many for one request.
        """
        position = position._replace(answer=position.answer[: lengths[-1]])
        long = len(position.ids) > self.http.rows_at_once(self.top_n)
        if long or len(lengths) == 1 or any(self._differs(position, length) for length in lengths):
            return await super().rows(position, lengths)
        answer = await self._request(*self.inputs(position), echo=True)
        return [self._row(_last(answer, "top_logprobs", 1 + lengths[-1] - length)) for length in lengths]

    def _differs(self, position: Position, length: int) -> bool:
        """Whether the text there has other tokens, or ends inside a character."""
        position = position._replace(answer=position.answer[:length])
        text = self.text(position)
        return text is None or self.reader.tokenised(text) != position.ids

    async def scores(self, position: Position, scored: int) -> tuple[float, ...]:
        """The scores after the last control token, which the server leaves out."""
        control = self.vocabulary.control
        marks = [at for at, token in enumerate(position.prompt) if token in control or not at]
        wanted = position.prompt[max(marks[-1] + 1, len(position.prompt) - scored) :]
        answer = await self._request(*self.inputs(position), echo=True, shown=1)
        size = len(self.vocabulary)
        return tuple(
            float(row([token], [_last(answer, "token_logprobs", 1 + len(wanted) - at)], size)[token])
            for at, token in enumerate(wanted)
        )

    def _row(self, shown: Any) -> Tensor:
        if not isinstance(shown, dict):
            raise SourceError("the LLM's server shows no likeliest tokens; it must be one that can")
        named = {self.ids[name]: logprob for name, logprob in shown.items() if name in self.ids}
        size = len(self.vocabulary)
        return row(list(named), list(named.values()), size, self.tolerance) if named else unrevealed_row(size)


def _last(answer: Any, name: str, back: int) -> Any:
    """The entry at this index from the end. Raises SourceError."""
    entries = field(answer, name)
    if not isinstance(entries, list) or len(entries) < back:
        raise SourceError("the LLM's server answered another number of tokens; see its version")
    return entries[-back]
