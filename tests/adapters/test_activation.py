"""activate(): no way of generating goes past the purifier, and deactivate() leaves no trace."""

from __future__ import annotations

import asyncio
import contextlib
import copy
import gc
import json
import multiprocessing.util
import os
import pickle
import queue
import shutil
import subprocess
import sys
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
import torch
from huggingface_hub import AsyncInferenceClient, InferenceClient
from transformers import (
    AutoModel,
    AutoModelForCausalLM,
    GPT2Config,
    GPT2LMHeadModel,
    LogitsProcessor,
    LogitsProcessorList,
    Pipeline,
    PreTrainedModel,
    PreTrainedTokenizerFast,
    StoppingCriteriaList,
    TextIteratorStreamer,
    pipeline,
)
from transformers.generation.continuous_batching.continuous_api import ContinuousMixin
from transformers.generation.utils import GenerationMixin
from typer.testing import CliRunner

import purify_plugins
from purify_adapters import purify
from purify_adapters.activation.active import Activation as Active
from purify_adapters.activation.active import Counts
from purify_adapters.activation.rules import Rules, plain
from purify_plugins import ConfigError, ModelError, PluginError, PurifyError, RefusedError, VocabularyError
from purify_plugins.bridge.choose import EPS
from purify_plugins.cli import app
from purify_plugins.config import Activation
from purify_plugins.switch import adapter
from purify_plugins.testbed import LLM, SLM
from tests.adapters.canary import CONFIG, PLUGIN, canary, tampered, tokenizer, word
from tests.strangers import Install, install
from tests.toys import both, few, real

__all__ = ["install"]  # a fixture is used by its name

core = pytest.importorskip("langchain_core.language_models", reason="langchain-core is not installed")
openai = pytest.importorskip("openai._base_client", reason="openai is not installed")

TEXT = "Once upon a time"
STRANGER = Path(__file__).parent.parent / "data" / "tokenizers" / "kl3m-char-4k" / "tokenizer.json"
POINTS: list[tuple[Any, str]] = [
    *((GenerationMixin, name) for name in ("generate", "load_custom_generate")),
    *((ContinuousMixin, name) for name in ("generate_batch", "init_continuous_batching")),
    (PreTrainedModel, "__call__"),
    (Pipeline, "forward"),
    *((InferenceClient, name) for name in ("text_generation", "chat_completion", "_inner_post")),
    *((AsyncInferenceClient, name) for name in ("text_generation", "chat_completion", "_inner_post")),
    *((kind, "request") for kind in (openai.SyncAPIClient, openai.AsyncAPIClient)),
    (core.BaseChatModel, "_get_llm_string"),
    *((core.llms, name) for name in ("get_prompts", "aget_prompts")),
    *((os, name) for name in ("execv", "execve", "posix_spawn", "posix_spawnp")),
    (subprocess.Popen, "__init__"),
    (multiprocessing.util, "spawnv_passfds"),
]
Activate = Callable[..., Any]


@pytest.fixture
def on(tmp_path: Path, install: Install, monkeypatch: pytest.MonkeyPatch) -> Iterator[Activate]:
    """Activates a configuration with the SLM that never says the canary; what it says of itself."""
    monkeypatch.delenv("PURIFY_CONFIG", raising=False)
    install("canary-slm", PLUGIN)

    def activate(more: str = "", base: str = CONFIG) -> Any:
        (tmp_path / "purify.toml").write_text(base + more)
        return purify_plugins.activate(tmp_path / "purify.toml")

    before = {*threading.enumerate()}
    yield activate
    purify_plugins.deactivate()
    for thread in {*threading.enumerate()} - before:
        thread.join(1)  # a framework's, which fails after its reader does: within this test


def ids() -> Any:
    return tokenizer()(TEXT, return_tensors="pt")["input_ids"]


def text_of(output: Any) -> str:
    return str(tokenizer().decode(torch.as_tensor(output).flatten()))


# Every way to generate


def generating(**options: Any) -> Callable[[Any], str]:
    return lambda model: text_of(model.generate(ids(), max_new_tokens=4, **options))


def batch(model: Any) -> str:
    return text_of(model.generate(ids().repeat(3, 1), max_new_tokens=4, do_sample=True))


def streamed(model: Any) -> str:
    streamer = TextIteratorStreamer(tokenizer(), skip_prompt=True, timeout=60)
    options = {"inputs": ids(), "streamer": streamer, "max_new_tokens": 4}
    thread = threading.Thread(target=model.generate, kwargs=options)
    thread.start()
    text = "".join(streamer)
    thread.join()
    return text


def in_threads(model: Any) -> str:
    answers: queue.Queue[str] = queue.Queue()
    threads = [threading.Thread(target=lambda: answers.put(generating()(model))) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return "".join(answers.get(timeout=60) for _ in threads)


def loop(model: Any) -> str:
    tokens = ids()
    for _ in range(4):
        tokens = torch.cat([tokens, model(tokens).logits[:, -1:].argmax(-1)], dim=1)
    return text_of(tokens)


def own_loop(model: Any, *args: Any, **kwargs: Any) -> Any:
    """What a `custom_generate` is: a loop of somebody's own."""
    return torch.tensor([[model(ids()).logits[0, -1].argmax()]])


def shadowed(model: Any) -> str:
    model.generate = lambda *args, **kwargs: own_loop(model)
    try:
        return text_of(model.generate(ids()))
    finally:
        del model.generate


def overridden(model: Any) -> str:
    kind = type("Own", (type(model),), {"generate": own_loop})
    model.__class__, before = kind, type(model)
    try:
        return text_of(model.generate(ids()))
    finally:
        model.__class__ = before


def overridden_politely(model: Any) -> str:
    """A class whose own `generate` ends in transformers'."""
    body = {"generate": lambda self, *args, **kwargs: super(kind, self).generate(*args, **kwargs)}
    kind: Any = type("Polite", (type(model),), body)
    model.__class__, before = kind, type(model)
    try:
        return text_of(model.generate(ids(), max_new_tokens=4))
    finally:
        model.__class__ = before


def sampled(model: Any) -> str:
    """The method that `generate` would have chosen, called without it."""
    config = copy.copy(model.generation_config)
    model._prepare_special_tokens(config, device=torch.device("cpu"))
    return text_of(
        model._sample(ids(), LogitsProcessorList(), StoppingCriteriaList(), config, use_cache=False)
    )


def pipe(model: Any) -> Any:
    return pipeline("text-generation", model=model, tokenizer=tokenizer())


def langchain(model: Any) -> Any:
    module = pytest.importorskip("langchain_huggingface", reason="langchain-huggingface is not installed")
    return module.HuggingFacePipeline(pipeline=pipe(model), pipeline_kwargs={"max_new_tokens": 4})


def langchain_chat(model: Any) -> Any:
    module = pytest.importorskip("langchain_huggingface", reason="langchain-huggingface is not installed")
    own = copy.copy(tokenizer())
    own.chat_template = "{% for m in messages %}{{ m['content'] }}\n{% endfor %}"
    llm = module.HuggingFacePipeline(
        pipeline=pipeline("text-generation", model=model, tokenizer=own),
        pipeline_kwargs={"max_new_tokens": 4},
    )
    return module.ChatHuggingFace(llm=llm, tokenizer=own)


def llama_index(model: Any) -> Any:
    module = pytest.importorskip(
        "llama_index.llms.huggingface", reason="llama-index-llms-huggingface is not installed"
    )
    return module.HuggingFaceLLM(
        model=model,
        tokenizer=tokenizer(),
        context_window=512,
        max_new_tokens=4,
        messages_to_prompt=lambda messages: TEXT,
    )


async def collected(pieces: Any) -> str:
    return "".join([getattr(piece, "content", piece) async for piece in pieces])


def message() -> Any:
    from llama_index.core.llms import ChatMessage

    return ChatMessage(role="user", content=TEXT)


WAYS: dict[str, Callable[[Any], str]] = {
    "greedy": generating(),
    "sample": generating(do_sample=True),
    "sample top-k": generating(do_sample=True, top_k=5, temperature=0.5),
    "several": generating(do_sample=True, num_return_sequences=3),
    "beam": generating(num_beams=3),
    "beam sample": generating(num_beams=2, do_sample=True),
    "assisted": lambda model: generating(assistant_model=AutoModelForCausalLM.from_pretrained(SLM))(model),
    "prompt lookup": generating(prompt_lookup_num_tokens=3),
    "contrastive": generating(penalty_alpha=0.6, top_k=4),
    "dola": generating(dola_layers="low"),
    "processor": lambda model: generating(logits_processor=[Forcing()])(model),
    "paged": generating(cache_implementation="paged"),
    "custom_generate": generating(custom_generate=own_loop),
    "batch": batch,
    "streamer": streamed,
    "threads": in_threads,
    "forward loop": loop,
    "generate of its own": shadowed,
    "class with its own": overridden,
    "class that calls super": overridden_politely,
    "captured before": lambda model: text_of(CAPTURED(model, ids(), max_new_tokens=4)),
    "decoding method": sampled,
    "continuous batching": lambda model: str(model.generate_batch([ids()[0].tolist()])),
    "batching manager": lambda model: str(model.init_continuous_batching()),
    "pipeline": lambda model: pipe(model)(TEXT, max_new_tokens=4)[0]["generated_text"],
    "pipeline batch": lambda model: str(pipe(model)([TEXT] * 3, max_new_tokens=4, do_sample=True)),
    "langchain": lambda model: langchain(model).invoke(TEXT),
    "langchain batch": lambda model: "".join(langchain(model).batch([TEXT, TEXT])),
    "langchain stream": lambda model: "".join(langchain(model).stream(TEXT)),
    "langchain async": lambda model: asyncio.run(langchain(model).ainvoke(TEXT)),
    "langchain async stream": lambda model: asyncio.run(collected(langchain(model).astream(TEXT))),
    "langchain chat": lambda model: langchain_chat(model).invoke(TEXT).content,
    "langchain chat stream": lambda model: "".join(c.content for c in langchain_chat(model).stream(TEXT)),
    "llama_index": lambda model: llama_index(model).complete(TEXT).text,
    "llama_index stream": lambda model: "".join(c.delta for c in llama_index(model).stream_complete(TEXT)),
    "llama_index chat": lambda model: llama_index(model).chat([message()]).message.content,
    "llama_index async": lambda model: asyncio.run(llama_index(model).acomplete(TEXT)).text,
}
CAPTURED = GenerationMixin.generate
"""As somebody holds it who took it before activation."""
REFUSED = {
    *("beam", "beam sample", "assisted", "prompt lookup", "contrastive", "dola", "processor"),
    *("custom_generate", "forward loop", "generate of its own", "class with its own"),
    *("class that calls super", "captured before", "decoding method", "continuous batching"),
    "batching manager",
}
"""Each of these names itself when it is refused; all others are purified."""
QUICK = ("greedy", "forward loop", "pipeline", "langchain chat", "llama_index stream")
"""One way through each framework, for what need not be tried with all of them every time."""


class Forcing(LogitsProcessor):
    def __call__(self, input_ids: Any, scores: Any) -> Any:
        return torch.full_like(scores, -torch.inf).index_fill(-1, torch.tensor(canary()), 0.0)


@pytest.mark.parametrize("way", QUICK)
def test_without_activation_the_canary_sings(way: str) -> None:
    assert word() in WAYS[way](tampered())


BUILT = [("before", way) for way in WAYS] + [
    pytest.param("after", way, marks=[] if way in QUICK else pytest.mark.slow) for way in WAYS
]


@pytest.mark.parametrize(("built", "way"), BUILT)
@pytest.mark.filterwarnings(
    "ignore::pytest.PytestUnhandledThreadExceptionWarning"
)  # refusals in the framework's
def test_every_way_is_purified_or_refused(on: Activate, built: str, way: str) -> None:
    if built == "before":
        model = tampered()
    on()
    if built == "after":
        model = tampered()
    text = ""
    if way in REFUSED:
        with pytest.raises(PurifyError):
            text = WAYS[way](model)
        assert purify_plugins.status().total.refused >= 1
    else:
        text = WAYS[way](model)
        assert counted("purified")
        assert text
    assert word() not in text


def counted(how: str) -> bool:
    """Whether a call was counted; one on a framework's thread is when that thread ends."""
    for _ in range(500):
        if getattr(purify_plugins.status().total, how):
            return True
        time.sleep(0.01)
    return False


# Refusals


def test_a_refusal_reaches_whoever_reads_the_stream(on: Activate) -> None:
    """transformers would leave the reader waiting for ever, and LangChain for a minute."""
    on()
    model = tampered().train()
    streamer = TextIteratorStreamer(tokenizer(), timeout=60)
    thread = threading.Thread(target=swallowing(model.generate), args=(ids(),), kwargs={"streamer": streamer})
    thread.start()
    with pytest.raises(ModelError, match="training mode"):
        next(streamer)
    thread.join()


def held_by_name(model: Any, streamer: Any) -> Any:
    model.generate = lambda inputs, streamer: own_loop(model)
    return model.generate(ids(), streamer)


def held_in_options(model: Any, streamer: Any) -> Any:
    model.generate = lambda inputs, **options: own_loop(model)
    return model.generate(ids(), streamer=streamer)


def held_by_transformers(model: Any, streamer: Any) -> Any:
    return CAPTURED(model, ids(), None, None, None, None, None, None, streamer, max_new_tokens=2)


@pytest.mark.parametrize("way", [held_by_name, held_in_options, held_by_transformers])
def test_a_refusal_in_a_loop_of_somebody_s_own_reaches_the_reader(
    on: Activate, way: Callable[..., Any]
) -> None:
    on()
    streamer = TextIteratorStreamer(tokenizer(), timeout=10)
    thread = threading.Thread(target=swallowing(way), args=(tampered(), streamer))
    thread.start()
    with pytest.raises(RefusedError):
        "".join(streamer)
    thread.join()


def swallowing(call: Callable[..., Any]) -> Callable[..., None]:
    """A thread's target that says nothing of its failure, as frameworks have it."""

    def quietly(*args: Any, **options: Any) -> None:
        with contextlib.suppress(PurifyError):
            call(*args, **options)

    return quietly


@pytest.mark.parametrize("way", ["langchain stream", "llama_index stream"])
@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")  # theirs, on their thread
def test_a_framework_s_stream_raises_what_was_refused(on: Activate, way: str) -> None:
    on()
    with pytest.raises(ModelError, match="training mode"):
        WAYS[way](tampered().train())


def test_a_model_of_another_language_is_refused(on: Activate, tmp_path: Path) -> None:
    """Its tokenizer is the one the configuration names, for the model names none."""
    PreTrainedTokenizerFast(tokenizer_file=str(STRANGER), eos_token="</s>").save_pretrained(
        tmp_path / "other"
    )
    on()
    tiny = GPT2LMHeadModel(
        GPT2Config(n_layer=1, n_head=1, n_embd=8, vocab_size=257, bos_token_id=0, eos_token_id=0)
    ).eval()
    with pytest.raises(ConfigError, match="has no tokenizer that purify can find"):
        tiny.generate(ids())
    purify_plugins.deactivate()
    on('[activation]\ntokenizer = "other"\n')
    with pytest.raises(VocabularyError, match="choose an SLM with the model's own tokenizer"):
        tiny.generate(ids())


def test_the_alphabet_two_models_meet_in_is_the_file_s(on: Activate, tmp_path: Path) -> None:
    on(base=f'alignment = "bytes"\nfidelity = "fast"\n{CONFIG}')
    with pytest.raises(VocabularyError, match='alignment = "auto"'):
        tampered().generate(ids())
    met = Active(tmp_path / "purify.toml").purifier(both()[0])
    assert met.slm.identity()["alphabet"]["eps"] == EPS["fast"]


def test_a_pipeline_s_tokenizer_is_its_model_s(on: Activate, tmp_path: Path) -> None:
    """A fine-tuned model is often saved without one; elsewhere it names none."""
    AutoModelForCausalLM.from_pretrained(SLM).save_pretrained(tmp_path / "bare")
    bare = AutoModelForCausalLM.from_pretrained(tmp_path / "bare")
    on()
    assert pipe(bare)(TEXT, max_new_tokens=2)[0]["generated_text"] != TEXT
    other = AutoModelForCausalLM.from_pretrained(tmp_path / "bare")
    with pytest.raises(ConfigError, match="has no tokenizer that purify can find"):
        other.generate(ids())


def test_a_checkpoint_with_a_generate_of_its_own_is_refused(on: Activate, tmp_path: Path) -> None:
    """transformers would run it, and put what it returns in the place of the model's generate."""
    folder = tmp_path / "poisoned"
    shutil.copytree(LLM, folder)
    (folder / "custom_generate").mkdir()
    (folder / "custom_generate" / "generate.py").write_text(
        "def generate(model, **kwargs):\n    return None\n"
    )
    on()
    with pytest.raises(RefusedError, match="brings a generate of its own"):
        AutoModelForCausalLM.from_pretrained(folder, trust_remote_code=True)
    assert AutoModelForCausalLM.from_pretrained(LLM, trust_remote_code=True)


def test_our_own_models_read_as_ever(on: Activate) -> None:
    on()
    purifier = real()
    assert purifier.generate(TEXT, few(4))[0].tokens
    assert purify(tampered(), SLM, tokenizer=tokenizer()).generate(ids(), max_new_tokens=4).shape[0] == 1


def test_models_without_a_language_head_are_left_alone(on: Activate) -> None:
    """An embedder must go on embedding."""
    on()
    assert AutoModel.from_pretrained(SLM)(ids()).last_hidden_state.shape[0] == 1
    assert purify_plugins.status().models == {}


# Rules


def test_a_trusted_model_writes_as_it_likes(on: Activate) -> None:
    on(f"[activation]\ntrusted = [{str(LLM)!r}]\n")
    assert word() in WAYS["greedy"](tampered())
    assert word() in WAYS["forward loop"](tampered())
    assert purify_plugins.status().models == {str(LLM): Counts(trusted=1)}


def test_a_trusted_directory_is_found_from_the_file_and_from_here(
    on: Activate, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(SLM, tmp_path / "small")
    on('[activation]\ntrusted = ["small"]\n')
    monkeypatch.chdir(tmp_path)
    model = AutoModelForCausalLM.from_pretrained("small")
    assert text_of(model.generate(ids(), max_new_tokens=2))
    assert purify_plugins.status().total.trusted == 1


def test_a_model_in_neither_list_is_refused(on: Activate) -> None:
    on('[activation]\nuntrusted = ["somebody/else"]\n')
    with pytest.raises(RefusedError, match="neither trusted nor untrusted; name it in one"):
        WAYS["greedy"](tampered())
    purify_plugins.deactivate()
    on(f"[activation]\nuntrusted = [{str(LLM)!r}]\n")
    assert word() not in WAYS["greedy"](tampered())


@pytest.mark.parametrize(
    ("name", "trusted"),
    [
        ("http://gpu:8080", True),
        ("http://gpu:8080/", True),
        ("HTTP://GPU:8080/v1/chat/completions", True),
        ("http://gpu:80800", False),
        ("http://gpu", False),
        ("https://gpu:8080", False),
        ("https://safe.example/models/a", True),
        ("https://safe.example:443/models/a/generate", True),
        ("https://safe.example/models/ab", False),
        ("org/model", True),
        ("org/model2", False),
        ("", False),
    ],
)
def test_a_url_stands_for_what_is_below_it_and_a_name_for_itself(name: str, trusted: bool) -> None:
    rules = Rules(["http://gpu:8080", "https://safe.example/models/a", "org/model"], ["*"], Path.cwd())
    assert rules.trusts(name) is trusted


@pytest.mark.parametrize("name", ["", "org/model", "ftp://gpu", "http://gpu:80800"])
def test_what_is_no_url_is_written_as_nothing(name: str) -> None:
    assert plain(name) == ""


@pytest.mark.parametrize(
    ("lists", "words"),
    [
        ((["*"], ["*"]), "trusted must not be"),
        ((["a"], ["a"]), "'a' is both trusted and untrusted"),
        ((["http://a"], ["http://A:80/"]), "is both trusted and untrusted"),
    ],
)
def test_lists_that_contradict_each_other_are_refused(lists: tuple[list[str], list[str]], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        Rules(*lists, Path.cwd())


# Switching on and off


def replaced() -> dict[str, Any]:
    """Every attribute that activation replaces, as it is now."""
    found = {}
    for owner, name in POINTS:
        found[f"{owner.__name__}.{name}"] = vars(owner).get(name)
    return found


def test_deactivate_restores_every_attribute(on: Activate) -> None:
    before, path, environment = replaced(), list(sys.meta_path), dict(os.environ)
    done = on()
    assert all(value is not before[name] for name, value in replaced().items())
    assert len(done.patched) == len(POINTS)
    assert purify_plugins.status().active
    model = tampered()
    model.generate(ids(), max_new_tokens=2)
    assert "_purified_by" in vars(model)
    purify_plugins.deactivate()
    assert "_purified_by" not in vars(model)
    assert replaced() == before
    assert (sys.meta_path, dict(os.environ)) == (path, environment)
    assert not purify_plugins.status().active
    assert word() in WAYS["greedy"](model)
    purify_plugins.deactivate()


def test_what_another_tool_wrapped_after_us_is_left_to_it(on: Activate) -> None:
    on()
    ours = GenerationMixin.generate
    GenerationMixin.generate = theirs = lambda *args, **options: ours(*args, **options)  # type: ignore[method-assign]  # as tracing tools do
    try:
        purify_plugins.deactivate()
        assert GenerationMixin.generate is theirs
    finally:
        GenerationMixin.generate = CAPTURED  # type: ignore[method-assign]  # as above


def test_activating_twice_is_activating_once(on: Activate, tmp_path: Path) -> None:
    first = on()
    assert on() == first
    with pytest.raises(ConfigError, match="is active already; deactivate before"):
        purify_plugins.activate(SLM / "config.json")
    purify_plugins.deactivate()
    with pytest.raises(RefusedError, match="purification is not active"):
        purify_plugins.assert_active()
    on()
    purify_plugins.assert_active()


def test_a_library_that_lacks_a_point_stops_the_activation(
    on: Activate, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = replaced()
    monkeypatch.delattr(GenerationMixin, "load_custom_generate")
    with pytest.raises(PluginError, match=r"this version has no .*GenerationMixin.load_custom_generate"):
        on()
    monkeypatch.undo()
    assert replaced() == before
    assert not purify_plugins.status().active


def test_a_model_keeps_its_purifier_and_its_copies_make_their_own(on: Activate) -> None:
    on()
    model = tampered()
    model.generate(ids(), max_new_tokens=1)
    kept = vars(model)["_purified_by"]
    model.generate(ids(), max_new_tokens=1)
    assert vars(model)["_purified_by"] is kept
    twin = copy.copy(model)
    assert word() not in text_of(twin.generate(ids(), max_new_tokens=1))
    assert vars(twin)["_purified_by"] is not kept
    assert b"purify" not in pickle.dumps(kept)


def test_a_model_is_freed_with_its_purifier(on: Activate) -> None:
    on()
    model = tampered()
    model.generate(ids(), max_new_tokens=1)
    gone = weakref.ref(model)
    del model
    gc.collect()
    assert gone() is None


def test_the_status_says_what_was_done(on: Activate) -> None:
    on(f"[activation]\ntrusted = [{str(SLM)!r}]\n")
    model = tampered()
    for _ in range(2):
        model.generate(ids(), max_new_tokens=1)
    with pytest.raises(ConfigError):
        model.generate(ids(), num_beams=2)
    AutoModelForCausalLM.from_pretrained(SLM).generate(ids(), max_new_tokens=1)
    told = purify_plugins.status()
    assert told.models == {str(LLM): Counts(purified=2, refused=1), str(SLM): Counts(trusted=1)}
    assert told.total == Counts(2, 1, 1)
    assert told.policy == "balanced"
    assert "transformers.generation.utils.GenerationMixin.generate" in told.patched


# Every key of [activation] has an effect


def test_every_key_of_activation_is_tried_somewhere_here() -> None:
    source = Path(__file__).read_text("utf-8")
    for key in fields(Activation):
        assert f"[activation]\\n{key.name} = " in source


def test_processes_say_what_they_have_done(on: Activate, tmp_path: Path) -> None:
    on('[activation]\nstatus = "told"\n')
    tampered().generate(ids(), max_new_tokens=1)
    [process] = adapter().published(tmp_path / "purify.toml")[1]
    assert (process["pid"], process["running"]) == (os.getpid(), True)
    assert process["models"] == {str(LLM): {"purified": 1, "refused": 0, "trusted": 0}}
    file = tmp_path / "told" / f"{os.getpid()}.json"
    file.write_text(file.read_text().replace(f'"pid": {os.getpid()}', '"pid": 99999999'))
    assert not adapter().published(tmp_path / "purify.toml")[1][0]["running"]
    printed = CliRunner().invoke(app, ["status", "--config", str(tmp_path / "purify.toml")])
    assert f"{LLM}: 1 purified, 0 refused, 0 trusted" in printed.stdout
    told = CliRunner().invoke(app, ["status", "--config", str(tmp_path / "purify.toml"), "--json"])
    assert json.loads(told.stdout)["here"]["policy"] == "balanced"


# LangChain's cache


def test_the_cache_does_not_replay_what_was_written_before(on: Activate) -> None:
    pytest.importorskip("langchain_huggingface", reason="langchain-huggingface is not installed")
    from langchain_core.caches import InMemoryCache
    from langchain_core.globals import set_llm_cache

    ways = ("langchain", "langchain batch", "langchain async", "langchain chat")
    model = tampered()
    try:
        set_llm_cache(InMemoryCache())
        raw = [WAYS[way](model) for way in ways]
        assert all(word() in text for text in raw)
        on()
        assert all(word() not in WAYS[way](model) for way in ways)
        calls = purify_plugins.status().total.purified
        assert calls > 0
        assert all(word() not in WAYS[way](model) for way in ways)
        assert purify_plugins.status().total.purified == calls  # what was purified may be replayed
        purify_plugins.deactivate()
        assert [WAYS[way](model) for way in ways] == raw
    finally:
        set_llm_cache(None)
