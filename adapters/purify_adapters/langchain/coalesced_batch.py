"""Decodes the prompts of one LangChain batch together; each prompt keeps its own callbacks and run.

LangChain calls the model once for every prompt of a batch. The first of these calls decodes all prompts;
the others take their row of the result.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from contextvars import ContextVar
from threading import Lock
from typing import Any

from langchain_core.globals import get_llm_cache

from purify_plugins.errors import PromptError, RefusedError
from purify_plugins.purifier import Purifier
from purify_plugins.sampling import Sampling
from purify_plugins.types import Completion, Outcome, Prompt, Unanswered

Answers = list[Outcome] | None
"""The outcomes in the order of the prompts; None if the prompts must be decoded one by one."""

_coalesced: ContextVar[CoalescedBatch | None] = ContextVar("coalesced_batch", default=None)


class CoalescedBatch:
    """Prompts that LangChain will call for one by one, in any order and from any thread."""

    def __init__(self, purifier: Purifier, chats: Sequence[Prompt], sampling: Sampling) -> None:
        self.purifier, self.chats, self.sampling = purifier, list(chats), sampling
        self._left: list[tuple[int, Prompt]] = list(enumerate(chats))
        self._future: Future[Answers] | None = None
        self._lock = Lock()

    def answer(self, purifier: Purifier, chat: Prompt, sampling: Sampling) -> Completion | None:
        """This prompt's completion; None if it is not in the batch, or must be decoded alone."""
        row, mine, future = self._claim(purifier, chat, sampling)
        if row is None:
            return None
        if mine:
            with self._settling(future):
                future.set_result(self.purifier.generate(self.chats, self.sampling))
        return _of_row(future.result(), row)

    async def aanswer(self, purifier: Purifier, chat: Prompt, sampling: Sampling) -> Completion | None:
        """`answer` without blocking the event loop."""
        row, mine, future = self._claim(purifier, chat, sampling)
        if row is None:
            return None
        if mine:
            with self._settling(future):
                future.set_result(await self.purifier.agenerate(self.chats, self.sampling))
        return _of_row(await asyncio.wrap_future(future), row)

    def _claim(
        self, purifier: Purifier, chat: Prompt, sampling: Sampling
    ) -> tuple[int | None, bool, Future[Answers]]:
        """The prompt's row, None if not in the batch; whether this call decodes for all; the result."""
        with self._lock:
            ours = purifier is self.purifier and sampling == self.sampling
            found = next((each for each in self._left if ours and each[1] == chat), None)
            if found is None:
                return None, False, Future()
            self._left.remove(found)
            mine = self._future is None
            if self._future is None:
                self._future = Future()
                self._future.set_running_or_notify_cancel()  # else one call that is cancelled ends them all
            return found[0], mine, self._future

    @contextmanager
    def _settling(self, future: Future[Answers]) -> Iterator[None]:
        """Settle the future in any case; one prompt's error must not fail the others."""
        try:
            yield
        except (PromptError, RefusedError):
            future.set_result(None)  # each call decodes alone, and raises its own prompt's error
        except asyncio.CancelledError:
            future.set_result(None)  # only this call was cancelled; the others decode alone
            raise
        except BaseException as error:
            future.set_exception(error)
            raise


def _of_row(answers: Answers, row: int) -> Completion | None:
    """A row's completion. Raises the error of a row without one."""
    found = None if answers is None else answers[row]
    if isinstance(found, Unanswered):
        raise found.error
    return found


def cached(cache: Any) -> bool:
    """Whether a cache, the model's own or LangChain's, may hold some of the answers."""
    return cache is not False and (cache or get_llm_cache()) is not None


def expected() -> CoalescedBatch | None:
    """The batch announced in this context."""
    return _coalesced.get()


@contextmanager
def announce(batch: CoalescedBatch | None) -> Iterator[None]:
    """Announce a batch for this context; None changes nothing."""
    if batch is None:
        yield
        return
    token = _coalesced.set(batch)
    try:
        yield
    finally:
        _coalesced.reset(token)
