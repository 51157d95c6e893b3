"""activate(): no way of generating goes past the purifier, and deactivate() leaves no trace."""

from __future__ import annotations

import contextlib
import copy
import gc
import http.client
import inspect
import json
import multiprocessing.util
import os
import pickle
import shutil
import subprocess
import sys
import threading
import weakref
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import Any

import httpx
import pytest
from huggingface_hub import AsyncInferenceClient, InferenceClient
from transformers import (
    AutoModel,
    AutoModelForCausalLM,
    GPT2Config,
    GPT2LMHeadModel,
    Pipeline,
    PreTrainedModel,
    PreTrainedTokenizerFast,
    TextIteratorStreamer,
)
from transformers.generation.continuous_batching.continuous_api import ContinuousMixin
from transformers.generation.utils import GenerationMixin
from typer.testing import CliRunner

import purify_plugins
from purify_adapters import purify
from purify_adapters.activation.active import Activation as Active
from purify_adapters.activation.local_models import KEPT
from purify_adapters.activation.recorder import Counts
from purify_adapters.activation.rules import Rules, plain
from purify_hooks.local import onednn
from purify_hooks.local.packed import PackedLinear
from purify_hooks.local.source import LocalSource
from purify_plugins import ConfigError, ModelError, PluginError, PurifyError, RefusedError
from purify_plugins.cli import app
from purify_plugins.configuration.config import ActivationConfig
from purify_plugins.running.activate import adapter
from purify_plugins.testbed import LLM, SLM
from purify_plugins.tokenizers.cross.choose import EPS
from purify_plugins.utils.logs import warn_of_greedy
from tests.adapters.activating import Activate, install, on
from tests.adapters.canary import CONFIG, tampered, tokenizer, word
from tests.adapters.ways_models import CAPTURED, TEXT, WAYS, ids, own_loop, pipe, text_of
from tests.toys import both, few, real

__all__ = ["install", "on"]  # fixtures are used by their names

core = pytest.importorskip("langchain_core.language_models", reason="langchain-core is not installed")
openai = pytest.importorskip("openai._base_client", reason="openai is not installed")

STRANGER = Path(__file__).parent.parent / "data" / "tokenizers" / "kl3m-char-4k" / "tokenizer.json"
POINTS: list[tuple[Any, str]] = [
    *((GenerationMixin, name) for name in ("generate", "load_custom_generate")),
    *((ContinuousMixin, name) for name in ("generate_batch", "init_continuous_batching")),
    *((PreTrainedModel, name) for name in ("__call__", "__init__")),
    (Pipeline, "forward"),
    *((InferenceClient, name) for name in ("text_generation", "chat_completion", "_inner_post")),
    *((AsyncInferenceClient, name) for name in ("text_generation", "chat_completion", "_inner_post")),
    *((kind, "request") for kind in (openai.SyncAPIClient, openai.AsyncAPIClient)),
    (core.BaseChatModel, "_get_llm_string"),
    *((core.llms, name) for name in ("get_prompts", "aget_prompts")),
    *((os, name) for name in ("system", "execv", "execve", "posix_spawn", "posix_spawnp")),
    (subprocess.Popen, "__init__"),
    (multiprocessing.util, "spawnv_passfds"),
    (http.client.HTTPConnection, "putrequest"),
    (httpx.HTTPTransport, "handle_request"),
    (httpx.AsyncHTTPTransport, "handle_async_request"),
]
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
    streamer = TextIteratorStreamer(tokenizer(), timeout=60)
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


def test_a_model_of_another_tokenizer_is_purified_in_bytes(on: Activate, tmp_path: Path) -> None:
    """Its tokenizer is the one the configuration names, for the model names none."""
    PreTrainedTokenizerFast(tokenizer_file=str(STRANGER), eos_token="</s>").save_pretrained(
        tmp_path / "other"
    )
    on()
    tiny = GPT2LMHeadModel(
        GPT2Config(n_layer=1, n_head=1, n_embd=8, vocab_size=4096, bos_token_id=0, eos_token_id=0)
    ).eval()
    with pytest.raises(ConfigError, match="has no tokenizer that purify can find"):
        tiny.generate(ids())
    purify_plugins.deactivate()
    on('[activation]\ntokenizer = "other"\n')
    asked = ids()
    assert tiny.generate(asked, max_new_tokens=3)[0, : asked.shape[1]].tolist() == asked[0].tolist()
    assert vars(tiny)[KEPT].purifier.vocabulary.name == "bytes"


def test_the_alphabet_two_models_meet_in_is_the_file_s(on: Activate, tmp_path: Path) -> None:
    on(base=f'alignment = "bytes"\nfidelity = "fast"\n{CONFIG}')
    assert tampered().generate(ids(), max_new_tokens=3).shape[1] > ids().shape[1]
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


def test_a_relative_directory_is_the_one_that_a_model_was_loaded_from(
    on: Activate, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Looked up where it generates, the other directory's model was taken for the trusted one."""
    for folder, source in (("mine", SLM), ("theirs", LLM)):
        shutil.copytree(source, tmp_path / folder / "model")
    on('[activation]\ntrusted = ["mine/model"]\nuntrusted = ["*"]\n')
    models = []
    for folder in ("mine", "theirs"):
        monkeypatch.chdir(tmp_path / folder)
        models.append(AutoModelForCausalLM.from_pretrained("model"))
    for times, folder in enumerate(("mine", "theirs"), 1):
        monkeypatch.chdir(tmp_path / folder)
        for model in models:
            model.generate(ids(), max_new_tokens=1)
        total = purify_plugins.status().total
        assert (total.trusted, total.purified) == (times, times)


def test_an_slm_whose_layers_are_packed_as_it_is_loaded_is_let_through(
    on: Activate, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Large ones are, and read a sample text meanwhile: that was refused as an untrusted model's call."""
    on()
    monkeypatch.setattr(onednn, "onednn_gains", lambda *about: True)
    source = LocalSource.load(SLM)
    assert any(isinstance(each, PackedLinear) for each in source.model.modules())


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


def test_a_relative_path_is_another_model_s_in_another_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A verdict that is kept by the name alone let the other model's own text through."""
    for name in ("mine", "theirs"):
        (tmp_path / name / "model").mkdir(parents=True)
    rules = Rules(["mine/model"], ["*"], tmp_path)
    monkeypatch.chdir(tmp_path / "mine")
    assert rules.trusts("model")
    monkeypatch.chdir(tmp_path / "theirs")
    assert not rules.trusts("model")
    monkeypatch.chdir(tmp_path / "mine")
    assert not rules.trusts("model"), "it may be the other one, loaded there"


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
    assert len(done.patched) >= len(POINTS)
    monkeypatch = adapter()._active.monkeypatch
    assert {(owner, name) for owner, name, *_ in monkeypatch.replaced} >= set(POINTS)
    assert purify_plugins.status().active
    model = tampered()
    model.generate(ids(), max_new_tokens=2)
    assert "_purified_by" in vars(model)
    purify_plugins.deactivate()
    assert "_purified_by" not in vars(model)
    assert replaced() == before
    assert monkeypatch.replaced == []
    assert (sys.meta_path, dict(os.environ)) == (path, environment)
    assert not purify_plugins.status().active
    assert word() in WAYS["greedy"](model)
    purify_plugins.deactivate()


def test_what_is_replaced_is_called_as_what_it_replaces(on: Activate) -> None:
    """`chat_completion(messages=…)` was a TypeError: the wrapper called its second argument `content`."""
    on()
    for owner, name, before, after in adapter()._active.monkeypatch.replaced:
        if inspect.isfunction(before):
            assert inspect.signature(after) == inspect.signature(before), (owner, name)
            assert inspect.iscoroutinefunction(after) == inspect.iscoroutinefunction(before), (owner, name)


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


def test_greedy_answers_are_counted_apart_and_warned_of_once(
    on: Activate, caplog: pytest.LogCaptureFixture
) -> None:
    """transformers decodes greedily unless told otherwise, and "1 purified" was all that one heard of it."""
    on()
    warn_of_greedy.cache_clear()
    model = tampered()
    with caplog.at_level("WARNING", logger="purify"):
        for sampled in (False, False, True):
            model.generate(ids(), max_new_tokens=2, do_sample=sampled)
    assert purify_plugins.status().models == {str(LLM): Counts(purified=3, guaranteed=1)}
    warned = [record.getMessage() for record in caplog.records if record.name == "purify.greedy"]
    assert len(warned) == 1
    assert "carry no guarantee" in warned[0]
    assert "do_sample=True" in warned[0]


def test_the_status_names_what_it_watches_only_when_asked(on: Activate, tmp_path: Path) -> None:
    on()
    asked = ["status", "--config", str(tmp_path / "purify.toml")]
    short, long = (CliRunner().invoke(app, [*asked, *more]).stdout for more in ([], ["--verbose"]))
    assert "modules of clients and engines" in short
    assert len(short.splitlines()) == len(long.splitlines())
    assert len(short) < 600 < len(long)


# Every key of [activation] has an effect


def test_every_key_of_activation_is_tried_somewhere_here() -> None:
    source = Path(__file__).read_text("utf-8")
    for key in fields(ActivationConfig):
        assert f"[activation]\\n{key.name} = " in source


def test_processes_say_what_they_have_done(on: Activate, tmp_path: Path) -> None:
    on('[activation]\nstatus = "told"\n')
    tampered().generate(ids(), max_new_tokens=1)
    [process] = adapter().published(tmp_path / "purify.toml")[1]
    assert (process["pid"], process["running"]) == (os.getpid(), True)
    assert process["models"] == {str(LLM): {"purified": 1, "refused": 0, "trusted": 0, "guaranteed": 0}}
    [file] = (tmp_path / "told").glob(f"*T*-{os.getpid()}.json")
    told_there = json.loads(file.read_text())
    assert told_there["version"] == purify_plugins.__version__
    assert file.name.startswith(
        told_there["started"].replace(":", "")
    )  # in UTC: a later process may get this id
    assert told_there["started"].endswith("+00:00")
    file.write_text(file.read_text().replace(f'"pid": {os.getpid()}', '"pid": 99999999'))
    assert not adapter().published(tmp_path / "purify.toml")[1][0]["running"]
    printed = CliRunner().invoke(app, ["status", "--config", str(tmp_path / "purify.toml")])
    assert f"{LLM}: 1 purified, 0 with a guarantee; 0 refused; 0 trusted" in printed.stdout
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
