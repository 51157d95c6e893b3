"""The request pipeline: `purify_request`, decoding in batches, `purify_completed`; one outcome per prompt.

The generators here yield events: a prompt's number, with a chunk of its answer or with the Refused or Failed
that it gets instead. An error that concerns one prompt does not affect the others of its batch.
"""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncGenerator, Callable, Generator, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, TypeVar

from purify_plugins.decode.provenance import StepReader
from purify_plugins.errors import PluginError, PurifyError, RefusedError, SourceError, ours
from purify_plugins.plugin.manager import failed
from purify_plugins.requests.answer import AnswerOptions, RowOutput
from purify_plugins.requests.inputs import one
from purify_plugins.types import Certificate, Chunk, Completion, Failed, Outcome, Refused, Step, Unanswered

if TYPE_CHECKING:
    from purify_plugins.decode.decoder import Decoder
    from purify_plugins.plugin.manager import Plugins
    from purify_plugins.sampling import Sampling
    from purify_plugins.types import Prompt

RowEvent = tuple[int, Chunk | Refused | Failed]
RowEvents = Generator[RowEvent, None, None]
Decode = Callable[[Sequence["Prompt"], "Sampling"], Generator[Step, None, None]]
T = TypeVar("T")


@dataclass(frozen=True)
class Pipeline:
    """The stages of a request: the hooks of `plugins`, and `decode`, which yields the steps of a batch.

    `purifier` is the hooks' argument of that name.
    """

    purifier: Decoder
    plugins: Plugins
    batch_size: int
    decode: Decode

    def answers(self, prompts: Sequence[Prompt], options: AnswerOptions) -> RowEvents:
        """Every prompt's events, batch after batch; prompts that cannot begin together are decoded alone."""
        errors: dict[int, PurifyError] = {}
        admitted = dict(enumerate(prompts))
        if self.plugins.implementing("purify_request"):
            admitted = self._admitted(admitted, options.sampling, errors)
        yield from ((row, _outcome(error)) for row, error in errors.items())
        waiting = deque(_batches(admitted, self.batch_size, options.sampling.seed is not None))
        while waiting:
            rows = waiting.popleft()
            batch = AnswerBatch(self, rows, options)
            try:
                with closing(batch.steps()) as steps:
                    for step in steps:
                        if all(answer.ended for answer in batch.answers):
                            break  # a step that a plugin had read ahead
                        yield from batch.take(step)
            except PurifyError as error:
                # Nothing is drawn twice: prompts are parted only while nothing has been drawn of any of them.
                if len(rows) > 1 and not batch.reader.begun and not isinstance(error, SourceError):
                    waiting.extendleft({row: rows[row]} for row in reversed(rows))
                    continue
                batch.fail(error)
            while batch.waiting:
                yield from batch.finish(*batch.waiting.popleft())

    # Admitting: `purify_request`

    def _admitted(
        self, rows: dict[int, Prompt], sampling: Sampling, errors: dict[int, PurifyError]
    ) -> dict[int, Prompt]:
        """The prompts that no plugin refuses, as plugins rewrote them; `errors` gets the others'.

        An error does not name its prompt, so the hooks are then called for each prompt alone, whose own error
        it gets; the joint error where that tells no prompt from another. Those that pass are passed together
        once more: a plugin may count them.
        """
        try:
            return self._requested(rows, sampling)
        except PurifyError as error:
            alone = {row: self._refusal({row: prompt}, sampling) for row, prompt in rows.items()}
            passed = {row: prompt for row, prompt in rows.items() if alone[row] is None}
            # No prompt is singled out: all pass alone, or all are refused in the same words.
            if len(passed) == len(rows) or len({(type(each), str(each)) for each in alone.values()}) == 1:
                errors.update(dict.fromkeys(rows, error))
                return {}
            errors.update({row: refusal for row, refusal in alone.items() if refusal is not None})
        try:
            return self._requested(passed, sampling)
        except PurifyError as error:
            errors.update(dict.fromkeys(passed, error))
            return {}

    def _refusal(self, rows: dict[int, Prompt], sampling: Sampling) -> PurifyError | None:
        try:
            self._requested(rows, sampling)
        except PurifyError as error:
            return error
        return None

    def _requested(self, rows: dict[int, Prompt], sampling: Sampling) -> dict[int, Prompt]:
        """The prompts after every `purify_request`, each of which gets what those before it returned."""
        if not rows:
            return {}
        shown, hook = list(rows.values()), self.plugins.hook.purify_request
        for rewritten in hook(purifier=self.purifier, prompts=shown, sampling=sampling):
            shown[:] = rewritten  # of a plugin that takes no `prompts`
        if len(shown) != len(rows):
            raise PluginError(
                f"purify_request made {len(shown)} prompts of {len(rows)}; "
                "a plugin may rewrite each, and drop none"
            )
        return dict(zip(rows, map(one, shown), strict=True))


class AnswerBatch:
    """The answers to prompts that are decoded together, by their numbers."""

    def __init__(self, pipeline: Pipeline, rows: dict[int, Prompt], options: AnswerOptions) -> None:
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
            return pipeline.decode(prompts, self.sampling)
        purifier, hook = pipeline.purifier, pipeline.plugins.hook.purify_decode
        steps = hook(purifier=purifier, prompts=prompts, sampling=self.sampling)
        if not isinstance(steps, Generator):
            raise PluginError(f"purify_decode must return a generator of steps, not {type(steps).__name__}")
        return _guarded(steps, self.decoding)

    def take(self, step: Step) -> Iterator[RowEvent]:
        """The events of a step, and the last events of the answers that end with it."""
        taken = self.reader.take(step)
        for row, answer in zip(self.rows, self.answers, strict=True):
            yield from ((row, chunk) for chunk in answer.take(taken))
        while self.waiting and self.waiting[0][1].ended:
            yield from self.finish(*self.waiting.popleft())

    def fail(self, error: PurifyError) -> None:
        """Mark the answers that are not complete as failed."""
        for _, answer in self.waiting:
            answer.fail(error)

    # Completing: `purify_completed`

    def finish(self, row: int, answer: RowOutput) -> list[RowEvent]:
        """An answer's last events, after `purify_completed`; hooks get a copy."""
        if answer.error is not None:
            return [(row, _outcome(answer.error))]
        try:
            chunks = answer.finish()
            if answer.options.held:
                self._show(chunks[-1].completion)
        except PurifyError as error:
            return [(row, _outcome(error))]
        return [(row, chunk) for chunk in chunks]

    def _show(self, completion: Completion | None) -> None:
        assert completion is not None  # the last chunk has it
        seen = replace(completion, certificate=Certificate(completion.certificate.text))
        pipeline = self.pipeline
        pipeline.plugins.hook.purify_completed(purifier=pipeline.purifier, completion=seen)


def _batches(rows: dict[int, Prompt], size: int, seeded: bool) -> Iterator[dict[int, Prompt]]:
    """At most `size` prompts at once; seeded ones without a gap, since each draws from seed + its number."""
    batch: dict[int, Prompt] = {}
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


def _outcome(error: PurifyError) -> Refused | Failed:
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


def chunks(events: RowEvents) -> Generator[Chunk, None, None]:
    """One answer's chunks; raises its error if it was refused or has failed."""
    with closing(events):
        for _, event in events:
            if isinstance(event, Unanswered):
                raise event.error
            yield event


async def in_thread(values: Generator[T, None, None]) -> AsyncGenerator[T, None]:
    """Run a blocking generator on a worker thread; it is closed in any case."""
    from anyio import CancelScope, to_thread

    try:
        while (value := await to_thread.run_sync(next, values, None)) is not None:
            yield value
    finally:
        with CancelScope(shield=True):
            await to_thread.run_sync(values.close)
