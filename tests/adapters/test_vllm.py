"""The processor inside vLLM, driven as vLLM's documentation says it is, on the test bed's pair."""

from __future__ import annotations

import inspect
import math
import sys
from collections import Counter
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from random import Random
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch

from purify_adapters.vllm_engine.contracts import CONTRACTS, V1, V2, Contract
from purify_plugins import ConfigError, Sampling, SourceError, VocabularyError
from purify_plugins.decode.replay import replay
from purify_plugins.testbed import LLM, SLM, SLM_1024
from tests.adapters.engine import (
    BASES,
    BatchUpdate,
    Engine,
    LogitsProcessor,
    LogitsProcessorV2,
    Request,
    SamplingParams,
    config,
    installed,
    load,
    loaded,
    runner,
)
from tests.adapters.engine_v2 import RunnerV2, Running
from tests.toys import Unscored, both, pair

POLICIES: list[Any] = ["geometric", {"name": "capped", "total": 6.0}, "balanced"]
"""The last two remember what was spent."""
TEXTS = ["The old house stood", "She said that", "In the morning the captain", "Nobody had", "It was"]
GREEDY = Sampling(temperature=0, max_tokens=14)


@pytest.fixture
def module(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    return loaded(monkeypatch)


@pytest.fixture
def make(module: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Writes a configuration and returns the processor that vLLM would have."""

    def made(policy: Any, slm: Path = SLM, more: str = "", **told: Any) -> Any:
        table = {"name": policy} if isinstance(policy, str) else policy
        options = "\n".join(f"{name} = {value!r}" for name, value in table.items())
        file = tmp_path / "purify.toml"
        file.write_text(f'{more}\n[llm]\nmodel = "x"\n[slm]\nmodel = "{slm}"\n[policy]\n{options}\n')
        monkeypatch.setenv("PURIFY_CONFIG", str(file))
        return module.PurifyLogitsProcessor(config(LLM, **told), torch.device("cpu"), False)

    return made


def requests(number: int = len(TEXTS), **options: Any) -> list[Request]:
    llm, _ = both()
    params = {"temperature": 0.0, "max_tokens": GREEDY.max_tokens, **options}
    return [Request(llm.encode(text), SamplingParams(**params)) for text in TEXTS[:number]]


def local(policy: Any) -> list[tuple[int, ...]]:
    """What the purifier here answers, token by token."""
    llm, slm = both()
    purifier = pair(Unscored(llm), slm, policy, walk="lockstep")  # type: ignore[arg-type]  # one by its attributes
    return [purifier.generate(llm.encode(text), GREEDY)[0].tokens for text in TEXTS]


@pytest.mark.parametrize("policy", POLICIES, ids=str)
def test_greedy_answers_are_lockstep_s_whoever_joins_leaves_or_moves(make: Any, policy: Any) -> None:
    engine = Engine(both()[0], make(policy))
    asked = requests()
    for request in asked[:3]:
        engine.add(request)
    engine.step(keep=False)
    for _ in range(3):
        engine.step()
    engine.swap(0, 2)
    engine.add(asked[3])
    engine.step()
    engine.take_out(asked[1])
    engine.step()
    engine.add(asked[4])
    engine.step()
    engine.add(asked[1], resumed=True)
    engine.run()
    assert [tuple(request.answer) for request in asked] == local(policy)
    assert not engine.processor.rows


@pytest.mark.parametrize("policy", POLICIES[1:], ids=str)
def test_both_runners_give_a_seed_the_same_answer(make: Any, module: ModuleType, policy: Any) -> None:
    engine = Engine(both()[0], make(policy, more="[sampling]\ntop_k = 5\n"))
    asked = [engine.add(request) for request in requests(temperature=1.0, seed=3)]
    engine.run()
    other = RunnerV2(both()[0], lambda state: module.PurifyLogitsProcessor(config(LLM), state), Random(0))
    same = [other.add(Running(each.prompt, each.params)) for each in asked]
    other.run()
    assert [each.answer for each in asked] == [each.answer for each in same]


@pytest.mark.parametrize("policy", POLICIES, ids=str)
def test_alike_requests_that_are_taken_out_together_go_on(
    make: Any, policy: Any, module: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As where vLLM clears its prefix cache under one question asked thrice: each has a past of its own."""
    monkeypatch.setattr(module, "LEFT", 1)
    engine = Engine(both()[0], make(policy))
    asked = [*requests(1), *requests(1), *requests(1)]
    for request in asked:
        engine.add(request)
    for keep in (True, True, False):
        engine.step(keep)
        for request in asked:
            engine.take_out(request)
        for request in asked:
            engine.add(request, resumed=True)
    engine.run()
    assert [tuple(request.answer) for request in asked] == local(policy)[:1] * 3


def test_the_answers_are_neither_model_s_own(make: Any) -> None:
    """Else the test above could not fail."""
    engine = Engine(both()[0], make("geometric"))
    llm, slm = both()
    fused, alone = local("geometric"), [pair(x, x).generate(llm.encode(TEXTS[0]), GREEDY) for x in (llm, slm)]
    assert all(fused[0] != each[0].tokens for each in alone)
    assert local(POLICIES[1]) != fused
    assert engine.processor.is_argmax_invariant() is False


@pytest.mark.parametrize(
    "heat", [pytest.param(0.5, marks=pytest.mark.slow), 1.0, pytest.param(1.7, marks=pytest.mark.slow)]
)
def test_a_draw_is_from_the_fused_row_at_its_temperature(
    make: Any, heat: float, module: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every 500th of the interval of numbers draws the token that the purifier's row has there."""
    llm, slm = both()
    processor = make("geometric", more="sampling.top_p = 0.9")
    (request,) = requests(1, temperature=heat)
    engine = Engine(llm, processor)
    engine.add(request)
    engine._tell()
    numbers = iter([(at + 0.5) / 500 for at in range(500)])
    monkeypatch.setattr(module.EngineRow, "luck", lambda row: next(numbers))
    rows = [processor.apply(engine._row(request))[0] for _ in range(500)]
    assert all(int(torch.isfinite(row).sum()) == 1 for row in rows)  # vLLM has no choice left
    drawn = Counter(int(row.argmax()) for row in rows)
    sampling, purifier = Sampling(temperature=heat, top_p=0.9), pair(llm, slm, "geometric")
    for token, times in drawn.most_common(9):
        [[thought]] = replay(purifier, [request.prompt], [(token,)], sampling)
        assert times / 500 == pytest.approx(math.exp(thought.fused), abs=1 / 500)
    assert len(drawn) < len(llm.vocabulary) / 2


def test_a_seed_repeats_an_answer_and_no_seed_does_not(make: Any) -> None:
    """vLLM's own generator has seed 0 unless told otherwise: weights could be trained for what it draws."""
    answers = []
    for seed in (3, 3, 4, None, None):
        torch.manual_seed(0)  # vLLM's own
        engine = Engine(both()[0], make("geometric"))
        (request,) = requests(1, temperature=1.0, seed=seed)
        engine.add(request)
        engine.step(keep=False)  # a pass that is thrown away uses nothing up
        engine.run()
        answers.append(tuple(request.answer))
    assert answers[0] == answers[1]
    assert len(set(answers)) == 4


def test_a_request_whose_past_is_forgotten_goes_on_with_the_slm_alone(
    make: Any, caplog: pytest.LogCaptureFixture
) -> None:
    """A policy with memory cannot know what was spent; the SLM's row needs no budget."""
    processor = make("capped")
    (request,) = requests(1)
    engine = Engine(both()[0], processor)
    engine.add(request)
    engine.step()
    engine.take_out(request)
    processor.left.clear()
    engine.add(request, resumed=True)
    engine._tell()
    caplog.clear()
    after = processor.apply(engine._row(request))[0, :-3]
    slm = both()[1].open([(*request.prompt, *request.answer)])[1][0]
    assert int(after.argmax()) == int(slm.argmax())
    assert int(torch.isfinite(after).sum()) == 1
    assert "no longer known" in caplog.text


def test_a_prompt_that_the_slm_has_no_tokens_for_ends_at_once_and_alone(make: Any) -> None:
    processor = make("geometric")
    engine = Engine(both()[0], processor)
    known, odd = requests(2)
    engine.add(known)
    size = len(both()[0].vocabulary)
    engine.add(replace(odd, prompt=(*odd.prompt, size)))
    engine._tell()
    own = engine._row(known)
    rows = processor.apply(torch.cat([own, own]))
    assert int(rows[1].argmax()) == min(both()[0].vocabulary.eos)
    assert torch.isfinite(rows).sum(dim=-1).tolist()[1] == 1


def test_a_request_for_the_llm_s_rows_stops_an_engine_whose_frontend_let_it_pass(make: Any) -> None:
    update = BatchUpdate(1, [], [(0, SamplingParams(logprobs=1), [1, 2], [])], [])
    with pytest.raises(SourceError, match="logprobs"):
        make("geometric").update_state(update)


@pytest.mark.parametrize("failure", ["refuse", "slm"])
def test_a_broken_row_is_never_passed_on(make: Any, failure: str) -> None:
    processor = make("geometric", more=f'on_llm_failure = "{failure}"')
    engine = Engine(both()[0], processor)
    for request in requests(2):
        engine.add(request)
    engine._tell()
    logits = torch.cat([engine._row(request) for request in engine.batch])
    logits[1] = torch.nan
    if failure == "refuse":
        with pytest.raises(SourceError, match="NaN"):
            processor.apply(logits)
    else:
        assert torch.isfinite(processor.apply(logits)[:, :-3]).sum(dim=-1).tolist() == [1, 1]
        assert [processor.rows[at].alone for at in (0, 1)] == [False, True]


def test_a_row_of_nobody_s_is_refused(make: Any) -> None:
    with pytest.raises(SourceError, match="has not added"):
        make("geometric").apply(torch.zeros(1, 600))


def test_a_place_held_for_a_token_is_not_a_token(make: Any) -> None:
    engine = Engine(both()[0], make("geometric"))
    (request,) = requests(1)
    engine.add(request)
    engine.step()
    row = engine._row(request)
    request.answer.append(-1)
    with pytest.raises(SourceError, match="async"):
        engine.processor.apply(row)


@pytest.mark.parametrize(
    ("name", "value"), [("top_p", 0.9), ("top_k", 5), ("logprobs", 0), ("logit_bias", {3: 9.0}), ("seed", -3)]
)
def test_an_option_that_would_undo_it_is_refused_by_name(module: ModuleType, name: str, value: Any) -> None:
    with pytest.raises(ValueError, match=name):
        module.PurifyLogitsProcessor.validate_params(SamplingParams(**{name: value}))
    module.PurifyLogitsProcessor.validate_params(SamplingParams(temperature=0.3, top_k=-1))


def test_an_option_that_vllm_gains_is_refused_until_somebody_has_looked_at_it(module: ModuleType) -> None:
    """Known ones were refused by their names: a new name for one of them would have passed."""
    with pytest.raises(ValueError, match="steering is an option of vLLM's that purify does not know"):
        module.PurifyLogitsProcessor.validate_params(SamplingParams(steering=0.5))
    module.PurifyLogitsProcessor.validate_params(SamplingParams(max_tokens=99, ignore_eos=True))


def test_it_is_what_vllm_wants(module: ModuleType) -> None:
    assert issubclass(module.PurifyLogitsProcessor, LogitsProcessor)
    assert not module.PurifyLogitsProcessor.__abstractmethods__


@pytest.mark.parametrize(
    ("told", "words"),
    [
        ({"logits_processors": ["purify_adapters.vllm_engine:PurifyLogitsProcessor", "other:One"]}, "last"),
        ({"speculative_config": {"method": "ngram"}}, "speculation"),
        ({"parallel_config": SimpleNamespace(tensor_parallel_size=2)}, "tensor_parallel_size"),
        ({"length": 100_000}, "--max-model-len"),
        ({"more": "sampling.grammar = {kind = 'regex', text = 'a'}"}, "grammar"),
    ],
)
def test_an_engine_that_could_not_be_purified_does_not_start(make: Any, told: Any, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        make("geometric", **told)


def test_another_tokenizer_is_refused(make: Any) -> None:
    with pytest.raises(VocabularyError, match="same tokenizer"):
        make("geometric", slm=SLM_1024)


# Two runners, two contracts

NAME = "PurifyLogitsProcessor"


def shape(base: Any, contract: Contract) -> tuple[tuple[str, ...], list[str]]:
    """A base class's constructor arguments, and the contract's methods that it lacks."""
    taken = tuple(inspect.signature(base.__init__).parameters)[1:]
    return taken, [name for name in contract.methods if not callable(getattr(base, name, None))]


@pytest.mark.parametrize("contract", CONTRACTS, ids=lambda each: each.runner)
def test_the_stand_ins_are_what_the_table_says(contract: Contract) -> None:
    assert shape(BASES[contract], contract) == (contract.constructor, [])


@pytest.mark.parametrize("contract", CONTRACTS, ids=lambda each: each.runner)
def test_an_installed_vllm_is_what_the_table_says(contract: Contract) -> None:
    """Where vLLM is installed; it moves, and then this fails before a user does."""
    pytest.importorskip("vllm")
    assert shape(getattr(import_module(contract.module), contract.name), contract) == (
        contract.constructor,
        [],
    )


@pytest.mark.parametrize(
    ("override", "triton", "unsupported", "chosen"),
    [
        (None, True, False, V2),
        (None, False, False, V1),
        (None, True, True, V1),
        ("0", True, False, V1),
        ("1", False, True, V2),
    ],
)
def test_the_switch_decides_before_the_hardware(
    override: str | None, triton: bool, unsupported: bool, chosen: Contract
) -> None:
    assert runner(override, triton, unsupported) is chosen


def test_a_class_of_v1_alone_does_not_get_so_far(module: ModuleType) -> None:
    """Else the tests of V2 could not fail: its loader does check."""

    class Plain(LogitsProcessor):
        def __init__(self, vllm_config: Any, device: Any, is_pin_memory: bool) -> None: ...

    module.Plain = Plain  # type: ignore[attr-defined]  # as a module that vLLM is given
    with pytest.raises(ValueError, match="Plain is not a subclass of vllm"):
        load(V2, module, "Plain", config(LLM))
    assert issubclass(module.PurifyLogitsProcessor, LogitsProcessorV2)


def test_v1_is_served_where_the_switch_chooses_it(make: Any, module: ModuleType) -> None:
    make("geometric")  # writes the configuration
    assert load(runner("0", triton=True), module, NAME, config(LLM)).purifier.policy.guarantee == "none"


def test_a_vllm_from_before_v2_is_served(monkeypatch: pytest.MonkeyPatch) -> None:
    module = loaded(monkeypatch, V1)
    assert issubclass(module.PurifyLogitsProcessor, LogitsProcessor)


def test_a_vllm_whose_v2_does_not_import_is_served(monkeypatch: pytest.MonkeyPatch) -> None:
    """A module for GPUs may raise what it likes on a machine without one."""
    installed(monkeypatch, V1, V2)
    monkeypatch.delattr(sys.modules[V2.module], V2.name)
    assert issubclass(loaded(monkeypatch, V1).PurifyLogitsProcessor, LogitsProcessor)


def test_a_vllm_that_has_moved_the_contract_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without its base class the processor was a plain object, which vLLM's loader refused in its words."""
    with pytest.raises(ConfigError, match="the only contract that purify speaks inside vLLM"):
        loaded(monkeypatch, V2)
