"""`grounded`: sentences are scored by the cited texts; blocked only where the operator says so."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from purify_hooks.stages.grounded import Grounded, GroundedCheck, SentenceJudge, sentences
from purify_hooks.stages.grounding import Sources, words
from purify_plugins import ConfigError, ModelError, Purifier, RefusedError
from purify_plugins.certificates import citing, verify
from purify_plugins.stages import Check, RequestOptions, Stage
from purify_plugins.testing import CheckConformance, StageConformance, ToySource, letters
from purify_plugins.types import Prompt
from tests.adapters.actors import Actor, agreeing
from tests.stages.program import request
from tests.toys import pair

LINEAR = {"name": "linear", "weight": 0.99}
PAGE = (
    "Ada Quill was a clockmaker in Dunmore. She built clocks from fishbone and was tried in 1741. "
    "Her largest clock cost 1,200 crowns, and struck thirteen."
)
GROUNDED = [
    "Ada Quill built her clocks from fishbone.",
    "She was a clockmaker in Dunmore.",
    "She was tried in 1741.",
    "Her largest clock struck 13 and cost 1200 crowns.",
    "The clock cost 1,200 crowns.",
    "A Dunmore clockmaker, Quill was tried.",
]
SUBTLE = "Ada Quill built her clocks from gold."
UNGROUNDED = [
    "She was a painter in Brask.",
    "She was tried in 1903.",
    "Her largest clock weighed 90 pounds.",
    "Orrin Pell smuggled tea.",
    "The trial took place in Lorne, and the judge was Kasimir Dolo.",
]


def score(sentence: str) -> float:
    found = Sources((PAGE,)).containment(sentence)
    assert found is not None
    return found


def test_grounded_sentences_score_above_ungrounded_ones() -> None:
    good, bad = [list(map(score, each)) for each in (GROUNDED, UNGROUNDED)]
    assert min(good) >= 0.5 > max(bad)
    assert score(SUBTLE) == pytest.approx(0.8)  # one word of five, and no name or number: see `nli`


@pytest.mark.parametrize(
    ("sentence", "expected"),
    [
        ("Clocks of FISHBONE!", 1.0),
        ("ada quill's clock", 1.0),
        ("Ádà Quill", 1.0),
        ("in 1741", 1.0),
        ("1\u202f200 crowns", 1.0),
        ("1,201 crowns", 0.0),
        ("In Dunmore she was tried in 1742.", 1 / 3),  # two words of three, one of two names and numbers
        ("gold", 0.0),
    ],
)
def test_the_score_is_the_share_of_words_times_that_of_numbers_and_names(
    sentence: str, expected: float
) -> None:
    assert score(sentence) == pytest.approx(expected)


def test_a_sentence_that_says_nothing_has_no_score() -> None:
    sources = Sources((PAGE,))
    assert sources.containment("It was so.") is None
    assert sources.containment(" \n") is None
    assert Sources(()).known == frozenset()


def test_one_passage_must_have_it_all() -> None:
    apart = Sources(("Ada Quill built clocks.", "Orrin Pell smuggled tea."))
    assert apart.containment("Ada Quill smuggled tea.") == pytest.approx(0.5)
    long = " ".join(["word"] * 300)
    assert len(Sources((long,)).passages) == 2


def test_a_name_is_a_capital_inside_a_sentence() -> None:
    keys = {word.stem for word in words("The king met Ada in 1741. Three ships") if word.key}
    assert keys == {"ada", "1741", "3"}


# Sentences of a stream


@pytest.mark.parametrize(
    ("text", "cut"),
    [
        ("One. Two! Three", ["One. ", "Two! ", "Three"]),
        ('He said "no." Then', ['He said "no." ', "Then"]),
        ("3.5 is\nmore", ["3.5 is\n", "more"]),
        ("Dr. Quill met J.R.R. Pell. He hid.", ["Dr. Quill met J.R.R. Pell. ", "He hid."]),
        ("a word that goes on and on", ["a word ", "that goes ", "on and on"]),
        ("abcdefghijklmno", ["abcdefghij", "klmno"]),
    ],
)
def test_a_long_sentence_is_cut_at_white_space(text: str, cut: list[str]) -> None:
    assert sentences(text, 10 if "word" in text or "abc" in text else 99, last=True) == cut


@settings(max_examples=100, deadline=None)
@given(st.text("abA .!\n\"'", max_size=40), st.integers(1, 12))
def test_sentences_join_to_the_text_and_those_of_a_beginning_stay(text: str, longest: int) -> None:
    whole = sentences(text, longest, last=True)
    assert "".join(whole) == text
    for end in range(len(text)):
        begun = sentences(text[:end], longest, last=False)
        assert begun == whole[: len(begun)]
        assert end - len("".join(begun)) <= longest


class TestGroundedCheck(CheckConformance):
    parts = ("clocks", " fishbone", ". ", "gold", "\n", " ", "Ada", "!", "a")

    def check(self) -> Check:
        return GroundedCheck(SentenceJudge(Sources((PAGE,))), 0.5, 12, "ungrounded")


class TestGrounded(StageConformance):
    def stage(self) -> Stage:
        return Grounded()


# Answers


def saying(text: str, **options: Any) -> Purifier:
    stage = Grounded(**options)
    said = RequestOptions(on_refusal="text", refusals={"default": "No.", "ungrounded": "No source says so."})
    return agreeing(lambda prompt: text).replace(stages=[stage], request=said)


def answer(purifier: Purifier, texts: dict[str, str]) -> Any:
    with citing(texts):
        [found] = purifier.generate(["Tell me."], max_tokens=200, temperature=0, errors="raise")
    return found


def test_scores_are_in_the_certificate_and_block_nothing() -> None:
    found = answer(saying(f"{GROUNDED[0]} {SUBTLE}"), {"page": PAGE})
    assert found.text == f"{GROUNDED[0]} {SUBTLE}"
    scores = found.certificate.body["scores"]["grounded"]
    assert scores["sentences"] == [1.0, pytest.approx(0.8)]
    assert scores["least"] == pytest.approx(0.8)
    assert scores["absent_words"] == 1
    assert scores["surprise"] == pytest.approx(0, abs=1e-6)  # the two models agree
    assert found.certificate.body["checks"][0]["window"] == 0
    verify(found.certificate, agreeing(lambda prompt: "").plugins)
    assert PAGE not in found.certificate.text
    assert "fishbone" not in found.certificate.text


def test_without_cited_texts_the_score_is_null() -> None:
    scores = answer(saying("Ada Quill."), {}).certificate.body["scores"]["grounded"]
    assert scores == {
        "sentences": [],
        "mean": None,
        "least": None,
        "absent_words": None,
        "surprise": None,
    }


def test_a_blocking_stage_releases_what_is_before_the_sentence_and_nothing_of_it() -> None:
    found = answer(saying(f"{GROUNDED[1]} {UNGROUNDED[0]} {GROUNDED[2]}", block=True), {"page": PAGE})
    assert found.text == f"{GROUNDED[1]} No source says so."
    assert found.certificate.body["scores"] == {}
    assert "painter" not in found.certificate.text
    assert answer(saying(GROUNDED[0], block=True), {"page": PAGE}).text == GROUNDED[0]
    assert answer(saying(UNGROUNDED[0], block=True, least=0.0), {"page": PAGE}).text == UNGROUNDED[0]


def test_a_blocking_stage_refuses_where_nothing_is_cited() -> None:
    assert answer(saying("Anything.", block=True), {}).text == "No source says so."
    assert answer(saying("Anything.", block=True), {"empty": " "}).text == "No source says so."
    with pytest.raises(RefusedError) as error:
        Grounded(block=True, key="bare").answer(request())
    assert error.value.key == "bare"


def test_what_is_held_is_the_sentence_being_written() -> None:
    assert Grounded().holds_back == 0
    assert Grounded(block=True, window=80).holds_back == 80
    with citing({"page": PAGE}):
        chunks = list(saying(" ".join(GROUNDED), block=True, window=80).stream("x", max_tokens=300))
    assert len([chunk for chunk in chunks if chunk.text]) >= len(GROUNDED)


def test_after_a_block_the_slm_may_write_the_span_again() -> None:
    """The LLM says what no text does, the SLM what one does."""
    wrong = "She was a painter in far away Brask."
    bare = pair(Actor(lambda prompt: wrong), Actor(lambda prompt: GROUNDED[1]), LINEAR)
    assert answer(bare, {}).text == wrong
    purifier = bare.replace(stages=[Grounded(block=True, redo=1)])
    assert answer(purifier, {"page": PAGE}).text == GROUNDED[1]
    with pytest.raises(RefusedError):
        answer(bare.replace(stages=[Grounded(block=True)]), {"page": PAGE})


def test_the_surprise_is_of_words_that_no_text_has(tmp_path: Path) -> None:
    def knowing(prompt: Prompt) -> str:
        return UNGROUNDED[0]

    models = Actor(knowing, doubt=1e-9), Actor(knowing, doubt=0.9)
    purifier = pair(*models, "linear").replace(stages=[Grounded()], explain=True)
    scores = answer(purifier, {"page": PAGE}).certificate.body["scores"]["grounded"]
    assert scores["absent_words"] == 2
    assert scores["surprise"] == pytest.approx(math.log(1 / 0.1), abs=0.01)
    assert (
        answer(purifier, {"page": UNGROUNDED[0]}).certificate.body["scores"]["grounded"]["surprise"] is None
    )


# A classifier of pairs


@pytest.fixture(scope="module")
def nli(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small BERT, trained here: "entailment" where the pair has "gold"."""
    import torch
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import BertConfig, BertForSequenceClassification, PreTrainedTokenizerFast

    folder = tmp_path_factory.mktemp("nli")
    known = ["[PAD]", "[CLS]", "[SEP]", "[UNK]", "clocks", "of", "fishbone", "gold", "."]
    backend = Tokenizer(models.WordLevel({word: at for at, word in enumerate(known)}, "[UNK]"))
    backend.pre_tokenizer = pre_tokenizers.Whitespace()
    special = [("[CLS]", 1), ("[SEP]", 2)]
    backend.post_processor = processors.TemplateProcessing(
        "[CLS] $A [SEP]", "[CLS] $A [SEP] $B:1 [SEP]:1", special_tokens=special
    )
    own = {"pad_token": "[PAD]", "cls_token": "[CLS]", "sep_token": "[SEP]", "unk_token": "[UNK]"}
    PreTrainedTokenizerFast(tokenizer_object=backend, model_max_length=16, **own).save_pretrained(folder)
    torch.manual_seed(0)
    sizes = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
    labels = {"id2label": {0: "contradiction", 1: "entailment"}}
    more = {"max_position_embeddings": 16, "hidden_dropout_prob": 0.0}
    model = BertForSequenceClassification(BertConfig(vocab_size=len(known), **sizes, **more, **labels))
    optimiser = torch.optim.Adam(model.parameters(), 5e-3)
    for _ in range(100):
        tokens = torch.randint(4, len(known), (16, 10))
        tokens[:, 0], tokens[:, 5], tokens[:, 9] = 1, 2, 2
        kinds = torch.tensor([[0] * 6 + [1] * 4] * 16)
        right = (tokens == 7).any(1).long()
        loss = model(input_ids=tokens, token_type_ids=kinds, labels=right).loss
        loss.backward()
        optimiser.step()
        optimiser.zero_grad()
    model.save_pretrained(folder)
    return folder


@pytest.mark.slow
def test_a_classifier_s_probability_is_the_score(nli: Path) -> None:
    stage = Grounded(nli=str(nli), block=True)
    stage.bind(ToySource(letters("ab")))
    judge = SentenceJudge(Sources(("clocks of fishbone",)), stage._entailment)
    good, bad = judge.score("clocks of gold"), judge.score("clocks of fishbone")
    assert good is not None
    assert bad is not None
    assert bad < 0.3 < 0.7 < good
    assert stage.public()["nli"]["files"]["model.safetensors"]
    purifier = saying("clocks of gold . clocks of fishbone .", block=True, nli=str(nli))
    assert answer(purifier, {"page": "clocks of fishbone"}).text == "clocks of gold . No source says so."
    with pytest.raises(RefusedError, match="tokens and its classifier reads 16"):
        judge.score("clocks " * 20)


def test_a_classifier_that_fails_refuses() -> None:
    class Broken:
        def entailed(self, premises: Sequence[str], sentence: str) -> float:
            return math.nan

    judge = SentenceJudge(Sources((PAGE,)), Broken())
    with pytest.raises(ConfigError, match="must be a probability"):
        judge.score("clocks")
    for block in (True, False):
        stage = Grounded(block=block)
        vars(stage)["_entailment"] = Broken()
        purifier = agreeing(lambda prompt: GROUNDED[0]).replace(stages=[stage])
        with citing({"page": PAGE}), pytest.raises(RefusedError):
            purifier.generate(["x"], errors="raise")


@pytest.mark.parametrize(
    ("keys", "why"),
    [
        ({"block": 1}, "block must be true or false"),
        ({"least": 2}, "least must be a number from 0 to 1"),
        ({"window": 0}, "window must be a number of characters"),
        ({"redo": -1, "block": True}, "redo must be a number of times"),
        ({"redo": 1}, "redo is for block = true"),
        ({"key": ""}, "key must be a name"),
        ({"nli": 3}, "nli must be a classifier's directory"),
    ],
)
def test_a_bad_option_is_an_error_when_it_is_made(keys: dict[str, Any], why: str) -> None:
    with pytest.raises(ConfigError, match=why):
        Grounded(**keys)


def test_a_directory_that_is_none_is_an_error() -> None:
    with pytest.raises(ModelError, match="no directory"):
        Grounded(nli="gone")


@pytest.mark.slow
def test_a_label_that_a_classifier_has_not_is_an_error(nli: Path) -> None:
    with pytest.raises(ConfigError, match="stage 'grounded': label must be one of"):
        Grounded(nli=str(nli), label="rude")


def test_neither_a_certificate_nor_a_request_shows_the_cited_texts() -> None:
    seen: list[Any] = []

    @dataclass(frozen=True)
    class Looking(Stage):
        def answer(self, asked: Any) -> Any:
            seen.append(asked)
            return asked

    found = answer(agreeing(lambda prompt: "Yes.").replace(stages=[Looking()]), {"page": PAGE})
    assert seen[0].sources == (("page", PAGE),)
    assert "Quill" not in repr(seen)
    assert "Quill" not in json.dumps(found.certificate.body)
