"""Models in llama.cpp's format: read as transformers reads a directory, refused where a file is not whole."""

from __future__ import annotations

import hashlib
import os
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import gguf
import pytest
import torch

from purify_hooks.local.gguf_header import read_header
from purify_hooks.local.preflight import looked_at
from purify_hooks.local.source import LocalSource
from purify_hooks.suggest.llm import look_at
from purify_plugins import Chat, ConfigError, ModelError, Purifier, Sampling, TooLongError
from purify_plugins.configuration.preflight import require_two
from purify_plugins.plugin.manager import load_plugins
from purify_plugins.testbed import LLM, SLM
from purify_plugins.testing import SourceConformance
from tests.remote.real_servers import write_gguf

TEMPLATE = "{% for message in messages %}<{{ message['role'] }}>{{ message['content'] }}\n{% endfor %}"
TEXTS = ["Once upon a time, 1234 kings; 'twas  odd.\n\n", "naïve café — 你好 🙂\t", "<|x|> a  b   c"]


@pytest.fixture(scope="module")
def llm(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The test bed's LLM as a GGUF file, float32."""
    return write_gguf(LLM, tmp_path_factory.mktemp("gguf") / "llm.gguf", template=TEMPLATE)


@pytest.fixture(scope="module")
def loaded(llm: Path) -> LocalSource:
    return LocalSource.load(llm)


@pytest.fixture(scope="module")
def plain() -> LocalSource:
    return LocalSource.load(LLM)


@cache
def _converted() -> LocalSource:
    with TemporaryDirectory() as folder:
        return LocalSource.load(write_gguf(LLM, Path(folder) / "llm.gguf"))


class TestGgufConformance(SourceConformance):
    def source(self) -> LocalSource:
        return _converted()


def test_its_rows_are_those_of_the_model_it_was_written_from(loaded: LocalSource, plain: LocalSource) -> None:
    _, row = loaded.open(["Once upon a time"])
    _, expected = plain.open(["Once upon a time"])
    assert torch.allclose(row.log_softmax(-1), expected.log_softmax(-1), atol=1e-3)


def test_its_tokens_spell_the_same_bytes_and_texts_come_back(loaded: LocalSource, plain: LocalSource) -> None:
    assert loaded.vocabulary.tokens == plain.vocabulary.tokens
    assert loaded.vocabulary.eos == plain.vocabulary.eos
    for text in TEXTS:
        ids = loaded.tokenizer(text, add_special_tokens=False)["input_ids"]
        assert loaded.tokenizer.decode(ids) == text
        assert b"".join(loaded.vocabulary.tokens[each] for each in ids) == text.encode()


def test_its_chat_template_is_kept(loaded: LocalSource) -> None:
    chat = Chat(({"role": "user", "content": "hi"},))
    assert loaded.tokenizer.decode(loaded.encode(chat)).endswith("<user>hi\n")


def test_the_directory_that_holds_it_names_it_too(llm: Path, loaded: LocalSource) -> None:
    assert LocalSource.load(llm.parent).identity() == loaded.identity() | {"name": llm.parent.name}


def test_certificates_name_the_file_by_its_digest(llm: Path, loaded: LocalSource) -> None:
    assert loaded.identity()["files"] == {"llm.gguf": hashlib.sha256(llm.read_bytes()).hexdigest()}


def test_a_file_that_changes_after_it_was_loaded_has_no_digest(tmp_path: Path) -> None:
    file = write_gguf(SLM, tmp_path / "slm.gguf")
    source = LocalSource.load(file)
    os.utime(file, (1, 1))
    assert source.identity()["files"] == {}


def test_answers_are_purified_with_it(llm: Path) -> None:
    (answer,) = _purified(llm)
    assert answer.text == _purified(LLM)[0].text
    assert "llm.gguf" in str(answer.certificate.body)


def _purified(llm: Path) -> Any:
    purifier = Purifier.load(llm=str(llm), slm=str(SLM), policy="minimum")
    return purifier.generate("Once upon a time", Sampling(max_tokens=8, seed=1))


@pytest.mark.parametrize("kind", ["Q8_0", "Q4_0", "Q4_1", "Q5_0", "F16", "BF16"])
def test_quantised_weights_are_near_the_plain_ones(tmp_path: Path, plain: LocalSource, kind: str) -> None:
    source = LocalSource.load(write_gguf(LLM, tmp_path / "llm.gguf", kind))
    assert source.model.dtype == torch.float32
    for (name, one), other in zip(source.model.named_parameters(), plain.model.parameters(), strict=True):
        assert one.shape == other.shape
        assert ((one - other).norm() / other.norm()).item() < (0.12 if kind.startswith("Q4") else 0.06), name


def test_nothing_is_printed_while_it_is_loaded(llm: Path, capfd: pytest.CaptureFixture[str]) -> None:
    LocalSource.load(llm)
    assert capfd.readouterr() == ("", "")


def test_the_preview_counts_its_weights_and_refuses_a_long_prompt(llm: Path, loaded: LocalSource) -> None:
    found = looked_at(llm)
    assert found.place == llm.resolve()
    assert found.numbers == sum(each.numel() for each in loaded.model.parameters())
    found.refuse("short")
    with pytest.raises(TooLongError):
        found.refuse("a b " * 5000)


def test_the_same_file_twice_is_no_pair(llm: Path) -> None:
    with pytest.raises(ConfigError, match="the LLM and the SLM are one model"):
        require_two(load_plugins(), str(llm), str(llm.parent))


# What is refused


def _cut(file: Path, size: int) -> None:
    with file.open("r+b") as opened:
        opened.truncate(size)


def _patched(old: bytes, new: bytes) -> Callable[[Path], None]:
    def patch(file: Path) -> None:
        content = file.read_bytes()
        assert content.count(old) >= 1
        file.write_bytes(content.replace(old, new, 1))

    return patch


DAMAGES: dict[str, tuple[Callable[[Path], Any], str]] = {
    "empty": (lambda file: _cut(file, 0), "is damaged, it has 0 bytes; fetch the model again"),
    "no header": (lambda file: _cut(file, 30), "its header ends too early"),
    "half a header": (lambda file: _cut(file, 9000), "its header ends too early"),
    "the last byte": (
        lambda file: _cut(file, file.stat().st_size - 1),
        r"is damaged, its tensors need [\d,]+ bytes and it has",
    ),
    "another file": (lambda file: file.write_bytes(b"PK" * 99), "does not begin with 'GGUF'"),
    "version 1": (lambda file: _patched(b"GGUF\3", b"GGUF\1")(file), "is of GGUF's version 1, 2 and 3"),
    "no tokens": (
        _patched(b"tokenizer.ggml.tokens", b"tokenizer.ggml.tokenz"),
        "has no tokenizer.ggml.tokens",
    ),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_file_that_is_not_whole_is_refused(tmp_path: Path, damage: str) -> None:
    change, words = DAMAGES[damage]
    file = write_gguf(SLM, tmp_path / "slm.gguf")
    change(file)
    for read in (LocalSource.load, looked_at):
        with pytest.raises(ModelError, match=words):
            read(file)


@pytest.mark.parametrize(
    ("adds", "key", "words"),
    [
        ("add_token_list", "tokens", "has no tokenizer.ggml.tokens"),
        ("add_token_types", "token_type", "is damaged, tokenizer.ggml.token_type is no list"),
        ("add_eos_token_id", "eos_token_id", "is damaged, a token that ends an answer is not in its voc"),
    ],
)
def test_a_setting_of_another_type_is_an_error_and_no_stack_trace(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, adds: str, key: str, words: str
) -> None:
    """A number where a list is read, and a list where a number is."""

    def another(writer: Any, given: Any) -> None:
        other = writer.add_uint32 if isinstance(given, list) else writer.add_array
        other(f"tokenizer.ggml.{key}", 7 if isinstance(given, list) else [7])

    monkeypatch.setattr(gguf.GGUFWriter, adds, another)
    file = write_gguf(SLM, tmp_path / "slm.gguf")
    for read in (LocalSource.load, look_at):
        with pytest.raises(ModelError, match=words):
            read(str(file))


def test_an_architecture_that_transformers_does_not_read_is_named(tmp_path: Path) -> None:
    file = write_gguf(SLM, tmp_path / "slm.gguf", architecture="rwkv6")
    with pytest.raises(ModelError, match=r"architecture 'rwkv6', which this transformers does not .*llama, "):
        LocalSource.load(file)


def test_several_files_in_a_directory_are_named(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / f"{name}.gguf").write_bytes(b"GGUF")
    with pytest.raises(ModelError, match=r"holds 2 GGUF files \(a.gguf, b.gguf\); name one of them"):
        LocalSource.load(tmp_path)


def test_the_package_that_is_missing_is_named(llm: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "gguf", None)
    with pytest.raises(ConfigError, match=r"a GGUF file needs gguf, which is not installed; run pip install"):
        read_header(llm)


def test_a_template_that_is_too_long_is_refused(tmp_path: Path) -> None:
    file = write_gguf(SLM, tmp_path / "slm.gguf", template="x" * 200_000)
    with pytest.raises(ModelError, match="chat template"):
        LocalSource.load(file)
