"""The table of docs/scaling.md: what is measured, what is extrapolated, and what the reader's prices do."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from purify_plugins import Purifier, Sampling
from purify_plugins.certificates import verify

FILE = Path(__file__).parent.parent / "docs" / "scaling.py"


@pytest.fixture(scope="module")
def scaling() -> ModuleType:
    spec = importlib.util.spec_from_file_location("docs_scaling", FILE)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def some(scaling: ModuleType) -> list[Any]:
    """Two sizes on a line: 1 ms a token for 100 M weights, and 1 ms beside."""
    return [
        scaling.Figures("a", 100_000_000, 2, 0.002, 0.9e9),
        scaling.Figures("b", 200_000_000, 2, 0.003, 1.3e9),
    ]


def test_a_shape_s_weights_are_those_of_the_model(scaling: ModuleType) -> None:
    """Of the two that are known: the test bed's SLM, and SmolLM2-135M with its 134,515,008."""
    model = scaling.slm("toy").model
    assert scaling.SHAPES["toy"].weights == sum(each.numel() for each in model.parameters())
    assert scaling.SHAPES["135M"].weights == 134_515_008
    assert scaling.SHAPES["360M"].weights == 361_821_120
    assert scaling.SHAPES["1B"].weights == 1_235_814_400


def test_a_larger_size_lies_on_the_line_and_says_so(scaling: ModuleType) -> None:
    [found] = scaling.extrapolated(some(scaling), "360M", tokens=100)
    assert found.extrapolated
    assert found.seconds == pytest.approx(0.001 + 1e-11 * found.weights)
    assert found.memory == pytest.approx(0.5e9 + 4 * found.weights + 2 * 100 * scaling.SHAPES["360M"].column)
    assert "360M, extrapolated" in scaling.table([found], 20, 1, 1, 0)


def test_cores_and_costs_are_what_the_reader_s_numbers_make_them(scaling: ModuleType) -> None:
    figures = scaling.Figures("a", 1, streams=10, seconds=0.0036, memory=2e9)
    assert figures.cores(pace=50) == pytest.approx(1.8)
    assert figures.cost(core=0.5, memory=0.0, llm=0.0) == pytest.approx(0.5)  # a million take one hour
    assert figures.cost(core=0.5, memory=0.1, llm=0.6) == pytest.approx(0.5 + 0.2 + 0.6)


def test_the_llm_that_takes_no_time_leaves_a_purifier_as_it_is(scaling: ModuleType) -> None:
    slm = scaling.slm("toy")
    purifier = Purifier.load(scaling.Absent(slm), slm)
    [answer] = purifier.generate("Once", Sampling(max_tokens=4))
    assert answer.tokens
    verify(answer.certificate, purifier.plugins)


def test_the_page_keeps_its_words_and_its_table_is_the_figures(
    scaling: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    page, figures = tmp_path / "scaling.md", tmp_path / "figures.json"
    page.write_text("before\n<!-- scaling:start -->\nold\n<!-- scaling:end -->\nafter\n")
    figures.write_text(json.dumps([vars(each) for each in some(scaling)]))
    monkeypatch.setattr(scaling, "PAGE", page)
    scaling.main(["--figures", str(figures), "--write", "--core-price", "7"])
    told = page.read_text()
    assert told.startswith("before\n")
    assert told.endswith("after\n")
    assert "| b | 200 M | 2 |" in told
    assert "A core's hour costs 7" in told
    assert "old" not in told
    assert "| b | 200 M | 2 |" in capsys.readouterr().out


@pytest.mark.slow
def test_the_smallest_measurement_runs(scaling: ModuleType) -> None:
    one, several = scaling.measured("toy", [4, 1], 6)
    assert (one.streams, several.streams) == (1, 4)
    for each in (one, several):
        assert 0 < each.seconds < 1
        assert 1e8 < each.memory < 4e9
