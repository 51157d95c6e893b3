"""Tool calls for any pair of models: tools in the prompt, calls parsed or forced by a grammar.

Independent of frameworks: every adapter translates its own tools to and from these types.
"""

from purify_adapters.tool_calls.grammars import closed
from purify_adapters.tool_calls.parts import (
    CallPart,
    Message,
    ParsedCall,
    Parser,
    Part,
    Plain,
    Reasoning,
    Single,
    Tool,
    calls_in,
    reasoning_in,
    text_in,
)
from purify_adapters.tool_calls.prompting import ToolProtocol, merged, plain, template
from purify_adapters.tool_calls.request import (
    ChunkParser,
    ToolRequest,
    json_grammar,
    parse_tool_choice,
    parts_of,
)
from purify_adapters.tool_calls.tagged import Tagged
from purify_adapters.tool_calls.templated import Templated
from purify_adapters.tool_calls.thinking import Thinking

__all__ = [
    "CallPart",
    "ChunkParser",
    "Message",
    "ParsedCall",
    "Parser",
    "Part",
    "Plain",
    "Reasoning",
    "Single",
    "Tagged",
    "Templated",
    "Thinking",
    "Tool",
    "ToolProtocol",
    "ToolRequest",
    "calls_in",
    "closed",
    "json_grammar",
    "merged",
    "parse_tool_choice",
    "parts_of",
    "plain",
    "reasoning_in",
    "template",
    "text_in",
]
