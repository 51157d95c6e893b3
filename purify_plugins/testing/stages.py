"""`CheckConformance` and `StageConformance`: what every check and every stage must do. Needs Hypothesis."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import is_dataclass, replace
from itertools import pairwise
from typing import TYPE_CHECKING, Any, NamedTuple, cast

from purify_plugins.canonical_json import canonical
from purify_plugins.errors import PurifyError, RefusedError
from purify_plugins.sampling import Sampling
from purify_plugins.stages.calls import Run, StageCall
from purify_plugins.stages.checks import Blocked, Check
from purify_plugins.stages.driver import Driver
from purify_plugins.stages.options import RequestOptions
from purify_plugins.stages.release import Release
from purify_plugins.stages.request import Request
from purify_plugins.stages.stage import Draft, Stage
from purify_plugins.testing.toys import ToySource, byte_vocabulary
from purify_plugins.types import Chat, Piece, Prompt, Token

if TYPE_CHECKING:
    from hypothesis.strategies import SearchStrategy


class Verdict(NamedTuple):
    """What a check says of a text: how much is clear, or where it is blocked and for which refusal."""

    clear: int
    blocked: bool = False
    key: str = ""


def verdict(check: Check, text: str, last: bool = False) -> Verdict:
    """A check's word on a text."""
    try:
        return Verdict(check.clear(text, last))
    except Blocked as found:
        return Verdict(found.start, True, found.key)


class CheckConformance:
    """What every check must do; subclass it, and return yours from `check`.

    `parts` are the texts that test texts are made of: give some that are blocked, alone or together, and
    pieces of these. `most` is how many parts a text has at most; Hypothesis' settings say how many are tried.
    """

    parts: Sequence[str] = ("a", "b", "ab", " ", "\n", "é", "🐤")
    most: int = 12

    def check(self) -> Check:
        """The check under test."""
        raise NotImplementedError("return your check from `check`")

    def _texts(self) -> SearchStrategy[str]:
        from hypothesis import strategies as st

        return st.lists(st.sampled_from(list(self.parts)), max_size=self.most).map("".join)

    def _for_each(self, judge: Callable[..., None], *drawn: SearchStrategy[Any]) -> None:
        """Run `judge` over texts, and over what else is drawn."""
        from hypothesis import given, settings

        tried = settings(deadline=None, report_multiple_bugs=False)(given(self._texts(), *drawn)(judge))
        cast("Callable[[], None]", tried)()

    def _alone(self, text: str, last: bool = False) -> Verdict:
        return verdict(self.check().fresh(), text, last)

    def test_it_names_itself_its_window_and_its_redos(self) -> None:
        check = self.check()
        assert isinstance(check.name, str), "give it a `name`, which refusals and certificates have"
        assert check.name, "give it a `name`, which refusals and certificates have"
        assert check.window >= 0, "`window` is a number of characters, math.inf for the whole answer"
        assert type(check.redo) is int, "`redo` is a number of times, 0 or more"
        assert check.redo >= 0, "`redo` is a number of times, 0 or more"

    def test_what_it_judged_can_be_written_in_a_certificate(self) -> None:
        def judge(text: str) -> None:
            check = self.check().fresh()
            verdict(check, text, last=True)
            assert canonical(check.judged()), "`judged` is JSON: numbers, texts, lists and tables of these"

        self._for_each(judge)

    def test_it_depends_on_the_text_and_not_on_its_cutting(self) -> None:
        from hypothesis import strategies as st

        def judge(text: str, cuts: list[int]) -> None:
            check = self.check().fresh()
            for end in sorted({min(cut, len(text)) for cut in cuts} | {len(text)}):
                found = verdict(check, text[:end])
                assert found == self._alone(text[:end]), (
                    f"of {text[:end]!r} it says another thing when it has judged beginnings of it before"
                )
            assert verdict(check, text, last=True) == self._alone(text, last=True)

        self._for_each(judge, st.lists(st.integers(0, 40), max_size=6))

    def test_a_text_may_go_on_from_an_earlier_beginning(self) -> None:
        """After a block the text goes on otherwise, and what was judged after that place does not count."""
        from hypothesis import strategies as st

        def judge(text: str, other: str, kept: int) -> None:
            check = self.check().fresh()
            verdict(check, text)
            text = text[: min(kept, len(text))] + other
            assert verdict(check, text) == self._alone(text), f"it still judges a text that {text!r} replaced"

        self._for_each(judge, self._texts(), st.integers(0, 40))

    def test_nothing_of_a_blocked_span_was_clear_in_any_beginning(self) -> None:
        def judge(text: str) -> None:
            for last in (False, True):
                found = self._alone(text, last)
                for end in range(len(text) + 1) if found.blocked else ():
                    before = self._alone(text[:end])
                    assert before.clear <= found.clear, (
                        f"{text!r} is blocked from character {found.clear} on, and of {text[:end]!r} "
                        f"{before.clear} were clear"
                    )

        self._for_each(judge)

    def test_no_more_than_its_window_is_held(self) -> None:
        def judge(text: str) -> None:
            check = self.check()
            for end in range(len(text) + 1):
                found = verdict(check.fresh(), text[:end])
                held = end - found.clear
                assert found.blocked or 0 <= held <= check.window, (
                    f"of {text[:end]!r} it holds {held} characters, and its window is {check.window}"
                )

        self._for_each(judge)

    def test_what_is_clear_stays_clear_and_what_is_blocked_stays_blocked(self) -> None:
        def judge(text: str) -> None:
            found = [self._alone(text[:end]) for end in range(len(text) + 1)]
            for end, (before, after) in enumerate(pairwise(found)):
                if before.blocked:
                    assert after == before, f"{text[:end]!r} is blocked, and {text[: end + 1]!r} otherwise"
                assert after.clear >= before.clear, f"{text[: end + 1]!r} takes back what was clear before it"

        self._for_each(judge)

    def test_a_whole_answer_is_clear_or_blocked(self) -> None:
        def judge(text: str) -> None:
            found = self._alone(text, last=True)
            if found.blocked:
                assert 0 <= found.clear <= len(text), "a block starts inside the text"
            else:
                assert found.clear == len(text), f"of the whole answer {text!r} it holds some back"

        self._for_each(judge)

    def test_answers_do_not_share_what_it_remembers(self) -> None:
        def judge(text: str, other: str) -> None:
            check = self.check()
            one, two = check.fresh(), check.fresh()
            verdict(one, text)
            assert verdict(two, other) == self._alone(other), "`fresh` shares what one answer's text changed"

        self._for_each(judge, self._texts())

    def test_what_is_released_is_the_same_however_the_answer_was_cut(self) -> None:
        from hypothesis import strategies as st

        def judge(text: str, cuts: list[int]) -> None:
            places = sorted(min(cut, len(text)) for cut in cuts)
            ends = [*zip([0, *places], [*places, len(text)], strict=True)]
            token = Token(0, 0.0, 0.0, 0.0, 0.0, 0.0)
            pieces = [Piece(token._replace(id=at), text[a:b]) for at, (a, b) in enumerate(ends)]
            letters = [Piece(token._replace(id=at), each) for at, each in enumerate(text)]
            found = [_released(self.check(), each) for each in (pieces, letters)]
            assert found[0] == found[1], (
                f"{text!r} cut at {places} is released otherwise than letter by letter"
            )

        self._for_each(judge, st.lists(st.integers(0, 40), max_size=6))


def _released(check: Check, pieces: Sequence[Piece]) -> tuple[str, str]:
    """What is released of an answer, and the key of the block that ended it."""
    release = Release([check])
    try:
        for piece in pieces:
            release.feed([piece])
            if release.block:
                break
        if not release.block:
            release.feed((), last=True)
    except RefusedError as error:
        raise AssertionError(str(error)) from error
    if release.block:
        release.refuse(release.block.key, "")
    return release.text, release.block.key if release.block else ""


class StageConformance:
    """What every stage must do; subclass it, and return yours from `stage`.

    `prompts` are what it is asked; two toy models answer what it asks for, at most `calls` drafts of each.
    """

    prompts: Sequence[Prompt] = (
        "Which is it?\nA) one\nB) two",
        Chat(({"role": "user", "content": "Tell me a story."},)),
    )
    calls: int = 64

    def stage(self) -> Stage:
        """The stage under test."""
        raise NotImplementedError("return your stage from `stage`")

    def test_it_is_a_frozen_dataclass_whose_fields_are_its_options(self) -> None:
        kind = cast("Any", type(self.stage()))
        assert is_dataclass(kind), f"put @dataclass(frozen=True) above {kind.__name__}"
        assert cast("Any", kind).__dataclass_params__.frozen, "write @dataclass(frozen=True), with frozen"
        assert self.stage() == self.stage(), "two stages of the same options must be equal"

    def test_its_options_can_be_written_in_a_certificate(self) -> None:
        written = canonical(self.stage().public())
        assert written, "options are numbers, texts, lists and tables of these"

    def test_what_is_withheld_is_not_written_in_a_certificate(self) -> None:
        stage = self.stage()
        written = canonical(stage.public())
        for name in stage.withheld:
            for each in vars(stage)[name]:
                assert len(each) < 3 or each not in written, f"`public` shows {name!r}, which is withheld"

    def test_it_answers_with_requests_and_drafts_it_was_given(self) -> None:
        for prompt in self.prompts:
            Asking(self.stage(), Request(prompt, Sampling(max_tokens=8, seed=1))).run(self.calls)

    def test_the_same_answers_lead_it_to_the_same_requests(self) -> None:
        for prompt in self.prompts:
            one, two = (
                Asking(self.stage(), Request(prompt, Sampling(max_tokens=8, seed=1))) for _ in range(2)
            )
            one.run(self.calls)
            two.run(self.calls)
            assert one.asked == two.asked, "what it asks for must depend on the request and the drafts alone"

    def test_it_can_be_closed_while_it_waits_for_a_draft(self) -> None:
        for prompt in self.prompts:
            Asking(self.stage(), Request(prompt, Sampling(max_tokens=8, seed=1))).run(self.calls, closed=True)


class Asking:
    """A stage run by the driver for one request; two toy models answer what it asks for (`asked`)."""

    def __init__(self, stage: Stage, request: Request) -> None:
        self.stage, self.request = stage, request
        self.asked: list[tuple[Prompt, bool, tuple[int, ...]]] = []

    def run(self, calls: int, closed: bool = False) -> None:
        """Run it to its end, or, `closed`, up to its first question; fails where the driver refuses it."""
        driver, run = Driver(), Run(0, RequestOptions(calls=calls, tokens=10**6))
        driver.start(StageCall(run, self.request, (self.stage,)))
        while driver.leaves and not closed:
            leaf = driver.leaves.pop(0)
            if leaf.streamed:
                break
            asked = leaf.request
            self.asked.append((asked.prompt, asked.slm_only, asked.draw))
            driver.answered(leaf, _answered(asked, leaf.label))
        run.close()
        for _, end in driver.ended:
            broken = isinstance(end, PurifyError) and str(end).startswith(
                ("the stage ", "a request may have ")
            )
            assert not broken, f"the driver refuses what it does: {end}"


def _answered(request: Request, label: str) -> Draft:
    """A toy's answer to a request, keyed by where it was asked."""
    from purify_plugins.purifier import Purifier

    seed = int.from_bytes(hashlib.sha256(label.encode()).digest()[:4], "big")
    slm = ToySource(byte_vocabulary(), 2)
    llm = slm if request.slm_only else ToySource(byte_vocabulary(), 1)
    sampling = replace(request.sampling, seed=seed, max_tokens=min(request.sampling.max_tokens, 8))
    [answer] = Purifier.load(llm, slm, "geometric").generate([request.prompt], sampling, errors="raise")
    return Draft(request, answer)
