"""LangChain: purified chat models, completion models and a middleware for agents."""

from purify_adapters.langchain.chat import ChatPurified
from purify_adapters.langchain.llm import PurifiedLLM
from purify_adapters.langchain.middleware import PurifyMiddleware

__all__ = ["ChatPurified", "PurifiedLLM", "PurifyMiddleware"]
