"""Remembers the documents that runs retrieve, so that certificates can cite those that a prompt quotes."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextvars import ContextVar
from threading import Lock
from typing import Any
from uuid import UUID

from langchain_core.callbacks import BaseCallbackHandler, BaseCallbackManager, BaseRunManager
from langchain_core.documents import Document
from langchain_core.messages import BaseMessage, ToolMessage
from langchain_core.tracers.context import register_configure_hook

from purify_adapters.quoting import marked, merged, quoted, remembered
from purify_plugins.stages.texts import texts
from purify_plugins.types import Prompt

Texts = Mapping[str, str]
"""Texts by their documents' ids."""
_RECENT: ContextVar[Texts | None] = ContextVar("recent_documents", default=None)


class RetrievedDocuments(BaseCallbackHandler):
    """Remembers the documents of each root run: what retrievers and tools return, and what chains are given.

    Runs are known by their ids, since LangChain's parallel steps have threads and contexts of their own. A
    root run's documents are forgotten when it ends, but by the thread that made it. It is not `run_inline`:
    beside such a handler LangChain tells no other that a completion begins, so what a retriever returns on an
    event loop outside of every run is not remembered.
    """

    def __init__(self) -> None:
        self.runs: dict[UUID, dict[str, str]] = {}
        self._lock = Lock()  # parallel steps share their root's documents

    def of(self, run: UUID | None) -> Texts:
        """The documents of a run's root; of the thread's, or task's, last root runs where there is none."""
        with self._lock:
            found = dict(self.runs.get(run) or {}) if run is not None else {}
        return merged(_RECENT.get() or {}, found)

    def _begin(self, run_id: UUID, parent_run_id: UUID | None, given: Any = None) -> None:
        parent = self.runs.get(parent_run_id) if parent_run_id is not None else None
        self.runs[run_id] = {} if parent is None else parent
        self._add(run_id, given)

    def _end(self, run_id: UUID, parent_run_id: UUID | None, given: Any = None) -> None:
        self._add(run_id, given)
        found = self.runs.pop(run_id, None)
        if found and parent_run_id is None:
            _RECENT.set(remembered(_RECENT.get() or {}, found))

    def _add(self, run_id: UUID, given: Any) -> None:
        found, new = self.runs.get(run_id), named(documents_in(given))
        if found is not None and new:
            with self._lock:
                kept = remembered(found, new)
                found.clear()
                found.update(kept)

    # LangChain's events

    def on_chain_start(
        self,
        serialized: Any,
        inputs: Any,
        *,
        run_id: UUID,
        parent_run_id: UUID | None = None,
        **kwargs: Any,
    ) -> None:
        self._begin(run_id, parent_run_id, inputs)

    def on_chain_end(
        self, outputs: Any, *, run_id: UUID, parent_run_id: UUID | None = None, **kwargs: Any
    ) -> None:
        self._end(run_id, parent_run_id, outputs)

    def on_chain_error(
        self, error: BaseException, *, run_id: UUID, parent_run_id: UUID | None = None, **kwargs: Any
    ) -> None:
        self._end(run_id, parent_run_id)

    def on_retriever_start(
        self,
        serialized: Any,
        query: str,
        *,
        run_id: UUID,
        parent_run_id: UUID | None = None,
        **kwargs: Any,
    ) -> None:
        self._begin(run_id, parent_run_id)

    def on_retriever_end(
        self, documents: Any, *, run_id: UUID, parent_run_id: UUID | None = None, **kwargs: Any
    ) -> None:
        self._end(run_id, parent_run_id, documents)

    def on_retriever_error(
        self, error: BaseException, *, run_id: UUID, parent_run_id: UUID | None = None, **kwargs: Any
    ) -> None:
        self._end(run_id, parent_run_id)

    def on_tool_start(
        self,
        serialized: Any,
        input_str: str,
        *,
        run_id: UUID,
        parent_run_id: UUID | None = None,
        **kwargs: Any,
    ) -> None:
        self._begin(run_id, parent_run_id)

    def on_tool_end(
        self, output: Any, *, run_id: UUID, parent_run_id: UUID | None = None, **kwargs: Any
    ) -> None:
        self._end(run_id, parent_run_id, output)

    def on_tool_error(
        self, error: BaseException, *, run_id: UUID, parent_run_id: UUID | None = None, **kwargs: Any
    ) -> None:
        self._end(run_id, parent_run_id)


RETRIEVED = RetrievedDocuments()
_HANDLER: ContextVar[RetrievedDocuments | None] = ContextVar("retrieved_documents", default=RETRIEVED)
_registered: list[bool] = []


def listen() -> None:
    """Register the handler for every run in this process, once."""
    if not _registered:
        _registered.append(True)
        register_configure_hook(_HANDLER, inheritable=True)


def documents_in(value: Any, depth: int = 2) -> Iterator[Document]:
    """The documents in what a run is given or returns: alone, in lists and tables, and tools' artifacts."""
    if isinstance(value, Document):
        yield value
    elif isinstance(value, ToolMessage):
        yield from documents_in(value.artifact, depth)
    elif depth and isinstance(value, Mapping | list | tuple):
        for each in value.values() if isinstance(value, Mapping) else value:
            yield from documents_in(each, depth - 1)


def named(documents: Iterable[Document]) -> dict[str, str]:
    """Texts by their documents' ids; one without has its source and page, or else a digest's beginning."""
    found: dict[str, str] = {}
    for document in documents:
        text, about = document.page_content, document.metadata
        known = [str(about[key]) for key in ("id", "source", "page") if about.get(key) is not None]
        name = document.id or " ".join(known) or hashlib.sha256(text.encode()).hexdigest()[:16]
        found[name if found.get(name, text) == text else marked(name, text)] = text
    return found


def cited_in(prompt: Prompt, messages: Sequence[BaseMessage], run: UUID | None) -> dict[str, str]:
    """The documents, by id, that a prompt quotes: of its run, and of the results of tools in its messages."""
    known = merged(RETRIEVED.of(run), named(documents_in(list(messages))))
    return quoted("\n".join(texts(prompt)), known) if known else {}


def run_of(manager: Any) -> UUID | None:
    """The run that calls a model, from its callbacks; None where it is called by none."""
    return manager.parent_run_id if isinstance(manager, BaseRunManager | BaseCallbackManager) else None


def runs_of(config: Any, count: int) -> list[UUID | None]:
    """The runs that call a model for each of a batch's inputs, from the batch's configurations."""
    several = list(config) if isinstance(config, Sequence) else [config] * count
    return [run_of(each.get("callbacks") if each else None) for each in several]
