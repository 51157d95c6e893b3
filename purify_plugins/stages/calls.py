"""What the driver keeps of a row: its programs, and the requests that they have the models answer."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from purify_plugins.stages.options import RequestOptions
    from purify_plugins.stages.request import Request
    from purify_plugins.stages.stage import Draft, Stage
    from purify_plugins.types import Completion


@dataclass(eq=False)
class Run:
    """One row: what its programs have asked for, and the drafts they were given, both in order."""

    row: int
    options: RequestOptions
    calls: int = 0
    tokens: int = 0
    asked: list[Leaf] = field(default_factory=list)
    given: list[Draft] = field(default_factory=list)
    programs: list[StageCall] = field(default_factory=list)
    ended: bool = False

    def begin(self, program: StageCall) -> bool:
        """Note a program; whether there are no more than its calls can have.

        A stage may catch a refusal and ask again, and the next one refuse each time, before a call is made.
        """
        self.programs.append(program)
        return len(self.programs) <= (self.options.calls + 1) * len(self.programs[0].chain)

    def close(self) -> None:
        """Close every program; nothing that is still asked for it is wanted."""
        self.ended = True
        for program in self.programs:
            with suppress(Exception):  # of a program that refuses to be closed: nothing waits for it
                program.body.close()


@dataclass(eq=False)
class StageCall:
    """A stage's answer to a request; `chain` are the stages that the request still goes through.

    It was asked for in the parent's `turn`-th yield, at `place` of its list. `path` is where that is in the
    row's programs, whatever else is being answered beside it.
    """

    run: Run
    request: Request
    chain: tuple[Stage, ...]
    parent: StageCall | None = None
    place: int = 0
    turn: int = 0
    path: str = ""
    body: Generator[Any, Any, Any] = field(init=False)
    turns: int = 0
    listed: bool = False
    drafts: list[Draft | None] = field(default_factory=list)
    given: list[Draft] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.body = _body(self)

    @property
    def name(self) -> str:
        """The name of the stage that it runs."""
        return self.chain[0].name

    @property
    def wanted(self) -> bool:
        """Whether the program that asked for it still waits for it."""
        parent = self.parent
        if parent is None or self.run.ended:
            return not self.run.ended
        waits = parent.turns == self.turn and bool(parent.drafts) and parent.drafts[self.place] is None
        return waits and parent.wanted

    def child(self, request: Request, place: int) -> StageCall:
        """What it asks for at a place of this turn's list."""
        path = f"{self.path}/{self.turns}.{place}"
        inner = inherited(request, self.request)
        return StageCall(self.run, inner, self.chain[1:], self, place, self.turns, path)

    def tail(self, request: Request) -> StageCall:
        """The request that it returns in place of an answer."""
        path = f"{self.path}>{self.turns}" if self.turns else self.path
        inner = inherited(request, self.request)
        return StageCall(self.run, inner, self.chain[1:], self.parent, self.place, self.turn, path)


@dataclass(eq=False)
class Leaf:
    """A request that the models answer; `after` drafts had been given to the row's programs before.

    `completion` is the answer, once there is one; `redone` counts its spans that were written again.
    """

    call: StageCall
    after: int
    completion: Completion | None = None
    redone: int = 0

    @property
    def run(self) -> Run:
        return self.call.run

    @property
    def request(self) -> Request:
        return self.call.request

    @property
    def answer(self) -> Completion:
        """The answer, of a leaf that has one."""
        assert self.completion is not None
        return self.completion

    @property
    def streamed(self) -> bool:
        """Whether its answer is the row's, which the reader gets as it is drawn."""
        return self.call.parent is None

    @property
    def label(self) -> str:
        """What its draws are keyed by beside the seed: where in the row's programs it was asked."""
        return self.call.path + "".join(f"#{each}" for each in self.request.draw)


def _body(program: StageCall) -> Generator[Any, Any, Any]:
    """The stage's program; a stage that needs no drafts may be a plain function."""
    found = program.chain[0].answer(program.request)
    return (yield from found) if isinstance(found, Generator) else found


def reveals(request: Request, given: Request) -> bool:
    """Whether the LLM would read a prompt of which only another view was meant for it."""
    other = given.shown is not None and request.prompt != given.prompt
    return other and request.shown is None and not (request.slm_only or given.slm_only)


def inherited(request: Request, given: Request) -> Request:
    """What a stage asks for, at least as constrained as what it was given."""
    kept = request.shown is None and request.prompt == given.prompt and not request.slm_only
    return replace(
        request,
        shown=given.shown if kept else request.shown,
        slm_only=request.slm_only or given.slm_only,
        strength=min(request.strength, given.strength),
        never=_joined(given.never, request.never),
        checks=_joined(given.checks, request.checks),
        vault=request.vault if given.vault is None else given.vault,
        about=given.about,
    )


def _joined(given: tuple[Any, ...], asked: tuple[Any, ...]) -> tuple[Any, ...]:
    return (*given, *(each for each in asked if all(each is not other for other in given)))
