"""The guardian: requests and answers judged by each of its classifiers, which fail closed."""

from __future__ import annotations

import json
import math
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import torch

from purify_hooks.stages.classifiers.odds import SlmOdds, beginning
from purify_hooks.stages.classifiers.sequence import SequenceClassifier
from purify_hooks.stages.guardian import Guardian
from purify_plugins.errors import ConfigError, ModelError, PromptError, RefusedError
from purify_plugins.stages.release import Release
from purify_plugins.stages.request import Request
from purify_plugins.testing import ScriptedSource, StageConformance, ToySource, byte_vocabulary
from purify_plugins.types import Chat, Piece, Token

BYTES = byte_vocabulary()


@dataclass
class Says:
    """Scores a text by whether this is written in it."""

    word: str = "bad"

    def scores(self, texts: Sequence[str]) -> list[float]:
        return [float(self.word in text) for text in texts]


def released(guardian: Guardian, text: str) -> str:
    """What is released of an answer; "…" marks that it was blocked."""
    request = guardian.answer(Request("hello"))
    release = Release(request.checks)
    for at, letter in enumerate(text):
        release.feed([Piece(Token(at, 0.0, 0.0, 0.0, 0.0, 0.0), letter)])
        if release.block:
            return release.text + "…"
    release.feed((), last=True)
    return release.text + ("…" if release.block else "")


class TestGuardian(StageConformance):
    def stage(self) -> Guardian:
        return Guardian(words=("some secret", "story"))


def test_a_word_of_the_list_refuses_a_request_and_blocks_an_answer() -> None:
    guardian = Guardian(words=["bomb", "ada quill"])  # type: ignore[arg-type]  # as configurations give it
    assert released(guardian, "It is a bomber, Ada.") == "It is a bomber, Ada."
    assert released(guardian, "He is called ADA  Quill.") == "He is called …"
    with pytest.raises(RefusedError, match="the guardian refuses this request") as refused:
        guardian.answer(Request("how do I make a bomb?"))
    assert refused.value.key == "guardian"
    assert "bomb" not in str(refused.value)


def test_a_word_list_may_be_a_file(tmp_path: Path) -> None:
    (tmp_path / "words.txt").write_text("bomb\n\nnerve gas\n", "utf-8")
    guardian = Guardian(file=str(tmp_path / "words.txt"), words=("gun",))
    assert [released(guardian, text) for text in ("a bomb", "Nerve gas", "guns", "gun")] == [
        "a …",
        "…",
        "guns",
        "…",
    ]
    with pytest.raises(ConfigError, match=r"cannot read .*other.txt"):
        Guardian(file=str(tmp_path / "other.txt"))


def test_one_side_may_be_judged_alone() -> None:
    request = Request("a bomb")
    assert Guardian(words=("bomb",), on=("out",)).answer(request).checks
    with pytest.raises(RefusedError):
        Guardian(words=("bomb",), on=("in",)).answer(request)
    assert not Guardian(words=("bomb",), on=("in",)).answer(Request("hello")).checks


MESSAGES: list[dict[str, Any]] = [
    {"role": "system", "content": "a bomb"},
    {"role": "user", "content": [{"type": "text", "text": "a bomb"}]},
    {
        "role": "assistant",
        "content": None,
        "tool_calls": [{"id": "1", "function": {"name": "f", "arguments": '{"a": "bomb"}'}}],
    },
    {"role": "tool", "tool_call_id": "1", "content": "a bomb"},
]


@pytest.mark.parametrize("message", MESSAGES, ids=lambda each: each["role"])
def test_every_text_of_every_message_is_judged(message: dict[str, Any]) -> None:
    last = {"role": "user", "content": "go on"}
    guardian = Guardian(words=("bomb",))
    with pytest.raises(RefusedError):
        guardian.answer(Request(Chat((message, last))))
    with pytest.raises(RefusedError):
        guardian.answer(Request("hello", shown=Chat((message, last))))
    assert guardian.answer(Request(Chat((last,)))).prompt == Chat((last,))


def test_the_keys_of_messages_are_not_judged_and_token_ids_cannot_be() -> None:
    guardian = Guardian(words=("user", "function"))
    assert guardian.answer(Request(Chat(({"role": "user", "content": "hello"},))))
    with pytest.raises(PromptError, match="token ids have no text"):
        guardian.answer(Request((1, 2, 3)))


def test_a_regular_expression_is_found_over_any_cutting() -> None:
    guardian = Guardian("regex", pattern=r"\b\d{4}-\d{4}\b", window=20, stride=8)
    assert released(guardian, "my number is 12345-67890, and so on and on") == (
        "my number is 12345-67890, and so on and on"
    )
    assert released(guardian, "a quiet beginning, my number is 1234-5678") == "a quiet beginning, my nu…"


def test_an_object_with_scores_is_a_classifier() -> None:
    guardian = Guardian(Says(), window=8, stride=4)
    assert released(guardian, "good, good, bad") == "good, go…"
    assert guardian.public()["classifier"] == "Says"
    with pytest.raises(RefusedError):
        guardian.answer(Request("this is a long and bad text"))
    assert released(Guardian(Says(), window=math.inf), "good, good, good, good, good, bad") == "…"


def test_an_answer_may_be_written_again_as_often_as_it_says() -> None:
    checks = Guardian(words=("bad",), redo=2, key="rude").answer(Request("hello")).checks
    assert [(check.redo, check.name) for check in checks] == [(2, "guardian words")]


@pytest.mark.parametrize(
    ("options", "held"),
    [
        ({"words": ("four",)}, 4),
        ({"words": ("two words",)}, 12),
        ({"words": ("four",), "on": ("in",)}, 0),
        ({"classifier": "slm", "question": "Is it harmful?"}, 400),
        ({"classifier": "slm", "question": "Is it harmful?", "window": math.inf}, math.inf),
    ],
)
def test_it_says_how_much_it_holds_back(options: dict[str, Any], held: float) -> None:
    assert Guardian(**options).holds_back == held


def test_certificates_have_digests_of_lists_and_no_addresses() -> None:
    words = Guardian(words=("bomb", "gun")).public()
    assert words["words"]["count"] == 2
    assert "bomb" not in json.dumps(words)
    regex = Guardian("regex", pattern="secret+").public()
    assert regex["pattern"]["count"] == 1
    assert "secret" not in json.dumps(regex)
    http = Guardian("http", url="http://user:pass@localhost:8080/score?key=secret").public()
    assert http["host"] == "localhost:8080"
    assert "secret" not in json.dumps(http)
    assert Guardian("slm", question="Is it rude?", window=math.inf).public()["window"] == "all"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "the classifier 'words' needs words or file"),
        ({"classifier": "word"}, "classifier must be one of words, regex"),
        ({"classifier": "regex"}, "the classifier 'regex' needs pattern"),
        ({"classifier": "regex", "pattern": "("}, "pattern is no regular expression"),
        ({"classifier": "regex", "pattern": "a*"}, "is found in every text"),
        ({"classifier": "transformers", "model": "x"}, "needs model and label"),
        ({"classifier": "slm"}, "needs question"),
        ({"classifier": "http", "url": "localhost"}, "url must be an http or https address"),
        ({"words": ("a",), "url": "http://x"}, "url is for the classifier 'http', not 'words'"),
        ({"words": "bomb"}, "words must be a list of texts"),
        ({"words": ("a",), "on": ("inside",)}, '"in", "out" or both'),
        ({"words": ("a",), "on": ()}, '"in", "out" or both'),
        ({"words": ("a",), "window": 10}, "windows of 10 characters, one every 200"),
        ({"words": ("a",), "window": math.nan}, "windows of nan"),
        ({"words": ("a",), "window": "400"}, "windows of '400'"),
        ({"words": ("a",), "above": 1}, "above must be a number from 0 to 1"),
        ({"words": ("a",), "deadline": 0}, "deadline must be a number of seconds above 0"),
        ({"words": ("a",), "redo": True}, "redo must be a number of times"),
        ({"words": ("a",), "key": ""}, "key must be a name"),
    ],
)
def test_options_that_cannot_be_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Guardian(**options)


# The SLM's own odds


def test_the_slm_s_odds_of_yes_block() -> None:
    question = "Is this text harmful?"
    guardian = Guardian("slm", question=question, window=8, stride=4)
    for answer, odds in ((b"Yes", 1.0), (b"no", 0.0), (b" maybe", 0.5)):
        slm = ScriptedSource(BYTES, answer)
        assert SlmOdds(slm, question).scores(["a text"]) == [pytest.approx(odds, abs=0.01)]
        if odds > 0.5:
            assert released(replace(guardian, on=("out",)).bind(slm), "a harmless text") == "…"
            with pytest.raises(RefusedError, match="refuses this request"):
                guardian.bind(slm).answer(Request("hello"))
        else:
            assert released(guardian.bind(slm), "a harmless text") == "a harmless text"


def test_the_slm_is_asked_about_each_text_alone() -> None:
    odds = SlmOdds(ToySource(BYTES, 3, order=80), "Is this text harmful?")
    texts = ["one", "another", "a third"]
    assert odds.scores(texts) == [score for text in texts for score in odds.scores([text])]
    assert len(set(odds.scores(texts))) == 3
    assert all(0 < score < 1 for score in odds.scores(texts))


def test_the_tokens_that_begin_a_word_count() -> None:
    spelled = {BYTES.tokens[token] for token in beginning(BYTES, "yes")}
    assert spelled == {b"y", b"Y"}


def test_a_guardian_that_asks_the_slm_needs_one() -> None:
    with pytest.raises(ConfigError, match="needs the SLM"):
        Guardian("slm", question="Is it rude?").answer(Request("hello"))


# A transformers classifier


@pytest.fixture(scope="module")
def toxic(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small BERT, trained here to tell texts with "bad" from others."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import BertConfig, BertForSequenceClassification, PreTrainedTokenizerFast

    folder = tmp_path_factory.mktemp("toxic")
    words = ["[PAD]", "[CLS]", "[UNK]", "bad", "a", "good", "word", "in", "text", "it", "is", "very"]
    backend = Tokenizer(models.WordLevel({word: at for at, word in enumerate(words)}, "[UNK]"))
    backend.pre_tokenizer = pre_tokenizers.Whitespace()
    backend.post_processor = processors.TemplateProcessing("[CLS] $A", special_tokens=[("[CLS]", 1)])
    PreTrainedTokenizerFast(
        tokenizer_object=backend, pad_token="[PAD]", cls_token="[CLS]", unk_token="[UNK]", model_max_length=32
    ).save_pretrained(folder)
    torch.manual_seed(0)
    sizes = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
    labels = {"id2label": {0: "fine", 1: "toxic"}, "label2id": {"fine": 0, "toxic": 1}}
    config = BertConfig(
        vocab_size=len(words), max_position_embeddings=32, hidden_dropout_prob=0.0, **sizes, **labels
    )
    model = BertForSequenceClassification(config)
    optimiser = torch.optim.Adam(model.parameters(), 5e-3)
    for _ in range(200):
        tokens = torch.randint(2, len(words), (32, 8))
        tokens[:, 0] = 1
        loss = model(input_ids=tokens, labels=(tokens == 3).any(1).long()).loss
        loss.backward()
        optimiser.step()
        optimiser.zero_grad()
    model.save_pretrained(folder)
    return folder


def test_a_transformers_classifier_judges_by_the_label_it_is_told(toxic: Path) -> None:
    classifier = SequenceClassifier.load(toxic, "toxic")
    good, bad = classifier.scores(["it is a good text", "it is a bad text"])
    assert good < 0.2 < 0.8 < bad
    assert SequenceClassifier.load(toxic, "fine").scores(["it is a bad text"]) == [
        pytest.approx(1 - bad, abs=1e-5)
    ]
    guardian = Guardian("transformers", model=str(toxic), label="toxic", window=12, stride=6)
    assert released(guardian, "it is a good word in text") == "it is a good word in text"
    assert released(guardian, "it is a good word, very bad") != "it is a good word, very bad"
    with pytest.raises(RefusedError, match="refuses this request"):
        guardian.bind(ToySource(BYTES)).answer(Request("bad text"))
    assert guardian.public()["model"]["files"]["model.safetensors"]


def test_a_text_that_the_classifier_cannot_read_whole_is_refused(toxic: Path) -> None:
    guardian = Guardian("transformers", model=str(toxic), label="toxic", window=math.inf)
    with pytest.raises(
        RefusedError, match="a window has 41 tokens and its classifier reads 32; lower window"
    ):
        guardian.answer(Request("good " * 40))


def test_a_classifier_s_directory_is_checked_before_its_weights_are_read(toxic: Path, tmp_path: Path) -> None:
    def copied(name: str) -> Path:
        folder = tmp_path / name
        folder.mkdir()
        for file in toxic.iterdir():
            (folder / file.name).write_bytes(file.read_bytes())
        return folder

    made = {"classifier": "transformers", "label": "toxic"}
    with pytest.raises(ConfigError, match="one of the classifier's \\('fine', 'toxic'\\), not 'rude'"):
        Guardian(**{**made, "label": "rude"}, model=str(toxic))
    with pytest.raises(ModelError, match="is no directory"):
        Guardian(**made, model=str(tmp_path / "none"))
    code = copied("code")
    config = json.loads((code / "config.json").read_text("utf-8"))
    (code / "config.json").write_text(json.dumps({**config, "auto_map": {"AutoModel": "x.Y"}}), "utf-8")
    with pytest.raises(ModelError, match="names code to run"):
        Guardian(**made, model=str(code))
    pickled = copied("pickled")
    (pickled / "model.safetensors").rename(pickled / "pytorch_model.bin")
    with pytest.raises(ModelError, match="is a pickle"):
        Guardian(**made, model=str(pickled))
    headless = copied("headless")
    from safetensors.torch import load_file, save_file

    kept = {
        name: each
        for name, each in load_file(toxic / "model.safetensors").items()
        if "classifier" not in name
    }
    save_file(kept, headless / "model.safetensors", {"format": "pt"})
    with pytest.raises(ModelError, match=r"lacks classifier.bias"):
        Guardian(**made, model=str(headless)).bind(ToySource(BYTES))


# A server


class Scorer(BaseHTTPRequestHandler):
    """Scores texts as its path says."""

    def do_POST(self) -> None:
        texts = json.loads(self.rfile.read(int(self.headers["content-length"])))["texts"]
        good = json.dumps({"scores": [float("bad" in text) for text in texts]})
        bodies = {
            "/good": good,
            "/nan": '{"scores": [NaN]}',
            "/large": '{"scores": [1.5]}',
            "/few": '{"scores": []}',
            "/shape": "[0.1]",
            "/text": "all fine",
            "/endless": " " * (1 << 21),
        }
        if self.path == "/late":
            time.sleep(1)
        status = {"/500": 500, "/moved": 302}.get(self.path, 200)
        try:
            self.send_response(status)
            if status == 302:
                self.send_header("location", "/good")
            self.end_headers()
            self.wfile.write(bodies.get(self.path, good).encode())
        except OSError:
            pass  # the client did not wait

    def log_message(self, *_: Any) -> None:
        """Say nothing."""


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), Scorer) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()
        thread.join()


def test_a_server_scores_texts(server: str) -> None:
    guardian = Guardian("http", url=f"{server}/good", window=8, stride=4)
    assert released(guardian, "good, good, good") == "good, good, good"
    assert released(guardian, "good, good, bad") == "good, go…"
    with pytest.raises(RefusedError, match="refuses this request"):
        guardian.answer(Request("bad"))


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("nan", "gave nan for a score"),
        ("large", "gave 1.5 for a score"),
        ("few", "gave 0 scores for 1 texts"),
        ("shape", r'did not answer with \{"scores"'),
        ("text", "did not answer with JSON"),
        ("endless", "answered more than 1048576 bytes"),
        ("500", "answered 500"),
        ("moved", "answered 302"),
        ("late", "gave no scores in 0.3 s|ReadTimeout"),
    ],
)
def test_a_server_that_fails_refuses(server: str, path: str, message: str) -> None:
    deadline = 0.3 if path == "late" else 60.0  # whatever else the machine does
    guardian = Guardian("http", url=f"{server}/{path}", deadline=deadline, on=("out",))
    with pytest.raises(RefusedError, match=message):
        released(guardian, "a text")
    with pytest.raises(RefusedError, match=message):
        Guardian("http", url=f"{server}/{path}", deadline=deadline).answer(Request("a text"))


def test_a_server_that_is_down_refuses() -> None:
    guardian = Guardian("http", url="http://127.0.0.1:9/score")
    with pytest.raises(RefusedError, match=r"the guardian's server did not answer \(ConnectError\)"):
        guardian.answer(Request("a text"))


def message(**more: Any) -> dict[str, Any]:
    return {"role": "user", "content": "hello", **more}


@pytest.mark.parametrize(
    "chat",
    [
        Chat((message(),), ({"type": "function", "function": {"name": "f", "description": "forbidden"}},)),
        Chat(
            (message(),), ({"function": {"parameters": {"properties": {"forbidden": {"type": "string"}}}}},)
        ),
        Chat((message(tool_calls=[{"function": {"name": "f", "arguments": {"forbidden": 1}}}]),)),
        Chat((message(tool_calls=[{"function": {"name": "f", "arguments": {"id": "forbidden"}}}]),)),
        Chat((message(content=[{"type": "text", "text": "forb"}, {"type": "text", "text": "idden"}]),)),
        Chat((message(tool_call_id="forbidden"),)),
    ],
    ids=["a tool", "a parameter's name", "an argument's name", "an argument called id", "two parts", "an id"],
)
def test_a_word_is_found_wherever_a_template_may_show_it(chat: Chat) -> None:
    with pytest.raises(RefusedError):
        Guardian("words", words=["forbidden"]).answer(Request(chat))
    assert Guardian("words", words=["function", "text"]).answer(Request(Chat((message(),))))
