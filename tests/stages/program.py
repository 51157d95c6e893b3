"""A driver of ten lines for one stage: what it asks for, over toys or over answers that a test writes."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Generator
from dataclasses import dataclass, field, replace
from typing import Any

from purify_plugins import Purifier, Sampling
from purify_plugins.stages.request import Request
from purify_plugins.stages.stage import Draft, Stage
from purify_plugins.testing import ToySource, byte_vocabulary
from purify_plugins.types import Certificate, Completion, DrawnToken, FinishReason, Token

BYTES = byte_vocabulary()
SETTINGS = Sampling(max_tokens=12, seed=5)


def token(slm: float, top: tuple[tuple[int, float], ...] = ()) -> Token:
    return Token(id=0, llm=None, slm=slm, fused=slm, kl=0.0, peak=0.0, top=top)


def answered(
    request: Request, text: str, logprobs: tuple[float, ...] = (-0.1,), reason: FinishReason = "eos"
) -> Draft:
    """A draft with this text, whose tokens the SLM gives these log-probabilities."""
    drawn = tuple(DrawnToken(token(each), "") for each in logprobs)
    return Draft(request, Completion(text, (), reason, drawn, Certificate("{}")))


@dataclass
class Script:
    """Answers requests by `write`, and keeps every one in the lists they were asked in."""

    write: Callable[[Request], Draft]
    turns: list[list[Request]] = field(default_factory=list)

    @property
    def asked(self) -> list[Request]:
        return [request for turn in self.turns for request in turn]

    def run(self, stage: Stage, request: Request) -> Request | Draft:
        """What a stage returns for a request."""
        program: Any = stage.answer(request)
        if not isinstance(program, Generator):
            return program  # type: ignore[no-any-return]
        drafts: Any = None
        while True:
            try:
                asked = program.send(drafts)
            except StopIteration as end:
                return end.value  # type: ignore[no-any-return]
            listed = asked if isinstance(asked, list) else [asked]
            self.turns.append(listed)
            found = [self.write(each) for each in listed]
            drafts = found if listed is asked else found[0]


def toys(request: Request) -> Draft:
    """A real answer of two toy models, or of the SLM alone."""
    llm, slm = ToySource(BYTES, 1), ToySource(BYTES, 2)
    purifier = Purifier.load(slm if request.slm_only else llm, slm, "geometric")
    label = int.from_bytes(hashlib.sha256(repr(request.draw).encode()).digest()[:4], "big")
    sampling = replace(request.sampling, seed=(request.sampling.seed or 0) + label)
    return Draft(request, purifier.generate([request.prompt], sampling, errors="raise")[0])


def request(prompt: Any = "What is the capital of France?", **settings: Any) -> Request:
    return Request(prompt, SETTINGS, **settings)
