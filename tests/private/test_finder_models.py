"""Detectors of other libraries and models: each finds what it is for, and none asks the network."""

from __future__ import annotations

import socket
from pathlib import Path
from typing import Any

import pytest
import torch

from purify_hooks.private.finders import finder
from purify_hooks.private.gatekeeper import Gatekeeper
from purify_plugins.errors import ConfigError, ModelError, RefusedError
from purify_plugins.stages.request import Request

EXTRA = "needs the extra privacy, which the default test environment leaves out"


@pytest.fixture
def no_network(monkeypatch: pytest.MonkeyPatch) -> list[object]:
    """Sockets that refuse to connect and keep what was asked of them."""
    asked: list[object] = []

    def refuse(*arguments: Any, **options: Any) -> None:
        asked.append(arguments)
        raise OSError("no network in this test")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    monkeypatch.setattr(socket, "create_connection", refuse)
    return asked


def found(text: str, **options: Any) -> set[tuple[str, str]]:
    return {(text[start:end], kind) for start, end, kind in finder(kinds=(), **options).find(text)}


def test_phonenumbers_finds_a_region_s_numbers() -> None:
    pytest.importorskip("phonenumbers", reason=EXTRA)
    text = "Rate 20 7946 0958 and +352 27 12 34 56"
    assert found(text, libraries=["phonenumbers"]) == {("+352 27 12 34 56", "phone")}
    assert ("020 7946 0958", "phone") in found("ring 020 7946 0958", libraries=["phonenumbers:GB"])
    with pytest.raises(ConfigError, match="no region 'Atlantis'"):
        finder(libraries=["phonenumbers:Atlantis"])


def test_the_gatekeeper_s_libraries_find_for_it() -> None:
    pytest.importorskip("phonenumbers", reason=EXTRA)
    number = "612 34 56 78"
    asked = Request(f"Ada wrote {number} on the wall")
    assert number in str(Gatekeeper().answer(asked).prompt)
    assert number not in str(Gatekeeper(libraries=("phonenumbers:ES",)).answer(asked).prompt)


@pytest.mark.parametrize("libraries", [0, "presidio", [""], ["scrubadub"]])
def test_wrong_libraries_are_refused(libraries: Any) -> None:
    with pytest.raises(ConfigError, match="librar"):
        Gatekeeper(libraries=libraries)


@pytest.mark.slow
def test_presidio_finds_what_needs_no_model_and_asks_no_network(no_network: list[object]) -> None:
    pytest.importorskip("presidio_analyzer", reason=EXTRA)
    text = "Write to ada@example.org, card 4111 1111 1111 1111, SSN 536-90-4399, http://example.co.uk/x"
    kinds = {kind for _, kind in found(text, libraries=["presidio"])}
    assert {"email", "card", "ssn"} <= kinds
    assert "url" not in kinds
    assert no_network == []


def test_an_unknown_library_is_refused_and_so_is_a_tagger_that_is_none(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="there is 'phonenumbers' and 'presidio'"):
        finder(libraries=["scrubadub"])
    with pytest.raises(ModelError, match="no directory"):
        finder(tagger=tmp_path / "none")


WORDS = [
    "[PAD]",
    "[UNK]",
    "[CLS]",
    "[SEP]",
    "write",
    "to",
    "ada",
    "qu",
    "##ill",
    "in",
    "utrecht",
    ".",
    "again",
]
LABELS = {"ada": 1, "qu": 2, "utrecht": 3}
NAMES = ["O", "B-PER", "I-PER", "LOC"]


@pytest.fixture(scope="module")
def tagger(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A BERT without layers whose embedding of each word is the word, and whose classifier is a look-up."""
    from transformers import BertConfig, BertForTokenClassification, BertTokenizerFast

    folder = tmp_path_factory.mktemp("tagger")
    (folder / "vocab.txt").write_text("\n".join(WORDS), "utf-8")
    size = len(WORDS) + 1
    config = BertConfig(
        vocab_size=len(WORDS),
        hidden_size=size,
        num_attention_heads=1,
        num_hidden_layers=0,
        intermediate_size=4,
        max_position_embeddings=16,
        id2label=dict(enumerate(NAMES)),
        label2id={name: at for at, name in enumerate(NAMES)},
    )
    model = BertForTokenClassification(config)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
        model.bert.embeddings.LayerNorm.weight.fill_(1)
        model.bert.embeddings.word_embeddings.weight.copy_(torch.eye(len(WORDS), size))
        for at, word in enumerate(WORDS):
            model.classifier.weight[LABELS.get(word, 0), at] = 1
    model.save_pretrained(folder)
    BertTokenizerFast(str(folder / "vocab.txt"), model_max_length=16).save_pretrained(folder)
    return folder


def test_a_tagger_s_words_are_whole_and_long_texts_are_read_to_the_end(tagger: Path) -> None:
    text = "Write to Ada Quill in Utrecht. " + "again " * 40 + "Ada"
    spans = finder(kinds=(), tagger=tagger).find(text)
    assert [(text[start:end], kind) for start, end, kind in spans] == [
        ("Ada Quill", "person"),
        ("Utrecht", "location"),
        ("Ada", "person"),
    ]


def test_a_tagger_that_returns_nan_refuses_the_text(tagger: Path) -> None:
    from purify_hooks.private.finders.tagger import TokenTagger

    broken = TokenTagger(tagger)
    with torch.no_grad():
        broken.model.classifier.bias.fill_(float("nan"))
    with pytest.raises(RefusedError, match="not finite"):
        list(broken.hits("Ada"))
