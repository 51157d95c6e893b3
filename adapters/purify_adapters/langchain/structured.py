"""Structured output: answers under a schema, parsed; a truncated answer is an error."""

from __future__ import annotations

from collections.abc import Mapping
from operator import itemgetter
from typing import TYPE_CHECKING, Any, Literal

from langchain_core.exceptions import OutputParserException
from langchain_core.output_parsers import JsonOutputParser, PydanticOutputParser
from langchain_core.output_parsers.openai_tools import JsonOutputKeyToolsParser, PydanticToolsParser
from langchain_core.outputs import ChatGeneration, Generation
from langchain_core.runnables import Runnable, RunnableMap, RunnablePassthrough
from langchain_core.utils.function_calling import convert_to_json_schema, convert_to_openai_tool
from langchain_core.utils.pydantic import is_basemodel_subclass
from pydantic import BaseModel

from purify_adapters.tool_calls import closed
from purify_plugins.errors import ConfigError, UnknownNameError
from purify_plugins.grammar import Grammar

if TYPE_CHECKING:
    from langchain_core.language_models import BaseChatModel

Method = Literal["json_schema", "function_calling", "json_mode"]


class _Whole:
    """A parser that raises for an answer cut short by `max_tokens`, instead of repairing it."""

    def parse_result(self, result: list[Generation], *, partial: bool = False) -> Any:
        for generation in result:
            if isinstance(generation, ChatGeneration):
                _require_whole(generation.message.response_metadata)
        return super().parse_result(result, partial=partial)  # type: ignore[misc]  # the parser's own


def _require_whole(about: Mapping[str, Any]) -> None:
    if about.get("finish_reason") == "length":
        raise OutputParserException(
            "the answer reached max_tokens, or the end of a model's context, before its JSON was whole; "
            "raise max_tokens, or bound the schema's strings and lists"
        )


class WholeJson(_Whole, JsonOutputParser):
    """A dict from an answer's text."""


class WholePydantic(_Whole, PydanticOutputParser[Any]):
    """An object from an answer's text."""


class WholeCall(_Whole, JsonOutputKeyToolsParser):
    """A dict from a tool call."""


class WholeObject(_Whole, PydanticToolsParser):
    """An object from a tool call."""


def structured(
    chat: BaseChatModel, schema: Any, method: Method, include_raw: bool, rest: Mapping[str, Any]
) -> Runnable[Any, Any]:
    """`chat`, its grammar and a parser as one runnable."""
    if method not in ("json_schema", "function_calling", "json_mode"):
        raise ConfigError(f"method must be 'json_schema', 'function_calling' or 'json_mode', not {method!r}")
    for name in rest:
        raise UnknownNameError("structured output option", name, ["method", "include_raw", "strict"])
    if schema is None:
        raise ConfigError("structured output needs a schema: a pydantic class, a TypedDict or a JSON schema")
    traced: dict[str, Any] = {"ls_structured_output_format": {"kwargs": {"method": method}, "schema": schema}}
    if method == "function_calling":
        llm = chat.bind_tools([schema], tool_choice="any", **traced)
    else:
        llm = chat.bind(grammar=Grammar.json_schema(closed(json_schema(schema))), **traced)
    parser = _parser(schema, method)
    return _with_raw(llm, parser) if include_raw else llm | parser


def json_schema(schema: Any) -> dict[str, Any]:
    """The JSON schema of a pydantic class, a TypedDict, a tool or a JSON schema."""
    if isinstance(schema, type) and issubclass(schema, BaseModel):
        return schema.model_json_schema()
    plain = isinstance(schema, Mapping) and not {"function", "parameters", "input_schema"} & schema.keys()
    return dict(schema) if plain else convert_to_json_schema(schema)


def _parser(schema: Any, method: Method) -> Runnable[Any, Any]:
    is_class = isinstance(schema, type) and is_basemodel_subclass(schema)
    if method == "function_calling":
        if is_class:
            return WholeObject(tools=[schema], first_tool_only=True)
        name = convert_to_openai_tool(schema)["function"]["name"]
        return WholeCall(key_name=name, first_tool_only=True)
    return WholePydantic(pydantic_object=schema) if is_class else WholeJson()


def _with_raw(llm: Runnable[Any, Any], parser: Runnable[Any, Any]) -> Runnable[Any, Any]:
    """A runnable of the raw message, the parsed value and the parsing error, as LangChain has it."""
    parsed = RunnablePassthrough.assign(parsed=itemgetter("raw") | parser, parsing_error=lambda _: None)
    failed = RunnablePassthrough.assign(parsed=lambda _: None)
    return RunnableMap(raw=llm) | parsed.with_fallbacks([failed], exception_key="parsing_error")
