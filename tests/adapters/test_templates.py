"""Tool calls and results go through the models' own chat templates, as in Hermes and Qwen."""

from __future__ import annotations

import asyncio
import json
import shutil
from typing import Any

import pytest
from langchain.agents import create_agent
from langchain_core.messages import AIMessage, HumanMessage, SystemMessage, ToolMessage
from llama_index.core.base.llms.types import ChatMessage, ToolCallBlock
from llama_index.core.tools import FunctionTool

from purify_adapters.langchain import ChatPurified
from purify_adapters.llama_index import PurifiedLLM
from purify_hooks.local.source import LocalSource
from purify_plugins import Purifier
from purify_plugins.testbed import SLM
from tests.adapters.test_tools import RESPONSES
from tests.toys import pair

HERMES = """\
{%- if tools %}<|im_start|>system
{% if messages[0].role == 'system' %}{{ messages[0].content }}

{% endif %}You may call these functions:
<tools>{% for tool in tools %}
{{ tool | tojson }}{% endfor %}
</tools>
For each call return a JSON object within <tool_call></tool_call>:
<tool_call>
{"name": <function-name>, "arguments": <args-json-object>}
</tool_call><|im_end|>
{% endif %}
{%- for message in messages %}
{%- if message.role == 'tool' %}<|im_start|>user
<tool_response>
{{ message.content }}
</tool_response><|im_end|>
{% elif message.role != 'system' or not tools %}<|im_start|>{{ message.role }}
{{ message.content }}
{%- for call in message.tool_calls or [] %}
<tool_call>
{"name": "{{ call.function.name }}", "arguments": {{ call.function.arguments | tojson }}}
</tool_call>
{%- endfor %}<|im_end|>
{% endif %}
{%- endfor %}
{%- if add_generation_prompt %}<|im_start|>assistant
{% endif %}"""


@pytest.fixture(scope="module")
def hermes(tmp_path_factory: pytest.TempPathFactory) -> Purifier:
    """The test bed's SLM in a directory with a chat template that knows tools, as both sides of a pair."""
    folder = tmp_path_factory.mktemp("hermes")
    shutil.copytree(SLM, folder, dirs_exist_ok=True)
    (folder / "chat_template.jinja").write_text(HERMES, encoding="utf-8")
    return pair(*(LocalSource.load(folder, dtype="float32", device="cpu") for _ in range(2)))


def weather(city: str) -> str:
    """Tell the weather in a city."""
    return f"It rains in {city}."


def flip(heads: bool) -> str:
    """Toss a coin."""
    return f"heads: {heads}"


CALLED = (
    "<|im_start|>user\nHow is Oslo?<|im_end|>\n"
    "<|im_start|>assistant\n"
    '<tool_call>\n{"name": "weather", "arguments": {"city": "Oslo"}}\n</tool_call><|im_end|>\n'
    "<|im_start|>user\n<tool_response>\nIt rains in Oslo.\n</tool_response><|im_end|>\n"
    "<|im_start|>assistant\n"
)
LANGCHAIN = [
    HumanMessage("How is Oslo?"),
    AIMessage("", tool_calls=[{"name": "weather", "args": {"city": "Oslo"}, "id": "1"}]),
    ToolMessage("It rains in Oslo.", tool_call_id="1"),
]
LLAMA_INDEX = [
    ChatMessage("How is Oslo?"),
    ChatMessage(
        role="assistant",
        blocks=[ToolCallBlock(tool_call_id="1", tool_name="weather", tool_kwargs={"city": "Oslo"})],
    ),
    ChatMessage(role="tool", content="It rains in Oslo.", additional_kwargs={"tool_call_id": "1"}),
]


def prompts(purifier: Purifier, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What both models read, as text, from now on."""
    read: list[str] = []
    for source in (purifier.llm, purifier.slm):
        local: Any = source

        def encode(prompt: Any, local: Any = local, own: Any = local.encode) -> Any:
            tokens = own(prompt)
            read.append(local.tokenizer.decode(tokens))
            return tokens

        monkeypatch.setattr(local, "encode", encode)
    return read


def test_both_models_read_the_tools_the_calls_and_the_results(
    hermes: Purifier, monkeypatch: pytest.MonkeyPatch
) -> None:
    read = prompts(hermes, monkeypatch)
    chat = ChatPurified(purifier=hermes, max_tokens=2, seed=0).bind_tools([weather])
    chat.invoke([SystemMessage("Be brief."), *LANGCHAIN])
    llm = PurifiedLLM(hermes, max_tokens=2, seed=0)
    tool = FunctionTool.from_defaults(weather)
    system = ChatMessage(role="system", content="Be brief.")
    llm.chat_with_tools([tool], chat_history=[system, *LLAMA_INDEX])
    assert len(read) == 4
    for prompt in read:
        head, rest = prompt.split("</tool_call><|im_end|>\n", 1)
        assert head.startswith("<|im_start|>system\nBe brief.\n\nYou may call these functions:\n<tools>{")
        described = json.loads(head.split("<tools>")[1].split("</tools>")[0])["function"]
        assert described["name"] == "weather"
        assert "Tell the weather in a city." in described["description"]
        assert rest == CALLED


@pytest.mark.parametrize("framework", ["langchain", "llama_index"])
def test_calls_that_were_made_are_rendered_when_no_tool_is_offered_any_more(
    hermes: Purifier, framework: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    read = prompts(hermes, monkeypatch)
    if framework == "langchain":
        ChatPurified(purifier=hermes, max_tokens=2, seed=0).invoke(LANGCHAIN)
    else:
        PurifiedLLM(hermes, max_tokens=2, seed=0).chat(LLAMA_INDEX)
    assert read == [CALLED] * 2


def test_an_agent_s_second_turn_reads_its_first_call_and_the_result(
    hermes: Purifier, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The call is forced, since these models only tell tales; everything else is the agent's own doing."""
    from langchain.agents.middleware import AgentMiddleware

    class Force(AgentMiddleware[Any, Any, Any]):
        def wrap_model_call(self, request: Any, handler: Any) -> Any:
            done = any(isinstance(message, ToolMessage) for message in request.messages)
            return handler(request.override(tool_choice="none" if done else "any"))

    read = prompts(hermes, monkeypatch)
    chat = ChatPurified(purifier=hermes, max_tokens=80, seed=0)

    state = create_agent(chat, [flip], middleware=[Force()]).invoke({"messages": [HumanMessage("Toss!")]})
    [made] = state["messages"][1].tool_calls
    assert made["name"] == "flip"
    call = json.dumps({"name": "flip", "arguments": made["args"]})
    assert f"<tool_call>\n{call}\n</tool_call><|im_end|>" in read[-1]
    assert f"<tool_response>\nheads: {made['args']['heads']}\n</tool_response>" in read[-1]


def test_llama_index_asks_without_blocking_too(hermes: Purifier, monkeypatch: pytest.MonkeyPatch) -> None:
    read = prompts(hermes, monkeypatch)
    asyncio.run(PurifiedLLM(hermes, max_tokens=2, seed=0).achat(LLAMA_INDEX))
    assert read == [CALLED] * 2


def test_a_response_template_reads_what_these_models_write(
    hermes: Purifier, monkeypatch: pytest.MonkeyPatch
) -> None:
    """transformers' own parser, where the tokenizer has a template for it, in both frameworks."""
    pytest.importorskip("transformers.utils.chat_parsing", reason="transformers below 5.10 has none")
    for source in (hermes.llm, hermes.slm):
        local: Any = source
        monkeypatch.setattr(local.tokenizer, "response_template", RESPONSES, raising=False)
    answer = ChatPurified(purifier=hermes, max_tokens=80, seed=0).bind_tools([flip], tool_choice="any")
    [made] = answer.invoke("Toss!").tool_calls
    assert made["name"] == "flip"
    assert isinstance(made["args"]["heads"], bool)
    llm = PurifiedLLM(hermes, max_tokens=80, seed=0)
    response = llm.chat_with_tools([FunctionTool.from_defaults(flip)], "Toss!", tool_required=True)
    assert [call.tool_name for call in llm.get_tool_calls_from_response(response)] == ["flip"]
