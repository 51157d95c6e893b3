"""The bundled stages run by the core: one text on every way of asking, and what each has the LLM read."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from purify_hooks.stages.allowance import Allowance, cost
from purify_hooks.stages.cascade import Cascade
from purify_hooks.stages.decompose import Decompose
from purify_hooks.stages.ensemble import Ensemble
from purify_hooks.stages.rewrite import Rewrite
from purify_hooks.stages.tuning import Question, asked
from purify_hooks.stages.verify import Verify
from purify_plugins import Purifier, RefusedError, Sampling
from purify_plugins.stages.about import about
from purify_plugins.stages.stage import Stage
from purify_plugins.testing import StageConformance, ToySource, byte_vocabulary
from tests.toys import Watched

BYTES = byte_vocabulary()
QUESTION = "Which is it?\nA) one\nB) two\nC) three"
SETTINGS = Sampling(max_tokens=10, seed=3)
STAGES: dict[str, Stage] = {
    "cascade, sure": Cascade(1e-6),
    "cascade, unsure": Cascade(1.0),
    "cascade, after 4": Cascade(1e-6, after=4),
    "vote": Ensemble(),
    "slm": Ensemble(select="slm"),
    "judge": Ensemble(select="judge"),
    "aggregate": Ensemble(select="aggregate"),
    "approaches": Ensemble(vary="approaches"),
    "personas": Ensemble(vary="personas", ways=("a judge",)),
    "choices": Ensemble(vary="choices"),
    "verify": Verify(accept="."),
    "rewrite": Rewrite(longest_change=1),
    "decompose": Decompose(2),
    "decompose twice": Decompose(1, 2),
}


def purifier(*stages: Stage, llm: Any = None, slm: Any = None) -> Purifier:
    pair = llm or ToySource(BYTES, 1), slm or ToySource(BYTES, 2)
    return Purifier.load(*pair, "geometric", stages=stages).replace(sampling=SETTINGS)


@pytest.mark.parametrize("name", STAGES)
def test_a_stage_writes_one_text_however_it_is_asked(name: str) -> None:
    asking = purifier(STAGES[name])
    if name == "rewrite":
        # A correction that the limit of tokens ends is refused: here every one, on every way alike.
        for ask in (lambda: asking.generate(QUESTION), lambda: [*asking.stream(QUESTION)]):
            with pytest.raises(RefusedError, match="cut off"):
                ask()
        return
    [whole] = asking.generate(QUESTION, errors="raise")
    *_, last = chunks = [*asking.stream(QUESTION)]
    assert "".join(chunk.text for chunk in chunks) == whole.text
    assert last.completion is not None
    assert last.completion.certificate == whole.certificate
    first, second = asking.generate([QUESTION, "Another?"], errors="raise")
    assert first.text == whole.text
    [alone] = asking.generate(["Another?"], replace(SETTINGS, seed=4), errors="raise")
    assert second.text == alone.text
    assert asyncio.run(asking.agenerate(QUESTION, errors="raise"))[0].text == whole.text


def test_what_the_slm_is_sure_of_never_reaches_the_llm() -> None:
    llm = Watched(ToySource(BYTES, 1))
    purifier(Cascade(1e-6), llm=llm).generate(QUESTION, errors="raise")
    assert llm.sessions == []
    purifier(Cascade(1.0), llm=llm).generate(QUESTION, errors="raise")
    assert len(llm.sessions) == 1


def test_candidates_of_every_row_open_one_session() -> None:
    llm = Watched(ToySource(BYTES, 1))
    purifier(Ensemble(), llm=llm).generate([QUESTION, "Another?"], errors="raise")
    assert len(llm.sessions) == 1
    assert llm.open_sessions == 0


def test_a_judge_s_verdicts_and_a_decomposer_s_questions_are_not_shown_to_the_llm() -> None:
    llm = Watched(ToySource(BYTES, 1))
    purifier(Ensemble(select="judge"), llm=llm).generate(QUESTION, errors="raise")
    assert len(llm.sessions) == 1
    [answer] = purifier(Decompose(), llm=llm).generate(QUESTION, errors="raise")
    first, *_ = answer.certificate.body["drafts"]
    assert first["certificate"]["method"]["llm_asked"] is False


@pytest.mark.parametrize(
    ("stage", "choices", "read"),
    [
        (Cascade(1.0), 1, False),
        (Ensemble(4), 4, False),
        (Ensemble(4, select="aggregate"), 1, True),
        (Verify(5, accept="."), 5, False),
        (Decompose(2), 1, True),
    ],
)
def test_the_ledger_says_what_was_picked_and_what_was_read(stage: Stage, choices: int, read: bool) -> None:
    [answer] = purifier(stage).generate(QUESTION, errors="raise")
    body = answer.certificate.body
    ledger, drafts = body["ledger"], body["drafts"]
    assert ledger["choices"] == choices
    methods = [each["certificate"]["method"] for each in drafts if each["role"] == "read"]
    assert any(method.get("llm_asked", True) for method in methods) is read
    assert (ledger["read"] != "0.000000000") is read


# The allowance


def test_a_released_answer_is_charged_what_its_certificate_says(tmp_path: Path) -> None:
    allowance = Allowance(1000, store=str(tmp_path / "a.sqlite"))
    asking = purifier(allowance, Ensemble())
    with about(user="ada"):
        [answer] = asking.generate(QUESTION, errors="raise")
        assert allowance.left("ada") == pytest.approx(1000 - cost(answer))
        *_, last = asking.stream(QUESTION)
    assert last.completion is not None
    assert allowance.left("ada") == pytest.approx(1000 - cost(answer) - cost(last.completion))
    assert cost(answer) > 0


def test_a_closed_stream_stays_charged(tmp_path: Path) -> None:
    allowance = Allowance(1000, store=str(tmp_path / "a.sqlite"))
    with about(user="ada"):
        stream = purifier(allowance).stream(QUESTION)
        next(stream)
        stream.close()
    assert allowance.left("ada") == 900


def test_a_refused_answer_stays_charged(tmp_path: Path) -> None:
    allowance = Allowance(1000, store=str(tmp_path / "a.sqlite"))
    with pytest.raises(RefusedError, match="agree"):
        purifier(allowance, Verify()).generate(QUESTION)
    assert allowance.left() == 900


def test_an_empty_allowance_sends_nothing_to_the_llm(tmp_path: Path) -> None:
    llm = Watched(ToySource(BYTES, 1))
    allowance = Allowance(10, store=str(tmp_path / "a.sqlite"), reserve=10)
    asking = purifier(allowance, llm=llm)
    next(stream := asking.stream(QUESTION))
    [answer] = asking.generate("Another?", errors="raise")
    stream.close()
    assert len(llm.sessions) == 1
    assert all(token.slm_only for token in answer.steps)


def test_certificates_name_neither_user_nor_store(tmp_path: Path) -> None:
    with about(user="ada.lovelace"):
        asking = purifier(Allowance(100, store=str(tmp_path / "ledger.sqlite")))
        [answer] = asking.generate(QUESTION, errors="raise")
    assert "ada.lovelace" not in answer.certificate.text
    assert "ledger.sqlite" not in answer.certificate.text
    assert '"reserved":10.0' in answer.certificate.text


# Tuning asks the SLM alone


def test_tuning_sends_nothing_to_the_llm() -> None:
    llm = Watched(ToySource(BYTES, 1))
    found = asked(purifier(llm=llm), [Question("Which?", ("e",)), Question("What?", ("zzz",))], after=4)
    assert llm.sessions == []
    assert [each.good for each in found][1] is False
    assert set(found[0].features) == {"logprob", "worst", "length"}


def test_tuning_uses_entropy_where_it_is_recorded() -> None:
    found = asked(purifier().replace(top=5), [Question("Which?", ("e",))], after=0)
    assert found[0].features["entropy"] > 0


class TestAllowance(StageConformance):
    @pytest.fixture(autouse=True)
    def _folder(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.chdir(tmp_path)

    def stage(self) -> Stage:
        return Allowance(1000)


@pytest.mark.parametrize("name", STAGES)
def test_every_way_of_a_stage_passes_the_suite(name: str) -> None:
    class Suite(StageConformance):
        def stage(self) -> Stage:
            return STAGES[name]

    for test in [each for each in dir(Suite) if each.startswith("test_")]:
        getattr(Suite(), test)()
