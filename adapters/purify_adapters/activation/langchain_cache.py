"""LangChain's cache: what was answered before purification was switched on is not replayed after."""

from __future__ import annotations

from functools import wraps
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from purify_adapters.activation.monkeypatch import Monkeypatch, Patch


def patches(fingerprint: str) -> dict[str, Patch]:
    """Module -> what is replaced in it: the two places where LangChain makes a cache's key."""
    salt = f"purify:{fingerprint}"

    def chat(monkeypatch: Monkeypatch, module: ModuleType) -> None:
        def around(original: Any) -> Any:
            @wraps(original)
            def _get_llm_string(model: Any, *args: Any, **kwargs: Any) -> str:
                return f"{original(model, *args, **kwargs)}---{salt}"

            return _get_llm_string

        monkeypatch.replace(module.BaseChatModel, "_get_llm_string", around)

    def completion(monkeypatch: Monkeypatch, module: ModuleType) -> None:
        """The key that `get_prompts` returns is the one the answer is stored under."""

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
