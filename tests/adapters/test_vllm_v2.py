"""The processor inside vLLM's Model Runner V2: an answer is the same whatever the engine does around it."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from random import Random
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from purify_adapters.vllm_engine import slots
from purify_adapters.vllm_engine.contracts import V2
from purify_adapters.vllm_engine.engine_slot import EngineSlot
from purify_adapters.vllm_engine.running import sound, unscored
from purify_adapters.vllm_engine.slots import SlotLogitsProcessor
from purify_plugins import ConfigError, Purifier, Sampling, SourceError
from purify_plugins.decode.fusion import advance_state, fuse
from purify_plugins.decode.processors import LogitsProcessors
from purify_plugins.errors import NumericError
from purify_plugins.plugin.manager import load_plugins
from purify_plugins.testbed import LLM, SLM
from purify_plugins.testing import ToySource, letters
from tests.adapters.engine import SamplingParams, config, load, loaded
from tests.adapters.engine_v2 import Drafter, RunnerV2, Running

ABC = letters("abcdef")
BIG, SMALL = ToySource(ABC, 1), ToySource(ABC, 2)
POLICIES: dict[str, dict[str, Any]] = {
    "geometric": {"alpha": 0.7},
    "capped": {"total": 6.0},
    "balanced": {"budget": 3.0},
    "windowed": {},
}
"""All but the first remember what was spent."""
PROMPTS = [(0, 1, 2), (3,), (1, 1, 4, 0, 2, 5, 1), (2, 2), (5, 4, 3, 2)]
LONG = 14


@cache
def toy(policy: str) -> Purifier:
    return Purifier(BIG, SMALL, load_plugins([]).make("purify_policies", policy, POLICIES[policy]))


@pytest.fixture(params=POLICIES)
def policy(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def runner(monkeypatch: pytest.MonkeyPatch, policy: str, random: Random, **options: Any) -> RunnerV2:
    monkeypatch.setattr(slots, "purifier_of", lambda model: (toy(policy), Sampling()))
    return RunnerV2(BIG, lambda state: SlotLogitsProcessor(config("x"), state), random, **options)


def asked(seed: int | None = 0, temperature: float = 1.0, count: int = len(PROMPTS)) -> list[Running]:
    params = SamplingParams(temperature=temperature, max_tokens=LONG, seed=seed, ignore_eos=True)
    return [Running(prompt, params) for prompt in PROMPTS[:count]]


def answers(engine: RunnerV2, requests: Sequence[Running]) -> list[list[int]]:
    for request in requests:
        engine.add(request)
    engine.run()
    return [request.answer for request in requests]


def guesses(random: Random, most: int = 4) -> Drafter:
    """Drafts of any length, of any tokens."""
    return lambda ids: [random.randrange(len(ABC)) for _ in range(random.randint(0, most))]


def knowing(known: Sequence[Running], random: Random, wrong: float) -> Drafter:
    """Drafts of the answers that are known, with some tokens wrong."""

    def drafted(ids: Sequence[int]) -> list[int]:
        rest = next(
            (
                each.ids[len(ids) :]
                for each in known
                if len(ids) >= len(each.prompt) and each.ids[: len(ids)] == list(ids)
            ),
            [],
        )
        return [random.randrange(len(ABC)) if random.random() < wrong else each for each in rest[:5]]

    return drafted


def test_no_schedule_and_no_draft_changes_an_answer(policy: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Joins, leaves, resumptions in other slots, cut prompts, cut verifications, right and wrong drafts."""
    plain = asked()
    expected = answers(runner(monkeypatch, policy, Random(0)), plain)
    for seed in range(6):
        random = Random(seed)
        drafter = (
            knowing(plain, random, wrong=random.choice([0.0, 0.2, 1.0])) if seed % 2 else guesses(random)
        )
        engine = runner(monkeypatch, policy, random, drafter=drafter, chunk=2, at_once=random.randint(1, 9))
        requests = asked()
        waiting = list(requests)
        while waiting or engine.running:
            while waiting and engine.free and random.random() < 0.5:
                engine.add(waiting.pop(0))
            if engine.running and random.random() < 0.3:
                waiting.append(random.choice(engine.running))
                engine.take_out(waiting[-1])
            engine.step()
        assert [request.answer for request in requests] == expected


def test_requests_that_are_all_taken_out_at_once_go_on(policy: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """As where vLLM clears its prefix cache: every slot is taken anew before any row is shown."""
    monkeypatch.setattr(slots, "LEFT", 1)
    expected = answers(runner(monkeypatch, policy, Random(0)), asked())
    engine = runner(monkeypatch, policy, Random(1), drafter=guesses(Random(1)), slots=len(PROMPTS))
    requests = asked()
    for request in requests:
        engine.add(request)
    for _ in range(3):
        engine.step()
        going = list(engine.running)
        for request in going:
            engine.take_out(request)
        for request in going:
            engine.add(request)
    engine.run()
    assert [request.answer for request in requests] == expected


def test_greedy_answers_are_the_fused_row_s_arg_max(policy: str, monkeypatch: pytest.MonkeyPatch) -> None:
    random = Random(3)
    found = answers(
        runner(monkeypatch, policy, random, drafter=guesses(random)), asked(None, temperature=0.0)
    )
    for prompt, answer in zip(PROMPTS, found, strict=True):
        assert answer == [int(row.argmax()) for row in fused_rows(toy(policy), prompt, answer, greedy=True)]


def fused_rows(
    purifier: Purifier, prompt: tuple[int, ...], answer: Sequence[int], greedy: bool
) -> list[Tensor]:
    """The normalised fused row before each token of an answer, one after another, without an engine."""
    sampling = Sampling(temperature=0.0 if greedy else 1.0, ignore_eos=True)
    shape = LogitsProcessors(sampling, ABC, purifier.policy.shift_invariant)
    state = purifier.policy.start(unscored(greedy, torch.device("cpu")))
    rows = []
    for at, token in enumerate(answer):
        llm, slm = (model.open([(*prompt, *answer[:at])])[1] for model in (BIG, SMALL))
        column = fuse(purifier.policy, shape, llm, slm, state, [(prompt, list(answer[:at]))])
        rows.append((column.fused - column.totals[:, 2:])[0].exp())
        state = advance_state(purifier.policy, state, torch.tensor([token]), column)
    return rows


def test_the_rows_are_those_of_the_models_read_one_by_one(
    policy: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    random = Random(5)
    engine = runner(monkeypatch, policy, random, drafter=guesses(random), chunk=2)
    seen: list[tuple[tuple[int, ...], tuple[int, ...], Tensor]] = []
    whole = SlotLogitsProcessor._fuse

    def watched(self: Any, slots: Any, offset: int, *rows: Any) -> Any:
        column = whole(self, slots, offset, *rows)
        for at, slot in enumerate(slots):
            row = (column.fused[at] - column.totals[at, 2]).exp()
            seen.append((slot.prompt, (*slot.answer, *slot.drafts[:offset]), row))
        return column

    monkeypatch.setattr(SlotLogitsProcessor, "_fuse", watched)
    told = dict(zip(PROMPTS, answers(engine, asked()), strict=True))
    for prompt, past, _ in seen:
        assert list(past[:LONG]) == told[prompt][: len(past)], "after another draft no row is the answer's"
    for prompt, past, row in seen[:: max(1, len(seen) // 30)]:
        expected = fused_rows(toy(policy), prompt, [*past, 0], greedy=False)[-1]
        torch.testing.assert_close(row, expected, atol=1e-5, rtol=1e-5)


def test_tokens_drafted_rejected_and_last_are_drawn_from_the_fused_row(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Every pair of uniforms on a grid is every answer as often as its probability says."""
    grid, first = 16, 0.4
    counts: Counter[tuple[int, ...]] = Counter()
    engine = runner(monkeypatch, "capped", Random(0), drafter=lambda ids: [2, 1])
    for cell in range(grid**2):
        uniforms = [first, (cell % grid + 0.5) / grid, (cell // grid + 0.5) / grid, *[0.5] * LONG]
        monkeypatch.setattr(slots, "luck", lambda live, at, _, u=uniforms: _of(live, at, u))
        request = Running((0, 1, 2), SamplingParams(max_tokens=3, ignore_eos=True))
        counts[tuple(answers(engine, [request])[0])] += 1
    [(start, *_)] = {each[:1] for each in counts}
    for one in range(6):
        for two in range(6):
            rows = fused_rows(toy("capped"), (0, 1, 2), [start, one, two], greedy=False)[1:]
            chances = float(rows[0][one]), float(rows[1][two])
            coarse = (sum(chances) + 1 / grid) / grid  # an interval's ends fall between the grid's points
            assert counts[start, one, two] / grid**2 == pytest.approx(math.prod(chances), abs=coarse)
    assert {each[1] for each in counts} > {2}, "some drafts are right and some are not"


def _of(live: Sequence[EngineSlot], offset: int, uniforms: Sequence[float]) -> Tensor:
    return torch.tensor([uniforms[len(slot.answer) + offset] for slot in live], dtype=torch.float64)


def test_right_drafts_are_taken_and_each_step_is_one_pass_of_the_slm(monkeypatch: pytest.MonkeyPatch) -> None:
    plain = asked()
    answers(runner(monkeypatch, "balanced", Random(0)), plain)
    engine = runner(monkeypatch, "balanced", Random(1), drafter=knowing(plain, Random(1), wrong=0.0))
    passes = Counter[str]()
    whole = ToySource.extend_all
    monkeypatch.setattr(ToySource, "extend_all", lambda *args: passes.update(["extend"]) or whole(*args))
    steps = 0
    for request in asked():
        engine.add(request)
    while engine.running:
        engine.step()
        steps += 1
    assert steps <= 1 + -(-(LONG - 1) // 6), "five drafts and one more a step"
    assert passes["extend"] == steps - 1, "the first step reads the prompts"


def test_every_row_comes_back_with_a_single_token(monkeypatch: pytest.MonkeyPatch) -> None:
    random = Random(2)
    engine = runner(monkeypatch, "capped", random, drafter=guesses(random), chunk=2)
    whole = engine.processor.apply
    counts: list[int] = []

    def watched(logits: Tensor, ctx: Any) -> Tensor:
        found = whole(logits, ctx)
        counts.extend(torch.isfinite(found).sum(dim=-1).tolist())
        return found  # type: ignore[no-any-return]

    engine.processor.apply = watched
    answers(engine, asked())
    assert set(counts) == {1}
    assert len(counts) == engine.rows


def test_what_a_grammar_of_the_engine_rules_out_stays_out(
    policy: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = runner(monkeypatch, policy, Random(0), drafter=guesses(Random(0)))
    blocked = torch.tensor([True, True, False, True, False, True, *[False] * (len(ABC) - 6)])
    engine.mask = lambda request, answer: blocked
    for answer in answers(engine, asked()):
        assert not {0, 1, 3, 5} & set(answer)


def test_tokens_that_were_not_drawn_here_leave_the_rest_to_the_slm(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """As a forced end of thinking would: the policy's memory knows nothing of them."""
    engine = runner(monkeypatch, "capped", Random(0))
    [request] = asked(None, temperature=0.0, count=1)
    engine.add(request)
    engine.step()
    engine.step()
    slot, at = request.slot, len(request.ids) - 1
    forced = (request.answer[-1] + 1) % 6
    request.answer[-1] = forced
    engine.state.all_token_ids.gpu[slot, at] = forced
    engine.run()
    assert "not drawn from the fused row" in caplog.text
    for at in range(2, LONG):
        slm = SMALL.open([(*request.prompt, *request.answer[:at])])[1]
        assert request.answer[at] == int(slm[0, :6].argmax())


def test_a_request_whose_past_is_unknown_goes_on_with_the_slm_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    engine = runner(monkeypatch, "capped", Random(0))
    [request] = asked(None, temperature=0.0, count=1)
    request.answer += [4, 4]  # as after the process was restarted
    answers(engine, [request])
    for at in range(2, LONG):
        slm = SMALL.open([(*request.prompt, *request.answer[:at])])[1]
        assert request.answer[at] == int(slm[0, :6].argmax())


def test_a_broken_row_leaves_its_request_to_the_slm_where_that_is_configured(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    engine = runner(monkeypatch, "geometric", Random(0))
    engine.processor.purifier = engine.processor.purifier.replace(on_llm_failure="slm")
    broken, sound = asked(None, temperature=0.0, count=2)
    whole = engine._row
    engine._row = lambda ids: whole(ids) * (torch.nan if tuple(ids[:3]) == broken.prompt else 1)  # type: ignore[method-assign]
    answers(engine, [broken, sound])
    for at in range(LONG):
        slm = SMALL.open([(*broken.prompt, *broken.answer[:at])])[1]
        assert broken.answer[at] == int(slm[0, :6].argmax())
    rows = fused_rows(toy("geometric"), sound.prompt, sound.answer, greedy=True)
    assert sound.answer == [int(row.argmax()) for row in rows]


def test_drafts_that_are_no_tokens_are_not_read(policy: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Placeholders, and ids beyond the tokenizer's, which a draft model of the LLM's makers may propose."""
    plain = asked()
    expected = answers(runner(monkeypatch, policy, Random(0)), plain)
    known = knowing(plain, Random(1), wrong=0.0)
    whole = ToySource.extend_all

    def watched(self: Any, sessions: Any, tokens: Sequence[Tensor]) -> list[Tensor]:
        assert all(bool(((each >= 0) & (each < len(ABC))).all()) for each in tokens)
        return whole(self, sessions, tokens)

    monkeypatch.setattr(ToySource, "extend_all", watched)
    for odd in (-1, len(ABC), len(ABC) + 2):
        drafter = lambda ids, odd=odd: [*known(ids)[:2], odd, odd]  # noqa: E731  # one for each
        found = answers(runner(monkeypatch, policy, Random(2), drafter=drafter), asked())
        assert found == expected


def test_a_prompt_that_the_slm_has_no_tokens_for_ends_at_once_and_alone(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """vLLM admits every id of the LLM's matrix, which is often larger than its tokenizer."""
    expected = answers(runner(monkeypatch, "capped", Random(0)), asked())
    engine = runner(monkeypatch, "capped", Random(0))
    odd = engine.add(Running((0, len(ABC) + 1), SamplingParams(max_tokens=LONG)))
    assert answers(engine, asked()) == expected
    assert odd.answer == [min(ABC.eos)]
    assert "no tokens of the SLM's" in caplog.text


def test_what_a_processed_request_drew_before_is_not_what_it_draws_next(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A request that another's last token twice would explain has a past that is unknown all the same."""
    for seed in range(4):  # either may stand first in the batch
        engine = runner(monkeypatch, "capped", Random(seed))
        [request] = asked(count=1)
        engine.add(request)
        engine.step()
        engine.step()
        twin = engine.add(Running(request.prompt, request.params, [*request.answer, request.answer[-1]]))
        assert twin.slot is not None
        engine.step()
        assert engine.processor.slots[twin.slot].alone


def test_what_ended_requests_held_is_freed(policy: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """vLLM does not say that a request ended: its slot is merely not shown any more."""
    monkeypatch.setattr(slots, "IDLE", 3)
    engine = runner(monkeypatch, policy, Random(0))
    [paused, going] = asked(count=2)
    engine.add(paused)
    engine.step()
    engine.running.remove(paused)  # starved, as far as the processor can see
    engine.add(going)
    held = engine.processor.slots[paused.slot]
    for _ in range(5):
        engine.step()
    texts = engine.processor.texts
    assert held.index not in texts.opened
    assert held.read == 0
    engine.running.append(paused)
    engine.run()
    assert [paused.answer, going.answer] == answers(runner(monkeypatch, policy, Random(0)), asked(count=2))
    first = engine.free[-1]
    engine.add(asked(count=1)[0])
    assert first not in texts.opened


def test_a_request_for_the_llm_s_rows_stops_an_engine_whose_frontend_let_it_pass(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    engine = runner(monkeypatch, "geometric", Random(0))
    with pytest.raises(SourceError, match="logprobs"):
        engine.add(Running((0, 1), SamplingParams(logprobs=1)))


def test_a_row_that_an_accelerator_only_marks_is_not_drawn_from() -> None:
    column = fuse(
        toy("geometric").policy, LogitsProcessors(Sampling(), ABC), *[torch.zeros(2, 7)] * 2, (), []
    )
    assert sound(column._replace(finite=torch.tensor([True, True]))).draw(None).tolist() == [0, 0]
    with pytest.raises(NumericError, match="NaN"):
        sound(column._replace(finite=torch.tensor([True, False])))


def test_a_row_of_an_unknown_request_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    engine = runner(monkeypatch, "geometric", Random(0))
    engine.add(asked()[0])
    engine.processor.slots.clear()
    with pytest.raises(SourceError, match="not added"):
        engine.step()


@pytest.mark.parametrize(
    ("told", "words"),
    [
        ({"speculative_config": SimpleNamespace(rejection_sample_method="synthetic")}, "synthetic"),
        ({"speculative_config": SimpleNamespace(rejection_sample_method="fly")}, "fly"),
        ({"speculative_config": SimpleNamespace(draft_sample_method="probabilistic")}, "draft_sample_method"),
        (
            {
                "speculative_config": SimpleNamespace(
                    enable_adaptive_verification=True, rejection_sample_method="standard"
                )
            },
            "adaptive",
        ),
        ({"parallel_config": SimpleNamespace(tensor_parallel_size=2)}, "tensor_parallel_size"),
        ({"parallel_config": SimpleNamespace(prefill_context_parallel_size=2)}, "prefill_context"),
        ({"enable_prompt_embeds": True}, "embeddings"),
        ({"enable_sleep_mode": True}, "sleep"),
        ({"is_diffusion": True}, "diffusion"),
        ({"watermark_config": SimpleNamespace()}, "watermark"),
    ],
    ids=[
        "at random",
        "near",
        "empty residual",
        "rows dropped",
        "devices",
        "contexts",
        "embeddings",
        "sleep",
        "diffusion",
        "watermark",
    ],
)
def test_an_engine_that_would_undo_it_does_not_start(told: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        SlotLogitsProcessor(config("x", **told), None)


def test_one_name_on_the_command_line_serves_both_runners(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    module: ModuleType = loaded(monkeypatch)
    file = tmp_path / "purify.toml"
    file.write_text(f'[llm]\nmodel = "x"\n[slm]\nmodel = "{SLM}"\n[policy]\nname = "balanced"\n')
    monkeypatch.setenv("PURIFY_CONFIG", str(file))
    speculation = SimpleNamespace(rejection_sample_method="standard")
    found = load(V2, module, "PurifyLogitsProcessor", config(LLM, speculative_config=speculation))
    assert isinstance(found, SlotLogitsProcessor)
    assert found.policy.guarantee == "passage"
    with pytest.raises(ConfigError, match="last of the logits processors"):
        load(V2, module, "PurifyLogitsProcessor", config(LLM, logits_processors=["another:One"]))
