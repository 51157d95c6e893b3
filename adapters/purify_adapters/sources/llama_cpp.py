"""A model behind llama.cpp's `llama-server`: token ids in and out, a draft scored by an array of prompts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

from purify_adapters.sources.http.options import ServerOptions
from purify_adapters.sources.http.protocol import Position
from purify_adapters.sources.http.rows import ServerToken, field, listed, row, token_id
from purify_adapters.sources.http.source import SAMPLE, RemoteSource
from purify_plugins.errors import SourceError
from purify_plugins.protocols import Capabilities

if TYPE_CHECKING:
    from purify_adapters.sources.http.shapes import LlamaCompletion

ABSENT = -1e30
"""llama.cpp writes a probability of zero as the most negative float: anything below this."""
FEW = 256
"""How many tokens of a row are requested first, when one token's is needed: 9 of 10 are among them."""


@dataclass(frozen=True, kw_only=True)
class LlamaCppOptions(ServerOptions):
    """Reach a model behind llama.cpp's `llama-server` at `url`.

    `top_n` likeliest tokens are asked for, up to the whole vocabulary.
    """


class LlamaCppSource(RemoteSource):
    """A model behind `llama-server`'s own `/completion`.

    Its streams are not used: inside a character they hold back tokens with their rows. The server's prefix
    cache makes many short requests cheap.
    """

    kind = "llama_cpp"
    sign = ("/props", "default_generation_settings")
    Options = LlamaCppOptions

    async def probe(self, top_n: int | None) -> None:
        props = await self.http.with_retries(lambda: self.http.get("/props"))
        context = field(props, "default_generation_settings", "n_ctx")
        self.context_length = context if type(context) is int else None
        slots = props.get("total_slots")
        if type(slots) is int and slots > 0:
            self.http.limit(slots)
        tokens, _ = await self.http.post("/tokenize", {"content": SAMPLE, "add_special": True})
        if tuple(listed(tokens, "tokens")) != self.reader.tokenised(SAMPLE):
            raise self.another()
        self.capabilities = Capabilities(True, True, self.top_n, True, True, streams_rows=False)

    async def row(self, position: Position) -> ServerToken:
        return (await self._request([position.ids], self.top_n))[0]

    async def several(self, positions: Sequence[Position]) -> list[ServerToken]:
        return await self._shown(positions, self.top_n)

    async def likely(self, positions: Sequence[Position], tokens: Sequence[int]) -> list[float]:
        """Request the first FEW tokens of each row, and whole rows only where the token is not among them.

        The default policy scores as many prompt tokens as a short answer has: whole rows would double the
        cost.
        """
        found = await self._likely(positions, tokens, min(self.top_n, FEW))
        unseen = [at for at, logprob in enumerate(found) if logprob == float("-inf")]
        if unseen and self.top_n > FEW:
            again = await self._likely(
                [positions[at] for at in unseen], [tokens[at] for at in unseen], self.top_n
            )
            for at, logprob in zip(unseen, again, strict=True):
                found[at] = logprob
        return found

    async def _likely(self, positions: Sequence[Position], tokens: Sequence[int], top_n: int) -> list[float]:
        drafts = await self._shown(positions, top_n)
        return [float(each.row[token]) for each, token in zip(drafts, tokens, strict=True)]

    async def _shown(self, positions: Sequence[Position], top_n: int) -> list[ServerToken]:
        """Request the rows in as few requests as hold them."""
        size = self.http.rows_at_once(top_n)
        parts = [positions[start : start + size] for start in range(0, len(positions), size)]
        return [
            drafted
            for part in parts
            for drafted in await self._request([position.ids for position in part], top_n)
        ]

    async def _request(self, prompts: Sequence[Sequence[int]], top_n: int) -> list[ServerToken]:
        body = {**self.body, "n_probs": top_n, "prompt": [list(prompt) for prompt in prompts]}
        found, _ = await self.http.post("/completion", body, len(prompts), shape=_shape())
        with self.http.reading("/completion"):
            return self._rows(found if isinstance(found, list) else [found], len(prompts))

    def _rows(self, answers: Sequence[LlamaCompletion], prompts: int) -> list[ServerToken]:
        if len(answers) != prompts:
            raise SourceError("the LLM's server answered another number of prompts; see its version")
        order = [at if answer.index is None else answer.index for at, answer in enumerate(answers)]
        return [self._drafted(answers[at]) for at in sorted(range(len(order)), key=order.__getitem__)]

    @property
    def body(self) -> Mapping[str, Any]:
        """The request's body without its prompt."""
        return {
            "n_predict": 1,
            "n_probs": self.top_n,
            "temperature": 0,
            "logit_bias": [[self.ascii, 1000]],
            "cache_prompt": True,
        }

    @cached_property
    def ascii(self) -> int:
        """A token that the server is biased to choose, since it shows no row with half a character or an end.

        Rows are raw: the bias does not change them.
        """
        whole = (token for token, piece in enumerate(self.vocabulary.tokens) if piece and piece.isascii())
        return next(whole, 0)

    def _drafted(self, answer: LlamaCompletion) -> ServerToken:
        size = len(self.vocabulary)
        shown = field(answer.completion_probabilities, 0)
        logprobs = [each.logprob for each in shown.top_logprobs]
        ids = [each.id for each in shown.top_logprobs]
        if logprobs and min(logprobs) < ABSENT:
            seen = [at for at, logprob in enumerate(logprobs) if logprob >= ABSENT]
            ids, logprobs = [ids[at] for at in seen], [logprobs[at] for at in seen]
        return ServerToken(row(ids, logprobs, size, self.tolerance), token_id(shown.id, size))


def _shape() -> Any:
    from purify_adapters.sources.http.shapes import LlamaCompletions

    return LlamaCompletions
