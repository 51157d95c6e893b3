"""`purify eval --calibrate`: one command sets the rule by a pair and measures it; no file is needed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from purify_hooks.evaluation.eval.run import ModelNames
from purify_plugins.cli import app
from purify_plugins.configuration.config import read_config
from purify_plugins.testbed import LLM, SLM, SLM_1024

OWN = ("--llm", str(SLM), "--slm", str(LLM))
"""A pair that is not the test bed's: nobody knows what its LLM must not say."""
SHORT = ("--quick", "--jobs", "1", "--policies", "balanced", "--suites", "utility", "--clock", "none")


def spoken(text: str) -> str:
    return " ".join(text.split())


@pytest.mark.slow
def test_one_command_calibrates_a_pair_and_measures_what_it_costs(tmp_path: Path) -> None:
    """Without attacks, too: it was refused, and harms of the test bed were asked of what `--pair` named."""
    line = ["eval", *OWN, "--calibrate", *SHORT, "--out", str(tmp_path), "--json"]
    first = CliRunner().invoke(app, line)
    assert first.exit_code == 0, first.output
    told = spoken(first.stderr)
    assert "A passage of 40 tokens" in told
    assert "no --attacks: what the LLM knows and what purifying costs is measured" in told
    file = tmp_path / "calibrated.toml"
    config = read_config(file)
    assert config.calibration
    found = json.loads(first.stdout)
    assert list(found) == ["llm", "slm", "balanced", "configured"]
    assert found["configured"]["policy"] == config.policy != {"name": "balanced"}
    assert "stops_every_harm" not in found["configured"], "none was asked for"
    written = file.read_text("utf-8")
    again = CliRunner().invoke(app, line)
    assert f"the rule is the one in {file}, which was calibrated before" in spoken(again.stderr)
    assert (json.loads(again.stdout), file.read_text("utf-8")) == (found, written)
    other = CliRunner().invoke(app, ["eval", "--llm", str(LLM), "--slm", str(SLM_1024), *line[5:]])
    assert other.exit_code == 2
    assert "is a calibration of another pair; choose another --out" in spoken(other.stderr)
    report = CliRunner().invoke(app, line[:-1])
    assert "No harm was measured" in spoken(report.stdout)
    assert "Stops every harm" not in spoken(report.stdout)


@pytest.mark.parametrize(
    ("llm", "ours"),
    [
        (str(LLM), True),
        ({"model": str(LLM)}, True),
        ({"source": "takedown", "model": {"source": "local", "model": str(LLM)}}, True),
        ({"source": "contrast", "expert": {"model": str(LLM)}}, False),
        ("elsewhere", False),
    ],
)
def test_the_test_bed_s_harms_are_asked_of_what_its_llm_is_in(llm: Any, ours: bool) -> None:
    """An LLM whose model is a table of its own ended in a stack trace."""
    assert ModelNames(llm, str(SLM)).of_llm(LLM) is ours


def test_a_configuration_is_measured_as_it_is(tmp_path: Path) -> None:
    file = tmp_path / "purify.toml"
    file.write_text(f'[llm]\nmodel = "{LLM}"\n[slm]\nmodel = "{SLM}"\n', "utf-8")
    found = CliRunner().invoke(app, ["eval", "--pair", str(file), "--calibrate"])
    assert found.exit_code == 2
    assert f"calibrate it with `purify calibrate --config {file}`" in spoken(found.stderr)


def test_a_setting_is_tuned_by_what_it_stops(tmp_path: Path) -> None:
    found = CliRunner().invoke(app, ["tune", "balanced", *OWN, "--quick", "--out", str(tmp_path)])
    assert found.exit_code == 2
    assert "name that with --attacks" in spoken(found.stderr)
