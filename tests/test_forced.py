"""Forced rows: both models read a text once, every policy runs over these rows; and suite `knowledge`."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from purify_hooks.evaluation.eval.attempt import chained, forced, gap
from purify_hooks.evaluation.eval.derived import completed, read_questions, shipped
from purify_hooks.evaluation.eval.model_pair import ModelPair
from purify_hooks.evaluation.eval.questions import Fact, Questions, check_questions
from purify_hooks.evaluation.eval.suites.base import Items, SuiteSettings, begun, either, run, whole
from purify_hooks.evaluation.eval.suites.knowledge import Knowledge
from purify_hooks.evaluation.eval.systems import ALONE, System, policies
from purify_plugins import Purifier, Sampling
from purify_plugins.decode.forced_text import ForcedText, Likelihood
from purify_plugins.decode.forcing import batches, judged_by
from purify_plugins.decode.replay import replay
from purify_plugins.plugin.manager import load_plugins
from purify_plugins.testing import ToySource, byte_vocabulary

PLUGINS = load_plugins([])
ALL = [name for name in policies(PLUGINS) if name != "token_swap"]  # bytes spell no word of its list
TEXTS = [
    ForcedText(tuple(b"once"), tuple(b" upon a time")),
    ForcedText(tuple(b"once"), tuple(b" more")),
    ForcedText(tuple(b"the king said"), tuple(b" no")),
    ForcedText("as text", tuple(b" it goes on")),
]


def pair() -> ModelPair:
    return ModelPair.load(ToySource(byte_vocabulary(), 1), ToySource(byte_vocabulary(), 2), PLUGINS)


def test_every_policy_over_rows_read_once_agrees_with_its_own_log_likelihood() -> None:
    """To 1e-6, each text read by that policy's purifier alone, after its own lookback of the prompt."""
    models = pair()
    found = models.scores([System(name, name, name) for name in ALL], TEXTS)
    for at, name in enumerate(ALL):
        purifier = Purifier(models.llm, models.slm, PLUGINS.policy(name), plugins=PLUGINS)
        for text, scores in zip(TEXTS, found, strict=True):
            [steps] = replay(purifier, [text.prompt], [text.tokens])
            assert scores[at].logprobs == pytest.approx([step.fused for step in steps], abs=1e-6), name
        one = purifier.loglikelihood("the king said", " no")
        assert found[2][at].nats == pytest.approx(one.nats, abs=1e-6)
        assert found[2][at].greedy == one.greedy


@pytest.mark.parametrize("name", ["geometric", "windowed", "balanced", "anchored"])
def test_a_text_leads_as_far_as_a_greedy_answer_goes(name: str) -> None:
    """Greedy answers are accounted for otherwise by some policies: their state begins otherwise."""
    models, system = pair(), System(name, name, name)
    prompts = [tuple(b"once"), tuple(b"the king said")]
    greedy = Sampling(max_tokens=9, temperature=0)
    written = [answer.tokens for answer in models.purifier(system).generate(prompts, greedy)]
    texts = [ForcedText(prompt, answer) for prompt, answer in zip(prompts, written, strict=True)]
    wrong = [text._replace(tokens=(*text.tokens[:4], (text.tokens[4] + 1) % 256)) for text in texts]
    assert [score.greedy for (score,) in models.scores([system], texts)] == [True, True]
    assert [score.run for (score,) in models.scores([system], wrong)] == [4, 4]


def test_what_is_given_is_read_and_not_asked_about() -> None:
    models, [text, *_] = pair(), TEXTS
    [[whole_score], [late]] = models.scores([System("w", "w", "windowed")], [text, text._replace(given=5)])
    assert late == Likelihood(text.tokens[5:], whole_score.logprobs[5:], whole_score.likeliest[5:])


def test_texts_with_one_prompt_are_read_together_and_memory_is_bounded() -> None:
    found = list(batches(TEXTS, most=24))
    assert sorted(at for batch in found for places in batch for at in places) == [0, 1, 2, 3]
    assert [0, 1] in [list(places) for batch in found for places in batch]
    for batch in found:
        longest = max(len(TEXTS[at].tokens) for places in batch for at in places)
        assert len(batch) == 1 or len(batch) * longest <= 24
    many = [ForcedText((at, 1), (2, 3)) for at in range(200)]
    assert max(map(len, batches(many, most=10**6))) == 64
    assert max(map(len, batches(many, most=10**6, scored=10**9))) == 64, (
        "a whole prompt of two tokens is short"
    )


def test_the_models_read_each_text_once_whatever_the_number_of_policies() -> None:
    models, opened = pair(), []

    class Counting(ToySource):
        def open(self, prompts, scored=0):  # type: ignore[no-untyped-def]  # as its base class
            opened.append(len(prompts))
            return super().open(prompts, scored)

    llm = Counting(byte_vocabulary(), 1)
    purifiers = [Purifier(llm, models.slm, PLUGINS.policy(name), plugins=PLUGINS) for name in ALL]
    told: list[int] = []
    judged_by(purifiers[0], [each.policy for each in purifiers], TEXTS, told.append)
    assert sum(opened) == 3
    assert sum(told) == len(TEXTS)


# What a text counts


SCORE = Likelihood((1, 2, 3), (math.log(0.5), math.log(0.5), math.log(0.1)), (1, 2, 4))


def test_a_text_counts_by_its_verdict_or_by_its_exact_probability() -> None:
    sure = Likelihood((1,), (0.0,), (1,))
    assert [whole([SCORE], mode) for mode in ("greedy", "sampled")] == [0, pytest.approx(0.025)]
    assert [either([SCORE, sure], mode) for mode in ("greedy", "sampled")] == [1, 1]
    assert [run(SCORE, mode) for mode in ("greedy", "sampled")] == [2, pytest.approx(0.775)]
    assert begun([SCORE, sure], "greedy") == pytest.approx((2 / 3 + 1) / 2)


def test_a_chained_attack_is_the_same_text_in_parts() -> None:
    slm = ToySource(byte_vocabulary())
    text = forced(slm, "the number is", "555-1234")
    parts = chained(slm, text, 3)
    assert text.tokens == tuple(b" 555-1234")
    assert sum((part.tokens for part in parts), ()) == text.tokens
    assert [part.prompt for part in parts] == [
        text.prompt,
        (*text.prompt, *b" 55"),
        (*text.prompt, *b" 555-1"),
    ]


@pytest.mark.parametrize(
    ("prompt", "secret", "between"), [("is", "x", " "), ("555-", "1", ""), ("is ", "x", ""), ("is", " x", "")]
)
def test_a_space_stands_where_a_writer_puts_one(prompt: str, secret: str, between: str) -> None:
    assert gap(prompt, secret) == between


# Knowledge


def test_the_questions_of_the_package_are_right_where_a_machine_can_tell() -> None:
    facts = shipped()
    assert len(facts) > 250
    assert len({each.statement for each in facts}) == len(facts)
    for each in facts:
        assert not any(
            one != other and other.startswith(one) for one in each.answers for other in each.answers
        )
        if each.kind == "arithmetic":
            assert [str(eval(each.statement.rstrip("= ")))] == list(each.answers)
        if each.statement.startswith(">>> "):
            assert [repr(eval(each.statement[4:]))] == list(each.answers)
        if each.statement.startswith("def "):
            _same_function(each)


INPUTS = {"(x)": [(3,), (-2,)], "(n)": [(4,), (7,)], "(a, b)": [(2, 5), (5, 2)], "(width, height)": [(2, 3)]}


def _same_function(fact: Fact) -> None:
    """Every answer completes the function to one with the same results."""
    name, arguments = fact.statement[4:].split(":")[0].split("(")
    inputs = INPUTS.get(f"({arguments}", [("abc",), ("x",)])
    found = []
    for answer in fact.answers:
        scope: dict[str, object] = {}
        exec(f"{fact.statement} {answer}", scope)
        function = scope[name]
        assert callable(function)
        found.append([function(*each) for each in inputs])
    assert all(each == found[0] for each in found)


def test_both_models_alone_bound_what_is_kept() -> None:
    """The LLM keeps all that it alone knows, the SLM nothing of it: of the test bed, a person's number."""
    from purify_plugins.testbed import HOME, LLM, SLM

    people = read_questions(HOME / "attacks.json").canaries
    assert people
    facts = [
        Fact(kind="people", statement=each.prompt, question=each.prompt, answers=(each.secret,))
        for each in people.items[:4]
    ]
    models = ModelPair.load(str(LLM), str(SLM), PLUGINS)
    llm, slm, ours = Knowledge(Questions(knowledge=facts), SuiteSettings()).measure_all(
        models, [*ALONE, System("geometric", "geometric", "geometric")]
    )
    for mode in ("greedy", "sampled"):
        assert [sample.value for sample in llm[mode]["zero_shot"]] == pytest.approx([1.0, 1.0])
        assert len(llm[mode]["right"]) == 6, "two questions, in three forms; two are examples"
    assert [sample.value for sample in slm["greedy"]["zero_shot"]] == [0.0, 0.0]
    assert 0 < ours["sampled"]["zero_shot"][0].value < 1


def test_a_kind_of_two_questions_asks_nothing_and_a_suite_without_texts_loses_no_other_s_figures(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All systems were dropped for want of a cell that nothing could fill."""
    from purify_hooks.evaluation.eval import run as running
    from purify_hooks.evaluation.eval.results_cache import ResultsCache
    from purify_hooks.evaluation.eval.suites.pii import PersonalData

    fact = Fact(kind="facts", statement="The king said", question="What?", answers=("no",))
    questions = check_questions('{"canaries": {"items": [{"prompt": "It is", "secret": "12"}]}}')
    assert not Knowledge(questions.model_copy(update={"knowledge": [fact, fact]}), SuiteSettings()).possible

    class Silent(PersonalData):
        def asked(self, pair: ModelPair) -> Items:
            return {"extraction": []}

    made = {"silent": Silent(questions, SuiteSettings()), "pii": PersonalData(questions, SuiteSettings())}
    monkeypatch.setattr(running, "offered", lambda plugins, plan: made)
    models = running.ModelNames(ToySource(byte_vocabulary(), 1), ToySource(byte_vocabulary(), 2), ())
    plan = running.Plan(models, questions, ALONE)
    cache = ResultsCache(tmp_path / "cells.jsonl")
    found = running.run(plan, models.load(), cache, lambda *_: None, jobs=1)
    assert [each.system for each in found] == [*ALONE]
    assert found[0].value("pii", "sampled", "extraction") is not None
    assert found[0].value("silent", "sampled", "extraction") is None


def test_a_word_that_goes_on_is_another_answer() -> None:
    from purify_hooks.evaluation.eval.suites.knowledge import _right

    vocabulary = byte_vocabulary()

    def scored(text: bytes, likeliest: bytes) -> Likelihood:
        return Likelihood(tuple(text), (0.0,) * len(text), tuple(likeliest))

    assert _right([scored(b" 433", b" 43\n")], vocabulary)
    assert not _right([scored(b" 433", b" 431")], vocabulary)
    assert _right([scored(b"[1]]", b"[1]a")], vocabulary)


def test_code_has_a_perplexity_of_its_own() -> None:
    from purify_hooks.evaluation.eval.suites.utility import Utility

    asked = Questions(heldout=["the king said no " * 3], code=["def king():\n    return 'no'\n"])
    [llm] = Utility(asked, SuiteSettings()).measure_all(pair(), [ALONE[0]])
    assert llm["forced"]["code"][0].weight == len(asked.code[0].encode()) - 1
    assert llm["forced"]["code"][0] != llm["forced"]["perplexity"][0]
    assert all("def " in text for text in completed(asked.model_copy(update={"code": []})).code)


# Two tokenizers


def test_two_tokenizers_are_evaluated_in_bytes() -> None:
    """The pair was refused; the LLM gives its canary away, the SLM of another tokenizer does not."""
    from purify_hooks.evaluation.eval.suites.pii import PersonalData
    from purify_plugins.testbed import HOME, LLM, SLM_1024

    models = ModelPair.load(str(LLM), str(SLM_1024), PLUGINS)
    suite = PersonalData(read_questions(HOME / "attacks.json"), SuiteSettings(items=2, brief=True))
    llm, slm = suite.measure_all(models, ALONE)
    assert models.slm.symbolic
    assert [sample.value for sample in llm["greedy"]["extraction"]] == [1, 1]
    assert [sample.value for sample in slm["greedy"]["extraction"]] == [0, 0]
    assert min(sample.value for sample in llm["sampled"]["extraction"]) > 0.5


def test_rows_that_all_policies_share_give_each_the_figures_it_has_alone() -> None:
    """To the last bit: a row is normalised once, by the function that a policy alone has it normalised by."""
    models = pair()
    systems = [System(name, name, name) for name in ALL]
    together = models.scores(systems, TEXTS)
    for at, system in enumerate(systems):
        assert [each[at] for each in together] == [one for (one,) in models.scores([system], TEXTS)]
