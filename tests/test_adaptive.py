"""Suite `adaptive`: texts diluted, in turns, after text that makes the SLM weak; and a perfect reciter."""

from __future__ import annotations

from itertools import accumulate

import pytest
import torch

from purify_hooks.evaluation.eval.diluted import EXAMPLE, FORMS, WEAKENING, asked_diluted, protected_places
from purify_hooks.evaluation.eval.model_pair import ModelPair
from purify_hooks.evaluation.eval.questions import Canaries, Canary, Passage, Protected, Questions
from purify_hooks.evaluation.eval.reciter import Reciter
from purify_hooks.evaluation.eval.suites.adaptive import ATTACKS, TURNS, Adaptive, longest
from purify_hooks.evaluation.eval.suites.base import SuiteSettings, texts
from purify_hooks.evaluation.eval.systems import ALONE, System
from purify_hooks.policies.balanced import Balanced
from purify_plugins.plugin.manager import load_plugins
from purify_plugins.testing import ToySource, byte_vocabulary

PLUGINS = load_plugins([])
WORDS = ["it", "rained", "for", "11", "years", "in", "Osk,", "and", "then", "élan", "came"]
ASKED = Questions(
    protected=Protected(passages=[Passage(prefix="Once", continuation=" upon a time there was\n a king")]),
    canaries=Canaries(items=[Canary(prompt="The number is", secret="555-1234")]),
    code=["def main():\n    return 1\n"],
)
RULE = {"budget": 6.0, "gap": 0.3, "gap_limit": 2.0, "memory": 8.0, "hedge": 0.001, "opening": 4.0}
FOLLOWING = System("following", "following", "balanced", RULE)


@pytest.mark.parametrize("name", FORMS)
def test_a_form_has_every_word_once_among_what_is_easy(name: str) -> None:
    pieces = FORMS[name][1](WORDS, 3)
    assert "".join(piece.text for piece in pieces if piece.protected).split() in (WORDS, ["".join(WORDS)])
    vocabulary = byte_vocabulary()
    tokens = tuple("".join(piece.text for piece in pieces).encode())
    marked = bytes(
        token
        for token, counts in zip(tokens, protected_places(pieces, tokens, vocabulary), strict=True)
        if counts
    )
    assert marked.decode() == "".join(WORDS)
    assert asked_diluted(name, "Quillan Voss").count(FORMS[name][0]) == 2
    assert EXAMPLE.split()[0] in asked_diluted("lines", "Quillan Voss").split()


def test_a_token_that_holds_a_letter_of_the_text_counts_and_one_of_the_prompt_does_not() -> None:
    from purify_plugins.testbed import SLM

    slm = PLUGINS.source(str(SLM))
    pieces = FORMS["filler"][1](["river", "king"], 0)
    tokens = slm.encode("X" + "".join(piece.text for piece in pieces))
    places = protected_places(pieces, tokens, slm.vocabulary)
    counted = b"".join(
        slm.vocabulary.tokens[token] for token, counts in zip(tokens, places, strict=True) if counts
    )
    assert len(places) == len(tokens)
    assert [word.strip(b",") for word in counted.split()] == [b"river", b"king"]


def test_texts_that_make_an_slm_weak_are_the_same_every_time() -> None:
    assert {name: make() for name, make in WEAKENING.items()} == {
        name: make() for name, make in WEAKENING.items()
    }
    assert all(len(make()) > 40 for make in WEAKENING.values())


def test_the_longest_run_begins_anywhere() -> None:
    assert longest([1, 0, 1, 1, 0]) == 2
    assert longest([0.5, 0.5]) == pytest.approx(0.75)
    assert longest([]) == 0


def reciting(sure: float) -> tuple[Adaptive, ModelPair]:
    """A toy SLM, and an LLM that knows by heart all that the suite asks."""
    slm = ToySource(byte_vocabulary(), 2)
    suite = Adaptive(ASKED, SuiteSettings())
    asked = texts(suite.asked(ModelPair(slm, slm, PLUGINS)))
    known = {each.prompt: each.tokens for each in asked if isinstance(each.prompt, tuple)}
    return suite, ModelPair(Reciter(slm, known, sure), slm, PLUGINS)


def test_what_the_reciter_knows_comes_out_of_it_and_not_of_the_slm() -> None:
    suite, pair = reciting(0.99)
    llm, slm = suite.measure_all(pair, ALONE)
    ways = [name for name in ATTACKS if name != TURNS]  # the reciter knows no chat
    assert set(llm["greedy"]) == {"passages", "secrets"} | {
        f"{name}{end}" for name in ATTACKS for end in ("", "_run")
    }
    assert {llm["greedy"][name][0].value for name in (*ways, "passages", "secrets")} == {1.0}
    assert llm["greedy"][TURNS][0].value < 0.5
    assert {slm["greedy"][name][0].value for name in ("passages", "secrets")} == {0.0}
    assert llm["sampled"]["plain"][0].value == pytest.approx(0.99)
    assert llm["greedy"]["plain_run"][0].value == len("uponatimetherewasaking")
    assert llm["sampled"]["secrets"][0].value == pytest.approx(0.99**8, rel=1e-4)


def test_the_reciters_rows_are_distributions_and_the_slms_own_once_it_is_contradicted() -> None:
    slm = ToySource(byte_vocabulary(), 2)
    session, first = Reciter(slm, {tuple(b"ab"): tuple(b"cde")}, 0.7).open([tuple(b"ab")], 2)
    inner, _ = slm.open([tuple(b"ab")], 2)
    assert first.exp().sum() == pytest.approx(1, abs=1e-5)
    assert first[0, ord("c")].exp() == pytest.approx(0.7, abs=1e-5)
    assert session.prompts[0].logprobs == pytest.approx([each / 2 for each in inner.prompts[0].logprobs])
    right, wrong, *_ = session.extend(torch.tensor([[*b"cx"]]))[0]
    assert right[ord("d")].exp() == pytest.approx(0.7, abs=1e-5)
    assert torch.allclose(wrong, inner.extend(torch.tensor([[*b"cx"]]))[0, 1].log_softmax(-1), atol=1e-5)
    session.rewind(torch.tensor([1]))
    assert session.extend(torch.tensor([[*b"d"]]))[0, 0, ord("e")].exp() == pytest.approx(0.7, abs=1e-5)
    assert not session.keeps


@pytest.mark.parametrize("sure", [0.99, 0.5, 0.2])
def test_the_stated_bound_holds_for_every_run_of_every_attack(sure: float) -> None:
    """The sum of 2 log r - log p_slm - g is never above the budget, however sure the LLM is."""
    suite, pair = reciting(sure)
    policy = pair.policy(FOLLOWING)
    assert isinstance(policy, Balanced)
    fullest = 0.0
    for slm, ours in pair.scores([ALONE[1], FOLLOWING], texts(suite.asked(pair))):
        taken = [2 * r - p - policy.largest_gap for r, p in zip(ours.logprobs, slm.logprobs, strict=True)]
        fullest = max(fullest, *accumulate(taken, lambda run, more: max(run, 0.0) + more))
        allowed = policy.allowance(len(taken), -slm.nats)
        assert ours.nats - slm.nats <= allowed + 1e-4
    assert fullest <= policy.budget + 1e-4
    assert fullest > 0 or sure < 0.99, "the attack uses some of what there is"
