"""Requests with stages: programs advance, the models answer, and what the checks clear is released."""

from __future__ import annotations

from collections.abc import Collection, Generator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from purify_plugins.certificates.staged import certify_stages
from purify_plugins.configuration.pair import tightened
from purify_plugins.decode.row import Row
from purify_plugins.errors import PurifyError, RefusedError
from purify_plugins.requests.exits import Exit
from purify_plugins.requests.inputs import one
from purify_plugins.requests.pipeline import outcome_of
from purify_plugins.requests.record import record
from purify_plugins.stages.calls import Leaf, Run, StageCall
from purify_plugins.stages.checks import refusal_of
from purify_plugins.stages.driver import Driver
from purify_plugins.stages.ledger import require_declared
from purify_plugins.stages.request import Request
from purify_plugins.stages.stage import Draft
from purify_plugins.types import Chunk, Completion, Unanswered

if TYPE_CHECKING:
    from purify_plugins.certificates.citations import Sources
    from purify_plugins.decode.decoder import Decoder
    from purify_plugins.requests.answer import AnswerOptions
    from purify_plugins.requests.pipeline import Pipeline, RowEvent, RowEvents
    from purify_plugins.stages.options import RequestOptions
    from purify_plugins.stages.stage import Stage
    from purify_plugins.types import FinishReason, Prompt, Token


@dataclass(eq=False)
class StagedPipeline:
    """Answers prompts through a chain of stages; drafts that wait for the models are decoded together."""

    pipeline: Pipeline
    chain: Sequence[Stage]
    options: RequestOptions
    how: AnswerOptions
    about: Mapping[str, str]
    sources: Sources = ()
    hooks: Sequence[Stage] = ()
    driver: Driver = field(default_factory=Driver)
    exits: dict[int, Exit] = field(default_factory=dict)
    runs: dict[int, Run] = field(default_factory=dict)

    def answers(self, prompts: Sequence[Prompt]) -> RowEvents:
        """Every prompt's events; closing it closes every program and session."""
        try:
            chain = (*self.hooks, *self.chain)
            for row, prompt in enumerate(prompts):
                self.runs[row] = run = Run(row, self.options)
                self.driver.start(StageCall(run, self._request(row, prompt), chain))
            while self.driver.leaves or self.driver.ended:
                yield from self._end()
                waiting, self.driver.leaves = self.driver.leaves, []
                for leaves in grouped([each for each in waiting if each.call.wanted]):
                    yield from self._answer(leaves)
        finally:
            for run in self.runs.values():
                run.close()

    def _request(self, row: int, prompt: Prompt) -> Request:
        sampling = self.how.sampling.of_row(row)
        return Request(prompt, sampling, cited=self.how.context, sources=self.sources, about=self.about)

    # Asking the models

    def _answer(self, leaves: Sequence[Leaf]) -> RowEvents:
        """The events of leaves that are decoded together."""
        rows = {place: row for place, leaf in enumerate(leaves) if (row := self._row(leaf))}
        try:
            purifier = answering(self.pipeline.purifier, leaves[0].request)
        except Exception as error:
            for leaf in leaves:
                self.driver.failed(leaf.call, _told(error))
            return
        stopped: set[int] = set()
        with closing(self._decoded(purifier, rows, leaves[0].request, stopped)) as events:
            for place, event in events:
                leaf = leaves[place]
                if isinstance(event, Unanswered):
                    self.driver.failed(leaf.call, event.error)
                elif leaf.streamed:
                    yield from self._stream(leaf, event)
                    if self.exits[leaf.run.row].blocked:
                        stopped.add(place)
                elif event.completion:
                    leaf.completion = event.completion
                    self.driver.answered(leaf, Draft(leaf.request, event.completion))

    def _decoded(
        self,
        purifier: Decoder,
        rows: Mapping[int, Row],
        request: Request,
        stopped: Collection[int] = (),
        given: Sequence[Token] = (),
    ) -> RowEvents:
        drafting = replace(self.how, signer=None, store=None)  # only what is released
        how = replace(drafting, sampling=request.sampling, context=request.cited, given=tuple(given))
        return replace(self.pipeline, purifier=purifier).decoded(rows, how, stopped)

    def _row(self, leaf: Leaf) -> Row | None:
        request = leaf.request
        try:
            if leaf.streamed:
                self._open(leaf)
            shown = None if request.shown is None else one(request.shown)
            return Row(one(request.prompt), shown, request.sampling.seed, leaf.label)
        except Exception as error:
            self.driver.failed(leaf.call, _told(error))
            return None

    # Releasing

    def _open(self, leaf: Leaf) -> None:
        """Prepare the exit of the answer that is to be released. Raises RefusedError: it must not be."""
        require_declared(leaf.run.asked, leaf, self.chain, self.options.calls)
        self.exits[leaf.run.row] = Exit(leaf)

    def _stream(self, leaf: Leaf, chunk: Chunk) -> RowEvents:
        """What is released of an answer as it is drawn."""
        way_out = self.exits[leaf.run.row]
        yield from self._released(leaf, way_out, chunk, last=chunk.completion is not None)
        if not chunk.completion:
            return
        try:
            yield from self._rewritten(leaf, way_out)
        except PurifyError as error:  # of a draft that is released its row has ended already
            leaf.run.close()
            yield from self._refuse(leaf.run, error)
        else:
            yield from self._last(leaf.run, way_out, leaf.answer.finish_reason)

    def _released(self, leaf: Leaf, way_out: Exit, chunk: Chunk, last: bool) -> RowEvents:
        leaf.completion = chunk.completion or leaf.completion
        released = way_out.feed(chunk, last) if self.chain else way_out.show(chunk)
        for each in released:
            yield leaf.run.row, each

    def _end(self) -> RowEvents:
        """The last events of the rows whose programs have ended."""
        ended, self.driver.ended = self.driver.ended, []
        for run, end in ended:
            if isinstance(end, Draft):
                yield from self._release(run, end)
            else:
                yield from self._refuse(run, end)

    def _release(self, run: Run, draft: Draft) -> RowEvents:
        """What is released of a draft."""
        try:
            leaf = next((each for each in run.asked if each.completion is draft.completion), None)
            if leaf is None:
                raise RefusedError("a stage changed a draft in place; it returns one that it was given")
            self._open(leaf)
        except Exception as error:
            yield from self._refuse(run, _told(error))
        else:
            yield from self._stream(leaf, leaf.answer.chunk)

    def _refuse(self, run: Run, error: PurifyError) -> RowEvents:
        """The operator's text for a refusal, if there is one; else the error."""
        if not isinstance(error, RefusedError) or self.options.on_refusal == "error":
            yield run.row, outcome_of(error)
            return
        way_out = self.exits.setdefault(run.row, Exit(None))
        try:
            said = list(way_out.refuse(*self.options.said(error.key)))
        except PurifyError as worse:  # of a vault, for what stood before the blocked span
            yield run.row, outcome_of(worse)
            return
        for chunk in said:
            yield run.row, chunk
        yield from self._last(run, way_out, "refused")

    def _last(self, run: Run, way_out: Exit, reason: FinishReason) -> RowEvents:
        """The last events, the text that was withheld and the completion, once every check has seen it."""
        try:
            last = self._issued(way_out.untouched or Chunk((), (), self._completion(run, way_out, reason)))
            assert last.completion is not None
            for check in way_out.release.checks:
                check.released(last.completion)
        except PurifyError as error:
            yield run.row, outcome_of(error)
            return
        except Exception as error:
            yield run.row, outcome_of(refusal_of("the record of this answer", error))
            return
        for chunk in (*way_out.withheld, last):
            yield run.row, chunk

    def _issued(self, last: Chunk) -> Chunk:
        """An answer's last chunk, its certificate as it is handed out; those of drafts are not."""
        if last.completion is None:
            return last
        certificate = self.how.issued(last.completion.certificate)
        return replace(last, completion=replace(last.completion, certificate=certificate))

    def _completion(self, run: Run, way_out: Exit, reason: FinishReason) -> Completion:
        certificate = certify_stages(record(self.pipeline, self.chain, run, way_out, reason))
        text, drawn = way_out.release.text, tuple(way_out.drawn)
        return Completion(text, way_out.tokens, reason, drawn, certificate, way_out.released)

    # Writing a span again

    def _rewritten(self, leaf: Leaf, way_out: Exit) -> RowEvents:
        """The SLM writes each blocked span again, and the answer goes on. Raises RefusedError: it may not."""
        while way_out.failed is None and (block := way_out.release.block) is not None:
            if leaf.redone >= block.check.redo:
                raise RefusedError(f"the check {block.check.name!r} blocked this answer", key=block.key)
            leaf.redone += 1
            way_out.release.rewind(block.before)
            kept, span = leaf.answer.steps[: block.before], block.before + block.tokens
            ended = yield from self._resumed(leaf, way_out, leaf.request.alone(), kept, span)
            if not ended and not way_out.blocked:
                yield from self._resumed(leaf, way_out, leaf.request, leaf.answer.steps)
        if way_out.failed is not None:
            raise way_out.failed

    def _resumed(
        self, leaf: Leaf, way_out: Exit, request: Request, given: Sequence[Token], most: int | None = None
    ) -> Generator[RowEvent, None, bool]:
        """Go on after given tokens, up to `most` in all; returns whether the answer has ended by itself."""
        way_out.resume(given)
        label = f"{leaf.label}~{leaf.redone}{'a' if most else 'b'}"
        rows = {0: Row(request.prompt, request.shown, request.sampling.seed, label)}
        purifier = answering(self.pipeline.purifier, request, given, llm_asked=not leaf.request.slm_only)
        stopped: set[int] = set()
        drawn, ended = len(given), False
        with closing(self._decoded(purifier, rows, request, stopped, given)) as events:
            for _, event in events:
                if isinstance(event, Unanswered):
                    raise event.error
                drawn, ended = drawn + len(event.drawn), ended or event.ended
                if event.completion and not ended and not way_out.blocked:
                    leaf.completion = event.completion  # of a part: what it held is decoded again
                    break
                yield from self._released(leaf, way_out, event, last=event.completion is not None)
                if way_out.blocked or drawn == most:
                    stopped.add(0)
        return ended


def answering(
    purifier: Decoder, request: Request, given: Sequence[Token] = (), llm_asked: bool = False
) -> Decoder:
    """The decoder for a request: as strict, under its constraints, by the SLM alone or not.

    Answers begin with the tokens `given`; see `Decoder.llm_asked`. Raises ConfigError for a policy that
    cannot be tightened.
    """
    policy = tightened(purifier.policy, request.strength)
    first = tuple(token.id for token in given)
    return purifier.for_request(
        policy=policy,
        alone=request.slm_only,
        constraints=request.never,
        given=first,
        llm_asked=llm_asked,
    )


def _told(error: Exception) -> PurifyError:
    """The error of a request that cannot be asked; its parts are a stage's, and may be anything."""
    return error if isinstance(error, PurifyError) else refusal_of("a stage's request", error)


def grouped(leaves: Sequence[Leaf]) -> list[list[Leaf]]:
    """Leaves that can be decoded together: their sampling differs in its seed alone."""
    found: dict[Any, list[Leaf]] = {}
    for leaf in leaves:
        asked = leaf.request
        never = tuple(map(id, asked.never))
        how = replace(asked.sampling, seed=None), repr(asked.cited)
        key = asked.slm_only, asked.strength, never, how, asked.sampling.seed is None
        found.setdefault(key, []).append(leaf)
    return list(found.values())
