"""Remembers retrieved texts, so that a certificate can cite those that a prompt quotes."""

from __future__ import annotations

from collections.abc import Mapping
from contextvars import ContextVar
from typing import Any

from llama_index.core.instrumentation.event_handlers import BaseEventHandler
from llama_index.core.instrumentation.events.retrieval import RetrievalEndEvent
from llama_index_instrumentation import get_dispatcher

REMEMBERED = 100
"""How many retrieved texts are remembered; all of the last retrieval, if these are more."""
WINDOW = 60
"""Window size in characters: a prompt with one aligned window of a text quotes that text."""

_RETRIEVED: ContextVar[Mapping[str, str] | None] = ContextVar("retrieved", default=None)


class Retrievals(BaseEventHandler):
    """Remembers the nodes that retrievers return, by thread or task."""

    @classmethod
    def class_name(cls) -> str:
        return "purify_retrievals"

    def handle(self, event: Any, **kwargs: Any) -> None:
        if isinstance(event, RetrievalEndEvent):
            new = {each.node.node_id: each.node.get_content() for each in event.nodes}
            both = {key: text for key, text in (_RETRIEVED.get() or {}).items() if key not in new} | new
            _RETRIEVED.set(dict(list(both.items())[-max(REMEMBERED, len(new)) :]))


def listen() -> None:
    """Register the handler for every retrieval in this process, once."""
    root = get_dispatcher()
    if not any(isinstance(handler, Retrievals) for handler in root.event_handlers):
        root.add_event_handler(Retrievals())


def quoted(prompt: str) -> dict[str, str]:
    """The retrieved texts, by node id, of which a window is in the prompt.

    Windows, since LlamaIndex splits texts that do not fit into one prompt.
    """
    remembered = _RETRIEVED.get() or {}
    return {node: text for node, text in remembered.items() if _quotes(prompt, text.strip())}


def _quotes(prompt: str, text: str) -> bool:
    windows = (text[at : at + WINDOW] for at in range(0, max(len(text) - WINDOW, 0) + 1, WINDOW))
    return bool(text) and any(window in prompt for window in windows)
