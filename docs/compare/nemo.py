"""NeMo Guardrails: sensitive data masked on input, patterns detected on output, streamed by its defaults.

Its masking rail asks for spaCy's `en_core_web_lg`, which is not on pip's index: a blank pipeline stands in,
so that Presidio's patterns work and no name is found.
"""

from __future__ import annotations

import asyncio
import json
import re
from typing import Any

import nemoguardrails.library.sensitive_data_detection.actions as detection
from blank import analyzer
from nemoguardrails import LLMRails, RailsConfig
from talk import Heard, serve, settings

GIVEN = settings()
detection._get_analyzer = lambda score_threshold=0.4: analyzer(GIVEN.own)
STREAMING = {"enabled": True, **({"stream_first": False} if GIVEN.how else {})}
ENTITIES = ["EMAIL_ADDRESS", "CREDIT_CARD", "IP_ADDRESS", "CUSTOMER"]


def rails(fault: str) -> LLMRails:
    failing = {side: ["failing classifier"] if fault.startswith(side) else [] for side in ("in", "out")}
    config: dict[str, Any] = {
        "models": [
            {
                "type": "main",
                "engine": "openai",
                "model": "fake",
                "parameters": {"base_url": GIVEN.host, "api_key": "none"},
            }
        ],
        "rails": {
            "config": {
                "sensitive_data_detection": {"input": {"entities": ENTITIES}},
                "regex_detection": {
                    "output": {
                        "patterns": [re.escape(text) for text in GIVEN.forbidden],
                        "case_insensitive": True,
                    }
                },
            },
            "input": {"flows": ["mask sensitive data on input", *failing["in"]]},
            "output": {"flows": ["regex check output", *failing["out"]], "streaming": STREAMING},
        },
    }
    colang = """
define subflow failing classifier
  $allowed = execute failing_classifier
  if not $allowed
    bot refuse to respond
    stop
"""
    made = LLMRails(RailsConfig.from_content(colang, json.dumps(config)))

    async def failing_classifier() -> bool:
        if fault.endswith("raises"):
            raise OSError("the classifier is down")
        await asyncio.sleep(60)
        return True

    made.register_action(failing_classifier, "failing_classifier")
    return made


MADE: dict[str, LLMRails] = {}


def answer(asked: dict[str, Any], heard: Heard) -> None:
    asyncio.run(_answer(asked, heard))


async def _answer(asked: dict[str, Any], heard: Heard) -> None:
    made = MADE.get(asked["fault"]) or MADE.setdefault(asked["fault"], rails(asked["fault"]))
    options = {"llm_params": {"tools": asked["tools"]}} if asked["tools"] else None
    if asked["stream"]:
        async for piece in made.stream_async(messages=asked["messages"], options=options):
            heard.add(piece if isinstance(piece, str) else piece.get("text"))
        return
    found = await made.generate_async(messages=asked["messages"], options=options)
    told = found if isinstance(found, dict) else found.response[-1]
    calls = getattr(found, "tool_calls", None) or told.get("tool_calls") or []
    heard.arguments = json.dumps(calls)
    heard.add(told.get("content"))


serve(["nemoguardrails", "presidio-analyzer"], answer)
