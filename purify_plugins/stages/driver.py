"""The driver: it runs every row's programs until each waits for answers that only the models can give.

A program is a stage's `answer` to one request. What it asks for goes through the stages after it; a request
that has passed them all is a `Leaf`, which the models answer. A program calls nothing, it only yields: so one
driver serves one answer, a stream, a batch and asyncio.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from purify_plugins.errors import PurifyError, RefusedError
from purify_plugins.stages.calls import Leaf, Run, StageCall, reveals
from purify_plugins.stages.checks import refusal_of, unquoted
from purify_plugins.stages.request import Request
from purify_plugins.stages.stage import Draft


class Driver:
    """Advances programs. `leaves` wait for the models; `ended` are the rows that need no more of them.

    A row ends with a draft, which is released, or with the error that refuses it; a leaf that is streamed
    ends its row too. Everything a program does wrong is a refusal of its row.
    """

    def __init__(self) -> None:
        self.leaves: list[Leaf] = []
        self.ended: list[tuple[Run, Draft | PurifyError]] = []

    def start(self, program: StageCall) -> None:
        """Answer a program's request: by its first stage, or by the models."""
        if program.chain:
            if not program.run.begin(program):
                self.end(program.run, _too_many(program.run.options.calls, "drafts", "calls"))
            else:
                self._advance(program, lambda: next(program.body))
        elif program.parent is None or self._counted(program):
            leaf = Leaf(program, len(program.run.given))
            program.run.asked.append(leaf)
            self.leaves.append(leaf)

    def answered(self, leaf: Leaf, draft: Draft) -> None:
        """Give a leaf's answer to the program that waits for it."""
        run = leaf.run
        run.tokens += len(draft.steps)
        if run.tokens > run.options.tokens:
            self.end(run, _too_many(run.options.tokens, "tokens of drafts", "tokens"))
        else:
            self._deliver(leaf.call, draft)

    def failed(self, program: StageCall, error: PurifyError) -> None:
        """Raise an error where the program's answer was asked for; what catches it nowhere ends the row."""
        parent = program.parent
        if parent is None:
            self.end(program.run, error)
        elif program.wanted:
            parent.drafts = []
            self._advance(parent, lambda: parent.body.throw(error), error)

    def end(self, run: Run, end: Draft | PurifyError) -> None:
        """End a row, once; its programs are closed."""
        if not run.ended:
            run.close()
            self.ended.append((run, end))

    def _counted(self, program: StageCall) -> bool:
        """Count a call of the row; refuse one too many."""
        run = program.run
        run.calls += 1
        if run.calls > run.options.calls:  # for good: a program could catch it, and go on asking
            self.end(run, _too_many(run.options.calls, "drafts", "calls"))
        return not run.ended

    def _advance(self, program: StageCall, step: Callable[[], Any], thrown: object = None) -> None:
        """Run a program up to its next yield, or to its end."""
        act: Callable[[], None]
        try:
            asked = step()
            act = lambda: self._asked(program, asked)  # noqa: E731
        except StopIteration as end:
            found = end.value
            act = lambda: self._returned(program, found)  # noqa: E731
        except PurifyError as error:
            self.failed(program, error if error is thrown else unquoted(error))
            return
        except Exception as error:
            refused = refusal_of(f"the stage {program.name}", error)
            act = lambda: self.failed(program, refused)  # noqa: E731  # later: not in the error's context
        try:
            if not program.request.intact:
                raise _broken(program, "changed a prompt in place; ask with request.asking(…)")
            act()
        except Exception as error:  # a request's parts are the stage's, and may be anything
            self.failed(program, refusal_of(f"what the stage {program.name} asks for", error))

    def _asked(self, program: StageCall, asked: Any) -> None:
        requests = [asked] if type(asked) is Request else asked
        if not isinstance(requests, list | tuple) or not all(type(each) is Request for each in requests):
            self.failed(program, _broken(program, f"yields Requests, or lists of them, not {_kind(asked)}"))
            return
        if any(reveals(each, program.request) for each in requests):
            self.failed(program, _broken(program, REVEALS))
            return
        program.turns += 1
        program.listed, program.drafts = requests is asked, [None] * len(requests)
        if requests:
            for child in [program.child(each, place) for place, each in enumerate(requests)]:
                if child.wanted:
                    self.start(child)
        elif self._counted(program):  # or it could ask for nothing for ever
            self._advance(program, lambda: program.body.send([]))

    def _returned(self, program: StageCall, value: Any) -> None:
        if type(value) is Request and reveals(value, program.request):
            self.failed(program, _broken(program, REVEALS))
        elif type(value) is Request:
            self.start(program.tail(value))
        elif any(value is each for each in program.given):
            self._deliver(program, value)
        else:
            what = "another request's draft" if isinstance(value, Draft) else _kind(value)
            self.failed(program, _broken(program, f"returns a Request, or a Draft it was given, not {what}"))

    def _deliver(self, program: StageCall, draft: Draft) -> None:
        parent = program.parent
        if parent is None:
            self.end(program.run, draft)
        elif program.wanted:
            parent.drafts[program.place] = draft.seen_from(parent.request)
            found = [each for each in parent.drafts if each is not None]
            if len(found) == len(parent.drafts):
                parent.given += found
                known = [each.completion for each in parent.run.given]
                parent.run.given += [each for each in found if all(each.completion is not k for k in known)]
                self._advance(parent, lambda: parent.body.send(found if parent.listed else found[0]))


REVEALS = "asks with another prompt, and not what the LLM is shown of it; say so with request.showing(…)"


def _kind(value: Any) -> str:
    return "nothing" if value is None else f"a value of type {type(value).__name__}"


def _broken(program: StageCall, what: str) -> RefusedError:
    return RefusedError(f"the stage {program.name} {what}")


def _too_many(most: int, what: str, key: str) -> RefusedError:
    return RefusedError(f"a request may have {most} {what}, and its stages ask for more; see [request] {key}")
