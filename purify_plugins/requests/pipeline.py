"""The request pipeline: `purify_request`, decoding in batches, `purify_completed`; one outcome per prompt.

The generators here yield pieces: a prompt's number, with a chunk of its answer or with the Refused or Failed
that it gets instead. An error that concerns one prompt does not affect the others of its batch.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator, Sequence
from contextlib import closing
from dataclasses import replace
from typing import TYPE_CHECKING

from purify_plugins.certificates import cited
from purify_plugins.decode.provenance import Reader
from purify_plugins.errors import PluginError, PurifyError, RefusedError, SourceError
from purify_plugins.plugin.manager import failed
from purify_plugins.requests.answer import Answer, Asked
from purify_plugins.requests.inputs import one
from purify_plugins.types import Certificate, Chunk, Completion, Failed, Outcome, Refused, Unanswered

if TYPE_CHECKING:
    from purify_plugins.purifier import Purifier
    from purify_plugins.sampling import Sampling
    from purify_plugins.types import Prompt

Piece = tuple[int, Chunk | Refused | Failed]
Pieces = Generator[Piece, None, None]


def run(purifier: Purifier, prompts: Sequence[Prompt], sampling: Sampling) -> Pieces:
    """Every prompt's pieces as they come; what `citing` names is noted now, whenever they are read."""
    held = bool(purifier.plugins.hook.purify_completed.get_hookimpls())
    asked = replace(sampling)  # a copy: a hook can write even to a frozen dataclass
    return _answers(purifier, prompts, Asked(asked, cited(), purifier.plugins.actors(purifier.policy), held))


def outcomes(pieces: Sequence[Piece]) -> list[Outcome]:
    """Each prompt's outcome, in the order of the prompts."""
    found: dict[int, Outcome] = {}
    for row, piece in pieces:
        if not isinstance(piece, Chunk):
            found[row] = piece
        elif piece.completion is not None:
            found[row] = piece.completion
    return [found[row] for row in sorted(found)]


def in_vain(found: Sequence[Outcome]) -> PurifyError | None:
    """The common error if every prompt failed with one class of error and one message; else None."""
    errors = [each.error for each in found if isinstance(each, Unanswered)]
    same = len({(type(error), str(error)) for error in errors}) == 1
    return errors[0] if same and len(errors) == len(found) else None


def _outcome(error: PurifyError) -> Refused | Failed:
    return Refused(error) if isinstance(error, RefusedError) else Failed(error)


def _answers(purifier: Purifier, prompts: Sequence[Prompt], asked: Asked) -> Pieces:
    """Batch after batch."""
    errors: dict[int, PurifyError] = {}
    admitted = _admitted(purifier, dict(enumerate(prompts)), asked.sampling, errors)
    yield from ((row, _outcome(error)) for row, error in errors.items())
    for batch in _batches(admitted, purifier.batch_size, asked.sampling.seed is not None):
        yield from _batch(purifier, batch, asked)


# Admitting: `purify_request`


def _admitted(
    purifier: Purifier, rows: dict[int, Prompt], sampling: Sampling, errors: dict[int, PurifyError]
) -> dict[int, Prompt]:
    """The prompts that no plugin refuses, as plugins rewrote them; `errors` gets the others'.

    A refusal does not say which prompt it is about, so each is then shown alone, and has what is said of it
    alone; the joint error only where that tells none from another. Those that pass are shown
    together once more: a plugin may mind how many there are.
    """
    try:
        return _requested(purifier, rows, sampling)
    except PurifyError as error:
        alone = {row: _refusal(purifier, {row: prompt}, sampling) for row, prompt in rows.items()}
        passed = {row: prompt for row, prompt in rows.items() if alone[row] is None}
        # Nothing is said of any one of them: all pass alone, or all are refused in the same words.
        if len(passed) == len(rows) or len({(type(each), str(each)) for each in alone.values()}) == 1:
            errors.update(dict.fromkeys(rows, error))
            return {}
        errors.update({row: refusal for row, refusal in alone.items() if refusal is not None})
    try:
        return _requested(purifier, passed, sampling)
    except PurifyError as error:
        errors.update(dict.fromkeys(passed, error))
        return {}


def _refusal(purifier: Purifier, rows: dict[int, Prompt], sampling: Sampling) -> PurifyError | None:
    try:
        _requested(purifier, rows, sampling)
    except PurifyError as error:
        return error
    return None


def _requested(purifier: Purifier, rows: dict[int, Prompt], sampling: Sampling) -> dict[int, Prompt]:
    """The prompts after every `purify_request`: each plugin is shown what those before it made of them."""
    if not rows:
        return {}
    shown = list(rows.values())
    for rewritten in purifier.plugins.hook.purify_request(
        purifier=purifier, prompts=shown, sampling=sampling
    ):
        shown[:] = rewritten  # of a plugin that takes no `prompts`
    if len(shown) != len(rows):
        raise PluginError(
            f"purify_request made {len(shown)} prompts of {len(rows)}; "
            "a plugin may rewrite each, and drop none"
        )
    return dict(zip(rows, map(one, shown), strict=True))


# Decoding: `purify_decode`


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


def _batch(purifier: Purifier, rows: dict[int, Prompt], asked: Asked) -> Pieces:
    """The answers to prompts that are decoded together; one by one where they cannot begin together."""
    prompts, own = list(rows.values()), replace(asked, sampling=_of_row(asked.sampling, min(rows)))
    reader = Reader(purifier, len(prompts))
    answers = [Answer(purifier, own, at, reader) for at in range(len(prompts))]
    numbers = dict(zip(answers, rows, strict=True))
    waiting = list(answers)
    try:
        with closing(_decoded(purifier, prompts, own.sampling, answers, reader)) as decoded:
            for pieces in decoded:
                yield from ((numbers[answer], chunk) for answer, chunk in pieces)
                while waiting and waiting[0].ended:
                    answer = waiting.pop(0)
                    yield from ((numbers[answer], piece) for piece in _complete(purifier, answer))
    except PurifyError as error:
        # Nothing is drawn twice: prompts are parted only while nothing has been drawn of any of them.
        if len(rows) > 1 and not reader.begun and not isinstance(error, SourceError):
            for row, prompt in rows.items():
                yield from _batch(purifier, {row: prompt}, asked)
            return
        for answer in waiting:
            answer.fail(error)
    for answer in waiting:
        yield from ((numbers[answer], piece) for piece in _complete(purifier, answer))


def _decoded(
    purifier: Purifier,
    prompts: Sequence[Prompt],
    sampling: Sampling,
    answers: Sequence[Answer],
    reader: Reader,
) -> Generator[list[tuple[Answer, Chunk]], None, None]:
    """What each step adds to each answer; ends with the last of them. Raises PurifyError."""
    steps = purifier.plugins.hook.purify_decode(purifier=purifier, prompts=prompts, sampling=sampling)
    if not isinstance(steps, Generator):
        raise PluginError(f"purify_decode must return a generator of steps, not {type(steps).__name__}")
    try:
        for step in _guarded(purifier, steps):
            if all(answer.ended for answer in answers):
                return  # steps that a plugin had read ahead
            taken = reader.take(step)
            yield [(answer, chunk) for answer in answers for chunk in answer.take(taken)]
    finally:
        steps.close()


def _guarded(purifier: Purifier, steps: Iterator[object]) -> Iterator[object]:
    """The steps; what fails in them is a plugin's fault where a plugin has its hands on them."""
    try:
        yield from steps
    except PurifyError:
        raise
    except Exception as error:
        if not (names := purifier.plugins.decoding()):
            raise
        raise failed(", ".join(map(repr, names)), "purify_decode", error) from error


def _of_row(sampling: Sampling, row: int) -> Sampling:
    """What row `row` would be asked alone: it draws from a seed of its own."""
    return sampling if sampling.seed is None else replace(sampling, seed=sampling.seed + row)


# Completing: `purify_completed`


def _complete(purifier: Purifier, answer: Answer) -> list[Chunk | Refused | Failed]:
    """The last of an answer's chunks, once the plugins have seen the whole; what they get is a copy."""
    if answer.error is not None:
        return [_outcome(answer.error)]
    try:
        chunks = answer.finish()
        _show(purifier, chunks[-1].completion)
    except PurifyError as error:
        return [_outcome(error)]
    return [*chunks]


def _show(purifier: Purifier, completion: Completion | None) -> None:
    assert completion is not None  # the last chunk has it
    seen = replace(completion, certificate=Certificate(completion.certificate.text))
    purifier.plugins.hook.purify_completed(purifier=purifier, completion=seen)
