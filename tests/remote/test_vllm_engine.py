"""The processor in vLLM's own engine, on a CPU: both runners, cut prompts, preemption and drafts.

Run where a Python has vLLM and this package (PURIFY_VLLM_PYTHON; docs/tgi.md says how to make one).
"""

from __future__ import annotations

import subprocess
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import httpx
import pytest
import torch
from scipy.stats import chisquare
from typer.testing import CliRunner

from purify_adapters.vllm_engine.endpoint import EXTENSION
from purify_adapters.vllm_engine.running import NAME
from purify_hooks.evaluation import testbed
from purify_plugins import Purifier, Sampling
from purify_plugins.certificates import read, verify
from purify_plugins.certificates.figures import tokens_of
from purify_plugins.cli import app
from purify_plugins.decode.replay import forced, replay
from purify_plugins.testbed import LLM, SLM
from purify_plugins.types import Certificate
from tests.remote.real_servers import started, sure_of, vllm_command
from tests.toys import Unscored, both, pair

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]

TIGHT = (
    *("--max-model-len", "256", "--block-size", "32", "--num-gpu-blocks-override", "13"),
    *("--max-num-seqs", "8", "--max-num-batched-tokens", "40", "--enable-prefix-caching"),
)
"""Too little room for eight requests, and for a prompt in one step: vLLM cuts prompts and preempts."""
DRAFTS = '{"method": "ngram", "num_speculative_tokens": 3, "prompt_lookup_max": 2, "prompt_lookup_min": 1}'
RUNNERS: dict[str, tuple[str, ...]] = {
    "V1": ("--no-async-scheduling",),
    "V2": (),
    "V2-drafts": ("--speculative-config", DRAFTS),
}
LONG = 48
CANARY = 300
Request = tuple[tuple[int, ...], dict[str, Any]]
"""A prompt's tokens, and options of vLLM's."""


@dataclass(frozen=True)
class Running:
    """vLLM's server: its runner, the policy of its processor and a client."""

    runner: str
    policy: str
    client: httpx.Client

    def post(self, prompt: Sequence[int], **options: Any) -> httpx.Response:
        asked = {"model": "testbed", "prompt": list(prompt), "max_tokens": LONG, "temperature": 0}
        asked |= {"ignore_eos": True, "return_token_ids": True, **options}
        return self.client.post("/v1/completions", json=asked)

    def answered(self, prompt: Sequence[int], **options: Any) -> dict[str, Any]:
        """vLLM's response. Fails for any status but 200."""
        told = self.post(prompt, **options)
        assert told.status_code == 200, told.text
        found: dict[str, Any] = told.json()
        return found

    def answers(self, asked: Sequence[Request], at_once: int = 12) -> list[tuple[int, ...]]:
        """The tokens of the answers to requests, so many of them sent at once."""
        with ThreadPoolExecutor(at_once) as pool:
            told = pool.map(lambda each: self.answered(each[0], **each[1]), asked)
            return [tuple(choice["token_ids"]) for each in told for choice in each["choices"]]

    def certificate(self, response: str) -> Certificate:
        told = self.client.get(f"/v1/purify/certificates/{response}")
        assert told.status_code == 200, told.text
        return read(told.text)

    def count(self, name: str) -> float:
        """One of vLLM's counters."""
        lines = self.client.get("/metrics").text.splitlines()
        return sum(float(line.split()[-1]) for line in lines if line.startswith(f"vllm:{name}_total"))


@cache
def require_this_package(python: str) -> None:
    if subprocess.run([python, "-c", "import purify_adapters"], capture_output=True).returncode:
        pytest.skip("the Python that has vLLM lacks purify-plugins; install it there")


@contextmanager
def serving(folder: Path, runner: str, policy: str, llm: Path = LLM, slm: Path = SLM) -> Iterator[Running]:
    more = ("--logits-processors", NAME, "--worker-extension-cls", EXTENSION, *TIGHT, *RUNNERS[runner])
    command = vllm_command(llm, *more, interpreted=runner != "V1")
    require_this_package(command[0])
    file = folder / "purify.toml"
    file.write_text(f'[llm]\nmodel = "vllm"\n[slm]\nmodel = "{slm}"\n[policy]\nname = "{policy}"\n')
    told = {"PURIFY_CONFIG": str(file), "VLLM_PLUGINS": "purify"}
    # With the cache's size nothing is profiled, which draws from rows of NaN: the interpreter refuses those.
    told |= {"VLLM_CPU_KVCACHE_SPACE": "1", "VLLM_USE_V2_MODEL_RUNNER": "01"[runner != "V1"]}
    with (
        started(command, folder / "log", "/health", 900.0, **told) as url,
        httpx.Client(base_url=url, timeout=300, trust_env=False) as client,
    ):
        yield Running(runner, policy, client)


@cache
def prompts() -> list[tuple[int, ...]]:
    """Six that begin alike, for more than a block, with words to look drafts up in."""
    llm, _ = both()
    begun = " ".join(testbed.attacks().clean[:2])
    return [tuple(llm.encode(f"{begun} {text}")) for text in testbed.attacks().clean[2:8]]


@cache
def local(policy: str) -> Purifier:
    """The purifier here, which is not shown what the LLM thinks of a prompt either."""
    llm, slm = both()
    return pair(Unscored(llm), slm, policy, walk="lockstep")  # type: ignore[arg-type]  # one by its attributes


CASES = [("V1", "geometric"), ("V1", "balanced"), ("V2", "windowed"), ("V2-drafts", "balanced")]


@pytest.fixture(scope="module", params=CASES, ids="-".join)
def engine(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    with serving(tmp_path_factory.mktemp("vllm"), *request.param) as running:
        yield running


def test_greedy_answers_are_lockstep_s_whatever_vllm_schedules(engine: Running) -> None:
    """Twelve at once in eight places, of many lengths; what vLLM did with them is read off its counters."""
    asked = [(at % 6, LONG - at % 5 * 8) for at in range(24)]
    found = engine.answers([(prompts()[at], {"max_tokens": length}) for at, length in asked])
    sampling = Sampling(max_tokens=LONG, temperature=0, ignore_eos=True)
    expected = [local(engine.policy).generate(each, sampling)[0].tokens for each in prompts()]
    assert found == [expected[at][:length] for at, length in asked]
    assert max(map(len, prompts())) > 40, "a prompt is longer than a step: it is read in pieces"
    assert engine.count("num_preemptions") > 0
    assert engine.count("prefix_cache_hits") > 0
    if "drafts" in engine.runner:
        assert engine.count("spec_decode_num_accepted_tokens") > 0


@pytest.mark.parametrize("heat", [1.0, 0.7])
def test_every_figure_of_a_drawn_answer_is_the_local_purifier_s(engine: Running, heat: float) -> None:
    """The rows that were drawn from, by their tokens' log-probabilities and divergence."""
    with ThreadPoolExecutor(8) as pool:
        told = list(pool.map(lambda prompt: engine.answered(prompt, temperature=heat), prompts()))
    sampling = Sampling(temperature=heat, ignore_eos=True)
    for prompt, answer in zip(prompts(), told, strict=True):
        found, tokens = engine.certificate(answer["id"]), answer["choices"][0]["token_ids"]
        verify(found, local(engine.policy).plugins)
        recorded = tokens_of(found.body["steps"])
        assert [step.id for step in recorded] == tokens
        [steps] = replay(local(engine.policy), [prompt], [tokens], sampling)
        for name in ("slm", "fused", "kl", "peak"):
            ours, theirs = ([getattr(step, name) for step in each] for each in (steps, recorded))
            assert theirs == pytest.approx(ours, abs=5e-3), name


def test_tokens_are_drawn_as_often_as_the_fused_row_says(engine: Running) -> None:
    """1,024 draws of one row, without a seed."""
    prompt = prompts()[0][:5]  # eight fit into a step
    asked = (prompt, {"temperature": 1, "max_tokens": 1, "n": 64})
    drawn = Counter(token for (token,) in engine.answers([asked] * 16))
    with torch.inference_mode():
        steps = forced(local(engine.policy), [prompt], [(0,)], Sampling(ignore_eos=True))
        [(_, column)] = list(steps)
        expected = 1024 * (column.fused - column.totals[:, 2:])[0].double().exp()
    likely = (expected >= 5).nonzero()[:, 0].tolist()
    seen, most = [drawn[token] for token in likely], expected[likely].tolist()
    assert chisquare([*seen, 1024 - sum(seen)], [*most, 1024 - sum(most)]).pvalue > 1e-6


def test_a_seed_repeats_an_answer_alone_and_in_a_crowd(engine: Running) -> None:
    """Under V1 short ones, one by one: vLLM 0.32 on a CPU stops at a seeded request whose prompt it cuts."""
    cut = engine.runner != "V1"
    prompt = prompts()[0] if cut else prompts()[0][:20]
    asked = [(prompt, {"temperature": 1, "seed": seed}) for seed in (7, 7, 8, 7, 9, 10)]
    [alone] = engine.answers(asked[:1])
    found = engine.answers(asked, at_once=12 if cut else 1)
    assert [tokens == alone for tokens in found] == [True, True, False, True, False, False]
    assert len(set(found)) == 4


@pytest.mark.parametrize(
    "option",
    [
        {"top_p": 0.5},
        {"top_k": 5},
        {"min_p": 0.1},
        {"presence_penalty": 1.0},
        {"repetition_penalty": 1.2},
        {"logit_bias": {"3": 9.0}},
        {"logprobs": 0},
        {"prompt_logprobs": 0},
        {"min_tokens": 3},
        {"allowed_token_ids": [3]},
        {"structured_outputs": {"regex": "[a-z]+"}},
        {"response_format": {"type": "json_object"}},
        {"seed": -3},
    ],
    ids=lambda option: next(iter(option)),
)
def test_what_would_undo_purification_is_refused(engine: Running, option: dict[str, Any]) -> None:
    told = engine.post(prompts()[0], **{"temperature": 1, "max_tokens": 2, **option})
    assert told.status_code == 400, told.text


def test_purify_verify_reads_the_certificate_that_vllm_serves(engine: Running, tmp_path: Path) -> None:
    told = engine.answered(prompts()[1], temperature=1, max_tokens=12)
    file, answer = tmp_path / "certificate.json", tmp_path / "answer.txt"
    file.write_bytes(engine.client.get(f"/v1/purify/certificates/{told['id']}").content)
    answer.write_text(told["choices"][0]["text"], newline="")
    asked = ["verify", str(file), "--answer", str(answer), "--slm", str(SLM)]
    shown = CliRunner().invoke(app, asked, catch_exceptions=False)
    assert shown.exit_code == 0, shown.output
    assert "In-engine: the engine that runs the LLM drew the tokens" in shown.stdout
    assert engine.client.get("/v1/purify/certificates/cmpl-none").status_code == 404


@pytest.mark.parametrize("runner", RUNNERS)
def test_no_raw_row_of_an_llm_that_is_sure_of_a_canary_gets_out(runner: str, tmp_path: Path) -> None:
    """Alone it writes nothing else, and the SLM never does: whoever writes it once bypassed us."""
    llm = sure_of(CANARY, LLM, tmp_path / "llm", 60.0)
    slm = sure_of(CANARY, SLM, tmp_path / "slm", -1e4)
    alone = pair(*(Purifier.load(llm, llm).llm,) * 2).generate(prompts()[0], Sampling(max_tokens=8))[0]
    assert set(alone.tokens) == {CANARY}
    seeds = [at if at % 3 and runner != "V1" else None for at in range(24)]  # see the test of a seed
    asked = [(prompts()[at % 6], {"temperature": at % 2, "seed": seed}) for at, seed in enumerate(seeds)]
    with serving(tmp_path, runner, "balanced", llm, slm) as engine:
        found = engine.answers(asked)
        assert engine.count("num_preemptions") > 0
    assert [len(tokens) for tokens in found] == [LONG] * 24
    assert CANARY not in {token for tokens in found for token in tokens}
