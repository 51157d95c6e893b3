"""Files are written whole or not at all, and nothing but a file is ever replaced."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
import time
from pathlib import Path
from threading import Thread

import pytest
from typer.testing import CliRunner

from purify_plugins import ConfigError, Grammar
from purify_plugins.cli import app
from purify_plugins.grammar import LONGEST_GRAMMAR
from purify_plugins.testbed import LLM, SLM
from purify_plugins.utils.files import write_whole


def names(folder: Path) -> list[str]:
    return sorted(each.name for each in folder.iterdir())


def test_a_file_is_replaced_whole(tmp_path: Path) -> None:
    file = tmp_path / "a.txt"
    write_whole(file, "old")
    before = file.stat().st_ino
    write_whole(file, "new")
    assert file.read_text() == "new"
    assert file.stat().st_ino != before
    assert names(tmp_path) == ["a.txt"]


def test_a_file_keeps_who_may_read_it(tmp_path: Path) -> None:
    file = tmp_path / "a.txt"
    write_whole(file, "old")
    file.chmod(0o600)
    write_whole(file, b"new")
    assert stat.S_IMODE(file.stat().st_mode) == 0o600


def test_a_link_stays_and_what_it_leads_to_is_replaced(tmp_path: Path) -> None:
    link, file = tmp_path / "link", tmp_path / "file"
    file.write_text("old")
    link.symlink_to(file)
    write_whole(link, "new")
    assert link.is_symlink()
    assert file.read_text() == "new"


def test_a_link_that_leads_nowhere_yet_leads_to_the_file(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path / "file")
    write_whole(tmp_path / "link", "new")
    assert (tmp_path / "file").read_text() == "new"


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no such device here")
def test_a_device_is_written_to_and_stays_one(tmp_path: Path) -> None:
    """`generate --certificate /dev/full` as root put a file in the place of the device."""
    link = tmp_path / "full"
    link.symlink_to("/dev/full")  # so that a mistake of ours takes the link, and not this machine's device
    with pytest.raises(ConfigError, match=r"cannot write '.*full': No space left on device"):
        write_whole(link, "a")
    assert link.is_symlink()
    assert stat.S_ISCHR(link.stat().st_mode)
    null = tmp_path / "null"
    null.symlink_to("/dev/null")
    write_whole(null, "a" * 10**6)
    assert stat.S_ISCHR(null.stat().st_mode)
    assert names(tmp_path) == ["full", "null"]


def test_a_certificate_may_go_to_a_full_device(tmp_path: Path) -> None:
    (tmp_path / "full").symlink_to("/dev/full")
    words = ["generate", "A", "--llm", str(LLM), "--slm", str(SLM), "--max-tokens", "1"]
    told = CliRunner().invoke(app, [*words, "--certificate", str(tmp_path / "full")])
    assert told.exit_code == 2
    assert "No space left on device" in told.stderr
    assert stat.S_ISCHR((tmp_path / "full").stat().st_mode)


def test_a_pipe_is_written_to(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    read: list[bytes] = []
    reader = Thread(target=lambda: read.append(pipe.read_bytes()))
    reader.start()
    write_whole(pipe, "a" * 300_000)
    reader.join(10)
    assert read == [b"a" * 300_000]
    assert stat.S_ISFIFO(pipe.stat().st_mode)


def test_standard_output_can_be_a_file(tmp_path: Path) -> None:
    program = (
        "from pathlib import Path; from purify_plugins.utils.files import write_whole; "
        "print('first', flush=True); write_whole(Path('/dev/stdout'), 'second')"
    )
    with (tmp_path / "out").open("w") as out:
        subprocess.run([sys.executable, "-c", program], stdout=out, check=True, timeout=60)
    assert (tmp_path / "out").read_text() == "first\nsecond"


def test_a_write_that_fails_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "a.txt"
    write_whole(file, "old")

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.replace", full)
    with pytest.raises(ConfigError, match="No space left on device"):
        write_whole(file, "new")
    assert file.read_text() == "old"
    assert names(tmp_path) == ["a.txt"]


@pytest.mark.parametrize("kind", ["regex", "json_schema", "lark"])
def test_a_grammar_of_a_megabyte_is_refused_before_anybody_waits(kind: str) -> None:
    """A regular expression of a megabyte cost five to eleven seconds, and then its 422."""
    began = time.process_time()
    with pytest.raises(
        ConfigError, match=r"grammar: text has 1,000,000 characters, at most 131,072 are followed"
    ):
        Grammar(kind, "a" * 1_000_000)  # type: ignore[arg-type]  # each of the three
    assert time.process_time() - began < 0.5


def test_a_grammar_just_short_enough_is_followed_soon() -> None:
    began = time.process_time()
    Grammar("regex", "a" * LONGEST_GRAMMAR)
    assert time.process_time() - began < 5


def test_a_schema_that_nests_without_end_is_refused() -> None:
    with pytest.raises(ConfigError, match="it is nested too deeply"):
        Grammar("json_schema", '{"items":' * 10_000 + "{}" + "}" * 10_000)
