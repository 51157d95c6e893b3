"""Tools for models in this process: told of in the prompt, read from the answer, forced by a grammar.

No framework is known here; every adapter translates its own tools to and from these.
"""

from purify_adapters.tool_calls.grammars import closed
from purify_adapters.tool_calls.pieces import (
    Called,
    CallPiece,
    Message,
    Piece,
    Plain,
    Reader,
    Reasoning,
    Single,
    Tool,
    called,
    said,
    thought,
)
from purify_adapters.tool_calls.prompting import Speech, merged, plain, template
from purify_adapters.tool_calls.request import Asked, Reading, choice_of, json_answer, pieces_of
from purify_adapters.tool_calls.tagged import Tagged
from purify_adapters.tool_calls.templated import Templated
from purify_adapters.tool_calls.thinking import Thinking

__all__ = [
    "Asked",
    "CallPiece",
    "Called",
    "Message",
    "Piece",
    "Plain",
    "Reader",
    "Reading",
    "Reasoning",
    "Single",
    "Speech",
    "Tagged",
    "Templated",
    "Thinking",
    "Tool",
    "called",
    "choice_of",
    "closed",
    "json_answer",
    "merged",
    "pieces_of",
    "plain",
    "said",
    "template",
    "thought",
]
