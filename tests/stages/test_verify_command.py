"""`purify verify` of an answer that stages made, by the test bed's pair."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from purify_hooks.stages.ensemble import Ensemble
from purify_plugins.certificates.calibration_record import CalibrationRecord
from purify_plugins.cli import app
from purify_plugins.decode.deny_list import DenyList
from purify_plugins.stages import Request, Stage
from purify_plugins.testbed import LLM, SLM
from tests.toys import few, real


class Forbid(Stage):
    """Rules a text out."""

    @property
    def choices(self) -> int:
        return 1

    def answer(self, request: Request) -> Request:
        return request.forbidding(DenyList(("queen",)))

    def public(self) -> Mapping[str, object]:
        return {}


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, Path]:
    """Certificates and their texts."""
    folder = tmp_path_factory.mktemp("staged")
    for name, stages in {"ensemble": (Ensemble(2),), "masked": (Forbid(),)}.items():
        [answer] = real("balanced", stages=stages).generate("The king", few(6, seed=3))
        (folder / name).write_text(answer.certificate.text, "utf-8")
        (folder / f"{name}.txt").write_bytes(answer.text.encode())
    return {each.name: each for each in folder.iterdir()}


def purify(*arguments: object) -> Result:
    return CliRunner().invoke(app, ["verify", *map(str, arguments)])


def test_a_staged_answer_is_verified_with_both_models(files: Mapping[str, Path]) -> None:
    pins = "--require", "passage", "--answer", files["ensemble.txt"]
    found = purify(files["ensemble"], "--slm", SLM, "--llm", LLM, *pins)
    assert found.exit_code == 0, found.output
    lines = found.output.splitlines()
    assert lines[1] == "Guarantee of this answer: passage, against untrusted weights in an honest engine."
    assert "Both models were replayed" in found.output
    assert "Stage ensemble (n = 2" in found.output
    assert "one of at most 2 answers adds 0.693 nats" in found.output
    assert sum(line.startswith("Draft ") for line in lines) == 2


def test_the_ledger_is_in_the_json(files: Mapping[str, Path]) -> None:
    found = json.loads(purify(files["ensemble"], "--json").output)
    assert (found["guarantee"], found["ledger"]["choices"]) == ("passage", 2)
    assert found["policy"] == "balanced"
    assert [each["name"] for each in found["stages"]] == ["ensemble"]


def test_figures_under_a_mask_are_said_not_to_be_recomputed(files: Mapping[str, Path]) -> None:
    found = purify(files["masked"], "--slm", SLM)
    assert found.exit_code == 0, found.output
    assert "but for what is named next" in found.output
    assert "Not recomputed, so its issuer's word: draft 0 was drawn under 'deny_list'" in found.output
    assert "queen" not in files["masked"].read_text("utf-8")
    assert json.loads(purify(files["masked"], "--slm", SLM, "--json").output)["not_recomputed"]


def test_an_edited_ledger_has_its_exit_code(files: Mapping[str, Path], tmp_path: Path) -> None:
    other = tmp_path / "edited"
    other.write_text(files["ensemble"].read_text("utf-8").replace('"choices":2', '"choices":1'), "utf-8")
    assert purify(other).exit_code == 1
    assert purify(files["ensemble"], "--require", "path").exit_code == 1


def test_a_staged_answer_s_policy_and_calibration_are_told_once(tmp_path: Path) -> None:
    """They were told of an answer without stages alone."""
    record = CalibrationRecord("x.txt", "0" * 64, 300, "1" * 64, "2" * 64, 12.5, 20.25, 0.01, "0.1.0")
    pair = real("balanced", stages=(Ensemble(2),), calibration=record)
    [answer] = pair.generate("The king", few(4, seed=3))
    (tmp_path / "answer.json").write_text(answer.certificate.text, "utf-8")
    told = purify(tmp_path / "answer.json").output.splitlines()
    [policy] = [line for line in told if line.startswith("Policy: ")]
    assert policy.startswith("Policy: balanced (budget = 5.0, doubt = 1.0")
    [calibrated] = [line for line in told if line.startswith("Calibrated on ")]
    assert calibrated.startswith("Calibrated on x.txt (300 tokens")
