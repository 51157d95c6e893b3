"""A parser of answers that uses the tokenizer's response template."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any
from uuid import uuid4

from purify_adapters.tool_calls.parts import CallPart, Part, Reasoning


class TemplateParser:
    """Parse an answer with the response template of a transformers tokenizer."""

    def __init__(self, parser: Any) -> None:
        self.parser = parser
        self.calls = 0
        self._raw = ""
        self._broken = False

    def reads(self, name: str) -> bool:
        return True  # a template may use any token as syntax

    def feed(self, text: str) -> list[Part]:
        self._raw += text
        return [] if self._broken or not text else self._read(lambda: self.parser.feed(text))

    def close(self) -> list[Part]:
        rest = [] if self._broken else self._read(lambda: self.parser.finalize()[1])
        return [*rest, CallPart(self.calls, self._raw, f"call_{uuid4().hex[:24]}")] if self._broken else rest

    def _read(self, events: Any) -> list[Part]:
        try:
            return [part for event in events() for part in self._parts(event)]
        except Exception:  # third-party code; an answer that it cannot parse is kept unparsed
            self._broken = True
            return []

    def _parts(self, event: Mapping[str, Any]) -> list[Part]:
        kind, field = event["type"], event.get("field")
        if kind == "region_close" and field == "tool_calls":
            call = event["value"]["function"]
            arguments = call["arguments"]
            text = arguments if isinstance(arguments, str) else json.dumps(arguments, ensure_ascii=False)
            self.calls += 1
            return [CallPart(self.calls - 1, text, f"call_{uuid4().hex[:24]}", call["name"])]
        if kind != "region_chunk" or event.get("dirty") or not event.get("text"):
            return []
        if field in ("reasoning_content", "thinking"):
            return [Reasoning(event["text"])]
        return [event["text"]] if field == "content" else []
