"""The benchmark: its models say what they should, its designs agree, its report is an object and a page."""

from __future__ import annotations

import json
import re
import time
from pathlib import Path
from typing import Any

import pytest
import torch
import typer
from typer.testing import CliRunner

from purify_hooks.evaluation.bench import memory, report
from purify_hooks.evaluation.bench.command import bench
from purify_hooks.evaluation.bench.counting import Counting
from purify_hooks.evaluation.bench.cross_tokenizer import cross_tokenizer
from purify_hooks.evaluation.bench.designs import Decoding, Naive, Stopwatch, WritingTask, designs
from purify_hooks.evaluation.bench.models import BenchModels, batches, load
from purify_hooks.evaluation.bench.run import _swept
from purify_hooks.evaluation.bench.settings import CLOCKS, POLICIES, BenchSettings
from purify_hooks.evaluation.bench.tables import tables
from purify_hooks.evaluation.bench.targets import targets
from purify_hooks.evaluation.bench.timing import DesignTime, faster, lap, per_second
from purify_hooks.evaluation.bench.vocabulary import vocabulary_work
from purify_hooks.evaluation.bench.widen import widen
from purify_hooks.evaluation.eval.statistics import rotated, spread
from purify_plugins.decode.loop import lockstep
from purify_plugins.errors import ConfigError, PurifyError
from purify_plugins.plugin.manager import load_plugins
from purify_plugins.testbed import LLM, SLM

PLUGINS = load_plugins(())
SMALL = BenchSettings(str(LLM), str(SLM), tokens=4, rounds=1, prompts=1, threads=1)


@pytest.fixture(scope="module")
def models() -> BenchModels:
    return load(SMALL, PLUGINS)


def prompts(models: BenchModels, number: int) -> list[tuple[int, ...]]:
    """Clean prompts of different lengths."""
    [[batch]] = batches(models, BenchSettings(batch=number, rounds=1, prompts=number))
    return [prompt[row:] for row, prompt in enumerate(batch)]


def purifier(models: BenchModels, policy: str = "geometric") -> Counting:
    return Counting(models.llm, models.slm, PLUGINS.policy(policy), plugins=PLUGINS)


def test_a_widened_model_says_what_the_trained_one_does(models: BenchModels) -> None:
    trained = models.llm.model
    wide = widen(trained)
    ids = torch.tensor([prompts(models, 1)[0][:24]])
    with torch.inference_mode():
        assert torch.allclose(wide(ids).logits, trained(ids).logits, atol=1e-4)
    assert wide.num_parameters() > 80e6


@pytest.mark.parametrize("policy", ["geometric", "minimum"])
@pytest.mark.parametrize("rows", [1, 3])
def test_fusion_inside_generate_writes_what_lockstep_writes(
    models: BenchModels, policy: str, rows: int
) -> None:
    ours = purifier(models, policy)
    task = WritingTask(prompts(models, rows), 12, 0.0)
    assert Naive(models, ours.policy)(task, Stopwatch()) == Decoding(ours, lockstep)(task, Stopwatch())


def test_every_design_writes_as_many_tokens_as_it_is_asked(models: BenchModels) -> None:
    for name, design in designs(models, purifier(models)).items():
        for temperature in (0.0, 1.0):
            timed = lap(design, name, 0, WritingTask(prompts(models, 1), 5, temperature))
            assert timed.first is not None
            assert 0 < timed.first <= timed.seconds


def test_a_policy_with_a_memory_has_no_naive_design(models: BenchModels) -> None:
    assert "naive" not in designs(models, purifier(models, "windowed"))


def test_a_design_that_writes_too_little_is_not_compared() -> None:
    with pytest.raises(PurifyError, match=r"lazy wrote \[3\] tokens instead of 5"):
        lap(lambda task, watch: [[1, 2, 3]], "lazy", 0, WritingTask([(1,)], 5, 0.0))


def test_time_that_is_computed_does_not_pass_while_asleep() -> None:
    def lazy(task: WritingTask, watch: Stopwatch) -> list[list[int]]:
        time.sleep(0.2)
        return [[0] * task.tokens]

    wall, cpu = (
        lap(lazy, "lazy", 0, WritingTask([(1,)], 5, 0.0), CLOCKS[name]).seconds for name in ("wall", "cpu")
    )
    assert cpu < 0.1 < 0.2 <= wall


def test_everybody_begins_in_turn() -> None:
    assert [rotated(["a", "b", "c"], turn) for turn in range(4)] == [
        ["a", "b", "c"],
        ["b", "c", "a"],
        ["c", "a", "b"],
        ["a", "b", "c"],
    ]


def test_a_spread_is_a_median_between_its_quartiles() -> None:
    assert spread([5.0, 1.0, 2.0, 4.0, 3.0]) == (2.0, 3.0, 4.0)
    assert spread([7.0]) == (7.0, 7.0, 7.0)


def test_a_ratio_is_the_quotient_of_the_speeds_beside_it(measured: dict[str, Any]) -> None:
    """docs/tokenizers.md had 1.04 times the LLM's speed beside 128.9 bytes a second of 133.2: the ratio was a
    median of rounds, the speeds were of the whole race."""
    for mode in ("greedy", "sampled"):
        speeds = measured[mode]["tokens_per_second"]
        for name in ("speculative", "lockstep", "naive", "assisted"):
            assert measured[mode][f"{name}_vs_llm"] == pytest.approx(speeds[name] / speeds["llm"])
        assisted = measured[mode]["speculative_vs_assisted"]
        assert assisted == pytest.approx(speeds["speculative"] / speeds["assisted"])


def test_ratios_and_speeds_are_of_the_median_round() -> None:
    """A round in which the machine did something else counts in neither."""
    laps = {"llm": [DesignTime(at, each, None) for at, each in enumerate((2.0, 2.0, 9.0))]}
    laps["ours"] = [DesignTime(at, each, None) for at, each in enumerate((9.0, 1.0, 0.5))]
    assert faster(laps, "ours", "llm") == (0.4, 2.0, pytest.approx(2 / 0.75))
    assert per_second(laps["llm"], 10) == 5.0
    assert per_second([*laps["llm"], *laps["llm"]], 10) == 5.0


def test_one_model_alone_is_refused() -> None:
    with pytest.raises(ConfigError, match="both --llm and --slm"):
        load(BenchSettings(llm=str(LLM)), PLUGINS)


def test_it_says_whose_models_it_measures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Beside a purify.toml its figures passed for those of the file's models."""
    app = typer.Typer()
    app.command("bench")(bench)
    monkeypatch.setattr("purify_hooks.evaluation.bench.run.run_bench", lambda *_, **how: {})
    monkeypatch.setattr("purify_hooks.evaluation.bench.report.show", lambda _: None)
    monkeypatch.chdir(tmp_path)
    said = "measuring the test bed's pair, its LLM widened, since --llm and --slm name no other"
    assert CliRunner().invoke(app, []).stderr == f"{said}\n"
    (tmp_path / "purify.toml").write_text('[llm]\nmodel = "a"\n[slm]\nmodel = "b"\n', "utf-8")
    other = "; the configuration's own models are measured with --llm and --slm\n"
    assert CliRunner().invoke(app, []).stderr == said + other
    assert not CliRunner().invoke(app, ["--llm", str(LLM), "--slm", str(SLM)]).stderr


def run(*options: str) -> str:
    """What `purify bench` prints on standard output, on the small pair and in a hurry."""
    app = typer.Typer()
    app.command("bench")(bench)
    pair = ["--llm", str(LLM), "--slm", str(SLM), "--tokens", "4", "--rounds", "1", "--prompts", "1"]
    result = CliRunner().invoke(app, [*pair, "--threads", "1", *options], catch_exceptions=False)
    assert result.exit_code == 0
    return result.stdout


@pytest.fixture(scope="module")
def measured() -> dict[str, Any]:
    """A short measurement, as the command prints it."""
    found: dict[str, Any] = json.loads(run("--json", "--no-extras", "--sweep"))
    return found


RATIOS = ("speculative_vs_llm", "speculative_vs_assisted", "lockstep_vs_llm", "naive_vs_llm")


def test_the_command_prints_one_object(measured: dict[str, Any]) -> None:
    assert measured["cost_ratio"] > 0
    assert (measured["batch"], measured["policy"]) == (1, {"name": "geometric", "alpha": 0.5})
    assert measured["memory"] is measured["vocabulary"] is None
    for mode in ("greedy", "sampled"):
        assert all(measured[mode][name] > 0 for name in RATIOS)
        assert 0 <= (measured[mode]["acceptance"] or 0) <= 1
        assert 1 <= measured[mode]["tokens_per_cycle"] <= 4
        assert measured[mode]["passes_per_token"] == pytest.approx(1 / measured[mode]["tokens_per_cycle"])
        decoders = {"lockstep", *map(str, range(7))}
        assert set(measured["sweep"][mode]["vs_lockstep"]) == {"adaptive", *decoders}
        assert measured["sweep"][mode]["best"] in decoders


def test_a_batch_has_no_assisted_generation() -> None:
    found = json.loads(run("--json", "--no-extras", "--batch", "2", "--set", "alpha=0.3", "--clock", "cpu"))
    assert found["clock"] == "cpu"
    assert found["policy"]["alpha"] == 0.3
    assert found["greedy"]["speculative_vs_assisted"] is None
    assert found["greedy"]["speculative_vs_llm"] > 0


def test_the_vocabulary_is_measured_at_every_size() -> None:
    found = vocabulary_work(PLUGINS, steps=4)
    assert set(found) == {"32k", "128k", "256k"}
    for size in found.values():
        assert size["floor_ms"] > 0
        assert set(size) == {"floor_ms", *POLICIES}
        assert all(ms > 0 for policy in POLICIES for ms in size[policy].values())


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="the kernel does not tell")
def test_memory_is_measured_in_a_process_of_its_own() -> None:
    found = memory.memory(SMALL, ["lockstep"], lambda text: None)
    assert found is not None
    assert found["lockstep"]["weights"] == pytest.approx(4 * (3_049_920 + 865_152) / 1e6, abs=0.01)
    assert found["lockstep"]["added"] > found["lockstep"]["beyond"]


def test_a_bar_is_kept_or_not(measured: dict[str, Any]) -> None:
    fast = {**measured, "cost_ratio": 0.0, "greedy": {**measured["greedy"], "speculative_vs_llm": 1.6}}
    slow = {**measured, "cost_ratio": 0.0, "greedy": {**measured["greedy"], "speculative_vs_llm": 1.4}}
    assert [targets(found)[0].holds for found in (fast, slow)] == [True, False]


def test_another_tokenizer_is_measured_in_bytes(models: BenchModels, measured: dict[str, Any]) -> None:
    found = cross_tokenizer(SMALL, models, PLUGINS, lambda text: None)
    assert (found["slm"], found["alphabet"]) == ("slm-1024", "bytes")
    for mode in ("greedy", "sampled"):
        speeds = found[mode]["bytes_per_second"]
        assert found[mode]["vs_llm"] == pytest.approx(speeds["purified"] / speeds["llm"])
        assert all(speed > 0 for speed in found[mode]["bytes_per_second"].values())
        assert 0 < found[mode]["calls_per_token"] < 6
    kept = {**measured, "another_tokenizer": {**found, "greedy": {**found["greedy"], "vs_llm": 0.7}}}
    assert measured["another_tokenizer"] is None
    assert [bar.holds for bar in targets(kept) if bar.what == "another tokenizer ÷ LLM alone, greedy"] == [
        True
    ]
    assert any("fused in bytes" in table.title for table in tables(kept))


PAGE = "# A page\n\n<!-- bench:start -->\n<!-- bench:end -->\n\nThe end.\n"


def test_writing_twice_changes_nothing(measured: dict[str, Any]) -> None:
    once = report.updated(PAGE, measured, "a.svg")
    assert "| speculative |" in once
    assert once.endswith("The end.\n")
    assert report.updated(once, measured, "a.svg") == once


def test_a_measurement_says_when_and_on_what_machine(measured: dict[str, Any]) -> None:
    assert re.search(r"\d{4}-\d\d-\d\d, .+ \d+ cores?", report.heading(measured))


def test_another_setting_gets_a_section_of_its_own(measured: dict[str, Any]) -> None:
    other = {**measured, "title": "geometric, batch 8"}
    both = report.updated(report.updated(PAGE, measured, "a.svg"), other, "b.svg")
    assert both.count("\n### ") == 2
    assert report.updated(both, measured, "a.svg") == both


def test_the_page_and_the_plot_are_written(measured: dict[str, Any], tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    (tmp_path / report.PAGE).write_text(PAGE)
    report.write(measured, tmp_path)
    first = (tmp_path / "performance.svg").read_bytes()
    report.write(measured, tmp_path)
    assert (tmp_path / "performance.svg").read_bytes() == first
    assert "![speed over the LLM alone](performance.svg)" in (tmp_path / report.PAGE).read_text()


def test_a_page_without_a_place_is_left_alone(measured: dict[str, Any], tmp_path: Path) -> None:
    (tmp_path / report.PAGE).write_text("# A page\n")
    with pytest.raises(ConfigError, match="needs the lines <!-- bench:start -->"):
        report.write(measured, tmp_path)


def test_the_terminal_shows_every_table() -> None:
    shown = run("--no-extras")
    assert all(title in shown for title in ("Speed", "Speculation", "speculative"))


def test_our_page_has_a_place_for_the_tables() -> None:
    page = Path(__file__).parent.parent / "docs" / report.PAGE
    assert report.REGION.search(page.read_text("utf-8"))


def test_a_fixed_length_that_is_only_lucky_is_not_the_best() -> None:
    """Each is fastest in a round of its own: picked by that round, it would seem to beat the adaptive one."""
    fixed = {"lockstep": (1.0, 2.1, 2.1), "1": (2.2, 1.0, 2.2), "2": (2.3, 2.3, 1.0)}
    seconds = {"adaptive": (2.0, 2.0, 2.0), **fixed}
    laps = {
        name: [DesignTime(at, each, None) for at, each in enumerate(times)] for name, times in seconds.items()
    }
    assert _swept(laps)["adaptive_vs_best"] == pytest.approx(1.05)
    assert _swept({name: each[:1] for name, each in laps.items()})["adaptive_vs_best"] == 0.5


def test_added_tokens_are_never_written_and_change_no_other_logit(models: BenchModels) -> None:
    from purify_hooks.evaluation.bench.accelerator.pair import larger_head, larger_vocabulary

    trained, size = models.llm.model, 4096
    wide = widen(trained, 2, 1, head=larger_head(models.llm, size), dtype=torch.bfloat16)
    ids = torch.tensor([prompts(models, 1)[0][:24]])
    with torch.inference_mode():
        before, after = trained(ids).logits.softmax(-1), wide(ids).logits.float().softmax(-1)
    assert (
        after.shape[-1]
        == size
        == len(set(larger_vocabulary(models.llm.vocabulary, size).tokens[2048:])) + 2048
    )
    assert float(after[..., 2048:].sum(-1).max()) < 1e-3
    assert torch.allclose(after[..., :2048], before, atol=0.05)  # bfloat16's rounding


def test_a_presets_bars_are_of_what_was_measured() -> None:
    from purify_hooks.evaluation.bench.accelerator.tables import bars

    def design(
        speed: float, outside: float | None = None, llm: float | None = None
    ) -> dict[str, float | None]:
        return {"tokens_per_second": speed, "outside_ms": outside, "llm_ms": llm}

    slow, fast = design(10.0), design(30.0)
    single = {"llm": slow, "llm, compiled": design(20.0), "speculative": slow, "speculative, compiled": fast}
    many = {**single, "lockstep, compiled": design(20.0, 3.0, 20.0)}
    cells = [
        {"vocabulary": 2048, "batch": 1, "modes": {"greedy": single}},
        {"vocabulary": 1 << 17, "batch": 32, "modes": {"greedy": many}},
    ]
    found = list(bars({"cells": cells}))
    assert [(bar.measured, bar.holds) for bar in found] == [(1.5, True), (0.15, False)]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--preset", "cpu"], "the presets are gpu, none"),
        (["--preset", "gpu", "--device", "tpu"], "there is no device 'tpu' here"),
        (["--preset", "gpu", "--llm", str(LLM), "--slm", str(SLM)], "a preset brings a pair of its own"),
    ],
)
def test_a_preset_that_cannot_be_measured_is_refused(options: list[str], said: str) -> None:
    app = typer.Typer()
    app.command()(bench)
    device = [] if "--device" in options else ["--device", "cpu"]
    result = CliRunner().invoke(app, [*options, *device])
    assert isinstance(result.exception, ConfigError)
    assert said in str(result.exception)


@pytest.mark.slow  # torch compiles for minutes
@pytest.mark.filterwarnings("ignore:.torch.jit.script_method. is deprecated:DeprecationWarning")
def test_a_preset_measures_every_design(tmp_path: Path) -> None:
    from purify_hooks.evaluation.bench.accelerator.command import run_preset
    from purify_hooks.evaluation.bench.accelerator.tables import NAMES

    page = tmp_path / "gpu.md"
    page.write_text("<!-- none:start -->\nan earlier one\n<!-- none:end -->\n")
    settings = BenchSettings(tokens=4, rounds=1, prompts=1)
    run_preset("none", settings, "cpu", lambda _: None, tmp_path, as_json=True)
    written = page.read_text()
    assert all(name in written for name in NAMES.values())
    assert "an earlier one" not in written
    assert "| balanced | 4,096 | 1 |" in written
