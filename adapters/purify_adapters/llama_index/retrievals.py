"""Remembers retrieved texts, so that a certificate can cite those that a prompt quotes."""

from __future__ import annotations

from collections.abc import Mapping
from contextvars import ContextVar
from typing import Any

from llama_index.core.instrumentation.event_handlers import BaseEventHandler
from llama_index.core.instrumentation.events.retrieval import RetrievalEndEvent
from llama_index_instrumentation import get_dispatcher

from purify_adapters.quoting import remembered

_RETRIEVED: ContextVar[Mapping[str, str] | None] = ContextVar("retrieved", default=None)


class Retrievals(BaseEventHandler):
    """Remembers the nodes that retrievers return, by thread or task."""

    @classmethod
    def class_name(cls) -> str:
        return "purify_retrievals"

    def handle(self, event: Any, **kwargs: Any) -> None:
        if isinstance(event, RetrievalEndEvent):
            new = {each.node.node_id: each.node.get_content() for each in event.nodes}
            _RETRIEVED.set(remembered(retrieved(), new))


def listen() -> None:
    """Register the handler for every retrieval in this process, once."""
    root = get_dispatcher()
    if not any(isinstance(handler, Retrievals) for handler in root.event_handlers):
        root.add_event_handler(Retrievals())


def retrieved() -> Mapping[str, str]:
    """The remembered texts, by node id."""
    return _RETRIEVED.get() or {}
