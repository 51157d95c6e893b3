"""LangChain's own suites for chat models, whole: nothing is overridden."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from langchain_tests.integration_tests import ChatModelIntegrationTests
from langchain_tests.unit_tests import ChatModelUnitTests

from purify_adapters.langchain import ChatPurified
from purify_plugins.testbed import LLM, SLM
from purify_plugins.types import Prompt
from tests.adapters.actors import Actor, call, last

JOKE = {"setup": "Why do cats sit on laptops?", "punchline": "To watch the mouse."}
LINES = {
    "magic_function(3)": call("magic_function", input=3),
    "magic_function_no_args()": call("magic_function_no_args"),
    "Hello!": call("magic_function", input=1),
    "Pirate": call("greeting_generator", answer_style="Pirate"),
    "3 + 4": call("my_adder_tool", a=3, b=4),
    "San Francisco": call("get_weather", location="San Francisco"),
    "你好啊集团": call("unicode_customer", customer_name="你好啊集团", description="tech"),
    "こんにちは": call("unicode_customer", customer_name="こんにちは株式会社", description="firm"),
    "joke": json.dumps(JOKE),
}


def speak(prompt: Prompt) -> str:
    """What the suites ask, answered as a model of that size would."""
    if "<tool_response>" in last(prompt):
        return "That is all there is to say."
    return next((line for cue, line in LINES.items() if cue in last(prompt)), "Hello there, and welcome.")


class Scripted:
    """The model under test: a pair that can call tools and tell jokes."""

    chat_model_class = ChatPurified
    has_tool_calling = has_tool_choice = has_structured_output = supports_json_mode = True
    supports_anthropic_inputs = True
    supports_model_override = True
    model_override_value = "other"
    enable_vcr_tests = True  # there is no HTTP to record, so the cassette stays empty and unwritten

    @property
    def chat_model_params(self) -> dict[str, Any]:
        models = {side: Actor(speak, side) for side in ("llm", "slm")}
        return {**models, "llms": {"other": Actor(speak, "other")}}


class TestUnit(Scripted, ChatModelUnitTests):
    @pytest.fixture(autouse=True)
    def configuration(self, tmp_path: Path) -> None:
        self.file = tmp_path / "purify.toml"
        self.file.write_text(
            f"[llm]\nmodel = {json.dumps(str(LLM))}\n[slm]\nmodel = {json.dumps(str(SLM))}\n"
        )

    @property
    def init_from_env_params(self) -> tuple[dict[str, str], dict[str, Any], dict[str, Any]]:
        return {"PURIFY_CONFIG": str(self.file)}, {}, {"model_name": "llm"}


@pytest.mark.filterwarnings("ignore:Benchmark fixture was not used")  # its one test times replayed HTTP alone
class TestIntegration(Scripted, ChatModelIntegrationTests):
    pass


class TestRealModels(ChatModelIntegrationTests):
    """The test bed's pair; it tells stories, and is too small to choose a tool's arguments."""

    chat_model_class = ChatPurified
    has_tool_calling = False
    has_structured_output = False
    supports_model_override = True
    model_override_value = "other"

    @property
    def chat_model_params(self) -> dict[str, Any]:
        return {"llm": LLM, "slm": SLM, "llms": {"other": LLM}, "max_tokens": 12}
