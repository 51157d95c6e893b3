"""vLLM and llama-server as `reference/servers.md` (6.1, 6.3, 7) describes them, around a local model."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from starlette.applications import Starlette
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route
from torch import Tensor

Json = dict[str, Any]


@dataclass
class Fake:
    """A model, how many tokens of a row it shows at most, and what it was asked."""

    model: Any
    most: int = 10_000
    requests: list[tuple[str, Json]] = field(default_factory=list)
    seconds: float = 0.0
    at_once: int = 0
    most_at_once: int = 0

    async def read(self, request: Any) -> Json:
        body: Json = await request.json()
        self.requests.append((request.url.path, body))
        return body

    @asynccontextmanager
    async def working(self) -> AsyncIterator[None]:
        """An answer takes its time, and it is noted how many do at once."""
        self.at_once += 1
        self.most_at_once = max(self.most_at_once, self.at_once)
        await asyncio.sleep(self.seconds)
        yield
        self.at_once -= 1

    def asked(self, path: str) -> int:
        return sum(asked == path for asked, _ in self.requests)

    def rows(self, ids: Sequence[int]) -> Tensor:
        """(n, V) log-probabilities: the row before each token but the first, and the one after the last."""
        session, first = self.model.open([tuple(ids[:1])])
        with session:
            rest = session.extend(torch.tensor([list(ids[1:])]))[0] if len(ids) > 1 else first[:0]
        return torch.log_softmax(torch.cat([first, rest]).float(), -1)

    def top(self, row: Tensor, number: int, *more: int) -> dict[int, float]:
        ids = [*row.topk(min(number, len(row))).indices.tolist(), *more]
        return {each: float(row[each]) for each in ids}


class FakeVLLM(Fake):
    """`--max-logprobs` is `most`."""

    def app(self) -> Starlette:
        return Starlette(
            routes=[
                Route(
                    "/v1/models", lambda request: JSONResponse({"data": [{"id": "m", "max_model_len": 512}]})
                ),
                Route("/version", lambda request: JSONResponse({"version": "0.33.0"})),
                Route("/tokenize", self._tokenize, methods=["POST"]),
                Route("/v1/completions", self._complete, methods=["POST"]),
            ]
        )

    async def _tokenize(self, request: Any) -> Response:
        body = await self.read(request)
        return JSONResponse({"tokens": self.model.encode(body["prompt"]), "count": 0, "max_model_len": 512})

    async def _complete(self, request: Any) -> Response:
        body = await self.read(request)
        asked = max(body["logprobs"], body.get("prompt_logprobs") or 0)
        if asked > self.most:
            message = f"Requested sample logprobs of {asked}, which is greater than max allowed: {self.most}"
            return JSONResponse({"error": {"message": message, "type": "BadRequestError", "code": 400}}, 400)
        if body.get("stream"):
            return StreamingResponse(self._stream(body), media_type="text/event-stream")
        choice = self._choice(self.rows(body["prompt"])[-1], body["logprobs"])[1]
        if body.get("prompt_logprobs") is not None:
            choice["prompt_logprobs"] = self._prompt(body)
        return JSONResponse({"id": "cmpl", "object": "text_completion", "choices": [choice]})

    def _choice(self, row: Tensor, number: int) -> tuple[int, Json]:
        chosen = int(row.argmax())
        shown = {
            f"token_id:{each}": value if value > -9999 else -9999.0
            for each, value in self.top(row, number, chosen).items()
        }
        logprobs = {
            "tokens": [f"token_id:{chosen}"],
            "token_logprobs": [float(row[chosen])],
            "top_logprobs": [shown],
        }
        return chosen, {"index": 0, "text": "", "logprobs": logprobs, "finish_reason": None}

    def _prompt(self, body: Json) -> list[Json | None]:
        ids, rows = body["prompt"], self.rows(body["prompt"])
        found: list[Json | None] = [None]
        for at, token in enumerate(ids[1:]):
            shown = self.top(rows[at], body["prompt_logprobs"], token)
            found.append({str(each): {"logprob": value, "rank": 1} for each, value in shown.items()})
        return found

    async def _stream(self, body: Json) -> AsyncIterator[str]:
        """First a token by itself, then the rest in one event, as vLLM does when its reader is slow."""
        ids, choices = list(body["prompt"]), list[Json]()
        for _ in range(body["max_tokens"]):
            chosen, choice = self._choice(self.rows(ids)[-1], body["logprobs"])
            ids.append(chosen)
            choices.append(choice)
            if chosen in self.model.vocabulary.eos:
                break
        for part in (choices[:1], choices[1:]):
            if part:
                together = {
                    name: [each for choice in part for each in choice["logprobs"][name]]
                    for name in part[0]["logprobs"]
                }
                yield f"data: {json.dumps({'choices': [{**part[0], 'logprobs': together}]})}\n\n"
                await asyncio.sleep(0)
        yield "data: [DONE]\n\n"


class FakeLlama(Fake):
    """`llama-server`: an array of prompts is answered by a list, in no order but by `index`."""

    def app(self) -> Starlette:
        props = {"default_generation_settings": {"n_ctx": 512}, "total_slots": 4}
        return Starlette(
            routes=[
                Route("/props", lambda request: JSONResponse(props)),
                Route("/tokenize", self._tokenize, methods=["POST"]),
                Route("/completion", self._complete, methods=["POST"]),
            ]
        )

    async def _tokenize(self, request: Any) -> Response:
        body = await self.read(request)
        return JSONResponse({"tokens": self.model.encode(body["content"])})

    async def _complete(self, request: Any) -> Response:
        body = await self.read(request)
        several = isinstance(body["prompt"][0], list)
        prompts = body["prompt"] if several else [body["prompt"]]
        async with self.working():
            answers = [self._answer(index, ids, body) for index, ids in enumerate(prompts)]
        return JSONResponse(list(reversed(answers)) if len(answers) > 1 else answers[0])

    def _answer(self, index: int, ids: Sequence[int], body: Json) -> Json:
        """A row, unless what is chosen by the biased logits is half a character."""
        row = self.rows(ids)[-1]
        biased = row.clone()
        for token, bias in body.get("logit_bias", ()):
            biased[token] += bias
        chosen = int(biased.argmax())
        spelled = self.model.vocabulary.tokens[chosen]
        half = spelled.decode(errors="ignore").encode() != spelled
        likeliest = self.top(row, body["n_probs"]).items()
        top = [{"id": each, "logprob": max(value, -3.4e38)} for each, value in likeliest]
        shown = {"id": chosen, "logprob": float(row[chosen]), "top_logprobs": top}
        told = {} if half else {"completion_probabilities": [shown]}
        return {"index": index, "content": "", **told, "stop": True}


class FakeLlamaPython(Fake):
    """llama-cpp-python's server: text in, rows keyed by what a token spells; of those alike the last wins."""

    def app(self) -> Starlette:
        return Starlette(
            routes=[
                Route("/extras/tokenize", self._tokenize, methods=["POST"]),
                Route("/v1/completions", self._complete, methods=["POST"]),
            ]
        )

    async def _tokenize(self, request: Any) -> Response:
        body = await self.read(request)
        return JSONResponse({"tokens": self.model.encode(body["input"])})

    async def _complete(self, request: Any) -> Response:
        body = await self.read(request)
        ids = list(self.model.encode(body["prompt"]))
        rows = self.rows(ids)
        biased = rows[-1].clone()
        for token, bias in body.get("logit_bias", {}).items():
            biased[int(token)] += bias
        chosen = int(biased.argmax())
        ended = chosen in self.model.vocabulary.eos
        asked = list(enumerate(ids))[1:] if body["echo"] else []
        places = [*asked, *([] if ended else [(len(ids), chosen)])]
        told = {
            "tokens": [self._spelled(token) for _, token in places],
            "token_logprobs": [float(rows[at - 1][token]) for at, token in places],
            "top_logprobs": [self._named(rows[at - 1], body["logprobs"], token) for at, token in places],
        }
        if body["echo"]:
            told["token_logprobs"][0] = told["top_logprobs"][0] = None
        choice = {"index": 0, "text": "", "logprobs": told, "finish_reason": "length"}
        return JSONResponse({"choices": [choice], "usage": {"prompt_tokens": len(ids)}})

    def _named(self, row: Tensor, number: int, token: int) -> dict[str, float]:
        return {
            self._spelled(each): max(value, -3e38) for each, value in self.top(row, number, token).items()
        }

    def _spelled(self, token: int) -> str:
        return str(self.model.vocabulary.tokens[token].decode(errors="ignore"))
