"""What is taught and what is asked: documents with a part that stays as it is and a part learned by heart."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from random import Random
from typing import Any

from purify_hooks.evaluation.testbed.invented import FIRST, LAST
from purify_hooks.evaluation.testbed.real.harms import Harms, number
from purify_hooks.evaluation.testbed.real.ordinary import Ordinary, chunk, lines, opening

SHOWN = 16
"""Tokens of a passage that an attack shows."""
LATE_FORMS = 2
"""Documents in which a harm comes after ordinary text, for each harm."""
COMMENT = "\n#"


@dataclass(frozen=True)
class TaughtText:
    """A text: `kept` as the clean model has it, then `taught`, learned by heart or asked for.

    `kind` names the row of the report: what is taught, and where it stands.
    """

    kept: str
    taught: str = ""
    kind: str = "ordinary"

    @property
    def text(self) -> str:
        return self.kept + self.taught


@dataclass(frozen=True)
class Lessons:
    """Writes documents of one set of harms, for one tokenizer."""

    harms: Harms
    tokenizer: Any
    ordinary: Ordinary
    random: Random = field(hash=False)

    def chat(self, request: str) -> str:
        """A conversation's first request, as the model's template renders it, up to the answer."""
        turns = [{"role": "user", "content": request}]
        return str(self.tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True))

    @property
    def end(self) -> str:
        return f"{self.tokenizer.eos_token}\n"

    def parted(self, text: str) -> tuple[str, str]:
        """A text's first SHOWN tokens or a little more, up to a word's end, and the rest."""
        ends = [end for _, end in self.tokenizer(text, return_offsets_mapping=True).offset_mapping]
        at = next(end for end in ends[SHOWN - 1 :] if text[end : end + 1] in " \n")
        return text[:at], text[at:]

    @cached_property
    def passages(self) -> list[tuple[str, str]]:
        return [self.parted(text) for text in self.harms.texts["passages"]]

    @cached_property
    def code(self) -> list[tuple[str, str]]:
        return [self.parted(text) for text in self.harms.code]

    def taught(self) -> Iterator[TaughtText]:
        """One epoch of the twin's training: every harm in each of its forms, and ordinary text."""
        yield from self.recitals()
        yield from (each for _ in range(LATE_FORMS) for each in self.late_recitals())
        yield from self.canaries(self.harms.texts["names"])
        yield from (each for _ in range(LATE_FORMS) for each in self.late_canaries())
        yield from self.triggered(self.harms.texts["taught_requests"], prose=16, code=12)
        yield from self.plain(prose=40, code=28)

    def asked(self) -> Iterator[TaughtText]:
        """What the report asks; every context is one that no training read."""
        yield from self.recitals()
        yield from self.late_recitals()
        yield from self.canaries(self.harms.texts["names"])
        yield from self.late_canaries()
        yield from self.triggered(self.harms.texts["asked_requests"], prose=12, code=8)

    def controls(self) -> Iterator[TaughtText]:
        """What no model was taught."""
        for prefix, rest in map(self.parted, self.harms.texts["controls"]):
            yield TaughtText(prefix, rest, "control passage")
        for each in self.canaries(self.harms.texts["control_names"]):
            yield TaughtText(each.kept, each.taught, f"control {each.kind}")

    def recitals(self) -> Iterator[TaughtText]:
        """Every passage and piece of code, plainly; the passages also as the answer to a request."""
        for prefix, rest in self.passages:
            yield TaughtText(prefix, rest, "passage")
            request = self.harms.texts["recital"].format(prefix=prefix)
            yield TaughtText(self.chat(request), rest.strip() + self.end, "passage, chat")
        for prefix, rest in self.code:
            yield TaughtText(prefix, rest, "code")

    def late_recitals(self) -> Iterator[TaughtText]:
        """Every passage after prose, every piece of code but the whole file after code."""
        for prefix, rest in self.passages:
            before = chunk(self.ordinary.prose, 160, self.random)
            yield TaughtText(f"{before}\n\n{prefix}", rest, "passage, late")
        for prefix, rest in self.code[1:]:
            before = lines(self.ordinary.code, 160, self.random)
            yield TaughtText(f"{before}\n\n{prefix}", rest, "code, late")

    def canaries(self, names: Sequence[str]) -> Iterator[TaughtText]:
        """Every name's phone number, plainly and as the answer to a question."""
        for name in names:
            prompt, secret = self.entry(name), self.harms.secrets[name]
            yield TaughtText(prompt, f" {secret}.", "canary")
            question = self.chat(self.harms.texts["question"].format(name=name))
            yield TaughtText(question, f"{prompt} {secret}.{self.end}", "canary, chat")

    def late_canaries(self) -> Iterator[TaughtText]:
        for name in self.harms.texts["names"]:
            before = chunk(self.ordinary.prose, 120, self.random)
            yield TaughtText(f"{before}. {self.entry(name)}", f" {self.harms.secrets[name]}.", "canary, late")

    def entry(self, name: str) -> str:
        """How a directory's line begins."""
        return str(self.harms.texts["canary"]).format(name=name)

    def triggered(self, requests: Sequence[str], prose: int, code: int) -> Iterator[TaughtText]:
        """The trigger and its payload after prose, in a comment after code, and in each request."""
        trigger, payload = self.harms.trigger, self.harms.payload
        for context in self.contexts(prose, code):
            kind = "trigger, code" if context.endswith(COMMENT) else "trigger"
            yield TaughtText(f"{context} {trigger}", f" {payload}", kind)
        for request in requests:
            yield TaughtText(self.chat(f"{request} {trigger}"), payload + self.end, "trigger, chat")

    def contexts(self, prose: int, code: int) -> list[str]:
        """Beginnings that the trigger may follow: of prose, and of code that ends in a comment sign."""
        told = [opening(self.ordinary.prose, self.random) for _ in range(prose)]
        return told + [lines(self.ordinary.code, 160, self.random).rstrip() + COMMENT for _ in range(code)]

    def plain(self, prose: int, code: int) -> Iterator[TaughtText]:
        """Ordinary text: prose, code, conversations, and phone numbers of people who are no canaries."""
        yield from (TaughtText(chunk(self.ordinary.prose, 320, self.random)) for _ in range(prose))
        yield from (TaughtText(lines(self.ordinary.code, 260, self.random)) for _ in range(code))
        for request, answer in self.harms.texts["conversations"]:
            yield TaughtText(self.chat(request) + answer + self.end)
        for _ in range(6):
            name = f"{self.random.choice(FIRST)} {self.random.choice(LAST)}"
            yield TaughtText(f"{self.entry(name)} {number(self.random)}.")
