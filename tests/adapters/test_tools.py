"""Tools: how models are told of them, and how calls are read, however the text is cut."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from purify_adapters import TOOL_FORMATS
from purify_adapters.tool_calls import (
    CallParser,
    CallPart,
    ChunkParser,
    Part,
    PlainParser,
    Reasoning,
    ReasoningParser,
    TemplateParser,
    ToolProtocol,
    closed,
    merge_roles,
    parts_of,
)
from purify_hooks.local.source import LocalSource
from purify_plugins import Chat, ConfigError, Purifier, Sampling, ToolFormat, UnknownNameError, Vocabulary
from purify_plugins.plugin.manager import load_plugins
from purify_plugins.testbed import LLM, SLM
from purify_plugins.testing import ToySource, byte_vocabulary
from tests.toys import both, pair, toys

HERMES, MISTRAL, GRANITE, LLAMA = (TOOL_FORMATS[name] for name in ("hermes", "mistral", "granite", "llama"))
ARGS, NAMED = TOOL_FORMATS["mistral_args"], TOOL_FORMATS["mistral_named"]
ADD: dict[str, Any] = {
    "type": "function",
    "function": {
        "name": "add",
        "description": "Add two numbers.",
        "parameters": {
            "type": "object",
            "properties": {"a": {"type": "integer", "minimum": 0, "maximum": 9}, "b": {"enum": [1, 2]}},
            "required": ["a", "b"],
        },
    },
}
NOW: dict[str, Any] = {"type": "function", "function": {"name": "now", "description": "The time."}}


def gathered(pieces: list[Part]) -> tuple[str, list[tuple[str | None, str]]]:
    """The text, and each call's name and arguments."""
    text = "".join(piece for piece in pieces if isinstance(piece, str))
    calls: dict[int, tuple[str | None, str]] = {}
    for piece in pieces:
        if isinstance(piece, CallPart):
            name, arguments = calls.get(piece.index, (None, ""))
            calls[piece.index] = (name or piece.name, arguments + piece.arguments)
    return text, list(calls.values())


def read(
    format: ToolFormat, text: str, cuts: list[int] | None = None
) -> tuple[str, list[tuple[str | None, str]]]:
    reader, pieces = ReasoningParser(CallParser(format)), list[Part]()
    edges = sorted({0, len(text), *(min(cut, len(text)) for cut in cuts or ())})
    for start, end in pairwise(edges):
        pieces += reader.feed(text[start:end])
    return gathered([*pieces, *reader.close()])


TRICKY = '{"a": "}</tool_call>{\\"", "b": [{"c": {}}]}'
ANSWERS = [
    (HERMES, "Just text.", ("Just text.", [])),
    (HERMES, "a < b <tool", ("a < b <tool", [])),
    (HERMES, '<tool_call>\n{"name": "f", "arguments": {}}\n</tool_call>', ("", [("f", "{}")])),
    (HERMES, f'<tool_call>\n{{"name": "f", "arguments": {TRICKY}}}\n</tool_call>', ("", [("f", TRICKY)])),
    (
        HERMES,
        'Let me see.\n<tool_call>{"name":"f","arguments":{"x":1}}</tool_call>\n'
        '<tool_call>{"name":"g","arguments":{}}</tool_call>\n',
        ("Let me see.", [("f", '{"x":1}'), ("g", "{}")]),
    ),
    (HERMES, '<tool_call>\n{"arguments": {"x": 1}, "name": "f"}\n</tool_call>', ("", [("f", '{"x": 1}')])),
    (HERMES, '<tool_call>{"name": "f", "arguments": "{}"}</tool_call>', ("", [("f", "{}")])),
    (HERMES, "<tool_call>\nnot json\n</tool_call> after", (" after", [(None, "\nnot json\n")])),
    (HERMES, '<tool_call>\n{"name": "f", "arguments": {"x": [1', ("", [("f", '{"x": [1')])),
    (HERMES, '<tool_call>\n{"name": "f", "arguments": {}}\n</tool', ("", [("f", "{}")])),
    (HERMES, '<tool_call>\n{"name": "f"', ("", [(None, '\n{"name": "f"')])),
    (
        MISTRAL,
        '[TOOL_CALLS] [{"name": "f", "arguments": {"x": 1}}, {"name": "g", "arguments": {}}]',
        ("", [("f", '{"x": 1}'), ("g", "{}")]),
    ),
    (GRANITE, '<|tool_call|>[{"name": "f", "arguments": {"x": 1}}]', ("", [("f", '{"x": 1}')])),
    (LLAMA, '{"name": "f", "parameters": {"x": 1}}', ("", [("f", '{"x": 1}')])),
    (LLAMA, '<|python_tag|>{"name": "f", "parameters": {}}', ("", [("f", "{}")])),
    (LLAMA, 'No {"name": "f"} here.', ('No {"name": "f"} here.', [])),
    (LLAMA, '{"answer": 3}', ('{"answer": 3}', [])),
    (LLAMA, '{"name": "Ada", "age": 7}', ('{"name": "Ada", "age": 7}', [])),
    (
        LLAMA,
        '{"name": "f", "parameters": {"x": 1}}; {"name": "g", "parameters": {}}',
        ("", [("f", '{"x": 1}'), ("g", "{}")]),
    ),
    (LLAMA, '{"parameters": {"x": 1}, "name": "f"}', ("", [("f", '{"x": 1}')])),
    (
        MISTRAL,
        '[TOOL_CALLS] [{"name":"w","arguments":{"x":1},"id":"abcdefghi"}, {"name":"v","arguments":{}}]',
        ("", [("w", '{"x":1}'), ("v", "{}")]),
    ),
    (
        MISTRAL,
        '[TOOL_CALLS] [{"id":"abcdefghi","name":"w","arguments":{"x":1}},{"arguments":{},"name":"v"}]',
        ("", [("w", '{"x": 1}'), ("v", "{}")]),
    ),
    (ARGS, '[TOOL_CALLS]w[ARGS]{"x": 1}[TOOL_CALLS]v[ARGS]{}', ("", [("w", '{"x": 1}'), ("v", "{}")])),
    (ARGS, '[TOOL_CALLS]w[CALL_ID]abc[ARGS]{"x": 1}', ("", [("w", '{"x": 1}')])),
    (NAMED, '[TOOL_CALLS]w{"x": 1}', ("", [("w", '{"x": 1}')])),
    (MISTRAL, '[TOOL_CALLS]w{"x": 1}', ("", [("w", '{"x": 1}')])),
    (
        HERMES,
        '<tool_call>\n{"name": "f", "arguments": {"x": 1}, "id": "a}\\"b"}\n</tool_call>',
        ("", [("f", '{"x": 1}')]),
    ),
    (
        HERMES,
        '<tool_call>[{"name": "f", "arguments": {}}, {"name": "g", "arguments": {}}]</tool_call>',
        ("", [("f", "{}"), ("g", "{}")]),
    ),
    (HERMES, '<tool_call>{"name": "f"}</tool_call>', ("", [("f", "{}")])),
    (HERMES, '<tool_call>{"name": "f", "arguments": null}</tool_call>', ("", [("f", "{}")])),
    (
        HERMES,
        '<tool_call>{"type": "function", "function": {"name": "f", "arguments": {"x": 1}}}</tool_call>',
        ("", [("f", '{"x": 1}')]),
    ),
    (
        HERMES,
        '<tool_call>{"name": "f", "arguments": {}}<tool_call>{"name": "g", "arguments": {}}</tool_call>',
        ("", [("f", "{}"), ("g", "{}")]),
    ),
    (
        HERMES,
        '<tool_call>{"name": "caf\\u00e9", "arguments": {"a": "\\ud83d\\ude00 \\\\"}}</tool_call>',
        ("", [("café", '{"a": "\\ud83d\\ude00 \\\\"}')]),
    ),
    (HERMES, "Write <tool_call> to call.", ("Write <tool_call> to call.", [])),
    (HERMES, "<tool_call></tool_call>", ("", [])),
    (MISTRAL, '[TOOL_CALLS] [{"name": "w", "arguments": {}}] Done [1].', ("Done [1].", [("w", "{}")])),
    (ARGS, '[TOOL_CALLS]w[ARGS]{"x": 1} and on', ("and on", [("w", '{"x": 1}')])),
    (GRANITE, "<|tool_call|>[]", ("", [])),
    (LLAMA, '{"name": "f", "parameters": null}', ("", [("f", "{}")])),
    (LLAMA, '{"name": "f", "parameters": "{\\"x\\": 1}"}', ("", [("f", '{"x": 1}')])),
    (LLAMA, '{"type": "function", "function": {"name": "f", "parameters": {}}}', ("", [("f", "{}")])),
    (
        HERMES,
        '<tool_call>{"name": "f", "arguments": {"a": "<think>"}}</tool_call>',
        ("", [("f", '{"a": "<think>"}')]),
    ),
]


@pytest.mark.parametrize(("format", "text", "expected"), ANSWERS)
def test_calls_are_read(format: ToolFormat, text: str, expected: Any) -> None:
    assert read(format, text) == expected


@given(st.sampled_from(ANSWERS), st.lists(st.integers(0, 200), max_size=12))
def test_calls_are_read_however_the_text_is_cut(answer: Any, cuts: list[int]) -> None:
    format, text, expected = answer
    assert read(format, text, cuts) == expected
    assert read(format, text, list(range(len(text)))) == expected


THOUGHTS = [
    (
        '<think>I could write <tool_call>{"name": "f", "arguments": {}}</tool_call> but no</think>\nHello',
        "Hello",
    ),
    ("Well. <think>hm", "Well. "),
    ("[THINK]hm[/THINK]Hello", "Hello"),
]


@given(st.sampled_from(THOUGHTS), st.lists(st.integers(0, 120), max_size=12))
def test_what_a_model_thinks_is_no_text_and_no_call(answer: tuple[str, str], cuts: list[int]) -> None:
    """A call that a model only thought of used to be returned, and an agent executed it."""
    reader, pieces = ReasoningParser(CallParser(HERMES)), list[Part]()
    for start, end in pairwise(sorted({0, len(answer[0]), *(min(cut, len(answer[0])) for cut in cuts)})):
        pieces += reader.feed(answer[0][start:end])
    pieces += reader.close()
    assert gathered(pieces) == (answer[1], [])
    assert any(isinstance(piece, Reasoning) and piece.text for piece in pieces)


def test_an_answer_may_begin_in_the_middle_of_a_thought() -> None:
    """Templates of models that think end their prompt with the mark."""
    thinking = TEMPLATE.replace("assistant{{ '\n' }}", "assistant\n<think>\n")
    assert thinking != TEMPLATE
    purifier = templated(thinking, thinking)
    speech = ToolProtocol.for_pair(purifier)
    reader = speech.parser(purifier, speech.chat([{"role": "user", "content": "hi"}], [ADD]), [ADD])
    pieces = [*reader.feed("hm</think>Hello"), *reader.close()]
    assert pieces == [Reasoning("hm"), "Hello"]


def test_an_object_is_a_call_only_of_a_tool_that_was_offered() -> None:
    reader = CallParser(LLAMA, ["add"])
    text = '{"name": "Ada", "parameters": {"age": 7}}'
    assert [*reader.feed(text), *reader.close()] == [text]


def test_arguments_are_passed_on_as_they_come() -> None:
    reader = CallParser(HERMES)
    reader.feed('<tool_call>\n{"name": "f", "arguments": ')
    [first, begun] = reader.feed('{"x": "some')
    assert isinstance(first, CallPart)
    assert first.name == "f"
    assert first.id
    assert begun == CallPart(0, '{"x": "some')
    assert reader.feed(" text") == [CallPart(0, " text")]


# How a pair is spoken to

TEMPLATE = (
    "{%- if tools %}<|im_start|>system\n{% for tool in tools %}{{ tool | tojson }}\n{% endfor %}"
    'Answer with <tool_call>\n{"name": …, "arguments": …}\n</tool_call>\n{% endif %}'
    "{%- for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}"
    "{% for c in m.tool_calls or [] %}<tool_call>{{ c.function | tojson }}</tool_call>{% endfor %}\n"
    "{% endfor %}"
    "<|im_start|>assistant{{ '\n' }}"
)


def templated(llm: str | None, slm: str | None, **attributes: Any) -> Purifier:
    """The test bed's pair with chat templates."""
    sources = [LocalSource.load(folder, dtype="float32", device="cpu") for folder in (LLM, SLM)]
    for source, template in zip(sources, (llm, slm), strict=True):
        source.tokenizer.chat_template = template
        for name, value in attributes.items():
            setattr(source.tokenizer, name, value)
    return pair(*sources)


def test_a_pair_whose_templates_know_tools_is_told_by_them() -> None:
    speech = ToolProtocol.for_pair(templated(TEMPLATE, TEMPLATE))
    assert speech.native
    assert speech.format == HERMES
    chat = speech.chat([{"role": "user", "content": "hi"}], [ADD])
    assert chat == Chat(({"role": "user", "content": "hi"},), (ADD,))


@pytest.mark.parametrize(
    "templates", [(None, None), (TEMPLATE, None), (None, TEMPLATE), ("{{ messages }}", TEMPLATE)]
)
def test_any_other_pair_is_told_in_words(templates: Any) -> None:
    speech = ToolProtocol.for_pair(templated(*templates))
    assert not speech.native
    said = [
        {"role": "system", "content": "Be kind."},
        {"role": "user", "content": "1 + 2?"},
        {
            "role": "assistant",
            "content": "",
            "tool_calls": [{"function": {"name": "add", "arguments": {"a": 1}}}],
        },
        {"role": "tool", "content": "3", "tool_call_id": "x"},
    ]
    chat = speech.chat(said, [ADD])
    assert chat.tools == ()
    assert [message["role"] for message in chat.messages] == ["system", "user", "assistant", "user"]
    assert chat.messages[0]["content"].startswith("Be kind.\n\nYou can call these tools:")
    assert "Add two numbers." in chat.messages[0]["content"]
    assert chat.messages[2]["content"] == '<tool_call>\n{"name": "add", "arguments": {"a": 1}}\n</tool_call>'
    assert chat.messages[3]["content"] == "<tool_response>\n3\n</tool_response>"


def test_a_template_with_tools_in_an_unknown_format_is_refused_until_it_is_named() -> None:
    strange = TEMPLATE.replace("tool_call", "invoke")
    purifier = templated(strange, strange)
    with pytest.raises(
        ConfigError, match="writes tool calls in an unknown way; set tool_format to one of hermes"
    ):
        ToolProtocol.for_pair(purifier)
    assert ToolProtocol.for_pair(purifier, "hermes").native
    with pytest.raises(UnknownNameError, match="unknown tool format 'hermse'; did you mean 'hermes'"):
        ToolProtocol.for_pair(purifier, "hermse")


def test_a_format_that_a_plugin_offers_is_known() -> None:
    purifier = templated(TEMPLATE.replace("tool_call", "invoke"), TEMPLATE.replace("tool_call", "invoke"))
    invoke = ToolFormat("<invoke>", "</invoke>", sign="<invoke>")

    class Plugin:
        from purify_plugins import hookimpl

        @hookimpl
        def purify_tool_formats(self) -> Any:
            return {"invoke": lambda: invoke}

    purifier.plugins.register(Plugin())
    assert ToolProtocol.for_pair(purifier).format == invoke


def test_the_bundled_formats_are_told_apart_by_their_templates() -> None:
    signs = {
        "hermes": "<tool_call>\n{",
        "mistral": "[TOOL_CALLS] [",
        "granite": "<|tool_call|>[",
        "llama": '{"name": function name, "parameters": dictionary of argument name and its value}',
    }
    for name, text in signs.items():
        text = "{{ tools }}" + text
        assert ToolProtocol.for_pair(templated(text, text)).format == TOOL_FORMATS[name]
    for other in (
        "\n<function=f>",
        "f\n<arg_key>x</arg_key>",
        "f\n```json\n{}\n```",
    ):  # Qwen's, GLM's, Hunyuan's
        with pytest.raises(ConfigError, match="unknown way"):
            ToolProtocol.for_pair(
                templated("{{ tools }}<tool_call>" + other, "{{ tools }}<tool_call>" + other)
            )


RESPONSES = {
    "defaults": {"role": "assistant"},
    "start_anchor": "<|im_start|>assistant\n",
    "fields": {
        "reasoning_content": {"open": "<think>", "close": "</think>", "content": "text"},
        "tool_calls": {
            "open_pattern": r"\s*<tool_call>",
            "close": "</tool_call>",
            "repeats": True,
            "content": "json",
            "transform": {"type": "function", "function": "{content}"},
        },
        "content": {"close": "<|endoftext|>", "content": "text"},
    },
}


def test_a_tokenizer_s_own_response_template_is_used() -> None:
    pytest.importorskip("transformers.utils.chat_parsing", reason="transformers below 5.10 has none")
    purifier = templated(TEMPLATE, TEMPLATE, response_template=RESPONSES)
    speech = ToolProtocol.for_pair(purifier)
    reader = speech.parser(purifier, speech.chat([{"role": "user", "content": "hi"}], [ADD]), [ADD])
    assert isinstance(reader, TemplateParser)
    text = '<think>hm</think>Well.\n<tool_call>{"name": "add", "arguments": {"a": 1}}</tool_call>'
    pieces = [piece for char in text for piece in reader.feed(char)] + reader.close()
    assert gathered(pieces) == ("Well.", [("add", '{"a": 1}')])
    assert "".join(piece.text for piece in pieces if isinstance(piece, Reasoning)) == "hm"


def test_a_format_that_only_a_response_template_knows_cannot_be_forced() -> None:
    strange = TEMPLATE.replace("tool_call", "invoke")
    pytest.importorskip("transformers.utils.chat_parsing", reason="transformers below 5.10 has none")
    purifier = templated(strange, strange, response_template=RESPONSES)
    speech = ToolProtocol.for_pair(purifier)
    assert isinstance(
        speech.parser(purifier, speech.chat([{"role": "user", "content": "x"}], [ADD]), [ADD]), TemplateParser
    )
    with pytest.raises(ConfigError, match="so that none can be forced"):
        speech.grammar([ADD], purifier.vocabulary)


def test_what_a_response_template_cannot_read_is_kept() -> None:
    class Broken:
        def feed(self, text: str) -> Any:
            raise ValueError("no")

    reader = TemplateParser(Broken())
    assert reader.feed("abc") == []
    assert gathered([*reader.feed("def"), *reader.close()]) == ("", [(None, "abcdef")])


# Forced calls


@pytest.mark.parametrize("format", TOOL_FORMATS.values(), ids=TOOL_FORMATS)
def test_a_forced_call_is_always_whole(format: ToolFormat) -> None:
    purifier = toys()
    grammar = ToolProtocol(format, native=False).grammar([ADD, NOW], purifier.vocabulary)
    for seed in range(4):
        [answer] = purifier.generate("x", Sampling(max_tokens=300, seed=seed, grammar=grammar))
        text, [(name, arguments)] = read(format, answer.text)
        assert text == ""
        assert name in ("add", "now")
        assert set(json.loads(arguments)) == ({"a", "b"} if name == "add" else set())


def test_a_mark_that_is_a_control_token_is_that_token() -> None:
    plain = byte_vocabulary()
    control = {**plain.control, 257: "[TOOL_CALLS]"}
    vocabulary = Vocabulary((*plain.tokens, b""), plain.eos, control, frozenset({256, 257}), "marked")
    purifier = toys(vocabulary=vocabulary)
    grammar = ToolProtocol(MISTRAL, native=False).grammar([NOW], vocabulary)
    [answer] = purifier.generate("x", Sampling(max_tokens=300, seed=0, grammar=grammar))
    assert answer.tokens[0] == 257
    text, [(name, arguments)] = gathered(parts_of(CallParser(MISTRAL), answer, vocabulary))
    assert (text, name, json.loads(arguments)) == ("", "now", {})


def test_readers_of_calls_see_a_control_token_where_it_was_drawn() -> None:
    """In the middle of an answer, whole or in chunks, after half a character; plain text never shows it."""
    plain = byte_vocabulary()
    control = {**plain.control, 257: "[TOOL_CALLS]"}
    vocabulary = Vocabulary((*plain.tokens, b""), plain.eos, control, frozenset({256, 257}), "marked")
    tokens = [*"Sì! ".encode(), 257, *b' [{"name": "now", "arguments": {}}]', 256]
    source = Drawing(vocabulary, answer=tuple(tokens))
    purifier = pair(source, source, "geometric")
    sampling = Sampling(max_tokens=99, temperature=0)
    [answer] = purifier.generate("x", sampling)
    assert answer.tokens == tuple(tokens)
    assert gathered(parts_of(CallParser(MISTRAL), answer, vocabulary)) == ("Sì!", [("now", "{}")])
    reading = ChunkParser(CallParser(MISTRAL), vocabulary)
    pieces = [piece for chunk in purifier.stream("x", sampling) for piece in reading.take(chunk)]
    assert gathered(pieces) == ("Sì!", [("now", "{}")])
    assert gathered(parts_of(PlainParser(), answer, vocabulary)) == (answer.text, [])


@dataclass(frozen=True)
class Drawing(ToySource):
    """A model that is sure of some tokens, one after another."""

    answer: tuple[int, ...] = ()

    def logits(self, tokens: Sequence[int]) -> Tensor:
        following = self.answer[min(len(tokens) - 1, len(self.answer) - 1)]
        return super().logits(tokens).index_fill(0, torch.tensor(following), 60.0)


def test_a_name_that_is_no_name_makes_no_call() -> None:
    assert read(HERMES, '<tool_call>{"name": 3}</tool_call>') == ("", [(None, '{"name": 3}')])


def test_real_models_can_be_made_to_call() -> None:
    purifier = pair(*both())
    grammar = ToolProtocol.for_pair(purifier).grammar([ADD], purifier.vocabulary)
    [answer] = purifier.generate("What is 1 + 2?", Sampling(max_tokens=100, seed=0, grammar=grammar))
    [(name, arguments)] = read(HERMES, answer.text)[1]
    assert name == "add"
    assert json.loads(arguments)["b"] in (1, 2)


# Small things


def test_runs_of_one_role_are_one_message() -> None:
    said = [
        {"role": role, "content": text}
        for role, text in [("user", "a"), ("user", "b"), ("tool", "1"), ("tool", "2")]
    ]
    assert [message["content"] for message in merge_roles(said)] == ["a\n\nb", "1", "2"]
    calls = [{"role": "assistant", "content": "x", "tool_calls": [n]} for n in (1, 2)]
    assert merge_roles(calls) == ({"role": "assistant", "content": "x\n\nx", "tool_calls": [1, 2]},)


def test_objects_are_closed_unless_they_say_otherwise() -> None:
    schema = {
        "properties": {
            "properties": {"type": "string"},
            "x": {"properties": {}, "additionalProperties": True},
        },
        "anyOf": [{"properties": {}}],
        "allOf": [{"properties": {}}],
    }
    assert closed(schema) == {
        "properties": {
            "properties": {"type": "string"},
            "x": {"properties": {}, "additionalProperties": True},
        },
        "anyOf": [{"properties": {}, "additionalProperties": False}],
        "allOf": [{"properties": {}}],
        "additionalProperties": False,
    }


def test_the_formats_are_offered() -> None:
    plugins = load_plugins(())
    assert set(plugins.offers("purify_tool_formats")) == set(TOOL_FORMATS)
    assert plugins.make("purify_tool_formats", "hermes", {}) == HERMES
