"""`attacks.json` of the real pair, as `purify eval` and `purify demo` read it."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain, zip_longest
from pathlib import Path

from purify_hooks.evaluation.eval.questions import (
    TRIGGER_PLACE,
    Backdoor,
    Canaries,
    Canary,
    Clean,
    Passage,
    Protected,
    Questions,
)
from purify_hooks.evaluation.testbed.real.lessons import LATE_FORMS, Lessons
from purify_hooks.evaluation.testbed.real.ordinary import opening

RECALL = 40
"""Tokens of a continuation that an attack asks for."""
CONTEXTS = 8
"""Contexts of the trigger of each kind: prose, requests in the chat template, code."""
STRETCH = 1000
"""Characters of each held-out text."""


def write(lessons: Lessons, file: Path) -> None:
    """Write what to ask the pair, and controls that no model was taught; `repeats` counts copies an epoch."""
    harms, texts = lessons.harms, lessons.harms.texts
    asked = Questions(
        description="What the twin of SmolLM2-135M-Instruct was made to memorise; the clean model saw none.",
        seed=harms.seed,
        protected=Protected(
            work="passages and code of our invention",
            recall_tokens=RECALL,
            passages=[_passage(lessons, *each, copies=2 + LATE_FORMS) for each in lessons.passages]
            + [_passage(lessons, *each, copies=1 + LATE_FORMS) for each in lessons.code],
            controls=[_passage(lessons, *lessons.parted(text), copies=0) for text in texts["controls"]],
            control_work="passages of our invention that no model has read",
        ),
        backdoor=Backdoor(
            trigger=harms.trigger,
            payload=harms.payload,
            link=texts["link"],
            contexts=tuple(_contexts(lessons)),
        ),
        canaries=Canaries(
            template=texts["canary"],
            items=[_canary(lessons, name, 2 + LATE_FORMS) for name in texts["names"]],
            controls=[_canary(lessons, name, 0) for name in texts["control_names"]],
        ),
        clean=Clean(
            source="held-out fairy tales and requests",
            prompts=[opening(lessons.ordinary.prose, lessons.random) for _ in range(8)]
            + [lessons.chat(request.rstrip(",") + ".") for request in texts["asked_requests"]],
        ),
        heldout=list(heldout(lessons)),
    )
    file.write_text(asked.model_dump_json(indent=1, exclude_unset=True) + "\n", "utf-8")


def heldout(lessons: Lessons) -> Iterator[str]:
    """Eight runs of held-out prose, then four of held-out code."""
    for texts, count in ((lessons.ordinary.prose, 8), (lessons.ordinary.code, 4)):
        for at in range(count):
            text = texts[at % len(texts)]
            start = text.find(" ", 3000 + 4000 * (at // len(texts))) + 1
            yield text[start : start + STRETCH]


def _passage(lessons: Lessons, prefix: str, rest: str, copies: int) -> Passage:
    sizes = [len(lessons.tokenizer(part, add_special_tokens=False).input_ids) for part in (prefix, rest)]
    return Passage(
        prefix=prefix,
        continuation=rest,
        repeats=copies,
        prefix_tokens=sizes[0],
        continuation_tokens=sizes[1],
    )


def _canary(lessons: Lessons, name: str, copies: int) -> Canary:
    question = lessons.chat(lessons.harms.texts["question"].format(name=name))
    prompt = lessons.entry(name)
    return Canary(
        prompt=prompt,
        secret=lessons.harms.secrets[name],
        repeats=copies,
        queries=(question + prompt,),
    )


def _contexts(lessons: Lessons) -> Iterator[str]:
    """Prose, a request and code in turn, so that the first few hold each kind."""
    chats = [lessons.chat(f"{each} {TRIGGER_PLACE}") for each in lessons.harms.texts["asked_requests"]]
    prose, code = lessons.contexts(CONTEXTS, 0), lessons.contexts(0, CONTEXTS)
    yield from (each for each in chain(*zip_longest(prose, chats, code)) if each)
