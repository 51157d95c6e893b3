"""LLM Guard's scanners around an OpenAI client, as in its examples: Anonymize and Deanonymize over one vault.

Its tagger of names is a hub model and its spaCy models are not on pip's index: one that tags nothing and a
blank pipeline stand in, so that its regular expressions work and no name is found. It has no streaming:
answers are scanned whole.
"""

from __future__ import annotations

import time
from typing import Any

import llm_guard.input_scanners.anonymize as anonymize
import llm_guard.input_scanners.anonymize_helpers.analyzer as helpers
from blank import Blank
from llm_guard import scan_output, scan_prompt
from llm_guard.input_scanners import Anonymize
from llm_guard.input_scanners.anonymize_helpers.regex_patterns import DEFAULT_REGEX_PATTERNS
from llm_guard.output_scanners import BanSubstrings, Deanonymize
from llm_guard.vault import Vault
from openai import OpenAI
from presidio_analyzer import EntityRecognizer
from talk import Heard, serve, settings

GIVEN = settings()
client = OpenAI(base_url=GIVEN.host, api_key="none", max_retries=0)


class Nameless(EntityRecognizer):  # type: ignore[misc]
    """A tagger that tags nothing."""

    def load(self) -> None:
        """Nothing."""

    def analyze(self, **_: Any) -> list[Any]:
        return []


class Failing:
    """A scanner that raises or hangs."""

    def __init__(self, fault: str) -> None:
        self.fault = fault

    def scan(self, *texts: str) -> tuple[str, bool, float]:
        if self.fault.endswith("raises"):
            raise OSError("the classifier is down")
        time.sleep(60)
        return texts[-1], True, 0.0


helpers._get_nlp_engine = Blank
anonymize.get_transformers_recognizer = lambda **_: Nameless(["PERSON"])
OWN = {
    "expressions": [GIVEN.own],
    "name": "CUSTOMER",
    "examples": [],
    "context": [],
    "score": 1.0,
    "languages": ["en"],
}
VAULT = Vault()
ENTITIES = ["EMAIL_ADDRESS", "EMAIL_ADDRESS_RE", "CREDIT_CARD", "CREDIT_CARD_RE", "IP_ADDRESS", "CUSTOMER"]
NAMES = Anonymize(VAULT, entity_types=ENTITIES, regex_patterns=[*DEFAULT_REGEX_PATTERNS, OWN])
BANNED = BanSubstrings(list(GIVEN.forbidden), match_type="str", case_sensitive=False)


def answer(asked: dict[str, Any], heard: Heard) -> None:
    *before, newest = asked["messages"]
    fault = [Failing(asked["fault"])] if asked["fault"] else []
    shown, valid, _ = scan_prompt(
        [NAMES, *(fault if asked["fault"].startswith("in") else [])], newest["content"]
    )
    given = {"tools": asked["tools"]} if asked["tools"] else {}
    messages = [*before, {**newest, "content": shown}]
    message = client.chat.completions.create(model="fake", messages=messages, **given).choices[0].message
    heard.arguments = "".join(call.function.arguments for call in message.tool_calls or [])
    scanners = [Deanonymize(VAULT), BANNED, *(fault if asked["fault"].startswith("out") else [])]
    told, valid, _ = scan_output(scanners, shown, message.content or "")
    if not all(valid.values()):
        raise PermissionError(f"refused by {[name for name, right in valid.items() if not right]}")
    heard.add(told)


serve(["llm-guard", "presidio-analyzer"], answer, lacks=("stream",))
