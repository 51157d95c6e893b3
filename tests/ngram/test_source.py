"""`source = "ngram"`: the contract of a source, certificates, and directories that cannot be used."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

from purify_hooks.ngram.source import NgramSource
from purify_plugins import Purifier, Sampling
from purify_plugins.certificates import model_digest
from purify_plugins.cli import app
from purify_plugins.configuration.build import build as from_file
from purify_plugins.configuration.config import read_config
from purify_plugins.errors import ModelError, PurifyError
from purify_plugins.testbed import LLM, SLM_1024
from purify_plugins.testing import SourceConformance
from purify_plugins.types import Chat
from tests.ngram.models import TEXTS, built, written
from tests.toys import both


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("ngram")
    built(place / "model", written(place / "corpus", TEXTS))
    return place / "model"


@pytest.fixture(scope="module")
def source(folder: Path) -> NgramSource:
    return NgramSource.load(folder)


class TestTheContract(SourceConformance):
    prompts = ("The lamp", "Once upon a time there was")

    @pytest.fixture(autouse=True)
    def _given(self, source: NgramSource) -> None:
        self._source = source

    def source(self) -> NgramSource:
        return self._source


def test_a_row_sums_to_one_and_explain_reproduces_its_entries(source: NgramSource) -> None:
    text = source.encode("Once upon a time there was a well by the door")
    session, first = source.open([text[:1]])
    with session:
        rows = torch.cat([first[:, None], session.extend(torch.tensor([text[1:]]))], dim=1)[0]
    torch.testing.assert_close(rows.double().exp().sum(-1), torch.ones(len(text)).double(), atol=1e-5, rtol=0)
    for at, row in enumerate(rows):
        for token in {*row.topk(20).indices.tolist(), 0, 7}:
            told = source.explain(text[: at + 1], token)
            assert told.probability == pytest.approx(float(row[token].double().exp()), rel=1e-5)


def test_a_tree_s_rows_are_those_of_its_paths(source: NgramSource) -> None:
    prompt = source.encode("The lamp stood")
    a, b, c = source.encode(" by the door")[1:4]
    with source.open([prompt])[0] as plain, source.open([prompt])[0] as tree:
        plain.extend(torch.tensor([[a]]))
        expected = plain.extend(torch.tensor([[b]]))[0, 0]
        plain.rewind(torch.tensor([1]))
        other = plain.extend(torch.tensor([[c]]))[0, 0]
        seen = torch.tensor([[[1, 0, 0], [1, 1, 0], [1, 0, 1]]]).bool()
        found = tree.branch(torch.tensor([[a, b, c]]), seen)
        assert torch.equal(found[0, 1], expected)
        assert torch.equal(found[0, 2], other)
        tree.select(torch.tensor([[0, 2]]))
        plain_next = plain.extend(torch.tensor([[b]]))[0, 0]
        assert torch.equal(tree.branch(torch.tensor([[b]]), torch.ones(1, 1, 3).bool())[0, 0], plain_next)


def test_it_is_an_slm_from_a_file_and_its_certificate_names_its_digest(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "anchor").symlink_to(folder)
    file = tmp_path / "purify.toml"
    file.write_text(f'[llm]\nmodel = "{LLM}"\n[slm]\nsource = "ngram"\nmodel = "anchor"\n', "utf-8")
    purifier = from_file(read_config(file), Purifier)
    (answer,) = purifier.generate("The lamp", Sampling(max_tokens=6, seed=1))
    model = answer.certificate.body["models"]["slm"]
    assert (model["kind"], model["order"], model["engine"]) == ("ngram", 4, "in-process")
    assert model["files"].keys() >= {"ngram.json", "ngrams.safetensors", "tokenizer.json"}
    assert model_digest(model["files"]) == model_digest(NgramSource.load(folder).files)


def test_verify_asks_it_again(folder: Path, tmp_path: Path) -> None:
    """`--slm DIR` of a certificate that names n-grams loads n-grams, and compares the files."""
    answer = Purifier.load(LLM, NgramSource.load(folder)).generate(
        "The lamp", Sampling(max_tokens=5, seed=1)
    )[0]
    (tmp_path / "answer.json").write_text(answer.certificate.text, "utf-8")
    said = CliRunner().invoke(app, ["verify", str(tmp_path / "answer.json"), "--slm", str(folder)])
    assert said.exit_code == 0, said.output
    assert "Recomputed with the SLM" in said.stdout
    built(tmp_path / "other", written(tmp_path / "texts", {"a.txt": "Another text."}))
    said = CliRunner().invoke(
        app, ["verify", str(tmp_path / "answer.json"), "--slm", str(tmp_path / "other")]
    )
    assert "this is not the SLM the certificate names" in said.stderr


def test_a_chat_is_read_in_the_tokenizer_s_template(source: NgramSource) -> None:
    chat = Chat(({"role": "user", "content": "The lamp stood by"},))
    session, _ = source.open([chat], 3)
    with session:
        assert session.prompts[0].tokens == source.encode("User: The lamp stood by\n\nAssistant:")
        assert len(session.prompts[0].logprobs) == 3


def test_it_is_fused_with_an_llm_of_another_tokenizer_in_bytes(source: NgramSource) -> None:
    purifier = Purifier.load(SLM_1024, source, "minimum")
    assert purifier.generate("The lamp stood", Sampling(max_tokens=8, temperature=0))[0].text


def test_it_keeps_an_llm_from_what_its_text_does_not_say(source: NgramSource) -> None:
    """Drawn under the product rule, the toy LLM goes on with the text's own words."""
    llm, _ = both()
    text = "Once upon a time there"
    likely = {"lived", "was"}
    answer = Purifier(llm, source, Purifier.load(llm, source, "minimum").policy).generate(
        text, Sampling(max_tokens=1, temperature=0)
    )[0]
    assert answer.text.strip() in likely


def exchanged(folder: Path) -> None:
    shutil.copy(SLM_1024 / "tokenizer.json", folder / "tokenizer.json")


def cut(folder: Path) -> None:
    content = (folder / "ngrams.safetensors").read_bytes()
    (folder / "ngrams.safetensors").write_bytes(content[: len(content) // 2])


def mixed_up(folder: Path) -> None:
    """The tables of another corpus, whose orders have other sizes: seen before a row is asked for."""
    from safetensors.numpy import load_file, save_file

    tables = load_file(folder / "ngrams.safetensors")
    tables["2.children"] = tables["2.children"][:-3]
    save_file(tables, folder / "ngrams.safetensors")


def emptied(folder: Path) -> None:
    """Zeros where a disk lost a block: of such tables rows were read that did not sum to 1."""
    file = folder / "ngrams.safetensors"
    content = bytearray(file.read_bytes())
    content[-8:] = bytes(8)
    file.write_bytes(content)


def owed(folder: Path) -> None:
    said = json.loads((folder / "ngram.json").read_text("utf-8"))
    said["discounts"][1][0] = 1.5
    (folder / "ngram.json").write_text(json.dumps(said), "utf-8")


def of_the_future(folder: Path) -> None:
    said = json.loads((folder / "ngram.json").read_text("utf-8"))
    (folder / "ngram.json").write_text(json.dumps({**said, "format": "purify-ngram/9"}), "utf-8")


def stripped(folder: Path) -> None:
    (folder / "tokenizer.json").unlink()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (exchanged, "is not the one its n-grams were counted with; build it again"),
        (cut, "ngrams.safetensors: .*; build them again"),
        (mixed_up, "order 2: its continuations are not those of the next order"),
        (emptied, "ngrams.safetensors: its content is not what was built.*; build them again"),
        (owed, "a discount is negative, or more than the count"),
        (of_the_future, "its format is 'purify-ngram/9'"),
        (stripped, "has no tokenizer"),
    ],
)
def test_a_directory_that_is_damaged_is_refused(
    folder: Path, tmp_path: Path, change: Callable[[Path], None], words: str
) -> None:
    shutil.copytree(folder, tmp_path / "model")
    change(tmp_path / "model")
    with pytest.raises(PurifyError, match=words):
        NgramSource.load(tmp_path / "model")


def test_a_directory_of_another_kind_is_refused_either_way(folder: Path) -> None:
    with pytest.raises(ModelError, match=r"holds no model of n-grams .*; make one with `purify slm build`"):
        NgramSource.load(LLM)
    with pytest.raises(ModelError, match='is a model of n-grams; write source = "ngram"'):
        Purifier.load(LLM, folder)
