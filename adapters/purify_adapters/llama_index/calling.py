"""Tool calling as LlamaIndex's agents ask for it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from llama_index.core.base.llms.types import ChatMessage, ChatResponse, MessageRole

from purify_adapters.llama_index.base import PurifiedLLMBase
from purify_adapters.llama_index.messages import selections
from purify_plugins.errors import ConfigError, SourceError

if TYPE_CHECKING:
    from llama_index.core.llms.llm import ToolSelection
    from llama_index.core.tools.types import BaseTool


class Calling(PurifiedLLMBase):
    """Turns tools into the arguments of `chat`, and its answer into tool calls."""

    def _prepare_chat_with_tools(
        self,
        tools: Sequence[BaseTool],
        user_msg: str | ChatMessage | None = None,
        chat_history: list[ChatMessage] | None = None,
        verbose: bool = False,
        allow_parallel_tool_calls: bool = False,
        tool_required: bool = False,
        **kwargs: Any,
    ) -> dict[str, Any]:
        """The arguments of `chat` for a conversation with tools. Raises ConfigError without a format."""
        if tools and not self.metadata.is_function_calling_model:
            raise ConfigError(
                "it is not known how these models write the call of a tool; set tool_format to a format "
                "that is offered, for example 'hermes'"
            )
        if isinstance(user_msg, str):
            user_msg = ChatMessage(role=MessageRole.USER, content=user_msg)
        messages = [*(chat_history or ()), *([user_msg] if user_msg else ())]
        described = [tool.metadata.to_openai_tool(skip_length_check=True) for tool in tools]
        return {"messages": messages, "tools": described, "tool_required": tool_required, **kwargs}

    def _validate_chat_with_tools_response(
        self,
        response: ChatResponse,
        tools: Sequence[BaseTool],
        allow_parallel_tool_calls: bool = False,
        **kwargs: Any,
    ) -> ChatResponse:
        """The response, with its first tool call only unless parallel calls are allowed."""
        if not allow_parallel_tool_calls:
            calls = [block for block in response.message.blocks if block.block_type == "tool_call"]
            response.message.blocks = [each for each in response.message.blocks if each not in calls[1:]]
        return response

    def get_tool_calls_from_response(
        self, response: ChatResponse, error_on_no_tool_call: bool = True, **kwargs: Any
    ) -> list[ToolSelection]:
        """The tool calls of an answer. Raises SourceError if there are none and one is required."""
        found = selections(response.message)
        if error_on_no_tool_call and not found:
            raise SourceError("the answer calls no tool; ask again, or describe the tools more plainly")
        return found

    async def achat_with_tools(self, *args: Any, **kwargs: Any) -> ChatResponse:
        """`chat_with_tools` without blocking the event loop."""
        await self._loaded()
        return await super().achat_with_tools(*args, **kwargs)

    async def astream_chat_with_tools(self, *args: Any, **kwargs: Any) -> Any:
        """`stream_chat_with_tools` without blocking the event loop."""
        await self._loaded()
        return await super().astream_chat_with_tools(*args, **kwargs)

    async def apredict_and_call(self, *args: Any, **kwargs: Any) -> Any:
        """`predict_and_call` without blocking the event loop."""
        await self._loaded()
        return await super().apredict_and_call(*args, **kwargs)
