"""purify(): what people already have, with every token drawn from the fused row."""

from __future__ import annotations

import asyncio
import copy
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from threading import Thread
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import (
    AsyncTextIteratorStreamer,
    AutoModelForCausalLM,
    GenerationConfig,
    LogitsProcessorList,
    StoppingCriteria,
    StoppingCriteriaList,
    TextIteratorStreamer,
    TextStreamer,
    pipeline,
)

from purify_adapters import purify
from purify_adapters.transformers import PurifiedModel
from purify_adapters.transformers.own_ids import RespelledIds
from purify_hooks.local.source import LocalSource
from purify_plugins import (
    ConfigError,
    ModelError,
    PromptError,
    PurifyError,
    RefusedError,
    Sampling,
    SourceError,
    UnknownNameError,
    hookimpl,
)
from purify_plugins.certificates import verify
from purify_plugins.testbed import LLM, SLM, SLM_1024
from purify_plugins.types import Prompt, Vocabulary
from tests.toys import both, few

TEXT = "Once upon a time"
CANARY = 100
"""A token that the LLM below is sure of and the SLM below never says."""


@cache
def original() -> Any:
    """The test bed's LLM as transformers loads it, its repository's settings included."""
    return AutoModelForCausalLM.from_pretrained(LLM, dtype=torch.float32)


def tokenizer() -> Any:
    return both()[0].tokenizer


def purified(
    policy: str = "balanced", slm: Any = None, model: Any = None, **parameters: Any
) -> PurifiedModel:
    drop_in = purify(model or original(), slm or both()[1], policy, tokenizer(), **parameters)
    assert isinstance(drop_in, PurifiedModel)
    return drop_in


def read(*texts: str) -> dict[str, Tensor]:
    encoded = tokenizer()(list(texts), return_tensors="pt", padding=True)
    return {"input_ids": encoded["input_ids"], "attention_mask": encoded["attention_mask"]}


# generate


@pytest.mark.parametrize(
    "options",
    [
        {"max_new_tokens": 12},
        {"max_length": 16, "max_new_tokens": 3},
        {},
        {"max_new_tokens": 10, "repetition_penalty": 1.5},
        {"generation_config": GenerationConfig(max_new_tokens=9)},
        {"generation_config": GenerationConfig(max_new_tokens=9), "max_new_tokens": 4},
        {"max_new_tokens": 12, "stop_strings": ["the"], "tokenizer": tokenizer()},
        {"max_new_tokens": 12, "num_beams": 1, "output_scores": False, "use_cache": True},
    ],
    ids=" ".join,
)
@pytest.mark.parametrize("texts", [[TEXT], [TEXT, "The king", "A"]], ids=["one", "padded batch"])
def test_the_llm_alone_writes_what_its_own_generate_writes(texts: list[str], options: dict[str, Any]) -> None:
    """At alpha 1 the fused row is the LLM's, and greedy leaves nothing to chance."""
    if "repetition_penalty" in options and len(texts) > 1:
        texts = [TEXT, TEXT]  # transformers also penalises padding, which is the end here
    inputs = read(*texts)
    ours = purified("geometric", alpha=1.0).generate(**inputs, **options)
    assert ours.tolist() == original().generate(**inputs, do_sample=False, **options).tolist()


def test_the_settings_of_the_models_repository_are_suggestions() -> None:
    """They may say how long and how bold; what forces, bans or ends is left out."""
    model = copy.copy(original())
    model.generation_config = GenerationConfig(
        max_new_tokens=5, suppress_tokens=[5], forced_eos_token_id=7, stop_strings=["a"], bad_words_ids=[[9]]
    )
    said = purified(model=model).generation_config.to_diff_dict()
    assert {name: said[name] for name in said if name != "transformers_version"} == {"max_new_tokens": 5}
    assert purified(model=model).generate(**read(TEXT)).shape == (1, len(read(TEXT)["input_ids"][0]) + 5)


def test_sampling_repeats_with_torchs_seed() -> None:
    model, inputs = purified(), read(TEXT)
    drawn = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        drawn.append(model.generate(**inputs, do_sample=True, max_new_tokens=12).tolist())
    assert drawn[0] == drawn[1] != drawn[2]


def test_several_answers_come_for_each_prompt() -> None:
    torch.manual_seed(0)
    inputs = read(TEXT, "The king")
    output = purified().generate(**inputs, do_sample=True, num_return_sequences=3, max_new_tokens=8)
    assert output.shape[0] == 6
    width = inputs["input_ids"].shape[1]
    assert output[:, :width].tolist() == inputs["input_ids"].repeat_interleave(3, dim=0).tolist()
    assert len({tuple(row) for row in output[:3].tolist()}) == 3
    with pytest.raises(ConfigError, match="needs do_sample=True"):
        purified().generate(**inputs, num_return_sequences=3)


def test_certificates_come_with_the_dictionary() -> None:
    model = purified()
    output = model.generate(**read(TEXT, "The king"), max_new_tokens=4, return_dict_in_generate=True)
    for certificate in output.certificates:
        verify(certificate, model.purifier.plugins)
    assert output.sequences.shape[0] == 2


def test_an_end_of_ones_own_ends_the_answer() -> None:
    inputs, model = read(TEXT), purified("geometric", alpha=1.0)
    width = inputs["input_ids"].shape[1]
    whole = model.generate(**inputs, max_new_tokens=12)[0, width:].tolist()
    cut = model.generate(**inputs, max_new_tokens=12, eos_token_id=whole[4])[0, width:].tolist()
    assert cut == whole[: whole.index(whole[4]) + 1]


class After(StoppingCriteria):
    def __init__(self, length: int) -> None:
        self.length = length

    def __call__(self, input_ids: Tensor, scores: Any, **kwargs: Any) -> Any:
        return torch.tensor([input_ids.shape[1] >= self.length])


def test_a_stopping_criterion_ends_the_answer() -> None:
    inputs = read(TEXT)
    criteria = StoppingCriteriaList([After(9)])
    ours = purified("geometric", alpha=1.0).generate(**inputs, max_new_tokens=12, stopping_criteria=criteria)
    theirs = original().generate(**inputs, max_new_tokens=12, stopping_criteria=criteria, do_sample=False)
    assert ours.tolist() == theirs.tolist()


REFUSED: list[dict[str, Any]] = [
    {"num_beams": 3},
    {"num_beams": 4, "num_beam_groups": 2, "diversity_penalty": 0.5},
    {"penalty_alpha": 0.6, "top_k": 4},
    {"prompt_lookup_num_tokens": 3},
    {"assistant_model": object()},
    {"assistant_early_exit": 2},
    {"logits_processor": LogitsProcessorList([lambda ids, scores: scores])},  # type: ignore[list-item]  # any callable
    {"prefix_allowed_tokens_fn": lambda row, ids: [1]},
    {"constraints": [object()]},
    {"force_words_ids": [[1]]},
    {"bad_words_ids": [[1]]},
    {"suppress_tokens": [1]},
    {"sequence_bias": {(1,): 2.0}},
    {"forced_bos_token_id": 1},
    {"guidance_scale": 1.5},
    {"negative_prompt_ids": torch.tensor([[1]])},
    {"watermarking_config": {"bias": 2.0}},
    {"custom_generate": "somebody/something"},
    {"dola_layers": "high"},
    {"epsilon_cutoff": 0.1},
    {"no_repeat_ngram_size": 2},
    {"min_new_tokens": 3},
    {"max_time": 1.0},
    {"token_healing": True},
    {"output_scores": True},
    {"output_logits": True},
    {"output_attentions": True},
    {"output_hidden_states": True},
    {"inputs_embeds": torch.zeros(1, 2, 3)},
    {"past_key_values": object()},
    {"cache": object()},
    {"token_type_ids": torch.ones(1, 4, dtype=torch.long)},
]


@pytest.mark.parametrize("options", REFUSED, ids=lambda options: next(iter(options)))
def test_a_mode_that_fusion_has_not_is_refused_by_name(options: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=f"does not do {next(iter(options))}="):
        purified().generate(**read(TEXT), **options)


def test_the_same_in_a_configuration_is_refused_too() -> None:
    with pytest.raises(ConfigError, match="does not do num_beams=3"):
        purified().generate(**read(TEXT), generation_config=GenerationConfig(num_beams=3))


def test_an_unknown_option_is_refused_with_the_nearest_name() -> None:
    with pytest.raises(UnknownNameError, match="did you mean 'temperature'"):
        purified().generate(**read(TEXT), temprature=1.0)


def test_prompts_that_nobody_could_read_are_refused() -> None:
    model, ids = purified(), read(TEXT, "A")["input_ids"]
    with pytest.raises(PromptError, match="padding_side = 'left'"):
        model.generate(ids, attention_mask=torch.tensor([[1] * 6, [1] + [0] * 5])[:, : ids.shape[1]])
    with pytest.raises(PromptError, match="empty"):
        model.generate()
    with pytest.raises(PromptError, match="token ids"):
        model.generate(torch.zeros(1, 3))
    with pytest.raises(PromptError, match="their mask"):
        model.generate(ids, attention_mask=torch.ones(1, 2))
    model.generation_config.max_new_tokens = None
    with pytest.raises(ConfigError, match="use max_new_tokens"):
        model.generate(ids, max_length=2)


# The drop-in and the original


def test_nothing_but_generate_answers() -> None:
    model = purified()
    assert not list(model.parameters())
    with pytest.raises(ConfigError, match="call generate"):
        model(**read(TEXT))
    with pytest.raises(ConfigError, match="no weights to save"):
        model.save_pretrained("anywhere")


def test_the_original_stays_as_it_is() -> None:
    model = original()
    before = {name: id(value) for name, value in vars(model).items()}
    expected = model.generate(**read(TEXT), max_new_tokens=4, do_sample=False).tolist()
    pipe = pipeline("text-generation", model=model, tokenizer=tokenizer())
    drop_in = purify(pipe, both()[1])
    drop_in(TEXT, max_new_tokens=4)
    assert pipe.model is model is not drop_in.model
    assert {name: id(value) for name, value in vars(model).items()} == before
    assert model.generate(**read(TEXT), max_new_tokens=4, do_sample=False).tolist() == expected


def test_what_cannot_be_purified_is_refused() -> None:
    with pytest.raises(ConfigError, match="does not know what to do with a dict"):
        purify({}, SLM)
    with pytest.raises(ConfigError, match="needs its tokenizer"):
        purify(original(), SLM)
    with pytest.raises(ConfigError, match="purified already"):
        purify(purified(), SLM, tokenizer=tokenizer())
    training = copy.copy(original())
    training.training = True
    with pytest.raises(ModelError, match="training mode"):
        purify(training, SLM, tokenizer=tokenizer())


def test_a_slm_with_fewer_tokens_is_spoken_to_in_its_own() -> None:
    """An LLM's tokenizer may have tokens that were added later; the caller's ids stay the LLM's."""
    wider = copy.deepcopy(tokenizer())
    wider.add_special_tokens({"additional_special_tokens": ["<|im_start|>"]})
    drop_in = purify(original(), both()[1], "geometric", wider, alpha=1.0)
    ours = drop_in.generate(**read(TEXT), max_new_tokens=8)
    assert ours.tolist() == original().generate(**read(TEXT), max_new_tokens=8, do_sample=False).tolist()


# Streamers


def stream(model: Any, streamer: Any, **options: Any) -> Thread:
    """A thread in which the model writes; its error is the streamer's to tell."""

    def write() -> None:
        with suppress(PurifyError):  # whoever reads the streamer is told
            model.generate(**read(TEXT), streamer=streamer, **options)

    thread = Thread(target=write)
    thread.start()
    return thread


# Two tokenizers


@cache
def other() -> LocalSource:
    """An SLM with a tokenizer of its own."""
    return LocalSource.load(SLM_1024, dtype="float32", device="cpu")


class Kept(TextStreamer):
    """A streamer that keeps the ids it was given, and when."""

    def __init__(self) -> None:
        super().__init__(tokenizer(), skip_prompt=True)
        self.ids: list[int] = []

    def put(self, value: Tensor) -> None:
        self.ids += value.flatten().tolist()

    def end(self) -> None: ...


@pytest.mark.parametrize("alignment", ["auto", "common_tokens"])
def test_an_slm_with_another_tokenizer_writes_in_the_models_ids(alignment: Any) -> None:
    """Ids are spelled and read again: the purifier's text, as the model's tokenizer cuts it."""
    drop_in = purified(slm=other())
    drop_in = PurifiedModel.around(original(), drop_in.purifier.replace(alignment=alignment))
    assert drop_in.purifier.llm.symbolic
    inputs = read(TEXT)
    output: Any = drop_in.generate(**inputs, max_new_tokens=12, return_dict_in_generate=True)
    sequence, start = output.sequences[0].tolist(), inputs["input_ids"].shape[1]
    said = drop_in.purifier.generate(TEXT, Sampling(max_tokens=12, temperature=0))[0].text
    assert sequence[:start] == inputs["input_ids"][0].tolist()
    assert sequence[start:] == tokenizer()(said, add_special_tokens=False)["input_ids"]
    verify(output.certificates[0], plugins=drop_in.purifier.plugins)


def test_a_stream_with_another_tokenizer_is_the_answer_word_by_word() -> None:
    drop_in, inputs, streamer = purified(slm=other()), read(TEXT), Kept()
    whole = drop_in.generate(**inputs, max_new_tokens=12)[0].tolist()
    streamed = drop_in.generate(**inputs, max_new_tokens=12, streamer=streamer)[0].tolist()
    assert streamed == whole
    assert streamer.ids == whole


def test_with_another_tokenizer_criteria_see_the_models_ids() -> None:
    drop_in, inputs = purified(slm=other()), read(TEXT)
    whole = drop_in.generate(**inputs, max_new_tokens=12)[0].tolist()
    seen: list[list[int]] = []

    class Third(StoppingCriteria):
        def __call__(self, input_ids: Any, scores: Any, **options: Any) -> Any:
            seen.append(input_ids[0].tolist())
            return len(seen) == 3

    stopped = drop_in.generate(**inputs, max_new_tokens=12, stopping_criteria=StoppingCriteriaList([Third()]))
    assert stopped[0].tolist() == seen[-1] == whole[: len(seen[-1])]
    assert len(seen[-1]) < len(whole)
    end = whole[-3]
    ended = drop_in.generate(**inputs, max_new_tokens=12, eos_token_id=end)[0].tolist()
    assert ended == whole[: whole.index(end, inputs["input_ids"].shape[1]) + 1]


def test_text_that_names_a_control_token_does_not_become_one() -> None:
    """An answer could otherwise end, or begin another turn, where nobody drew that token."""
    translated = RespelledIds(purified(slm=other()).purifier)
    name = tokenizer().eos_token
    ids = translated.answer([*f"so {name}".encode()])
    assert not set(ids) & translated.ends
    assert translated.vocabulary.spell(ids) == f"so {name}".encode()
    assert translated.answer([*b"so", 256])[-1] in translated.ends


def test_a_streamer_gets_the_answer_as_it_is_written() -> None:
    model = purified()
    streamer = TextIteratorStreamer(tokenizer(), skip_prompt=True, timeout=30)
    thread = stream(model, streamer, max_new_tokens=12)
    text = "".join(streamer)
    thread.join()
    width = read(TEXT)["input_ids"].shape[1]
    whole = model.generate(**read(TEXT), max_new_tokens=12)[0, width:]
    assert text == tokenizer().decode(whole)


def test_a_streamer_prints(capsys: pytest.CaptureFixture[str]) -> None:
    purified().generate(**read(TEXT), streamer=TextStreamer(tokenizer()), max_new_tokens=4)
    assert TEXT in capsys.readouterr().out


def test_a_streamer_takes_one_answer() -> None:
    with pytest.raises(ConfigError, match="one answer, not 2"):
        purified().generate(**read(TEXT, "A"), streamer=TextStreamer(tokenizer()))


@dataclass(frozen=True)
class Wrapped:
    """The test bed's SLM, except for what its sessions' logits become."""

    change: Callable[[Tensor], Tensor]

    @property
    def vocabulary(self) -> Vocabulary:
        return both()[1].vocabulary

    @property
    def context_length(self) -> int | None:
        return 512

    def open(self, prompts: Sequence[Prompt], scored: int = 0) -> tuple[Any, Tensor]:
        session, logits = both()[1].open(prompts, scored)
        extend = session.extend
        session.extend = lambda tokens: self.change(extend(tokens))  # type: ignore[method-assign]  # this one alone
        return session, self.change(logits)

    def identity(self) -> Mapping[str, Any]:
        return {"name": "wrapped"}


def broken(logits: Tensor) -> Tensor:
    if logits.ndim == 3:
        raise SourceError("the model went away")
    return logits


def test_a_failure_reaches_whoever_reads_the_stream_at_once() -> None:
    """transformers' own streamers hang for ever when generate fails in another thread."""
    streamer = TextIteratorStreamer(tokenizer(), skip_prompt=True)
    thread = stream(purified(slm=Wrapped(broken)), streamer, max_new_tokens=12)
    with pytest.raises(SourceError, match="went away"):
        list(streamer)
    thread.join()
    with pytest.raises(StopIteration):
        next(streamer)


def test_a_refusal_reaches_the_stream_too() -> None:
    streamer = TextIteratorStreamer(tokenizer())
    thread = stream(purified(), streamer, num_beams=3)
    with pytest.raises(ConfigError, match="num_beams"):
        next(streamer)
    thread.join()


def test_an_asynchronous_streamer_tells_answers_and_failures() -> None:
    async def text(slm: Any) -> str:
        streamer = AsyncTextIteratorStreamer(tokenizer(), skip_prompt=True)
        thread = stream(purified(slm=slm), streamer, max_new_tokens=6)
        try:
            return "".join([piece async for piece in streamer])
        finally:
            await asyncio.to_thread(thread.join)

    assert asyncio.run(text(both()[1]))
    with pytest.raises(SourceError, match="went away"):
        asyncio.run(text(Wrapped(broken)))


# What is built on transformers


def pipe(model: Any = None, **options: Any) -> Any:
    return pipeline("text-generation", model=model or original(), tokenizer=tokenizer(), **options)


def test_a_pipeline_around_a_purified_model_works() -> None:
    [answer] = pipe(purified("geometric", alpha=1.0))(TEXT, max_new_tokens=8, do_sample=False)
    [expected] = pipe()(TEXT, max_new_tokens=8, do_sample=False)
    assert answer == expected


def test_a_purified_pipeline_does_batches() -> None:
    drop_in = purify(pipe(), both()[1], "geometric", alpha=1.0)
    options = {"max_new_tokens": 6, "do_sample": False, "batch_size": 2, "return_full_text": False}
    assert drop_in([TEXT, "The king"], **options) == pipe()([TEXT, "The king"], **options)


def test_a_refused_row_is_empty_and_its_neighbours_are_not(caplog: pytest.LogCaptureFixture) -> None:
    """A tensor has no place for an error: one refused prompt of a batch failed the whole data set."""

    class NoKings:
        @hookimpl
        def purify_completed(self, completion: Any) -> None:
            if "king" in tokenizer().decode(completion.certificate.body["prompt"]):
                raise RefusedError("no kings")

    drop_in = purified("geometric", alpha=1.0)
    options = {"max_new_tokens": 6, "do_sample": False, "return_dict_in_generate": True}
    pad = purified().generation_config.pad_token_id
    encoded = read(TEXT, "The king")
    before = drop_in.generate(**encoded, **options)
    drop_in.purifier.plugins.register(NoKings())
    found = drop_in.generate(**encoded, **options)
    assert torch.equal(found.sequences[0], before.sequences[0])
    assert set(found.sequences[1, encoded["input_ids"].shape[1] :].tolist()) == {pad}
    assert found.certificates[0] is not None
    assert found.certificates[1] is None
    assert "prompt 2 of 2 has no answer: no kings" in caplog.text
    with pytest.raises(RefusedError, match="no kings"):
        drop_in.generate(**read("The king"), **options)


TEMPLATE = "{% for m in messages %}{{ m['content'] }}\n{% endfor %}"


def huggingface() -> Any:
    return pytest.importorskip("langchain_huggingface", reason="langchain-huggingface is not installed")


@pytest.fixture
def no_cache() -> Iterator[None]:
    from langchain_core.globals import set_llm_cache

    yield
    set_llm_cache(None)


GREEDY = {"max_new_tokens": 8, "do_sample": False, "return_full_text": False}


def langchain_pipeline() -> Any:
    return huggingface().HuggingFacePipeline(pipeline=pipe(**GREEDY), model_id="testbed")


def langchain_chat() -> Any:
    own = copy.deepcopy(tokenizer())
    own.chat_template = TEMPLATE
    return huggingface().ChatHuggingFace(llm=langchain_pipeline(), tokenizer=own)


def test_langchains_pipeline_goes_through_the_purifier() -> None:
    drop_in = purify(langchain_pipeline(), both()[1])
    [expected] = purify(pipe(**GREEDY), both()[1])(TEXT)
    assert drop_in.invoke(TEXT) == expected["generated_text"]
    assert "".join(drop_in.stream(TEXT)) == expected["generated_text"]
    assert drop_in.batch([TEXT, TEXT]) == [expected["generated_text"]] * 2
    assert asyncio.run(drop_in.ainvoke(TEXT)) == expected["generated_text"]


def test_langchains_chat_model_goes_through_the_purifier() -> None:
    plain = langchain_chat()
    drop_in = purify(plain, both()[1])
    assert isinstance(drop_in, huggingface().ChatHuggingFace)
    assert isinstance(drop_in.llm.pipeline.model, PurifiedModel)
    assert drop_in.invoke("Tell me a tale").content
    assert plain.llm.pipeline.model is original()


@pytest.mark.parametrize("make", [langchain_pipeline, langchain_chat])
@pytest.mark.usefixtures("no_cache")
def test_langchains_cache_replays_no_unpurified_answer(make: Callable[[], Any]) -> None:
    from langchain_core.caches import InMemoryCache
    from langchain_core.globals import set_llm_cache

    plain = make()
    fused, other = purify(plain, both()[1]), purify(plain, both()[1], "geometric", alpha=0.0)
    fresh = [model.invoke(TEXT) for model in (plain, fused, other)]
    set_llm_cache(InMemoryCache())
    cached = [model.invoke(TEXT) for _ in range(2) for model in (plain, fused, other)]
    assert list(map(_text, cached)) == list(map(_text, fresh)) * 2
    assert _text(fresh[0]) != _text(fresh[2])


def _text(answer: Any) -> str:
    return str(getattr(answer, "content", answer))


def llama_index_llm(model: Any = None) -> Any:
    module = pytest.importorskip(
        "llama_index.llms.huggingface", reason="llama-index-llms-huggingface is not installed"
    )
    own = tokenizer()
    return module.HuggingFaceLLM(
        model=model or original(),
        tokenizer=own,
        model_name="testbed",
        tokenizer_name="testbed",
        context_window=512,
        max_new_tokens=8,
        messages_to_prompt=lambda messages: TEXT,
    )


def test_llama_indexs_model_goes_through_the_purifier() -> None:
    plain = llama_index_llm()
    drop_in = purify(plain, both()[1])
    width = read(TEXT)["input_ids"].shape[1]
    expected = tokenizer().decode(purified().generate(**read(TEXT), max_new_tokens=8)[0, width:])
    assert drop_in.complete(TEXT).text == expected
    assert "".join(each.delta for each in drop_in.stream_complete(TEXT)) == expected
    assert plain._model is original()


def test_llama_indexs_stream_tells_a_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    """Unpurified, it would wait for ever. The thread that it starts ends with the same error."""
    ended: list[Any] = []
    before = set(threading.enumerate())
    monkeypatch.setattr(threading, "excepthook", ended.append)
    drop_in = purify(llama_index_llm(), Wrapped(broken))
    with pytest.raises(SourceError, match="went away"):
        list(drop_in.stream_complete(TEXT))
    for thread in set(threading.enumerate()) - before:
        thread.join()
    assert [each.exc_type for each in ended] == [SourceError]


# Canaries


class Sure(type(original())):  # type: ignore[misc]  # the class that transformers chose
    """The test bed's LLM with all its mass on the canary."""

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        output = super().forward(*args, **kwargs)
        output.logits = torch.full_like(output.logits, -100.0).index_fill(-1, torch.tensor(CANARY), 0.0)
        return output


def sure() -> Any:
    model = copy.copy(original())
    model.__class__ = Sure
    return model


def never(logits: Tensor) -> Tensor:
    return logits.index_fill(-1, torch.tensor(CANARY), -torch.inf)


def test_the_canary_would_have_come_out() -> None:
    assert CANARY in sure().generate(**read(TEXT), max_new_tokens=4)[0].tolist()


@pytest.mark.parametrize("policy", ["balanced", "geometric", "capped"])
@pytest.mark.parametrize("sampled", [False, True])
def test_no_canary_comes_out_anywhere(policy: str, sampled: bool) -> None:
    model = purified(policy, Wrapped(never), sure())
    options: dict[str, Any] = {"do_sample": sampled, "max_new_tokens": 12}
    streamer = TextIteratorStreamer(tokenizer(), skip_prompt=True, timeout=30)
    thread = stream(model, streamer, **options)
    texts = ["".join(streamer)]
    thread.join()
    [[answer], _] = pipe(model)([TEXT, "A"], **options)
    texts.append(answer["generated_text"])
    output = model.generate(**read(TEXT, "A"), return_dict_in_generate=True, **options)
    assert CANARY not in output.sequences.flatten().tolist()
    assert all(row[0] != CANARY for each in output.certificates for row in each.body["steps"])
    assert all(text and tokenizer().decode(CANARY) not in text for text in texts)


# What it costs


@pytest.mark.slow
@pytest.mark.alone
def test_the_adapter_costs_less_than_a_tenth_of_a_millisecond_a_token(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Of processor time, streaming an answer that was written before."""
    model, inputs = purified(), read(TEXT)
    chunks = list(model.purifier.stream(tuple(inputs["input_ids"][0].tolist()), few(100)))

    def replayed(*_: Any) -> Iterator[Any]:
        yield from chunks

    monkeypatch.setitem(vars(model.purifier), "stream", replayed)
    tokens = sum(len(chunk.steps) for chunk in chunks)
    assert min(_seconds(model, inputs) for _ in range(5)) < tokens * 1e-4


def _seconds(model: Any, inputs: Any) -> float:
    class Sink:
        def put(self, value: Any) -> None: ...

        def end(self) -> None: ...

    start = time.process_time()
    model.generate(**inputs, streamer=Sink())
    return time.process_time() - start
