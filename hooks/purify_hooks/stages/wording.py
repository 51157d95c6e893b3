"""Requests in other words, and what is read out of answers: what several stages share."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Sequence
from typing import Any

from purify_plugins.errors import ConfigError, PromptError
from purify_plugins.stages.request import Request
from purify_plugins.types import Chat

FREE: dict[str, Any] = {"grammar": None, "stop": (), "ignore_eos": False}
"""Sampling options of a text that is not the answer: it need not look like one."""
NUMBERED = re.compile(r"^\s*(?:[-*•]|\(?\d+[.):])?\s*(.*?)\s*$")
OPTION = re.compile(r"\s*\(?([A-Z])[.):]\s+\S")


def reworded(request: Request, wording: Callable[[str], str]) -> Request:
    """The request with its last message, or its text, changed by `wording`; what the LLM reads alike.

    Raises PromptError for token ids, which have no text.
    """
    if isinstance(request.prompt, tuple) or isinstance(request.shown, tuple):
        raise PromptError("this stage puts the prompt into other words; give text or messages, not token ids")
    said = request.saying(wording(request.text))
    if request.shown is None:
        return said
    shown = request.asking(request.shown)
    return said.showing(shown.saying(wording(shown.text)).prompt)


def aside(request: Request, wording: Callable[[str], str], **options: Any) -> Request:
    """What the SLM alone is asked about a request: no grammar, no stop texts and no tools hold for it."""
    asked = reworded(request, wording).alone().sampled(**{**FREE, **options})
    if isinstance(asked.prompt, Chat):
        asked = asked.asking(Chat(asked.prompt.messages))
    return asked


def normalised(text: str) -> str:
    """Text in one case and without punctuation, its words one space apart (NFKC)."""
    return " ".join(re.findall(r"\w+", unicodedata.normalize("NFKC", text).casefold()))


def options_at(lines: Sequence[str]) -> range:
    """Where a question's lettered options stand ("A) …", "B. …", "(C) …"): its last two or more in a row.

    A prompt may hold solved examples with options of their own before.
    """
    found = range(0)
    start = 0
    for at, line in enumerate([*lines, ""]):
        if not OPTION.match(line):
            found = range(start, at) if at - start > 1 else found
            start = at + 1
    return found


def letters_of(text: str) -> str:
    """The letters of a question's options; "" where it has none."""
    lines = text.split("\n")
    return "".join(match[1] for at in options_at(lines) if (match := OPTION.match(lines[at])))


def chosen(text: str, letters: str) -> str | None:
    """The letter that an answer gives; None: none. An article or a pronoun ("A dog", "I") is no letter.

    It is the last one after "answer" or "option", else in brackets or before one, else the first of the text
    before a mark, else the last of the text.
    """
    if not letters:
        return None
    one = rf"([{letters}])"
    marked = (
        rf"(?i:answer|option)(?i:\s+is)?\s*:?\s*\(?{one}\b(?!')",
        rf"(?<!\w){one}\)",
        rf"^\W*{one}(?=[.:,]|\s*$)",
        rf"(?<![\w']){one}\W*$",
    )
    return next((found[-1] for each in marked if (found := re.findall(each, text))), None)


def vote_of(text: str, letters: str = "") -> str:
    """What an answer counts for: the letter it chooses, else its normalised text."""
    return chosen(text, letters) or normalised(text)


def lines_of(text: str, most: int) -> list[str]:
    """At most `most` different lines of a list, without their numbers and bullets."""
    found = [NUMBERED.sub(r"\1", line) for line in text.splitlines()]
    return list(dict.fromkeys(line for line in found if normalised(line)))[:most]


def numbered(texts: Sequence[str]) -> str:
    """Texts as a numbered list, an empty line apart."""
    return "\n\n".join(f"{number}. {text.strip()}" for number, text in enumerate(texts, 1))


def require(stage: str, name: str, value: object, fine: bool, expected: str) -> None:
    """Raise ConfigError for an option's value that is not fine."""
    if not fine:
        raise ConfigError(f"stage {stage!r}: {name} must be {expected}, not {value!r}")


def whole(value: object, least: int) -> bool:
    """Whether a value is a whole number, `least` or more."""
    return type(value) is int and value >= least


def texts(value: object) -> tuple[str, ...] | None:
    """A list of texts as a tuple; None: it is none, or one of them is blank."""
    if not isinstance(value, list | tuple) or not all(
        isinstance(each, str) and each.strip() for each in value
    ):
        return None
    return tuple(value)


def pattern(stage: str, name: str, value: object) -> re.Pattern[str] | None:
    """A regular expression compiled; None for "". Raises ConfigError."""
    require(stage, name, value, isinstance(value, str), "a regular expression")
    try:
        return re.compile(str(value), re.DOTALL | re.MULTILINE) if value else None
    except re.error as error:
        raise ConfigError(f"stage {stage!r}: {name} is no regular expression: {error}") from error
