"""`purify slm build` and `purify slm explain`: one corpus in, one directory out, and what they refuse."""

from __future__ import annotations

import json
import os
import sys
import sysconfig
import time
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from purify_hooks.evaluation.testbed.corpus import CORPUS
from purify_hooks.ngram import build as building
from purify_hooks.ngram.build import new_directory
from purify_hooks.ngram.corpus import BLOCK, read_corpus, tokenised
from purify_hooks.ngram.source import NgramSource
from purify_plugins import ConfigError
from purify_plugins.cli import app
from purify_plugins.testbed import LLM
from purify_plugins.tokenizers.loading import load_tokenizer
from tests.ngram.models import TEXTS, built, written
from tests.remote.real_servers import write_gguf


def purify(*arguments: object) -> Result:
    return CliRunner().invoke(app, [str(each) for each in arguments])


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    return written(
        tmp_path / "corpus", {**TEXTS, ".hidden/secret.txt": "The secret lamp.", "empty.txt": "\n"}
    )


def test_a_model_is_built_and_explained(corpus: Path, tmp_path: Path) -> None:
    out = tmp_path / "anchor"
    made = purify("slm", "build", corpus, "--tokenizer", LLM, "--out", out, "--json")
    assert made.exit_code == 0, made.output
    assert json.loads(made.stdout)["documents"] == 3
    told = purify("slm", "explain", out, "--prompt", "Once upon a time there", "--token", " lived")
    assert told.exit_code == 0, told.output
    assert "order 4, after 'on a time there'" not in told.stdout
    assert "1 occurrences of 2" in told.stdout
    assert "in tale.txt (1)" in told.stdout
    said = json.loads(purify("slm", "explain", out, "--prompt", "Once upon a time there", "--json").stdout)
    parts = [part["added"] for part in said["parts"]]
    assert sum(parts) + said["uniform"] == pytest.approx(said["probability"], abs=1e-15)


def test_the_tokenizer_may_be_a_gguf_file_s(corpus: Path, tmp_path: Path) -> None:
    """Or that of the directory that holds it."""
    (tmp_path / "gguf").mkdir()
    file = write_gguf(LLM, tmp_path / "gguf" / "toy.gguf")
    built(tmp_path / "x", corpus, tokenizer=file)
    built(tmp_path / "y", corpus)
    built(tmp_path / "z", corpus, tokenizer=tmp_path / "gguf")
    found = {NgramSource.load(tmp_path / name).vocabulary.fingerprint for name in "xyz"}
    assert len(found) == 1


def test_the_same_corpus_gives_the_same_bytes(corpus: Path, tmp_path: Path) -> None:
    for name in ("one", "two"):
        built(tmp_path / name, corpus)
    one, two = (NgramSource.load(tmp_path / name).files for name in ("one", "two"))
    assert dict(one) == dict(two)


def test_a_file_of_its_own_and_a_pattern_choose_what_is_read(corpus: Path, tmp_path: Path) -> None:
    chosen = (corpus / "lamp.txt", corpus, "--glob", "*.md")
    both = purify("slm", "build", *chosen, "--tokenizer", LLM, "--out", tmp_path / "x", "--json")
    assert json.loads(both.stdout)["documents"] == 2


def test_documents_shorter_than_the_order_are_enough(tmp_path: Path) -> None:
    built(tmp_path / "x", written(tmp_path / "corpus", {"a.txt": "a"}), order=6)
    source = NgramSource.load(tmp_path / "x")
    assert len(source.model.levels[-1].tokens) == 0
    assert source.explain("The lamp", 5).probability > 0


def test_a_model_that_is_there_is_replaced_only_when_asked(corpus: Path, tmp_path: Path) -> None:
    built(tmp_path / "x", corpus)
    arguments = ("slm", "build", corpus, "--tokenizer", LLM, "--out", tmp_path / "x")
    assert "replace it with --force" in purify(*arguments).stderr
    assert purify(*arguments, "--order", 2, "--force").exit_code == 0
    assert NgramSource.load(tmp_path / "x").model.order == 2
    assert sorted(each.name for each in tmp_path.iterdir()) == ["corpus", "x"]


def test_a_long_text_is_cut_where_no_token_changes() -> None:
    tokenizer = load_tokenizer(LLM)
    text = "".join(f"line {n} of a text\n{'' if n % 7 else chr(10)}" for n in range(9000))
    assert len(text) > 2 * BLOCK
    place = read_corpus([CORPUS / "slm" / "the-heroes.txt"], "*")[0]
    for document in (place._replace(text=text), place):
        whole = tokenizer(document.text, verbose=False)["input_ids"]
        assert tokenised(tokenizer, [document], lambda size: None)[0].tolist() == whole


@pytest.mark.parametrize(
    ("texts", "options", "words"),
    [
        ({}, (), "there is no text in"),
        ({"a.txt": " \n"}, (), "there is no text in"),
        ({"a.txt": "x"}, ("--glob", "*.md"), "(0 files match '*.md')"),
        ({"a.txt": "x"}, ("--glob", "/a"), "is no pattern of file names"),
        ({"a.bin": b"\0\1\2"}, (), "is no text (it holds a zero byte); leave it out with --glob"),
        ({"a.txt": b"caf\xe9"}, (), "is not UTF-8 text"),
        ({"a.txt": "x"}, ("--order", "13"), "the order must be from 2 to 12, not 13"),
        ({"a.txt": "x"}, ("--tokenizer", "EMPTY"), "has no tokenizer"),
        ({"a.txt": "x"}, ("--tokenizer", "./nowhere"), "there is no model directory './nowhere'"),
        (
            {"a.txt": "x"},
            ("--out", "no/such/place"),
            "there is no directory for 'no/such/place'; create it first",
        ),
        ({"a.txt": "x"}, ("--out", "corpus"), "there is 'corpus' already; name another directory"),
    ],
)
def test_what_cannot_be_built_is_refused_in_one_sentence(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    texts: dict[str, str | bytes],
    options: tuple[str, ...],
    words: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "EMPTY").mkdir()
    written(tmp_path / "corpus", texts).mkdir(exist_ok=True)
    found = purify("slm", "build", "corpus", "--tokenizer", LLM, "--out", "out", *options)
    assert found.exit_code in (1, 2)
    assert words in found.stderr
    assert found.stderr.count("\n") == 1
    assert not [each for each in tmp_path.iterdir() if each.name not in ("EMPTY", "corpus")]


def test_two_files_of_one_name_and_a_missing_place_are_refused(corpus: Path, tmp_path: Path) -> None:
    arguments = ("--tokenizer", LLM, "--out", tmp_path / "out")
    twice = purify("slm", "build", corpus / "tale.txt", corpus, *arguments)
    assert "two files of the corpus are named 'tale.txt'" in twice.stderr
    assert "there is no file or directory" in purify("slm", "build", tmp_path / "gone", *arguments).stderr


def replacing(out: Path) -> None:
    """Put a new directory in the place of another."""
    with new_directory(out) as made:
        (made / "new").touch()


def content(folder: Path) -> list[str]:
    """The files of a directory, and the hidden ones beside it."""
    return sorted(each.name for place in (folder.parent.glob(".*"), folder.iterdir()) for each in place)


def test_a_directory_is_replaced_in_one_step(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Killed between two renames, `--force` left the old model under a hidden name, and no new one."""
    (out := tmp_path / "out").mkdir()
    (out / "old").touch()
    if sys.platform == "linux":
        monkeypatch.setattr(os, "rename", None)
    replacing(out)
    assert content(out) == ["new"]


def test_without_such_a_step_the_old_directory_is_put_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By the same command where it is interrupted, and by the next one where it was killed."""
    (out := tmp_path / "out").mkdir()
    (out / "old").touch()
    rename, made = os.rename, list[Any]()

    def interrupted(one: Any, other: Any) -> None:
        made.append(one)
        if len(made) == 2:
            raise KeyboardInterrupt
        rename(one, other)

    monkeypatch.setattr(building, "_exchanged", lambda *_: False)
    monkeypatch.setattr(os, "rename", interrupted)
    with pytest.raises(KeyboardInterrupt):
        replacing(out)
    assert content(out) == ["old"]
    monkeypatch.setattr(os, "rename", rename)
    out.rename(tmp_path / ".out.a1b2c3d4.old")
    options = building.BuildOptions([tmp_path], LLM.as_posix(), out)
    with pytest.raises(ConfigError, match="already; name another"):
        building.build(options, lambda *_: None)
    assert content(out) == ["old"]
    replacing(out)
    assert content(out) == ["new"]


def test_a_text_of_several_tokens_is_no_token(corpus: Path, tmp_path: Path) -> None:
    built(tmp_path / "x", corpus)
    found = purify("slm", "explain", tmp_path / "x", "--prompt", "The", "--token", " lamp stood")
    assert "tokens (" in found.stderr
    assert "name one of them" in found.stderr


@pytest.mark.slow
def test_ten_megabytes_are_built_within_half_a_minute_and_a_row_takes_milliseconds(tmp_path: Path) -> None:
    """The books of corpus/ and the standard library's source; CPU seconds of this one process."""
    texts = {path.relative_to(CORPUS).as_posix(): path.read_bytes() for path in CORPUS.rglob("*.txt")}
    for path in sorted(Path(sysconfig.get_paths()["stdlib"]).glob("*.py")):
        if sum(map(len, texts.values())) < 10_000_000:
            texts[f"stdlib/{path.name}"] = path.read_bytes()
    corpus = written(tmp_path / "corpus", texts)
    assert sum(each.stat().st_size for each in corpus.rglob("*.*")) >= 10_000_000
    start = time.process_time()
    built(tmp_path / "out", corpus)
    assert time.process_time() - start < 30
    source = NgramSource.load(tmp_path / "out")
    tokens = source.encode(texts["heldout/american-fairy-tales.txt"].decode()[:4000])
    source.model.log_row(tokens[:3])
    start = time.process_time()
    for at in range(3, len(tokens)):
        source.model.log_row(tokens[at - 3 : at])
    assert (time.process_time() - start) / (len(tokens) - 3) < 0.010
