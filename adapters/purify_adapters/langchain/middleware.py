"""PurifyMiddleware: replaces the model of an existing agent by a purified one."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, Self

from langchain.agents.middleware import AgentMiddleware, ModelRequest, ModelResponse
from langchain_core.messages import AIMessage

from purify_adapters.langchain.chat import ChatPurified
from purify_plugins.errors import RefusedError

Answer = ModelResponse[Any]


class PurifyMiddleware(AgentMiddleware[Any, Any, Any]):
    """Answer every model call of an agent with a purified model instead of the agent's own.

    Put it last: a middleware after it could replace the model again, and an answer without a
    certificate is refused. Models of other middleware (to summarise, to choose tools) are not covered.
    """

    def __init__(self, model: ChatPurified) -> None:
        super().__init__()
        self.model = model

    @classmethod
    def from_config(cls, path: str | Path | None = None, **parameters: Any) -> Self:
        """The models that a `purify.toml` describes."""
        return cls(ChatPurified.from_config(path, **parameters))

    def wrap_model_call(
        self, request: ModelRequest[Any], handler: Callable[[ModelRequest[Any]], Answer]
    ) -> Answer:
        return _purified(handler(request.override(model=self.model)))

    async def awrap_model_call(
        self, request: ModelRequest[Any], handler: Callable[[ModelRequest[Any]], Awaitable[Answer]]
    ) -> Answer:
        return _purified(await handler(request.override(model=self.model)))


def _purified(answer: Answer) -> Answer:
    """The answer of a purified model. Raises RefusedError for one without certificate facts."""
    for message in answer.result:
        if isinstance(message, AIMessage) and "purification" not in message.response_metadata:
            raise RefusedError(
                "another model has answered in place of the purified one; put PurifyMiddleware last"
            )
    return answer
