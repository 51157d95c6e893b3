"""Guardrails AI: a guard with the hub's validators that pip's index has, around litellm's OpenAI client."""

from __future__ import annotations

import re
import time
from typing import Any

from guardrails import Guard, OnFailAction
from guardrails.validators import FailResult, PassResult, ValidationResult, Validator, register_validator
from talk import Heard, serve, settings

GIVEN = settings()
PRIVATE = {
    "email": r"[\w.+-]+@[\w-]+(?:\.[\w-]+)+",
    "card": r"\b\d{16}\b",
    "ip": r"\b\d{1,3}(?:\.\d{1,3}){3}\b",
    "customer": GIVEN.own,
}


@register_validator(name="compare/private", data_type="string")
class Private(Validator):  # type: ignore[misc]
    """Mask private values, as its own `detect_pii` does with Presidio."""

    def _validate(self, value: Any, metadata: dict[str, Any]) -> ValidationResult:
        fixed = str(value)
        for name, pattern in PRIVATE.items():
            fixed = re.sub(pattern, f"<{name.upper()}>", fixed)
        return PassResult() if fixed == value else FailResult(error_message="private", fix_value=fixed)


@register_validator(name="compare/forbidden", data_type="string")
class Forbidden(Validator):  # type: ignore[misc]
    """Refuse the forbidden texts, in any case."""

    def _validate(self, value: Any, metadata: dict[str, Any]) -> ValidationResult:
        found = any(text.casefold() in str(value).casefold() for text in GIVEN.forbidden)
        return FailResult(error_message="forbidden") if found else PassResult()


@register_validator(name="compare/failing", data_type="string")
class Failing(Validator):  # type: ignore[misc]
    """A validator that raises or hangs."""

    fault = ""

    def _validate(self, value: Any, metadata: dict[str, Any]) -> ValidationResult:
        if Failing.fault.endswith("raises"):
            raise OSError("the classifier is down")
        time.sleep(60)
        return PassResult()


def guard(fault: str) -> Guard:
    Failing.fault = fault
    made = Guard().use(Private(on_fail=OnFailAction.FIX), on="messages")
    made = made.use(Forbidden(on_fail=OnFailAction.EXCEPTION), on="output")
    side = "messages" if fault.startswith("in") else "output"
    return made.use(Failing(on_fail=OnFailAction.EXCEPTION), on=side) if fault else made


def answer(asked: dict[str, Any], heard: Heard) -> None:
    given = {"tools": asked["tools"]} if asked["tools"] else {}
    found = guard(asked["fault"])(
        model="openai/fake",
        messages=asked["messages"],
        api_base=GIVEN.host,
        api_key="none",
        stream=asked["stream"],
        num_reasks=0,
        **given,
    )
    for each in found if asked["stream"] else [found]:
        heard.add(each.validated_output if each.validation_passed is not False else None)


serve(["guardrails-ai"], answer)
