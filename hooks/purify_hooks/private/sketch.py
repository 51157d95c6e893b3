"""`sketch`: the LLM reads an abstract of the request, and nothing else; the SLM completes its answer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import ClassVar, Literal

from purify_hooks.private.labelling import LabellingStage
from purify_hooks.private.leaks import LeakTest
from purify_hooks.stages.wording import FREE, aside, whole
from purify_plugins.errors import RefusedError
from purify_plugins.stages.request import Request
from purify_plugins.stages.stage import Answer, Draft
from purify_plugins.stages.texts import texts
from purify_plugins.types import Chat

GENERAL = "Ask this as a general question, without names, numbers, dates and places: {}"
EXAMPLES = (
    (
        "My daughter Lena Holm has had a rash on her arm since Tuesday. What can I put on it?",
        "What helps against a rash on the arm?",
    ),
    (
        "Our tenant Mrs Abara paid 300 pounds too much in June. How do I tell her?",
        "How do I tell a tenant that too much rent was paid?",
    ),
    (
        "I have an interview at Kern & Sons in Leeds on Monday. What should I wear?",
        "What should one wear to a job interview?",
    ),
)
"""Requests, and what is asked of the LLM in their place: a small SLM follows these, and no description."""


@dataclass(frozen=True)
class Sketch(LabellingStage):
    """Let the LLM read an abstract of the request only, written by the SLM alone, which then completes.

    The SLM alone writes the abstract, of at most `length` tokens; the fused model answers it, unseen; the SLM
    alone answers the request with that beside it, streamed. An abstract must not be empty or cut off, hold
    anything that a detector of any kind finds, nor `run` words in a row of what is private, a number of it or
    a capitalised word of it. Private is what has a label, as for `redacted`; without one, all of the request.
    After `tries` abstracts that fail, the SLM answers alone, or with `on_leak` "refuse" the request is
    refused (key "sketch").
    """

    stage: ClassVar[str] = "sketch"

    run: int = 5
    length: int = 96
    tries: int = 2
    on_leak: Literal["slm", "refuse"] = "slm"

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("run", "length", "tries"):
            self._require(name, vars(self)[name], whole(vars(self)[name], 1), "a whole number, at least 1")
        self._require("on_leak", self.on_leak, self.on_leak in ("slm", "refuse"), '"slm" or "refuse"')
        _ = self._test

    @cached_property
    def _test(self) -> LeakTest:
        return LeakTest(self.finder(None), self.run)

    @property
    def choices(self) -> int:
        return 1

    def answer(self, request: Request) -> Answer:
        found = self.labels.read(request.prompt, request.sources)
        private = found.private or tuple(texts(found.whole))
        asked = replace(request.asking(found.whole), cited=self.cited(request, private)).alone()
        turns = [(GENERAL.format(first), general) for first, general in EXAMPLES]
        for attempt in range(self.tries):
            heat = {} if attempt else {"temperature": 0.0}  # the surest first
            general = aside(asked, GENERAL.format, max_tokens=self.length, stop=("\n",), **heat)
            abstract = yield told(general, turns).seeded(attempt)
            question = abstract.text.strip()
            if abstract.finish_reason != "length" and not self._test.leaks(question, private):
                break
        else:
            if self.on_leak == "refuse":
                raise RefusedError("no abstract of this request was free of what is private", key="sketch")
            return asked
        draft: Draft = yield self._abstracted(request, question)
        return told(asked, [(question, draft.text.strip())])

    def _abstracted(self, request: Request, question: str) -> Request:
        """The abstract as a request of its own: what the fused model is asked."""
        chat = isinstance(request.prompt, Chat)
        prompt = Chat(({"role": "user", "content": question},)) if chat else question
        return replace(request, prompt=prompt, shown=prompt, cited=(), sources=()).sampled(**FREE)


def told(request: Request, turns: Sequence[tuple[str, str]]) -> Request:
    """The request with turns before its last question, as if they had been asked and answered before.

    Calls and their results stay behind the question that they belong to.
    """
    prompt = request.prompt
    if not isinstance(prompt, Chat):
        before = "".join(f"{asked}\n{answered}\n\n" for asked, answered in turns)
        return request.saying(f"{before}{request.text}\n")
    messages = prompt.messages
    users = [at for at, each in enumerate(messages) if each["role"] == "user"]
    at = users[-1] if users else len(messages)
    more = [
        {"role": role, "content": said}
        for turn in turns
        for role, said in zip(("user", "assistant"), turn, strict=True)
    ]
    return request.asking(Chat((*messages[:at], *more, *messages[at:]), prompt.tools))
