"""Takedown lists: built, changed and named by their command, and read by four lines of purify.toml."""

from __future__ import annotations

import json
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from random import Random
from shutil import copytree

import pytest
from typer.testing import CliRunner, Result

from purify_hooks.evaluation.testbed.contamination import WEAK, lessons
from purify_hooks.takedown.build import add, contents, remove
from purify_hooks.takedown.works import TakedownList
from purify_plugins import Purifier, Sampling
from purify_plugins.certificates import read, verify
from purify_plugins.certificates.explain import summary
from purify_plugins.cli import app
from purify_plugins.configuration.preflight import require_two
from purify_plugins.errors import ConfigError, ModelError, UnknownNameError, VocabularyError
from purify_plugins.plugin.manager import load_plugins
from purify_plugins.protocols import LogitSource
from purify_plugins.testbed import LLM, SLM, SLM_1024, attacks
from tests.takedown.lists import CORPUS, built, first_half, quiet

KING = "Once upon a time there lived a king who had a lamp, and the lamp was made of old green glass."
WELL = "The well by the door was deep, and nobody who looked down it could say what lay on the bottom."
COMMON = "The door was green. There was a house, and a king, and once a time to go.\n" * 4


@pytest.fixture(scope="module")
def texts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("texts")
    for name, text in (("king.txt", KING), ("well.txt", WELL), ("common.txt", COMMON)):
        (folder / name).write_text(text, "utf-8")
    return folder


@pytest.fixture(scope="module")
def made(texts: Path) -> Path:
    """A list of two works."""
    return built(texts, [texts / "king.txt", texts / "well.txt"], [texts / "common.txt"])


@pytest.fixture(scope="module")
def llm() -> LogitSource:
    return load_plugins([]).source(LLM)


def invoked(*words: str | Path) -> Result:
    return CliRunner().invoke(app, ["takedown", *map(str, words)])


def test_one_command_builds_a_list_and_another_says_what_is_in_it(
    made: Path, texts: Path, tmp_path: Path
) -> None:
    out = tmp_path / "again"
    asked = ["build", texts / "king.txt", texts / "well.txt", "--neutral", texts / "common.txt"]
    found = invoked(*asked, "--tokenizer", LLM, "--out", out)
    assert found.exit_code == 0, found.output
    assert "2 works" in found.output
    assert TakedownList.load(out).public() == TakedownList.load(made).public()
    listed = json.loads(invoked("list", out, "--json").output)
    assert [each["name"] for each in listed] == ["king.txt", "well.txt"]
    assert invoked(*asked, "--tokenizer", LLM, "--out", out).exit_code == 2


def test_a_list_after_adding_and_removing_is_as_if_built_so(made: Path, texts: Path) -> None:
    whole = TakedownList.load(made).public()
    remove(made, ["king.txt"], quiet)
    assert TakedownList.load(made).public()["works"] == 1
    assert TakedownList.load(made).public()["list"] != whole["list"]
    add(made, [texts / "king.txt"], quiet)
    assert TakedownList.load(made).public() == whole


def test_of_a_removed_work_nothing_is_left(made: Path, tmp_path: Path) -> None:
    """Not its name, its digest or a run of its tokens, nor what a command that was killed has left."""
    copytree(made, tmp_path / "list")
    for left in (".list.a1b2c3d4", ".list.a1b2c3d5.old", ".list.mine", ".other.a1b2c3d4"):
        copytree(made, tmp_path / left)
    king = contents(made)[1][0].tolist()
    digest = contents(made)[0][0].sha256
    remove(tmp_path / "list", ["king.txt"], quiet)
    assert sorted(each.name for each in tmp_path.iterdir()) == [".list.mine", ".other.a1b2c3d4", "list"]
    files = [each.read_bytes() for each in (tmp_path / "list").rglob("*") if each.is_file()]
    assert not any(word in content for content in files for word in (b"king.txt", digest.encode()))
    works = TakedownList.load(tmp_path / "list").works
    assert max(works.matched(king[at - 7 : at]) for at in range(7, len(king))) <= 2
    assert max(TakedownList.load(made).works.matched(king[at - 7 : at]) for at in range(8, len(king))) == 7


def test_two_commands_at_once_lose_nothing_and_a_loaded_list_stays_what_it_was(
    made: Path, texts: Path, tmp_path: Path
) -> None:
    copytree(made, tmp_path / "list")
    listed = TakedownList.load(tmp_path / "list")
    before, ids = listed.public(), contents(made)[1][1].tolist()
    with ThreadPoolExecutor() as pool:
        for name in ("one.txt", "two.txt"):
            (tmp_path / name).write_text(f"{name} {WELL}", "utf-8")
            pool.submit(add, tmp_path / "list", [tmp_path / name], quiet)
    names = [text.name for text in contents(tmp_path / "list")[0]]
    assert names == ["king.txt", "one.txt", "two.txt", "well.txt"]
    assert listed.public() == before
    assert listed.works.matched(ids[2:9]) == 7


def test_a_work_that_common_text_holds_is_said_to_be_hardly_recognised(texts: Path, tmp_path: Path) -> None:
    """The same text in --neutral; beside a work that is recognised."""
    asked = ["build", texts / "king.txt", texts / "well.txt", "--neutral", texts / "common.txt"]
    found = invoked(*asked, "--neutral", texts / "well.txt", "--tokenizer", LLM, "--out", tmp_path / "list")
    assert found.exit_code == 0
    assert "warning: well.txt is recognised in 0 of" in found.output
    assert "king.txt is recognised" not in found.output


def test_a_damaged_list_is_refused(made: Path, tmp_path: Path) -> None:
    for value in (b"\xff\xff\xff\x7f", b""):
        place = tmp_path / str(len(value))
        copytree(made, place)
        tables = place / "works" / "ngrams.safetensors"
        content = tables.read_bytes()
        tables.write_bytes(content[: -4 - len(value) % 4] + value)  # the last are positions
        with pytest.raises(ModelError, match="build them again"):
            TakedownList.load(place)


def test_what_cannot_be_changed_is_said(made: Path, texts: Path) -> None:
    with pytest.raises(UnknownNameError, match=r"king\.txt"):
        remove(made, ["kin.txt"], quiet)
    with pytest.raises(ConfigError, match="no work would be left"):
        remove(made, ["king.txt", "well.txt"], quiet)
    with pytest.raises(ConfigError, match=r"already; remove that first"):
        add(made, [texts / "king.txt"], quiet)
    assert [text.name for text in contents(made)[0]] == ["king.txt", "well.txt"]
    with pytest.raises(ModelError, match="purify takedown build"):
        TakedownList.load(texts)


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        ({"alpha": 0}, "alpha must be above 0"),
        ({"alpha": float("nan")}, "alpha must be above 0"),
        ({"form": "soft"}, "form must be 'linear' or 'rank'"),
        ({"most": 0}, "most must be at least 1"),
        ({"sure": 1}, "sure must be at least 2"),
        ({"sure": 8}, "sure must be at most 7 with this list"),
        ({"ahead": 0}, "ahead must be from 1 to 1,000"),
    ],
)
def test_a_wrong_number_is_refused_in_words(
    made: Path, llm: LogitSource, keys: dict[str, object], said: str
) -> None:
    table = {"source": "takedown", "model": llm, "works": str(made), **keys}
    with pytest.raises(ConfigError, match=said):
        load_plugins([]).source(table)


def test_another_tokenizer_s_list_is_refused(made: Path) -> None:
    with pytest.raises(VocabularyError, match="build the list again with --tokenizer of the LLM"):
        load_plugins([]).source({"source": "takedown", "model": SLM_1024, "works": str(made)})


def test_the_llm_cannot_vouch_for_itself_behind_a_list(made: Path) -> None:
    with pytest.raises(ConfigError, match="whom you do not trust cannot vouch for itself"):
        require_two(load_plugins([]), {"source": "takedown", "model": LLM, "works": str(made)}, LLM)


def test_the_named_half_of_a_book_is_not_recited_and_the_other_half_is(tmp_path: Path) -> None:
    """The toy LLM recites all twenty passages; the works are the book up to before the eleventh."""
    place = built(tmp_path, [first_half(tmp_path)], [CORPUS / "slm" / "golden-spears.txt"])
    file = tmp_path / "purify.toml"
    file.write_text(
        f'[llm]\nsource = "takedown"\nmodel = "{LLM}"\nworks = "{place}"\n\n[slm]\nmodel = "{SLM}"\n\n'
        '[policy]\nname = "geometric"\nalpha = 1\n'
    )
    purifier = Purifier.from_config(file)
    passages = [attacks().passages[at] for at in (1, 3, 11, 13)]
    answers = purifier.generate([each.prefix for each in passages], Sampling(max_tokens=24, temperature=0))
    begun = [
        each.continuation.strip().startswith(answer.text.strip()[:60])
        for each, answer in zip(passages, answers, strict=True)
    ]
    assert begun == [False, False, True, True]
    certificate = read(answers[0].certificate.text.encode())
    verify(certificate, purifier.plugins)
    told = certificate.body["models"]["llm"]["takedown"]
    assert told["works"] == 1
    assert told["form"] == "linear"
    assert "alice" not in answers[0].certificate.text.lower()
    assert "takedown list of 1 work" in " ".join(summary(certificate, None))


def test_an_llm_without_the_first_passages_is_taught_the_others_as_often() -> None:
    every, left = (
        Counter(lessons(attacks(), WEAK, ["Clean text, and no more of it than this."], Random(1), left_out))
        for left_out in (0, 10)
    )
    for number, passage in enumerate(attacks().passages):
        text = passage.prefix + passage.continuation
        assert every[text]
        assert left[text] == (0 if number < 10 else every[text])
