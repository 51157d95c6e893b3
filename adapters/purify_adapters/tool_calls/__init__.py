"""Tool calls for any pair of models: tools in the prompt, calls parsed or forced by a grammar.

Independent of frameworks: every adapter translates its own tools to and from these types.
"""

from purify_adapters.tool_calls.call_parser import CallParser
from purify_adapters.tool_calls.grammars import closed
from purify_adapters.tool_calls.parts import (
    CallPart,
    FirstCallParser,
    Message,
    ParsedCall,
    Parser,
    Part,
    PlainParser,
    Reasoning,
    Tool,
    calls_in,
    reasoning_in,
    text_in,
)
from purify_adapters.tool_calls.prompting import ToolProtocol, merge_roles, template_of, text_parser
from purify_adapters.tool_calls.reasoning_parser import ReasoningParser
from purify_adapters.tool_calls.request import (
    ChunkParser,
    ToolRequest,
    json_grammar,
    parse_tool_choice,
    parts_of,
)
from purify_adapters.tool_calls.template_parser import TemplateParser

__all__ = [
    "CallParser",
    "CallPart",
    "ChunkParser",
    "FirstCallParser",
    "Message",
    "ParsedCall",
    "Parser",
    "Part",
    "PlainParser",
    "Reasoning",
    "ReasoningParser",
    "TemplateParser",
    "Tool",
    "ToolProtocol",
    "ToolRequest",
    "calls_in",
    "closed",
    "json_grammar",
    "merge_roles",
    "parse_tool_choice",
    "parts_of",
    "reasoning_in",
    "template_of",
    "text_in",
    "text_parser",
]
