"""Directories that a stranger made to do harm: each is refused or bounded, in a sentence and in seconds."""

from __future__ import annotations

import json
import os
import resource
import shutil
import struct
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from purify_hooks.local.source import LocalSource
from purify_plugins import Chat, ModelError, PurifyError
from purify_plugins.testbed import SLM
from purify_plugins.tokenizers.loading import load_tokenizer, panics, repeats

Harm = Callable[[Path], Any]
CHAT = Chat(({"role": "user", "content": "Hello"},))


@pytest.fixture(autouse=True, scope="module")
def imported() -> None:
    """transformers takes seconds to import; what is measured here is what a directory costs."""
    LocalSource.load(SLM, device="cpu").encode(Chat(({"role": "user", "content": "Hello"},)))


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """A copy of the test bed's SLM."""
    return Path(shutil.copytree(SLM, tmp_path / "model"))


def edited(name: str, **keys: Any) -> Harm:
    def act(folder: Path) -> None:
        file = folder / name
        old = json.loads(file.read_text()) if file.exists() else {}
        file.write_text(json.dumps({**old, **keys}))

    return act


def written(name: str, content: str | bytes) -> Harm:
    def act(folder: Path) -> None:
        (folder / name).write_bytes(content.encode() if isinstance(content, str) else content)

    return act


def huge(name: str, size: int = 200 * 2**20) -> Harm:
    """A file of so many bytes, most of them a hole."""

    def act(folder: Path) -> None:
        with (folder / name).open("ab") as file:
            file.truncate(size)

    return act


def pipe(name: str) -> Harm:
    def act(folder: Path) -> None:
        (folder / name).unlink(missing_ok=True)
        os.mkfifo(folder / name)

    return act


def linked(name: str, to: str) -> Harm:
    def act(folder: Path) -> None:
        (folder / name).unlink(missing_ok=True)
        (folder / name).symlink_to(to)

    return act


def a_folder(name: str) -> Harm:
    def act(folder: Path) -> None:
        (folder / name).unlink(missing_ok=True)
        (folder / name).mkdir()

    return act


def template(text: str) -> Harm:
    return written("chat_template.jinja", text)


def replacing(pattern: dict[str, str], content: str, times: int = 1) -> dict[str, Any]:
    one = {"type": "Replace", "pattern": pattern, "content": content}
    return {"type": "Sequence", "normalizers": [one] * times}


def regex(pattern: str) -> Harm:
    split = {"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": False}
    return edited("tokenizer.json", pre_tokenizer=split)


def headed(length: int, header: bytes = b"{}", rest: int = 0) -> Harm:
    return written("model.safetensors", struct.pack("<Q", length) + header + b"\0" * rest)


def tensor(**entry: Any) -> Harm:
    header = json.dumps({"model.norm.weight": entry}).encode()
    return headed(len(header), header, 16)


LOOPS = "{% for i in range(99999) %}{% for j in range(99999) %}{% set x = j %}{% endfor %}{% endfor %}"
HARM: dict[str, Harm] = {
    "a template of loops in loops": template(LOOPS),
    "a template that writes without end": template(
        "{% for i in range(99999) %}{{ 'a' * 99999 }}{% endfor %}"
    ),
    "a template that multiplies": template("{{ 'a' * 10 ** 9 }}"),
    "a template that widens": template("{{ '%1000000000d' % 1 }}"),
    "a template that calls itself": template("{% macro f() %}{{ f() }}{{ f() }}{% endmacro %}{{ f() }}"),
    "a template of 100 megabytes": huge("chat_template.jinja", 100 * 2**20),
    "a template of a megabyte": template("{{ a }}" * 200_000),
    "a template in the settings": edited("tokenizer_config.json", chat_template="x" * 1_000_000),
    "a template that is a number": edited("tokenizer_config.json", chat_template=3),
    "a template among many": edited(
        "tokenizer_config.json", chat_template=[{"name": "default", "template": LOOPS}]
    ),
    "a million layers": edited("config.json", num_hidden_layers=10**6),
    "thousands of layers": edited("config.json", num_hidden_layers=4096),
    "a vocabulary without end": edited("config.json", vocab_size=2**31),
    "a wide middle": edited("config.json", intermediate_size=2**31),
    "a list of layer types": edited("config.json", num_hidden_layers=10**12, layer_types=None),
    "another family": edited("config.json", model_type="whisper"),
    "a context below nothing": edited("config.json", max_position_embeddings=-5),
    "a context without end": edited("config.json", max_position_embeddings=10**15),
    "a rotation that is nonsense": edited(
        "config.json", rope_scaling={"rope_type": "yarn", "factor": -1e300}
    ),
    "an end that is true": edited("config.json", eos_token_id=True),
    "an end below nothing": edited("generation_config.json", eos_token_id=-3),
    "settings of 200 megabytes": huge("config.json"),
    "settings that nest": written("config.json", '{"a":' * 100_000 + "1" + "}" * 100_000),
    "settings said twice": written("config.json", '{"model_type": "llama", "model_type": "gpt2"}'),
    "a pipe for settings": pipe("config.json"),
    "a pipe for a tokenizer": pipe("tokenizer.json"),
    "a pipe for weights": pipe("model.safetensors"),
    "endless zeros for a tokenizer": linked("tokenizer.json", "/dev/zero"),
    "endless zeros for settings": linked("tokenizer_config.json", "/dev/zero"),
    "endless zeros for a template": linked("chat_template.jinja", "/dev/zero"),
    "a folder for settings": a_folder("config.json"),
    "a folder for weights": a_folder("model.safetensors"),
    "a link to itself": linked("config.json", "config.json"),
    "a vocabulary of 200 megabytes": huge("tokenizer.json"),
    "a tokenizer that panics": edited(
        "tokenizer.json", normalizer={"type": "Precompiled", "precompiled_charsmap": "AAAA"}
    ),
    "a tokenizer without a model": edited("tokenizer.json", model=None),
    "a text made 50 times as long, 7 times": edited(
        "tokenizer.json", normalizer=replacing({"String": "a"}, "a" * 50, 7)
    ),
    "a text made 1000 times as long": edited(
        "tokenizer.json", normalizer=replacing({"Regex": "."}, "a" * 1000)
    ),
    "a text before each": edited("tokenizer.json", normalizer={"type": "Prepend", "prepend": "a" * 10**6}),
    "a repeat in a repeat": regex("(a+)+$"),
    "a repeat in a repeat, hidden": regex("(?:x|(?:[ab]*)){2,}c"),
    "an expression without end": regex("a" * 100_000),
    "a token of five million characters": edited(
        "tokenizer.json", model={"type": "Unigram", "unk_id": 0, "vocab": [["a" * 5_000_000, 0.0]]}
    ),
    "an added token of five million characters": edited(
        "tokenizer.json", added_tokens=[{"id": 0, "content": "a" * 5_000_000, "special": True}]
    ),
    "a million tokens around a text": edited(
        "tokenizer.json",
        post_processor={
            "type": "TemplateProcessing",
            "single": [{"SpecialToken": {"id": "x", "type_id": 0}}] * 200_000,
            "pair": [],
            "special_tokens": {"x": {"id": "x", "ids": [0] * 5, "tokens": ["x"] * 5}},
        },
    ),
    "300,000 special tokens": edited(
        "tokenizer_config.json", additional_special_tokens=[f"<{at}>" for at in range(300_000)]
    ),
    "200,000 added tokens": edited(
        "tokenizer_config.json",
        added_tokens_decoder={str(at): {"content": f"<{at}>"} for at in range(200_000)},
    ),
    "a length that is text": edited("tokenizer_config.json", model_max_length="x"),
    "a family of ten million letters": edited("config.json", model_type="x" * 10_000_000),
    "a header longer than its file": headed(2**40),
    "a header of 100 megabytes": lambda folder: (
        headed(100 * 2**20)(folder),
        huge("model.safetensors")(folder),
    ),
    "a tensor beyond its file": tensor(dtype="F32", shape=[2**40], data_offsets=[0, 2**42]),
    "a tensor of another size": tensor(dtype="F32", shape=[2**40], data_offsets=[0, 16]),
    "a tensor below nothing": tensor(dtype="F32", shape=[-4], data_offsets=[0, 16]),
    "a tensor of no type": tensor(dtype="EVIL", shape=[4], data_offsets=[0, 16]),
    "a tensor of many sides": tensor(dtype="F32", shape=[1] * 1000 + [4], data_offsets=[0, 16]),
    "a terabyte of nothing": huge("model.safetensors", 2**40),
    "an index of another's files": lambda folder: (
        (folder / "model.safetensors").rename(folder / "model-1.safetensors"),
        edited("model.safetensors.index.json", metadata={}, weight_map={"x": "/etc/passwd"})(folder),
    ),
}


@pytest.mark.parametrize("name", HARM)
def test_a_hostile_directory_is_refused_in_seconds_and_little_memory(model: Path, name: str) -> None:
    HARM[name](model)
    before, began = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.process_time()
    with pytest.raises(PurifyError) as refused:
        LocalSource.load(model, device="cpu").encode(CHAT)
    assert time.process_time() - began < 20  # 2 at most on a core of ours
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 1_000_000  # kilobytes
    assert len(str(refused.value)) < 2000


def test_a_path_in_the_tokenizer_s_settings_is_not_followed(model: Path, tmp_path: Path) -> None:
    """transformers would open what `vocab_file` names, whatever and wherever it is."""
    secret = tmp_path / "secret.json"
    secret.write_text("{")
    named = dict.fromkeys(
        ("vocab_file", "merges_file", "tokenizer_file", "special_tokens_map_file"), str(secret)
    )
    edited("tokenizer_config.json", **named, sp_model_kwargs={"model_file": str(secret)})(model)
    assert load_tokenizer(model).encode("Once") == load_tokenizer(SLM).encode("Once")


@pytest.mark.parametrize(
    ("pattern", "deep"),
    [
        (r"'s|'t|'re| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+", 1),
        (
            r"(?i:'s|'t|'re)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+",
            1,
        ),
        (r" ?[^(\s|[.,!?…。，、।۔،])]+", 1),
        (r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}]*[\p{Ll}\p{Lm}]+(?i:'s|'t)?|\p{N}{1,3}", 1),
        (r"[\p{Han}]+|[\p{Lu}&&[^\p{Han}]]*", 1),
        (r"\(a\+\)\+", 0),
        ("(a+)+", 2),
        ("(a*b?)*", 2),
        ("((a|b+)c)+", 2),
        ("(a{2,})+", 2),
        ("(?:(?:a+)b)*", 2),
        ("(a+)(b+)", 1),
        ("(a)+(b)+", 1),
        ("[(a+)+]", 0),
        ("a++", 1),
        ("a+?", 1),
    ],
)
def test_repeats_inside_repeats_are_counted(pattern: str, deep: int) -> None:
    """The first five are GPT-2's, Llama 3's, BLOOM's, GPT-4o's and Kimi's."""
    assert repeats(pattern) == deep


def test_a_panic_is_an_error_of_ours_and_an_interrupt_is_not() -> None:
    class PanicException(BaseException):  # pyo3's name for it
        """What a tokenizer's Rust code raises, which is no Exception."""

    with pytest.raises(ModelError, match="it: called `unwrap`"), panics("it"):
        raise PanicException("called `unwrap`")
    with pytest.raises(KeyboardInterrupt), panics("it"):
        raise KeyboardInterrupt
