"""Presidio: a library for one text, which the application calls for each text that it thinks of.

As in its own example of pseudonyms: values of the newest message are numbered, and put back where the whole
answer has them. It reads no conversation, no stream and no tool call by itself.
"""

from __future__ import annotations

import time
from typing import Any

from blank import analyzer
from openai import OpenAI
from presidio_analyzer import EntityRecognizer
from presidio_anonymizer import AnonymizerEngine
from presidio_anonymizer.entities import OperatorConfig
from talk import Heard, serve, settings

GIVEN = settings()
ENTITIES = ["EMAIL_ADDRESS", "CREDIT_CARD", "IP_ADDRESS", "CUSTOMER"]
engine, anonymizer = analyzer(GIVEN.own), AnonymizerEngine()
client = OpenAI(base_url=GIVEN.host, api_key="none", max_retries=0)


class Failing(EntityRecognizer):  # type: ignore[misc]
    """A recogniser that raises or hangs."""

    def __init__(self, fault: str) -> None:
        super().__init__(["NAME"])
        self.fault = fault

    def load(self) -> None:
        """Nothing."""

    def analyze(self, *_: Any, **__: Any) -> list[Any]:
        if self.fault.endswith("raises"):
            raise OSError("the classifier is down")
        time.sleep(60)
        return []


def answer(asked: dict[str, Any], heard: Heard) -> None:
    *before, newest = asked["messages"]
    extra = [Failing(asked["fault"])] if asked["fault"] else []
    text, names = newest["content"], {}
    found = engine.analyze(
        text, "en", entities=[*ENTITIES, *("NAME" for _ in extra)], ad_hoc_recognizers=extra
    )
    for each in found:
        names.setdefault(text[each.start : each.end], f"<{each.entity_type}_{len(names)}>")
    operator = OperatorConfig("custom", {"lambda": lambda value: names.get(value, value)})
    shown = anonymizer.anonymize(text, found, {"DEFAULT": operator}).text
    messages = [*before, {**newest, "content": shown}]
    given = {"tools": asked["tools"]} if asked["tools"] else {}
    message = client.chat.completions.create(model="fake", messages=messages, **given).choices[0].message
    told = message.content or ""
    for value, name in names.items():
        told = told.replace(name, value)
    heard.add(told)
    heard.arguments = "".join(call.function.arguments for call in message.tool_calls or [])


serve(
    ["presidio-analyzer", "presidio-anonymizer"],
    answer,
    lacks=("stream", "forbidden", "protected", "output"),
)
