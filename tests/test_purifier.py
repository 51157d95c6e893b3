"""The public face: loading, streaming, chatting, threads, event loops."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import anyio
import pytest
import torch

from purify_plugins import Certificate, Chat, Chunk, Completion, ConfigError, PromptError, Purifier, Sampling
from purify_plugins.decode.detokenizer import joined
from purify_plugins.testbed import LLM, SLM, attacks
from purify_plugins.testing import ToySource
from tests.toys import BYTES, Placed, Slow, Watched, both, few, pair, real, toys

# Loading


def test_a_purifier_is_loaded_from_directories_mappings_and_sources() -> None:
    ours = {"source": "local", "model": str(SLM), "dtype": "float32", "device": "cpu"}
    loaded = [
        Purifier.load(LLM, str(SLM), "geometric", alpha=0.3),
        Purifier.load({"model": str(LLM)}, ours, {"name": "geometric", "alpha": 0.3}),
        Purifier.load(*both(), real({"name": "geometric", "alpha": 0.3}).policy),
    ]
    answers = [purifier.generate("Once upon a time", few(6))[0] for purifier in loaded]
    assert len({answer.tokens for answer in answers}) == 1
    assert {purifier.policy.alpha for purifier in loaded} == {0.3}  # type: ignore[attr-defined]


def test_the_default_policy_is_balanced() -> None:
    purifier = Purifier.load(ToySource(BYTES, 1), ToySource(BYTES, 2))
    assert purifier.plugins.name_of(purifier.policy) == "balanced"


@pytest.mark.parametrize(
    ("policy", "words"),
    [
        ("minimun", "unknown policy 'minimun'; did you mean 'minimum'?"),
        (None, "[policy] needs a name; see `purify policies`"),
        (3, "[policy] needs a name; see `purify policies`"),
        ({"alpha": 0.5}, "[policy] needs a name; see `purify policies`"),
        ({"name": 3}, "[policy] needs a name; see `purify policies`"),
        ({"name": "geometric", "alpa": 1}, "unknown policy 'geometric' option 'alpa'; did you mean 'alpha'?"),
        ({"name": "geometric", "alpha": 2}, "geometric: alpha must be between 0 and 1, not 2"),
        ({"name": "geometric", "alpha": "half"}, "geometric: alpha must be between 0 and 1, not 'half'"),
    ],
)
def test_a_wrong_policy_is_refused_in_one_sentence(policy: Any, words: str) -> None:
    with pytest.raises(ConfigError) as error:
        Purifier.load(ToySource(BYTES), ToySource(BYTES), policy)
    assert str(error.value) == words


def test_a_policys_class_is_no_policy() -> None:
    with pytest.raises(ConfigError, match="needs a name"):
        Purifier.load(ToySource(BYTES), ToySource(BYTES), type(toys().policy))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"on_llm_failure": "llm"}, "on_llm_failure must be 'refuse' or 'slm', not 'llm'"),
        ({"batch_size": 0}, "batch_size must be at least 1, not 0"),
        ({"batch_size": "many"}, "batch_size must be a whole number, not 'many'"),
        ({"top": -1}, "top must be at least 0, not -1"),
        ({"explain": "no"}, "explain must be True or False, not 'no'"),
        (
            {"sampling": {"seed": 1}},
            "sampling must be a Sampling, such as Sampling(max_tokens=40), not {'seed': 1}",
        ),
    ],
)
def test_a_wrong_option_is_refused(options: dict[str, Any], words: str) -> None:
    purifier = toys()
    for make in (toys, purifier.replace):
        with pytest.raises(ConfigError) as error:
            make(**options)
        assert str(error.value) == words


# Answers


def test_a_completion_says_what_how_and_why() -> None:
    answer = toys().generate("x", Sampling(max_tokens=5, seed=1))[0]
    assert isinstance(answer, Completion)
    assert answer.text == BYTES.spell(answer.tokens).decode(errors="replace")
    assert answer.finish_reason in ("eos", "stop", "length")
    assert isinstance(answer.certificate, Certificate)
    assert answer.certificate.guarantee == "none"
    assert answer.certificate.log_ratio == pytest.approx(sum(step.ratio for step in answer.steps), abs=1e-6)


@pytest.mark.parametrize("stop", [(), ("e",), ("\ufffd",)])
@pytest.mark.parametrize("prompt", ["x", "a longer one", (104, 105)])
def test_the_chunks_of_a_stream_are_the_completion(prompt: Any, stop: tuple[str, ...]) -> None:
    """Tokens sent, tokens recorded and tokens certified are the same ones, in order."""
    purifier, sampling = toys("windowed"), Sampling(max_tokens=20, seed=4, stop=stop)
    chunks = list(purifier.stream(prompt, sampling))
    *pieces, last = chunks
    whole = purifier.generate(prompt, sampling)[0]
    assert "".join(map(str, chunks)) == whole.text
    steps = tuple(step for chunk in chunks for step in chunk.steps)
    assert steps == whole.steps
    assert last.completion == whole
    assert tuple(each for chunk in chunks for each in chunk.drawn) == whole.drawn
    assert joined([piece for chunk in chunks for piece in chunk.pieces]) == whole.pieces
    assert [chunk.ended for chunk in chunks] == [*[False] * (len(chunks) - 2), True, False]
    assert "".join(text for _, text in whole.pieces) == whole.text
    assert tuple(token for token, _ in whole.pieces) == steps
    assert not any(chunk.completion for chunk in pieces)
    sent = [step.id for step in steps]
    assert sent == list(whole.tokens) == [row[0] for row in whole.certificate.body["steps"]]
    assert whole.certificate.body["totals"]["tokens"] == len(sent)


def test_text_is_streamed_as_it_is_written() -> None:
    purifier = real()
    stream = purifier.stream("Once upon a time", few(30))
    first = next(stream)
    assert isinstance(first, Chunk)
    assert len(first.steps) == 1
    assert first.completion is None
    stream.close()


@pytest.mark.parametrize("size", [1, 2, 3, 7])
def test_a_split_batch_is_one_batch(size: int) -> None:
    """Certificates used to name the seed of the batch, from which only its first row was drawn."""
    prompts, sampling = list("abcdefg"), Sampling(max_tokens=6, seed=9)
    assert toys(batch_size=size).generate(prompts, sampling) == toys().generate(prompts, sampling)


def test_answers_come_in_the_order_of_their_prompts() -> None:
    purifier = toys()
    prompts = ["a", "b", "c", "d"]
    answers = purifier.generate(prompts, Sampling(max_tokens=200, temperature=0))
    assert [bytes(answer.certificate.body["prompt"]).decode() for answer in answers] == prompts


def test_the_purifiers_own_sampling_is_the_default() -> None:
    assert len(toys(sampling=few(3)).generate("x")[0].tokens) == 3


def test_one_prompt_is_a_batch_of_one() -> None:
    purifier = toys()
    alone = purifier.generate("hi", few())
    assert alone == purifier.generate(["hi"], few()) == purifier.generate((104, 105), few())
    assert alone == purifier.generate([(104, 105)], few()) == purifier.generate(("hi",), few())


def test_no_prompts_are_no_answers() -> None:
    assert toys().generate([]) == toys().generate(()) == []


def test_a_chat_is_rendered_by_each_model() -> None:
    purifier = toys()
    message = {"role": "user", "content": "hi"}
    assert purifier.chat([message], few()) == purifier.generate(Chat((message,)), few())[0]


@pytest.mark.parametrize("prompt", ["", Chat(()), [()], ["fine", ""]])
def test_an_empty_prompt_is_refused(prompt: Any) -> None:
    with pytest.raises(PromptError, match="the prompt is empty; give at least one word of text"):
        toys().generate(prompt)


def test_the_empty_prompt_is_refused_before_its_neighbours_run() -> None:
    llm = Watched(ToySource(BYTES, 1))
    with pytest.raises(PromptError):
        pair(llm, ToySource(BYTES, 2), batch_size=1).generate(["fine", ""], few())
    assert llm.sessions == []


# Real models


def test_weight_one_greedy_is_transformers_own_greedy_generate() -> None:
    llm, _ = both()
    asked = attacks()
    prompts = [*asked.clean[:6], *asked.backdoor.prompts[:3], *(each.prompt for each in asked.canaries[:3])]
    prompts += [each.prefix for each in asked.passages[:4]]
    answers = real({"name": "geometric", "alpha": 1.0}).generate(
        prompts, Sampling(max_tokens=24, temperature=0)
    )
    for prompt, answer in zip(prompts, answers, strict=True):
        ids = torch.tensor([llm.encode(prompt)])
        with torch.inference_mode():
            theirs = llm.model.generate(
                ids,
                attention_mask=torch.ones_like(ids),
                do_sample=False,
                max_new_tokens=24,
                eos_token_id=sorted(llm.vocabulary.eos),
                pad_token_id=0,
            )
        assert list(answer.tokens) == theirs[0, ids.shape[1] :].tolist(), prompt


def test_the_same_seed_is_the_same_answer() -> None:
    purifier = real()
    assert purifier.generate("The king", few()) == purifier.generate("The king", few())
    assert purifier.generate("The king", few())[0].text != purifier.generate("The king", few(seed=1))[0].text


def test_several_threads_write_what_one_would() -> None:
    purifier, prompts = real(), ["The king", "Once", "In the wood, ", "A fox"]
    alone = [purifier.generate(prompt, few())[0] for prompt in prompts]
    with ThreadPoolExecutor(4) as threads:
        together = list(threads.map(lambda prompt: purifier.generate(prompt, few())[0], prompts))
    assert together == alone


@pytest.mark.parametrize("policy", ["windowed", "balanced"])
@pytest.mark.parametrize("options", [{}, {"top_p": 0.9}, {"frequency_penalty": 0.3}])
def test_answers_are_the_same_while_torch_s_default_is_another(
    policy: str, options: dict[str, float]
) -> None:
    """As in another thread, where transformers loads a model: a window then lost its guarantee."""
    purifier, sampling = pair(*both(), policy), Sampling(max_tokens=8, seed=0, **options)
    [alone] = purifier.generate("The old king said", sampling)
    torch.set_default_dtype(torch.bfloat16)
    try:
        [beside] = purifier.generate("The old king said", sampling)
    finally:
        torch.set_default_dtype(torch.float32)
    assert (beside.tokens, beside.certificate.body) == (alone.tokens, alone.certificate.body)


def test_two_streams_can_be_read_in_turns() -> None:
    purifier = real()
    streams = [purifier.stream(prompt, few(6, seed=seed)) for seed, prompt in enumerate(("The king", "Once"))]
    chunks = list(zip(*streams, strict=True))
    for row, prompt in enumerate(("The king", "Once")):
        assert chunks[-1][row].completion == purifier.generate(prompt, few(6, seed=row))[0]


# Event loops

pytestmark = pytest.mark.filterwarnings("error")


@pytest.mark.anyio
async def test_asynchronous_answers_are_the_same() -> None:
    purifier = toys()
    message = {"role": "user", "content": "hi"}
    assert await purifier.agenerate(["x", "yz"], few()) == purifier.generate(["x", "yz"], few())
    assert await purifier.achat([message], few()) == purifier.chat([message], few())
    chunks = [chunk async for chunk in purifier.astream("x", few())]
    assert chunks == list(purifier.stream("x", few()))


@pytest.mark.anyio
async def test_writing_does_not_block_the_event_loop() -> None:
    """Both models are asked on other threads than the loop's."""
    threads: set[int] = set()
    await pair(*(Placed(BYTES, seed, threads=threads) for seed in (1, 2))).agenerate("x", few(10))
    assert threads
    assert threading.get_ident() not in threads


@pytest.mark.anyio
async def test_cancelling_frees_both_sessions() -> None:
    sources = [Watched(Slow(BYTES, seed)) for seed in (1, 2)]
    with anyio.move_on_after(0.5) as scope:
        await pair(*sources).agenerate("x", few(1000))
    assert scope.cancelled_caught
    assert [source.open_sessions for source in sources] == [0, 0]
    assert len(sources[0].sessions[0].rows[0]) < 100


@pytest.mark.anyio
async def test_leaving_an_asynchronous_stream_frees_both_sessions() -> None:
    sources = [Watched(ToySource(BYTES, seed)) for seed in (1, 2)]
    stream: Any = pair(*sources).astream("x", few(1000))
    async for _ in stream:
        break
    await stream.aclose()
    assert [source.open_sessions for source in sources] == [0, 0]


@pytest.mark.anyio
async def test_errors_reach_the_waiting_task() -> None:
    with pytest.raises(PromptError, match="the prompt is empty"):
        await toys().agenerate("")


@pytest.mark.anyio
async def test_many_tasks_share_one_purifier() -> None:
    purifier, answers = toys(), {}

    async def ask(seed: int) -> None:
        answers[seed] = await purifier.agenerate("x", few(seed=seed))

    async with anyio.create_task_group() as tasks:
        for seed in range(16):
            tasks.start_soon(ask, seed)
    assert answers == {seed: purifier.generate("x", few(seed=seed)) for seed in range(16)}


def test_a_stream_can_be_closed_from_another_thread() -> None:
    sources = [Watched(ToySource(BYTES, seed)) for seed in (1, 2)]
    stream = pair(*sources).stream("x", few(1000))
    next(stream)
    closer = threading.Thread(target=stream.close)
    closer.start()
    closer.join()
    assert [source.open_sessions for source in sources] == [0, 0]


def test_a_configuration_file_makes_the_same_purifier(tmp_path: Path) -> None:
    file = tmp_path / "purify.toml"
    file.write_text(f'[llm]\nmodel = "{LLM}"\n[slm]\nmodel = "{SLM}"\n[policy]\nname = "minimum"\n')
    purifier = Purifier.from_config(file)
    sampling = replace(few(4), temperature=0)
    assert (
        purifier.generate("Once", sampling)[0].tokens == real("minimum").generate("Once", sampling)[0].tokens
    )
