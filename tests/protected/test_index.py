"""`purify protect build` and its index: bounded, sorted, the same again, and refused when damaged."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy
import pytest
from typer.testing import CliRunner

from purify_hooks.protected import build as building
from purify_hooks.protected.folding import letters_of, words_of
from purify_hooks.protected.index import MAGIC, open_index
from purify_hooks.protected.prints import Roller
from purify_hooks.protected.reading import TextReading
from purify_plugins import ConfigError
from purify_plugins.cli import app
from tests.protected.works import HERON, TIDE, index_of


def test_letters_are_folded_whatever_stands_beside_them() -> None:
    assert words_of("Don't RUN\u2014the \ufb01ne Rabbit-hole") == [
        "dont",
        "run",
        "the",
        "fine",
        "rabbit",
        "hole",
    ]
    assert letters_of("аррlе z\u200bero na\u00efve STRASSE stra\u00dfe") == "applezeronaivestrassestrasse"
    assert words_of("日本語です 2 ⅷ") == ["日", "本", "語", "て", "す", "2", "viii"]
    assert letters_of("ａ" + "é" + "e\u0301") == "aee"


def test_every_word_of_a_work_is_found_with_its_place_and_its_work(tmp_path: Path) -> None:
    index = index_of(tmp_path)
    first, second = words_of(TIDE), words_of(HERON)
    assert [each.words for each in index.header.sources] == [len(first), len(second)]
    assert index.lengths.tolist() == [len(word) for word in (*first, *second)]
    letters, end = "".join(first), 0
    roller = Roller(index.header.length)
    for at, word in enumerate(first):
        end += len(word)
        if end >= roller.length:
            [found] = index.found([roller.print_of(letters[:end])])
            assert at in index.places(found, 9)
            assert index.ends_at(numpy.array([roller.print_of(letters[:end])], dtype=numpy.uint64), at)[0]
    assert index.source(0) == index.source(len(first) - 1) == "work-0.txt"
    assert index.source(len(first)) == "work-1.txt"
    assert not index.found([roller.print_of("nothing of this kind is there")])


def test_what_the_common_corpus_holds_is_commonplace(tmp_path: Path) -> None:
    index = index_of(tmp_path, common="for the boats that came home")
    roller = Roller(index.header.length)
    [usual] = index.found([roller.print_of(letters_of("the boats that came home"))])
    [rare] = index.found([roller.print_of(letters_of("opened the second book"))])
    assert index.common(usual)
    assert not index.common(rare)


def test_it_does_not_matter_how_a_file_is_cut_into_blocks(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    text = f"\ufeff{TIDE} 日本語です {HERON} " + "x" * 700 + " é\u0301 end"
    whole = TextReading(13)
    found = [whole.feed(text.encode(), "it"), whole.feed(b"", "it")]
    cut = TextReading(13)
    pieces = [cut.feed(text.encode()[at : at + 7], "it") for at in range(0, len(text.encode()), 7)]
    pieces.append(cut.feed(b"", "it"))
    for column in (0, 2):
        assert numpy.concatenate([each[column] for each in found]).tolist() == (
            numpy.concatenate([each[column] for each in pieces]).tolist()
        )


def test_the_same_works_make_the_same_file(tmp_path: Path) -> None:
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        index_of(tmp_path / name, licence="all rights reserved")
    one, two = ((tmp_path / name / "index.prints").read_bytes() for name in ("one", "two"))
    assert one == two


def test_no_word_of_a_work_stands_in_the_file_and_all_that_is_known_of_it_does(tmp_path: Path) -> None:
    index = index_of(tmp_path, licence="by permission")
    content = (tmp_path / "index.prints").read_bytes()
    assert not re.search(rb"(?i)marrowby|ledger|umbrella", content)
    assert index.header.licence == "by permission"
    assert [each.name for each in index.header.sources] == ["work-0.txt", "work-1.txt"]
    assert all(len(each.sha256) == 64 for each in index.header.sources)


def test_a_damaged_index_is_refused(tmp_path: Path) -> None:
    index_of(tmp_path)
    content = (tmp_path / "index.prints").read_bytes()
    begin = len(MAGIC) + 8
    size = int.from_bytes(content[len(MAGIC) : begin], "little")
    header = json.loads(content[begin : begin + size])
    other = json.dumps({**header, "format": "purify-prints/1"}).encode()
    length = json.dumps({**header, "length": header["length"] + 1}).encode()
    rest = content[begin + size :]
    flipped = bytearray(content)
    flipped[-40] ^= 1
    for damaged, why in {
        content[:5]: "another kind of file",
        b"": "empty",
        b"%PDF-" + content: "another kind of file",
        content[: begin + 20]: "cut off",
        content[:-1]: "cut off",
        content + b"x": "longer",
        bytes(flipped): "digest",
        MAGIC
        + len(other).to_bytes(8, "little")
        + other
        + rest: "'purify-prints/1', and 'purify-prints/2' is",
        MAGIC + len(length).to_bytes(8, "little") + length + rest: "digest",
    }.items():
        (tmp_path / "bad.prints").write_bytes(damaged)
        with pytest.raises(ConfigError, match=why) as told:
            open_index(tmp_path / "bad.prints")
        assert "purify protect build" in str(told.value)


def test_a_random_change_anywhere_is_refused_or_changes_nothing_that_is_read(tmp_path: Path) -> None:
    index = index_of(tmp_path)
    content = bytearray((tmp_path / "index.prints").read_bytes())
    for at in range(0, len(content), 61):
        damaged = bytearray(content)
        damaged[at] ^= 0x11
        (tmp_path / "bad.prints").write_bytes(damaged)
        try:
            other = open_index(tmp_path / "bad.prints")
        except ConfigError:
            continue
        assert other.digest == index.digest
        assert (other.header.length, other.header.positions) == (index.header.length, index.header.positions)


def test_a_part_is_sorted_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[tuple[int, int, str]] = []
    (tmp_path / "a.txt").write_text(TIDE * 40)
    options = building.IndexOptions([tmp_path / "a.txt"], tmp_path / "a.prints")
    building.build(options, lambda *step: told.append(step))
    assert [each[2] for each in told].count("sorting") == building.PARTS + 1
    assert (len(TIDE) * 40, len(TIDE) * 40, "reading") in told


def run(*words: str) -> Any:
    return CliRunner().invoke(app, ["protect", "build", *words])


def test_the_command_says_what_it_made(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text(TIDE)
    out = str(tmp_path / "a.prints")
    said = run(str(tmp_path / "a.txt"), "--out", out)
    assert said.exit_code == 0, said.output
    assert "1 works" in said.stdout or "1 work" in said.stdout
    again = run(str(tmp_path / "a.txt"), "--out", out)
    assert again.exit_code == 2
    replaced = run(str(tmp_path / "a.txt"), "--out", out, "--force", "--json")
    facts = json.loads(replaced.stdout)
    assert facts["works"] == 1
    assert facts["bytes"] == (tmp_path / "a.prints").stat().st_size
    assert facts["digest"] == open_index(tmp_path / "a.prints").digest


@pytest.mark.slow
def test_a_million_prints_take_at_most_ten_megabytes(tmp_path: Path) -> None:
    rng = numpy.random.default_rng(0)
    words = ["".join(chr(97 + each) for each in rng.integers(0, 26, rng.integers(1, 9))) for _ in range(9000)]
    (tmp_path / "a.txt").write_text(" ".join(words[at] for at in rng.integers(0, 9000, 1_000_100)))
    options = building.IndexOptions([tmp_path / "a.txt"], tmp_path / "a.prints")
    header = building.build(options, lambda *_: None)
    assert header.prints >= 1_000_000
    assert (tmp_path / "a.prints").stat().st_size <= 10 * header.prints
