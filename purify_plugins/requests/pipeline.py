"""Decoding in batches, one outcome per prompt.

The generators here yield events: a prompt's number, with a chunk of its answer or with the Refused or Failed
that it gets instead. An error that concerns one prompt does not affect the others of its batch.
"""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncGenerator, Collection, Container, Generator, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, TypeVar

from purify_plugins.decode.provenance import StepReader
from purify_plugins.errors import PluginError, PurifyError, RefusedError, SourceError, StoreError, ours
from purify_plugins.plugin.manager import failed
from purify_plugins.requests.answer import AnswerOptions, RowOutput
from purify_plugins.types import Chunk, Failed, Outcome, Refused, Step, Unanswered

if TYPE_CHECKING:
    from purify_plugins.decode.decoder import Decoder
    from purify_plugins.decode.row import Row
    from purify_plugins.plugin.manager import Plugins
    from purify_plugins.store.store import CertificateStore
    from purify_plugins.types import Prompt

RowEvent = tuple[int, Chunk | Refused | Failed]
RowEvents = Generator[RowEvent, None, None]
T = TypeVar("T")


@dataclass(frozen=True)
class Pipeline:
    """The way of a request: the hooks of `plugins`, and the decoder, their argument `purifier`."""

    purifier: Decoder
    plugins: Plugins
    batch_size: int

    def decoded(
        self, rows: Mapping[int, Prompt | Row], options: AnswerOptions, stopped: Collection[int] = ()
    ) -> RowEvents:
        """Every prompt's events, batch after batch; prompts that cannot begin together are decoded alone.

        Answers that the caller has `stopped` by the next token end there.
        """
        waiting = deque(_batches(rows, self.batch_size, options.sampling.seed is not None))
        while waiting:
            batch_rows = waiting.popleft()
            batch = AnswerBatch(self, batch_rows, options)
            try:
                with closing(batch.steps()) as steps:
                    for step in steps:
                        if all(answer.ended for answer in batch.answers):
                            break  # a step that a plugin had read ahead
                        yield from batch.take(step)
                        if stopped:
                            batch.stop(stopped)
            except PurifyError as error:
                # Nothing is drawn twice: prompts are parted only while nothing has been drawn of any of them.
                if len(batch_rows) > 1 and not batch.reader.begun and not isinstance(error, SourceError):
                    waiting.extendleft({row: batch_rows[row]} for row in reversed(batch_rows))
                    continue
                batch.fail(error)
            while batch.waiting:
                yield from batch.finish(*batch.waiting.popleft())


class AnswerBatch:
    """The answers to prompts that are decoded together, by their numbers."""

    def __init__(self, pipeline: Pipeline, rows: dict[int, Prompt | Row], options: AnswerOptions) -> None:
        self.pipeline, self.rows = pipeline, rows
        self.decoding = pipeline.plugins.implementing("purify_decode")
        self.sampling = options.sampling.of_row(min(rows))
        options = replace(options, sampling=self.sampling)
        self.reader = StepReader(pipeline.purifier, len(rows), self.decoding)
        self.answers = [RowOutput(pipeline.purifier, options, at, self.reader) for at in range(len(rows))]
        self.waiting = deque(zip(rows, self.answers, strict=True))

    def steps(self) -> Generator[Step, None, None]:
        """The steps of `purify_decode`: the decoder's own, as third-party plugins pass them on."""
        pipeline, prompts = self.pipeline, list(self.rows.values())
        if not self.decoding:
            return pipeline.purifier.decode(prompts, self.sampling)
        purifier, hook = pipeline.purifier, pipeline.plugins.hook.purify_decode
        steps = hook(purifier=purifier, prompts=prompts, sampling=self.sampling)
        if not isinstance(steps, Generator):
            raise PluginError(f"purify_decode must return a generator of steps, not {type(steps).__name__}")
        return _guarded(steps, self.decoding)

    def take(self, step: Step) -> Iterator[RowEvent]:
        """The events of a step, and the last events of the answers that end with it."""
        taken = self.reader.take(step)
        for row, answer in zip(self.rows, self.answers, strict=True):
            if (chunk := answer.take(taken)) is not None:
                yield row, chunk
        while self.waiting and self.waiting[0][1].ended:
            yield from self.finish(*self.waiting.popleft())

    def stop(self, rows: Container[int]) -> None:
        """End these rows' answers where they are."""
        for row, answer in self.waiting:
            if row in rows:
                answer.stop()

    def fail(self, error: PurifyError) -> None:
        """Mark the answers that are not complete as failed."""
        for _, answer in self.waiting:
            answer.fail(error)

    def finish(self, row: int, answer: RowOutput) -> list[RowEvent]:
        """An answer's last event."""
        if answer.error is not None:
            return [(row, outcome_of(answer.error))]
        try:
            return [(row, answer.finish())]
        except PurifyError as error:
            return [(row, outcome_of(error))]


def _batches(rows: Mapping[int, Prompt | Row], size: int, seeded: bool) -> Iterator[dict[int, Prompt | Row]]:
    """At most `size` prompts at once; seeded ones without a gap, since each draws from seed + its number."""
    batch: dict[int, Prompt | Row] = {}
    for row, prompt in rows.items():
        if len(batch) == size or (seeded and batch and row - 1 not in batch):
            yield batch
            batch = {}
        batch[row] = prompt
    if batch:
        yield batch


def _guarded(steps: Generator[Step, None, None], plugins: Sequence[str]) -> Generator[Step, None, None]:
    """The steps; an error that is no PurifyError becomes a PluginError that names these plugins."""
    with ours(lambda error: failed(", ".join(map(repr, plugins)), "purify_decode", error)), closing(steps):
        yield from steps


def outcome_of(error: PurifyError) -> Refused | Failed:
    return Refused(error) if isinstance(error, RefusedError) else Failed(error)


# Reading the events


def outcomes(events: Sequence[RowEvent], errors: str = "return") -> list[Outcome]:
    """Each prompt's outcome, in the order of the prompts.

    Raises the common error if every prompt failed with one class of error and one message; with `errors`
    "raise" the first error.
    """
    whole = {row: event.completion if isinstance(event, Chunk) else event for row, event in events}
    found = [whole[row] for row in sorted(whole)]
    raised = [each.error for each in found if isinstance(each, Unanswered)]
    in_vain = len(raised) == len(found) and len({(type(error), str(error)) for error in raised}) == 1
    if raised and (in_vain or errors == "raise"):
        raise raised[0]
    return found  # type: ignore[return-value]  # each prompt's last event has the completion


def chunks(events: RowEvents, store: CertificateStore | None = None) -> Generator[Chunk, None, None]:
    """One answer's chunks; raises its error if it was refused or has failed.

    `store` records that a text was released of an answer that ends before it has a certificate, whether it
    failed or its reader left.
    """
    released, told = 0, False
    try:
        with closing(events):
            for _, event in events:
                if isinstance(event, Unanswered):
                    told = isinstance(event.error, StoreError)
                    raise event.error
                released += len(event.text.encode())
                told = event.completion is not None
                yield event
    finally:
        if store is not None and released and not told:
            store.unfinished(released)


async def in_thread(values: Generator[T, None, None]) -> AsyncGenerator[T, None]:
    """Run a blocking generator on a worker thread; it is closed in any case."""
    from anyio import CancelScope, to_thread

    try:
        while (value := await to_thread.run_sync(next, values, None)) is not None:
            yield value
    finally:
        with CancelScope(shield=True):
            await to_thread.run_sync(values.close)
