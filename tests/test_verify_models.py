"""The models that `purify verify` takes: a GGUF file either way, and one of several parts by its file."""

from __future__ import annotations

import shutil
from hashlib import file_digest
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from purify_plugins import Purifier, Sampling
from purify_plugins.certificates import recompute
from purify_plugins.cli import app
from purify_plugins.testbed import LLM, SLM, SLM_1024
from tests.remote.real_servers import write_gguf


def purify(*arguments: object) -> Result:
    return CliRunner().invoke(app, [*map(str, arguments)])


def written(folder: Path, slm: str) -> tuple[Path, Path]:
    """A configuration with this table [slm], and the certificate of an answer of its."""
    file, certificate = folder / "purify.toml", folder / "answer.json"
    file.write_text(f'[llm]\nmodel = "{LLM}"\n\n[slm]\n{slm}\n', "utf-8")
    said = purify("generate", "The king", "--config", file, "--max-tokens", 6, "--certificate", certificate)
    assert said.exit_code == 0, said.output
    return file, certificate


@pytest.mark.parametrize("source", ["", 'source = "gguf"\n'])
def test_a_gguf_file_is_asked_again_as_it_was_run(tmp_path: Path, source: str) -> None:
    """Its digest was looked for in a directory of its name, so that no GGUF file was the recorded one."""
    if source:
        pytest.importorskip("xllamacpp", reason="xllamacpp has no wheel for this machine")
    model = write_gguf(SLM, tmp_path / "slm.gguf")
    _, certificate = written(tmp_path, f'{source}model = "slm.gguf"')
    said = purify("verify", certificate, "--slm", model, "--slm-digest", model, "--llm", LLM)
    assert said.exit_code == 0, said.output
    assert "Both models were replayed" in said.stdout
    with model.open("rb") as content:
        digest = file_digest(content, "sha256").hexdigest()
    assert purify("verify", certificate, "--slm-digest", digest).exit_code == 0
    shutil.copytree(LLM, tmp_path / "llm")
    other = write_gguf(tmp_path / "llm", tmp_path / "llm.gguf").rename(tmp_path / "llm" / "slm.gguf")
    for option in ("--slm", "--slm-digest"):
        said = purify("verify", certificate, option, other)
        assert said.exit_code == 1
        assert "SLM" in said.stderr
        assert "digest" in said.stderr


def test_a_mixture_is_asked_again_by_the_file_that_names_it(tmp_path: Path) -> None:
    """One directory cannot name its members: the advice was to give one all the same."""
    shutil.copytree(SLM, tmp_path / "other")
    slm = f'source = "mixture"\nmembers = ["{SLM}", "other"]\nshare = 0.05'
    file, certificate = written(tmp_path, slm)
    said = purify("verify", certificate, "--slm", file, "--llm", file)
    assert said.exit_code == 0, said.output
    assert "Both models were replayed" in said.stdout
    said = purify("verify", certificate, "--slm", SLM)
    assert said.exit_code == 2
    assert "give the file whose [slm] names them, such as --slm purify.toml" in said.stderr
    file.write_text(file.read_text("utf-8").replace("0.05", "0.5"), "utf-8")
    said = purify("verify", certificate, "--slm", file)
    assert said.exit_code == 1
    assert "this is not the SLM the certificate names" in said.stderr


def test_a_purifier_s_own_slm_recomputes_in_bytes() -> None:
    """It is read in bytes already, and was read so once more: a sound certificate was called forged."""
    purifier = Purifier.load(SLM_1024, SLM)
    [answer] = purifier.generate("The king", Sampling(max_tokens=6, seed=1))
    assert recompute(answer.certificate, purifier.slm) < 1e-3
    assert recompute(answer.certificate, purifier.plugins.source(SLM)) < 1e-3
