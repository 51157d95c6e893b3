"""Salts LangChain's cache keys, so that answers from before activation are not replayed."""

from __future__ import annotations

from functools import wraps
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from purify_adapters.activation.monkeypatch import Monkeypatch, Patch


def patches(fingerprint: str) -> dict[str, Patch]:
    """Module -> its patch: the two functions that make cache keys."""
    salt = f"purify:{fingerprint}"

    def chat(monkeypatch: Monkeypatch, module: ModuleType) -> None:
        def around(original: Any) -> Any:
            @wraps(original)
            def _get_llm_string(model: Any, *args: Any, **kwargs: Any) -> str:
                return f"{original(model, *args, **kwargs)}---{salt}"

            return _get_llm_string

        monkeypatch.replace(module.BaseChatModel, "_get_llm_string", around)

    def completion(monkeypatch: Monkeypatch, module: ModuleType) -> None:
        """Salt the key that `get_prompts` returns: answers are stored under it."""

        def blocking(original: Any) -> Any:
            @wraps(original)
            def get_prompts(params: Any, *args: Any, **kwargs: Any) -> Any:
                return original({**params, "purification": salt}, *args, **kwargs)

            return get_prompts

        def awaited(original: Any) -> Any:
            @wraps(original)
            async def aget_prompts(params: Any, *args: Any, **kwargs: Any) -> Any:
                return await original({**params, "purification": salt}, *args, **kwargs)

            return aget_prompts

        monkeypatch.replace(module, "get_prompts", blocking)
        monkeypatch.replace(module, "aget_prompts", awaited)

    home = "langchain_core.language_models"
    return {f"{home}.chat_models": chat, f"{home}.llms": completion}
