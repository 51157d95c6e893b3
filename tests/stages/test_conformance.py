"""The bundled stages, by the suite that plugin authors subclass; and stages that fail it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from purify_hooks.stages.allowance import Allowance
from purify_hooks.stages.cascade import Cascade
from purify_hooks.stages.decompose import Decompose
from purify_hooks.stages.ensemble import Ensemble
from purify_hooks.stages.never import Never
from purify_hooks.stages.rewrite import Rewrite
from purify_hooks.stages.verify import Verify
from purify_plugins.stages.request import Request
from purify_plugins.stages.stage import Answer, Stage
from purify_plugins.testing import StageConformance
from purify_plugins.types import Chat


class TestAllowance(StageConformance):
    @pytest.fixture(autouse=True)
    def _store(self, tmp_path: Path) -> None:
        self.store = str(tmp_path / "allowance.sqlite")

    def stage(self) -> Stage:
        return Allowance(1000, store=self.store)


class TestNever(StageConformance):
    def stage(self) -> Stage:
        return Never(texts=("a secret", "another"))


class TestCascade(StageConformance):
    def stage(self) -> Stage:
        return Cascade(0.5)


class TestDecompose(StageConformance):
    def stage(self) -> Stage:
        return Decompose(2)


class TestEnsemble(StageConformance):
    def stage(self) -> Stage:
        return Ensemble(2)


class TestRewrite(StageConformance):
    def stage(self) -> Stage:
        return Rewrite()


class TestVerify(StageConformance):
    def stage(self) -> Stage:
        return Verify(2)


@dataclass(frozen=True)
class Told(Stage):
    """Answers by a function of the request."""

    said: Callable[[Request], Any]

    def answer(self, request: Request) -> Answer:
        return self.said(request)  # type: ignore[no-any-return]  # whatever it is


@dataclass
class Melted(Stage):
    """Is not frozen."""

    def answer(self, request: Request) -> Request:
        return request


@dataclass(frozen=True)
class Shown(Stage):
    """Shows what it withholds."""

    withheld = ("texts",)
    texts: tuple[str, ...] = ("a secret",)

    def answer(self, request: Request) -> Request:
        return request

    def public(self) -> Any:
        return {"texts": list(self.texts)}


def changing(request: Request) -> Request:
    if isinstance(request.prompt, Chat):
        request.prompt.messages[0]["content"] = "another"  # type: ignore[index]  # on purpose
    return request


def for_ever(request: Request) -> Any:
    while True:
        yield request.alone()


def at_random(request: Request) -> Any:
    yield request.seeded(id(object()) + COUNTER.pop()).alone()
    return request


COUNTER = [*range(10)]


@pytest.mark.parametrize(
    ("stage", "test", "message"),
    [
        (Told(lambda request: "a text"), "answers_with_requests_and_drafts", "a value of type str"),
        (Told(lambda request: 1 / 0), "answers_with_requests_and_drafts", "ZeroDivisionError"),
        (Told(changing), "answers_with_requests_and_drafts", "changed a prompt in place"),
        (Told(at_random), "the_same_answers_lead_it_to_the_same_requests", "must depend on the request"),
        (Shown(), "what_is_withheld_is_not_written", "which is withheld"),
        (Melted(), "it_is_a_frozen_dataclass", "with frozen"),
    ],
)
def test_a_stage_that_breaks_its_contract_fails_the_suite(stage: Stage, test: str, message: str) -> None:
    class Suite(StageConformance):
        def stage(self) -> Stage:
            return stage

    [name] = [each for each in dir(Suite) if test in each]
    with pytest.raises(AssertionError, match=message):
        getattr(Suite(), name)()


def test_a_stage_that_asks_for_ever_fails_the_suite() -> None:
    class Suite(StageConformance):
        calls = 3

        def stage(self) -> Stage:
            return Told(for_ever)

    with pytest.raises(AssertionError, match="may have 3 drafts"):
        Suite().test_it_answers_with_requests_and_drafts_it_was_given()
