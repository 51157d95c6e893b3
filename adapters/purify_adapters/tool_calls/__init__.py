"""Tools for models in this process: told of in the prompt, read from the answer, forced by a grammar.

No framework is known here; every adapter translates its own tools to and from these.
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
