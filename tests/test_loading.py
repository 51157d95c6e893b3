"""What was loaded is what was named: a checkpoint that is not all of its model is refused by name."""

from __future__ import annotations

import json
import logging
import shutil
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from purify_hooks.local.config_keys import ALWAYS, BUILT_IN, configuration, declared
from purify_hooks.local.source import LocalSource
from purify_hooks.local.weight_headers import stored
from purify_hooks.local.weights import attention, load_model
from purify_plugins import ConfigError, ModelError, Purifier, Sampling
from purify_plugins.testbed import LLM, SLM, SLM_1024
from tests.toys import both

Tensors = dict[str, Tensor]
Damage = Callable[[Path], None]


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """A copy of the test bed's SLM."""
    return Path(shutil.copytree(SLM, tmp_path / "model"))


def loaded(folder: Path) -> LocalSource:
    return LocalSource.load(folder, device="cpu")


def settings(folder: Path, name: str = "config.json", **keys: Any) -> None:
    file = folder / name
    old = json.loads(file.read_text()) if file.exists() else {}
    file.write_text(json.dumps({**old, **keys}))


def said(**keys: Any) -> Damage:
    return lambda folder: settings(folder, **keys)


def tensors(change: Callable[[Tensors], Tensors | None]) -> Damage:
    """Weights changed in place, or other ones."""

    def act(folder: Path) -> None:
        found = load_file(folder / "model.safetensors")
        kept = change(found) or found
        save_file({name: each.contiguous() for name, each in kept.items()}, folder / "model.safetensors")

    return act


def prefixed(prefix: str) -> Damage:
    return tensors(lambda found: {prefix + name: each for name, each in found.items()})


def without(name: str) -> Damage:
    return tensors(lambda found: {each: found[each] for each in found if each != name})


def with_(name: str, tensor: Tensor) -> Damage:
    return tensors(lambda found: {**found, name: tensor})


def sharded(index: Callable[[dict[str, str]], dict[str, str]], delete: str = "") -> Damage:
    """The weights in two files, and an index of them, changed."""

    def act(folder: Path) -> None:
        found = load_file(folder / "model.safetensors")
        (folder / "model.safetensors").unlink()
        names = sorted(found)
        files = {"model-1.safetensors": names[::2], "model-2.safetensors": names[1::2]}
        for file, kept in files.items():
            save_file({name: found[name] for name in kept}, folder / file)
        places = {name: file for file, kept in files.items() for name in kept}
        (folder / "model.safetensors.index.json").write_text(
            json.dumps({"metadata": {}, "weight_map": index(places)})
        )
        if delete:
            (folder / delete).unlink()

    return act


def cut(folder: Path) -> None:
    file = folder / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-1000])


def adapter(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    save_file(
        {"base_model.model.q_proj.lora_A.weight": torch.zeros(2, 2)}, folder / "adapter_model.safetensors"
    )


def packed(found: Tensors) -> None:
    name = "model.layers.0.mlp.up_proj.weight"
    found[name] = (found[name] * 100).to(torch.int8)


Q, NORM = "model.layers.1.self_attn.q_proj.weight", "model.norm.weight"
ABSENT = r"model.layers.3.self_attn.q_proj.weight"
NOT_ITS_MODEL: dict[str, tuple[Damage, str]] = {
    "a compiled model's prefix": (
        prefixed("_orig_mod."),
        r"model\.embed_tokens\.weight and \d+ more weights are missing from .*, so that LlamaForCausalLM "
        r"would answer at random; it is there as _orig_mod\.model\.embed_tokens\.weight: save the model "
        r"again without the prefix '_orig_mod\.'",
    ),
    "a parallel model's prefix": (prefixed("module."), "save the model again without the prefix 'module.'"),
    "an adapted model's prefix": (
        prefixed("base_model.model."),
        "save the model again without the prefix 'base_model.model.'",
    ),
    "one tensor missing": (without(Q), rf"{Q} is missing"),
    "a norm missing": (without(NORM), rf"{NORM} is missing"),
    "the embedding missing": (without("model.embed_tokens.weight"), "model.embed_tokens.weight is missing"),
    "a tensor of another shape": (
        with_(NORM, torch.ones(130)),
        rf"{NORM} in .* has the shape \(130,\), LlamaForCausalLM needs \(128,\)",
    ),
    "a matrix on its side": (
        with_("model.layers.0.mlp.up_proj.weight", torch.zeros(128, 352)),
        r"up_proj.weight in .* has the shape \(128, 352\), LlamaForCausalLM needs \(352, 128\)",
    ),
    "a shard missing": (
        sharded(lambda places: places, "model-2.safetensors"),
        "names model-2.safetensors, which is missing; fetch the model again",
    ),
    "an index that lies": (
        sharded(lambda places: {**places, Q: "model-1.safetensors"} | {"no.such": "model-1.safetensors"}),
        "model.safetensors.index.json in .* says that .* is in model-1.safetensors, where it is not",
    ),
    "a file cut off": (cut, "model.safetensors is damaged, it has .* bytes of tensors where its header says"),
    "no tensors at all": (
        tensors(lambda found: {"x": torch.zeros(0)}),
        "weights, which are 1 tensors of 0",
    ),
    "an empty file": (
        lambda folder: save_file({}, folder / "model.safetensors"),
        "the safetensors hold no tensors; fetch the model again",
    ),
    "more layers than weights": (
        said(num_hidden_layers=4),
        rf"describes a model of .* numbers, its weights are .* \({ABSENT} is missing\)",
    ),
    "fewer layers than weights": (
        said(num_hidden_layers=2),
        r"model\.layers\.2\..* has no place in the Llama",
    ),
    "another hidden size": (said(hidden_size=256), "describes a model of .* numbers, its weights are"),
    "a smaller hidden size": (said(hidden_size=64), r"has the shape .*, LlamaForCausalLM needs"),
    "other heads": (
        said(num_key_value_heads=2),
        r"model\.layers\.0\.self_attn\.k_proj\.weight in .* has the shape",
    ),
    "packed weights": (
        tensors(packed),
        r"up_proj\.weight in .* is stored as I8; quantised weights are not read",
    ),
    "scales of packed weights": (
        with_("model.layers.0.mlp.up_proj.weight_scale", torch.ones(1)),
        r"up_proj\.weight_scale in .* has no place in the LlamaForCausalLM that config\.json describes",
    ),
    "weights with biases": (
        with_("model.layers.0.self_attn.q_proj.bias", torch.ones(128)),
        r"q_proj\.bias in .* has no place in the LlamaForCausalLM",
    ),
    "an untied head called tied": (
        with_("lm_head.weight", torch.ones(2048, 128)),
        r"embed_tokens\.weight and lm_head\.weight in .* differ, where config\.json says that they are one",
    ),
    "a tied head called untied": (said(tie_word_embeddings=False), r"lm_head\.weight is missing"),
    "another type": (
        said(model_type="mistral"),
        "says that the weights are of LlamaForCausalLM, and that model_type is one of MistralForCausalLM",
    ),
    "another family": (said(model_type="whisper"), "'whisper' has an encoder, an image or sound part"),
    "another family's names": (
        said(model_type="gpt2", architectures=None),
        "describes a model of .* numbers",
    ),
    "an adapter alone": (adapter, r"holds an adapter \(adapter_model\.safetensors\) and no model; merge it"),
    "another tokenizer": (
        lambda folder: (
            shutil.copy(LLM / "tokenizer.json", folder / "tokenizer.json") and without_tokens(folder, 256)
        ),
        r"the tokenizer in .* has 256 tokens and the model 2,048 rows for them; they are of two models",
    ),
    "an adapter that was not merged": (
        with_("model.layers.0.self_attn.q_proj.lora_A.weight", torch.ones(4, 128)),
        r"q_proj\.lora_A\.weight in .* has no place in the LlamaForCausalLM that config.json describes",
    ),
    "a norm that its layers lack": (
        with_("model.layers.0.self_attn.q_norm.weight", torch.ones(32)),
        r"q_norm\.weight in .* has no place in the LlamaForCausalLM that config.json describes",
    ),
    "a weight that is no number": (
        tensors(lambda found: found[Q][0, :1].fill_(float("nan")) is None and None),
        rf"{Q} in .* holds NaN, which is no weight; fetch the model again",
    ),
    "settings that make every row NaN": (
        said(rms_norm_eps=-1.0),
        "returns NaN for an ordinary text; correct its config.json",
    ),
    "a classifier": (
        said(architectures=["LlamaForSequenceClassification"]),
        "says that the weights are of LlamaForSequenceClassification, which writes no text",
    ),
    "another family, not in a list": (
        said(architectures="MistralForCausalLM"),
        "says that the weights are of MistralForCausalLM, and that model_type is one of LlamaForCausalLM",
    ),
    "far more tokens than rows": (
        lambda folder: settings(
            folder,
            "tokenizer_config.json",
            added_tokens_decoder={str(at): {"content": f"<{at}>"} for at in range(2048, 6000)},
        ),
        r"the tokenizer in .* has 6,000 tokens and the model 2,048 rows for them; they are of two models",
    ),
    "a larger tokenizer": (
        lambda folder: (
            shutil.copytree(SLM_1024, folder, dirs_exist_ok=True)
            and shutil.copy(SLM / "tokenizer.json", folder / "tokenizer.json")
            and None
        ),
        r"the tokenizer in .* has 2,048 tokens and the model 1,024 rows for them",
    ),
}


def without_tokens(folder: Path, kept: int) -> None:
    """Cut the tokenizer's vocabulary down."""
    file = folder / "tokenizer.json"
    found = json.loads(file.read_text())
    found["model"]["vocab"] = dict(sorted(found["model"]["vocab"].items(), key=lambda each: each[1])[:kept])
    found["model"]["merges"] = []
    file.write_text(json.dumps(found))


@pytest.mark.parametrize("name", NOT_ITS_MODEL)
def test_a_checkpoint_that_is_not_its_model_is_refused_by_name(model: Path, name: str) -> None:
    """transformers fills what is missing with random numbers, and a certificate was issued for them."""
    damage, words = NOT_ITS_MODEL[name]
    damage(model)
    with pytest.raises(ModelError, match=words):
        loaded(model)


@pytest.mark.parametrize("folder", [LLM, SLM, SLM_1024], ids=lambda folder: folder.name)
def test_every_weight_comes_from_the_file(folder: Path) -> None:
    found, source = load_file(folder / "model.safetensors"), loaded(folder)
    for name, weight in source.model.named_parameters():
        assert torch.equal(weight, found[name].to(weight.dtype)), name
    assert set(stored(folder)) == set(found)


def test_an_index_of_other_files_beside_the_weights_is_reported(
    model: Path, caplog: pytest.LogCaptureFixture
) -> None:
    index = {"metadata": {}, "weight_map": {NORM: "model-1.safetensors"}}
    (model / "model.safetensors.index.json").write_text(json.dumps(index))
    with caplog.at_level(logging.WARNING, "purify_hooks.local.weight_headers"):
        assert loaded(model).open(["Once"])
    assert (
        "model.safetensors is read, and the files that model.safetensors.index.json names are not"
        in caplog.text
    )


def test_shards_are_read_as_one_file(model: Path) -> None:
    sharded(lambda places: places)(model)
    assert torch.equal(loaded(model).open(["Once"])[1], both()[1].open(["Once"])[1])


def test_a_tied_head_may_stand_in_the_file_twice(model: Path) -> None:
    tensors(lambda found: {**found, "lm_head.weight": found["model.embed_tokens.weight"].clone()})(model)
    assert torch.equal(loaded(model).open(["Once"])[1], both()[1].open(["Once"])[1])


def test_tensors_that_no_part_of_the_model_takes_are_told_of(
    model: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with_("vision_tower.weight", torch.ones(2))(model)
    with caplog.at_level(logging.WARNING, "purify_hooks.local.weights"):
        assert loaded(model).open(["Once"])
    assert (
        "1 tensors have no place in LlamaForCausalLM and were not loaded, first vision_tower.weight"
        in caplog.text
    )


def test_a_buffer_that_is_computed_may_be_there_or_not(model: Path) -> None:
    with_("model.layers.0.self_attn.rotary_emb.inv_freq", torch.ones(16))(model)
    assert torch.equal(loaded(model).open(["Once"])[1], both()[1].open(["Once"])[1])


# Kinds of models


SMALL: dict[str, Any] = {
    "vocab_size": 2048,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "head_dim": 16,
    "num_key_value_heads": 1,
    "intermediate_size": 48,
    "max_position_embeddings": 64,
    "n_embd": 32,
    "n_head": 2,
    "n_layer": 2,
    "n_positions": 64,
    "ffn_dim": 32,
    "word_embed_proj_dim": 32,
    "d_model": 32,
    "n_layers": 2,
    "n_heads": 2,
    "state_size": 4,
    "num_experts": 4,
    "num_local_experts": 4,
    "moe_intermediate_size": 16,
    "bos_token_id": 0,
    "eos_token_id": 0,
    "pad_token_id": 0,
    "num_experts_per_tok": 2,
}
KINDS = [
    "bloom",
    "cohere",
    "deepseek_v3",
    "falcon",
    "gemma",
    "gemma2",
    "gemma3_text",
    "gpt2",
    "gpt_bigcode",
    "gpt_neox",
    "gptj",
    "granite",
    "llama",
    "mamba",
    "mistral",
    "mixtral",
    "mpt",
    "olmo",
    "olmo2",
    "opt",
    "phi",
    "phi3",
    "qwen2",
    "qwen2_moe",
    "qwen3",
    "qwen3_moe",
    "recurrent_gemma",
    "rwkv",
    "smollm3",
    "stablelm",
    "starcoder2",
]
UNREAD = ("deepseek_v3", "gptj", "recurrent_gemma")
"""These sizes do not suit their attention; that their weights are read is shown all the same."""


@pytest.mark.filterwarnings("ignore:.*torch.jit.script:DeprecationWarning")  # an older transformers'
@pytest.mark.parametrize("kind", KINDS)
def test_a_published_kind_of_model_loads_as_transformers_saved_it(kind: str, tmp_path: Path) -> None:
    """The allow-list takes what a type declares, so that no ordinary model needs a word from anybody."""
    from inspect import signature

    from transformers.models.auto.configuration_auto import CONFIG_MAPPING
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING

    made = CONFIG_MAPPING[kind]
    taken = set(signature(made).parameters) - set(made.attribute_map)
    config = made(**{key: value for key, value in SMALL.items() if key in taken})
    torch.manual_seed(0)
    saved = MODEL_FOR_CAUSAL_LM_MAPPING[made](config).eval()
    saved.save_pretrained(tmp_path)
    read = load_model(tmp_path, torch.float32, None)
    assert type(read) is type(saved)
    assert all(map(torch.equal, read.parameters(), saved.parameters()))
    if kind in UNREAD:
        return
    ids = torch.tensor([[5, 6, 7, 8]])
    torch.testing.assert_close(read(ids).logits, saved(ids).logits, atol=1e-5, rtol=1e-4)


def test_old_names_of_settings_are_taken(model: Path) -> None:
    """What most published files say of positions stands under a name that no class declares any more."""
    settings(
        model, rope_theta=123456.0, rope_scaling={"rope_type": "linear", "factor": 2.0}, torch_dtype="float16"
    )
    found, kind = configuration(model)
    told = json.dumps(found.to_dict(), default=str)
    assert "123456.0" in told
    assert '"linear"' in told
    assert attention(kind) == "sdpa"


# What a configuration may say


DANGEROUS: dict[str, dict[str, Any]] = {
    "attention from the hub": {"_attn_implementation": "evil/kernel"},
    "attention by its public name": {"attn_implementation": "evil/kernel"},
    "attention by its inner name": {"_attn_implementation_internal": "evil/kernel"},
    "attention of one part": {"attn_implementation": {"text_config": "evil/kernel"}},
    "experts from the hub": {"experts_implementation": "evil/kernel"},
    "experts by the inner name": {"_experts_implementation": "evil/kernel"},
    "a part's attention": {"text_config": {"_attn_implementation": "evil/kernel"}},
    "attention of one layer": {"per_layer_config": {"0": {"_attn_implementation": "evil/kernel"}}},
    "attention in a list": {"layers": [{"attn_implementation": "evil/kernel"}]},
    "quantisation": {"quantization_config": {"quant_method": "awq"}},
    "compression": {"compression_config": {"quant_method": "x"}},
    "a kernel": {"kernel_config": {"RMSNorm": "evil/kernel:RMSNorm"}},
    "a hub kernel": {"hub_kernel": "evil/kernel"},
    "kernels switched on": {"use_kernels": True},
    "fusions": {"fusion_config": {"a": True}},
    "other weights": {"transformers_weights": "../elsewhere.safetensors"},
    "a repository's code": {"auto_map": {"AutoModelForCausalLM": "evil/code--x.Y"}},
    "its own generation": {"custom_generate": "evil/code"},
}


@pytest.mark.parametrize("name", DANGEROUS)
@pytest.mark.parametrize("file", ["config.json", "generation_config.json", "tokenizer_config.json"])
def test_a_key_that_chooses_code_is_refused_in_every_file(model: Path, name: str, file: str) -> None:
    settings(model, file, **DANGEROUS[name])
    with pytest.raises(
        ModelError, match=rf"{file} in .* names code to run \('\w+'\); refused, remove the key"
    ):
        loaded(model)


@pytest.mark.parametrize("choice", sorted(BUILT_IN))
def test_the_attention_is_ours_whatever_a_file_says(model: Path, choice: str) -> None:
    settings(model, _attn_implementation=choice, attn_implementation=choice)
    assert loaded(model).model.config._attn_implementation == "sdpa"


@pytest.mark.parametrize(
    "key", ["attention_backend", "loader", "remote", "plugin_module", "_name_or_path", "x_hub_repo"]
)
def test_a_key_that_nobody_declared_never_reaches_transformers(
    model: Path, key: str, caplog: pytest.LogCaptureFixture
) -> None:
    """So a later transformers may give it any meaning."""
    settings(model, **{key: "evil/code"})
    with caplog.at_level(logging.WARNING, "purify_hooks.local.config_keys"):
        source = loaded(model)
    assert getattr(source.model.config, key, "") in ("", str(model))
    assert (f"LlamaConfig declares no '{key}'; left out" in caplog.text) == (key != "_name_or_path")


def test_a_key_that_was_left_out_is_reported_once(model: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A pair was checked and then loaded, and said everything twice."""
    settings(model, no_such_key=1, _model_name_or_path="x", unk_token_id=3)
    with caplog.at_level(logging.WARNING, "purify_hooks.local.config_keys"):
        Purifier.load(LLM, model)
    assert [each.message for each in caplog.records] == [
        f"{model / 'config.json'}: LlamaConfig declares no 'no_such_key'; left out"
    ]


def test_a_type_whose_code_comes_from_the_hub_is_refused_where_it_would_be_fetched(
    model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """transformers 4.57 fetches and imports Mamba's kernels once `kernels` is installed; 5.24 RWKV's."""
    from purify_hooks.local import model_types

    kinds = {name for name in ("mamba", "rwkv") if fetches(name)}
    assert kinds
    for name in kinds | {"llama"}:
        settings(model, model_type=name, architectures=None)
        for installed in (None, object()):
            monkeypatch.setattr(model_types, "find_spec", lambda _, found=installed: found)
            if installed and name in kinds:
                with pytest.raises(
                    ModelError, match=f"for model_type '{name}' transformers fetches compiled"
                ):
                    configuration(model)
            else:
                configuration(model)


def fetches(name: str) -> bool:
    """Whether transformers' module of this type names a kernel of the hub."""
    import importlib

    module = importlib.import_module(f"transformers.models.{name}.modeling_{name}")
    return "kernels-community/" in Path(str(module.__file__)).read_text("utf-8")


def test_what_chooses_code_is_declared_by_no_type() -> None:
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING

    for kind in KINDS:
        names = declared(CONFIG_MAPPING[kind])
        assert names >= ALWAYS
        assert not [name for name in names if "implementation" in name or name == "auto_map"]


WRONG: dict[str, tuple[dict[str, Any], str]] = {
    "no type": ({"model_type": None}, "no causal one of model_type None"),
    "a list for a type": ({"model_type": ["llama"]}, "no causal one of model_type"),
    "a type nobody knows": ({"model_type": "no-such"}, "no causal one of model_type 'no-such'"),
    "an encoder with a decoder": ({"model_type": "t5"}, "no causal one of model_type 't5'"),
    "a summariser": ({"model_type": "bart"}, "'bart' has an encoder"),
    "an encoder": (
        {"model_type": "bert"},
        "'bert' has an encoder, an image or sound part, or reads both ways",
    ),
    "a model that sees": ({"model_type": "gemma3"}, "'gemma3' has an encoder, an image or sound part"),
    "said to have an encoder": ({"is_encoder_decoder": True}, "describes a model with an encoder"),
    "read both ways": (
        {"use_bidirectional_attention": True},
        r"reads? both ways \(use_bidirectional_attention = True\)",
    ),
    "read both ways, by a word": ({"use_bidirectional_attention": "all"}, "read both ways"),
    "not causal": ({"is_causal": False}, r"read both ways \(is_causal = False\)"),
    "not causal, in short": ({"causal": False}, r"read both ways \(causal = False\)"),
    "no decoder": ({"is_decoder": False}, r"read both ways \(is_decoder = False\)"),
    "a part read both ways": ({"text_config": {"is_causal": False}}, r"read both ways \(is_causal = False\)"),
    "a million layers": (
        {"num_hidden_layers": 10**6},
        "num_hidden_layers is 1000000, at most 4096 makes sense",
    ),
    "a million million layers": (
        {"num_hidden_layers": 10**12},
        "num_hidden_layers is 1000000000000, at most",
    ),
    "4000 layers": ({"num_hidden_layers": 4000}, "describes a model that is larger than its weights"),
    "a huge vocabulary": ({"vocab_size": 2**31}, "describes a model that is larger than its weights"),
    "a wide middle": ({"intermediate_size": 2**30}, "describes a model that is larger than its weights"),
    "no layers": (
        {"num_hidden_layers": -1},
        "most of the weights in .* have no place in LlamaForCausalLM|config.json",
    ),
    "no heads": ({"num_attention_heads": 0}, "config.json|does not load"),
    "a negative context": (
        {"max_position_embeddings": -1},
        "max_position_embeddings must be a number of tokens",
    ),
    "an endless context": (
        {"max_position_embeddings": 10**9},
        "max_position_embeddings is 1000000000, at most",
    ),
    "a context that is true": ({"max_position_embeddings": True}, "max_position_embeddings must be a number"),
    "half a context": ({"max_position_embeddings": 0.5}, "max_position_embeddings must be a number"),
    "an unknown rotation": (
        {"rope_scaling": {"rope_type": "evil", "factor": 2.0}},
        "config.json|does not load",
    ),
    "a rotation that is text": (
        {"rope_scaling": "evil/code"},
        "rope_scaling holds 'evil/code', which could name",
    ),
    "an activation with a path": ({"hidden_act": "../x"}, "hidden_act holds '../x', which could name a file"),
    "an unknown activation": ({"hidden_act": "evil"}, "does not load as a causal language model"),
    "a type that is a function": (
        {"dtype": "load"},
        "dtype must be one of float64, float32, float16, bfloat16",
    ),
    "its old name": ({"torch_dtype": "hub"}, "torch_dtype must be one of"),
    "an end that is true": ({"eos_token_id": True}, "eos_token_id"),
    "an end below none": ({"eos_token_id": -1}, "has no token ids in eos_token_id: -1"),
    "an end beyond the last": (
        {"eos_token_id": 2048},
        "ends with the token 2048, which its tokenizer does not have",
    ),
    "an end among many": ({"eos_token_id": [0, 10**9]}, "ends with the token 1000000000"),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_setting_that_makes_no_model_is_refused_by_name(model: Path, name: str) -> None:
    keys, words = WRONG[name]
    settings(model, **keys)
    with pytest.raises(ModelError, match=words):
        loaded(model).vocabulary  # noqa: B018  # asking is the test


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ('{"model_type": "llama", "model_type": "gpt2"}', "'model_type' stands there twice"),
        ('{"model_type": "llama", "rope_theta": NaN}', "NaN is no number"),
        ('{"model_type": "llama", "rope_theta": Infinity}', "rope_theta is inf, which is no number"),
        ('{"model_type": "llama", "a": ' + "[" * 50 + "]" * 50 + "}", "nested deeper than 32"),
        ("[" * 200_000, "is not valid JSON"),
    ],
)
def test_json_that_two_readers_would_take_for_two_things_is_refused(
    model: Path, content: str, words: str
) -> None:
    (model / "config.json").write_text(content)
    with pytest.raises(ModelError, match=words):
        loaded(model)


# What is no directory of a model


@pytest.mark.parametrize(
    ("name", "words"),
    [
        (
            "model.gguf",
            "is damaged, it has 4 bytes",
        ),
        ("model.safetensors", "is a file of weights; give the directory it is in, which has config.json too"),
        ("pytorch_model.bin", "is a file of weights; give the directory"),
        ("notes.txt", "is a file; give the directory of a transformers model, or a hub id"),
    ],
)
def test_a_file_for_a_model_is_told_what_it_is(tmp_path: Path, name: str, words: str) -> None:
    (tmp_path / name).write_bytes(b"GGUF" if name.endswith("gguf") else b"x")
    with pytest.raises(ModelError, match=words):
        LocalSource.load(tmp_path / name)


@pytest.mark.parametrize("value", [3, None, True, ["a"], {"a": 1}, "", "  "])
def test_what_is_no_name_of_a_model_is_refused(value: Any) -> None:
    with pytest.raises(ConfigError, match="model must be a directory, a GGUF file or a hub id, not"):
        LocalSource.load(value)


# What is in memory, and what is on the disk by now


def test_a_certificate_names_the_files_that_were_loaded_and_not_those_that_replaced_them(
    model: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Digests were taken when a certificate was written: of files that nothing had been loaded from."""
    named, late = Purifier.load(LLM, model), Purifier.load(LLM, model)
    before = files(named)
    assert set(before) >= {"config.json", "model.safetensors", "tokenizer.json"}
    (model / "notes.txt").write_text("nothing was loaded from this file")
    tensors(lambda found: found[NORM].mul_(2) is None and None)(model)
    assert files(named) == before
    with caplog.at_level(logging.WARNING, "purify_hooks.local.loading"):
        assert files(late) == {}
    assert (
        "model.safetensors changed after the model was loaded, so certificates name no files" in caplog.text
    )
    assert files(Purifier.load(LLM, model)).keys() == {*before, "notes.txt"}


def files(purifier: Purifier) -> dict[str, str]:
    """The digests of the SLM's files in the certificate of an answer."""
    [answer] = purifier.generate("Once", Sampling(max_tokens=1))
    return dict(answer.certificate.body["models"]["slm"]["files"])


def test_both_models_are_checked_before_either_is_loaded(
    model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`Purifier.from_config` did; `Purifier.load` read a large LLM first to say that the SLM is missing."""
    read: list[Any] = []
    monkeypatch.setattr("purify_hooks.local.weights.load_model", lambda *given: read.append(given))
    (model / "config.json").write_text("[]")
    with pytest.raises(ModelError, match=r"config\.json holds no JSON object"):
        Purifier.load(LLM, model)
    assert not read


def test_several_threads_load_models_at_once() -> None:
    """transformers changes its classes while it loads: 37 of 48 such loads were refused as incomplete."""
    with ThreadPoolExecutor(4) as threads:
        found = list(threads.map(loaded, (LLM, SLM) * 4))
    assert [source.model.num_parameters() for source in found] == [
        each.model.num_parameters() for each in both()
    ] * 4
