"""lm-evaluation-harness: what it scores is the law that draws answers."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from purify_plugins import Purifier, Sampling
from purify_plugins.errors import ConfigError
from purify_plugins.eval.likelihood import loglikelihoods
from purify_plugins.plugins import load_plugins
from purify_plugins.testbed import LLM, SLM, attacks
from tests.toys import real, toys


@pytest.fixture(autouse=True)
def _harness() -> None:
    pytest.importorskip("lm_eval")


def asked(*arguments: Any) -> Any:
    return SimpleNamespace(args=arguments)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # the harness's own imports
def test_the_harness_s_numbers_are_the_purifier_s() -> None:
    from purify_adapters.lm_eval import PurifyLM, sampling

    purifier = toys("windowed")
    model = PurifyLM(purifier=purifier)
    [(nats, greedy)] = model.loglikelihood([asked("once", " upon")])
    assert nats == pytest.approx(purifier.loglikelihood("once", " upon").nats)
    assert greedy is purifier.loglikelihood("once", " upon").greedy
    options = {"until": ["x"], "max_gen_toks": 6}
    assert sampling(options) == Sampling(max_tokens=6, temperature=0, stop=("x",), seed=0)
    texts = model.generate_until([asked("a", options), asked("b", options)])
    assert texts == [each.text for each in purifier.generate(["a", "b"], sampling(options))]
    with pytest.raises(ConfigError, match="llm=DIR,slm=DIR"):
        PurifyLM()


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # the harness's own imports
def test_the_policy_that_nobody_names_is_the_product_s() -> None:
    from purify_adapters.lm_eval import PurifyLM

    policy = PurifyLM(llm=str(LLM), slm=str(SLM)).purifier.policy
    assert policy == Purifier.load(LLM, SLM).policy == load_plugins().policy("balanced")


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # the harness's own imports
def test_a_rolling_likelihood_is_the_whole_text_s() -> None:
    from purify_adapters.lm_eval import PurifyLM

    purifier = real("windowed")
    text = "Once upon a time there was a king."
    [nats] = PurifyLM(purifier=purifier).loglikelihood_rolling([asked(text)])
    assert nats == pytest.approx(purifier.loglikelihood("", text).nats)
    assert -100 < nats < -10


TASK = """
task: who_speaks
dataset_path: json
dataset_kwargs: {data_files: {test: TEST}}
test_split: test
output_type: multiple_choice
doc_to_text: "{{prompt}}"
doc_to_choice: "{{choices}}"
doc_to_target: answer
target_delimiter: ""
metric_list: [{metric: acc}]
"""


@pytest.mark.slow
def test_the_command_scores_a_local_task(tmp_path: Path) -> None:
    """Which continuation is a passage's own: the command counts as the likelihoods say."""
    passages = attacks().passages[:4]
    others = [each.continuation for each in passages]
    rows = [
        {"prompt": each.prefix, "choices": [each.continuation, others[at - 1]], "answer": 0}
        for at, each in enumerate(passages)
    ]
    test = tmp_path / "test.jsonl"
    test.write_text("\n".join(map(json.dumps, rows)), "utf-8")
    (tmp_path / "who_speaks.yaml").write_text(TASK.replace("TEST", str(test)), "utf-8")
    command = [sys.executable, "-m", "purify_adapters.lm_eval", "--model", "purify"]
    arguments = ["--model_args", f"llm={LLM},slm={SLM},policy=windowed", "--tasks", "who_speaks"]
    places = ["--include_path", str(tmp_path), "--output_path", str(tmp_path / "out")]
    line = [*command, *arguments, *places]
    done = subprocess.run(line, capture_output=True, text=True, check=False, cwd=tmp_path)
    assert done.returncode == 0, done.stderr[-2000:]
    [found] = (tmp_path / "out").rglob("results_*.json")
    accuracy = json.loads(found.read_text("utf-8"))["results"]["who_speaks"]["acc,none"]
    pairs = [(row["prompt"], choice) for row in rows for choice in row["choices"]]
    nats = [score.nats for score in loglikelihoods(real("windowed"), pairs)]
    right = [first > second for first, second in zip(nats[::2], nats[1::2], strict=True)]
    assert accuracy == pytest.approx(sum(right) / len(right))
