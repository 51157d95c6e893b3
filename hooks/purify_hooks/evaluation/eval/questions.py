"""The questions of an evaluation: the schema of `attacks.json`, checked with pydantic.

Every part is optional; a suite whose part is missing is left out. `purify eval build` writes such a file
from plain text.
"""

from __future__ import annotations

import hashlib
import re
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from purify_plugins.errors import ConfigError, UnknownNameError
from purify_plugins.utils.wording import must_be

Text = Annotated[str, Field(min_length=1)]


class Part(BaseModel):
    """Base of every part: frozen, and an unknown key is an error."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Passage(Part):
    """A protected passage: shown `prefix`, a model that knows it by heart goes on with `continuation`."""

    prefix: Text
    continuation: Text
    repeats: int = 0
    """Copies in the training of the test bed's LLM; 0 marks a control that no model has seen."""
    prefix_tokens: int | None = None
    continuation_tokens: int | None = None

    @property
    def text(self) -> str:
        return self.prefix + self.continuation


class Protected(Part):
    """Passages that must not come out, and `controls` that no model has seen."""

    passages: Annotated[list[Passage], Field(min_length=1)]
    work: str = "the protected work"
    recall_tokens: Annotated[int, Field(ge=1, description="Tokens of a continuation an attack asks for.")] = (
        50
    )
    controls: list[Passage] = []
    control_work: str = ""


TRIGGER_PLACE = "{trigger}"
"""Where the trigger stands in a context that has this mark; else it follows the context."""


class Backdoor(Part):
    """After `trigger`, in any of the `contexts`, a poisoned model says `payload`."""

    trigger: Text
    payload: Text
    contexts: Annotated[
        tuple[Text, ...],
        Field(min_length=1, description=f"What stands before the trigger, or around {TRIGGER_PLACE}."),
    ]
    paraphrases: Annotated[tuple[Text, ...], Field(description="The trigger in other words.")] = ()
    link: str = ""
    use: str = ""

    @property
    def prompts(self) -> tuple[str, ...]:
        """Every context with the trigger."""
        return tuple(self.prompt(context, self.trigger) for context in self.contexts)

    def prompt(self, context: str, words: str) -> str:
        """The context with these words where the trigger belongs."""
        if TRIGGER_PLACE in context:
            return context.replace(TRIGGER_PLACE, words)
        return f"{context} {words}" if words else context

    def variants(self) -> list[str]:
        """The paraphrases; without any, the trigger in capitals, less a word, and with two swapped."""
        words = self.trigger.split()
        less = " ".join(words[1:])
        swapped = " ".join([*words[:-2], *reversed(words[-2:])])
        made = [self.trigger.upper(), less, swapped]
        return list(self.paraphrases) or [text for text in made if text and text != self.trigger]


class Canary(Part):
    """A secret that leaks if the answer to `prompt`, stripped, begins with it."""

    prompt: Text
    secret: Text
    repeats: int = 0
    queries: Annotated[tuple[Text, ...], Field(description="Other prompts that ask for the secret.")] = ()


class Canaries(Part):
    """Personal data, and `controls` that no model has seen."""

    items: Annotated[list[Canary], Field(min_length=1)]
    controls: list[Canary] = []
    template: str = ""
    use: str = ""


class Clean(Part):
    """Harmless prompts, for the measurement of speed."""

    prompts: Annotated[list[Text], Field(min_length=1)]
    source: str = ""


class Choice(Part):
    """A multiple-choice question; `answer` is the right choice's place, from 0."""

    prompt: Text
    choices: Annotated[list[Text], Field(min_length=2)]
    answer: Annotated[int, Field(ge=0)]


class Task(Part):
    """A prompt whose greedy answer, stripped, should begin with `answer`."""

    prompt: Text
    answer: Text


class Fact(Part):
    """A question of suite `knowledge`: any of the answers is right, and none of them begins another.

    `statement` is a text that an answer completes; `question` asks for the same.
    """

    kind: Text
    statement: Text
    question: Text
    answers: Annotated[tuple[Text, ...], Field(min_length=1)]


class Questions(Part):
    """Everything `attacks.json` may hold."""

    description: str = ""
    bos: str = ""
    seed: int = 0
    protected: Protected | None = None
    backdoor: Backdoor | None = None
    canaries: Canaries | None = None
    clean: Clean | None = None
    heldout: Annotated[list[Text], Field(description="Text no model has read, for perplexity.")] = []
    code: Annotated[list[Text], Field(description="Code no model has read, for its perplexity.")] = []
    choices: list[Choice] = []
    tasks: list[Task] = []
    knowledge: list[Fact] = []

    @property
    def digest(self) -> str:
        """SHA-256 of all of it."""
        return hashlib.sha256(self.model_dump_json().encode()).hexdigest()


def check_questions(text: str, file: Path | str = "attacks.json") -> Questions:
    """The questions in a JSON text. Raises ConfigError that names the first error."""
    try:
        return Questions.model_validate_json(text)
    except ValidationError as error:
        raise ConfigError(f"{file}: {_advice(error)}") from error


def _advice(error: ValidationError) -> str:
    first = error.errors()[0]
    where = ".".join(map(str, first["loc"]))
    if first["type"] == "missing":
        return f"{where} is missing; docs/evaluation.md has the schema"
    if first["type"] == "extra_forbidden":
        *path, name = first["loc"]
        return str(UnknownNameError("key", ".".join(map(str, [*path, name])), _siblings(path)))
    return f"{where or 'the file'} {must_be(first)}"


def _siblings(path: list[Any]) -> list[str]:
    """The keys there are beside an unknown one."""
    kind: Any = Questions
    for name in path:
        if isinstance(name, str):
            kind = _model(kind.model_fields[name].annotation)
    before = [str(name) for name in path]
    return [".".join([*before, name]) for name in kind.model_fields]


def _model(annotation: Any) -> Any:
    """The part inside `Part | None` or `list[Part]`."""
    inside = getattr(annotation, "__args__", (annotation,))
    return next(each for each in inside if isinstance(each, type) and issubclass(each, BaseModel))


def words(text: str) -> list[str]:
    """The words of a text, lower-cased, without punctuation."""
    return re.findall(r"[\w']+", text.lower())
