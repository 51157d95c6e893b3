"""Whatever is offered by name can be had from a file: every policy, every source, every alphabet."""

from __future__ import annotations

import dataclasses
import json
import tomllib
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from purify_hooks.local.source import LocalSource
from purify_hooks.sources.contrast import Contrast
from purify_plugins import ConfigError, Purifier, PurifyError, Sampling
from purify_plugins.cli import app
from purify_plugins.configuration.build import build, keys_of
from purify_plugins.configuration.config import read_config
from purify_plugins.plugin.manager import load_plugins
from purify_plugins.testbed import LLM, SLM, SLM_1024
from tests.toys import real

PLUGINS = load_plugins(())
POLICIES = sorted(PLUGINS.offers("purify_policies"))
SOURCES = sorted(PLUGINS.offers("purify_sources"))
WRAPPED = {"consistency", "top_k_union"}
"""Policies whose `policy` is another."""
SERVERS = {"tgi", "vllm", "llama_cpp", "llama_cpp_python", "server"}
"""Sources whose tests start a server and build them from a mapping: tests/remote."""


def toml(value: Any) -> str:
    """A value as TOML writes it."""
    if isinstance(value, dict):
        return "{ " + ", ".join(f"{key} = {toml(each)}" for key, each in value.items()) + " }"
    return str(value) if isinstance(value, float) else json.dumps(value)  # TOML writes inf, JSON Infinity


def fields(name: str) -> dict[str, Any]:
    """A policy's options at their defaults, as a file would say them."""
    factory = PLUGINS.offers("purify_policies")[name]
    given = {"policy": {"name": "linear", "weight": 0.5}} if name in WRAPPED else {}
    policy = PLUGINS.policy(name, given)
    plain = {each.name: getattr(policy, each.name) for each in dataclasses.fields(factory) if each.init}
    return {**{key: value for key, value in plain.items() if isinstance(value, str | int | float)}, **given}


@pytest.mark.parametrize("name", POLICIES)
def test_every_policy_offered_is_built_from_a_file_and_answers(name: str, tmp_path: Path) -> None:
    """`offset` was offered, documented, and needed an object that no file could name."""
    file = tmp_path / "purify.toml"
    table = toml({"name": name, **fields(name)})
    file.write_text(f"llm = {{ model = 'a' }}\nslm = {{ model = 'b' }}\npolicy = {table}\n", "utf-8")
    config = read_config(file)
    purifier = real(PLUGINS.policy(config.policy))
    (answer,) = purifier.generate("The king", Sampling(max_tokens=4, seed=0))
    assert answer.certificate.body["method"]["policy"] == name


@pytest.mark.parametrize("name", POLICIES)
def test_every_policy_offered_is_had_from_the_command_line(name: str) -> None:
    given = [text for key, value in fields(name).items() for text in ("--set", f"{key}={toml(value)}")]
    found = CliRunner().invoke(
        app, ["check", "--json", "--llm", str(SLM), "--slm", str(SLM), "--policy", name, *given]
    )
    assert found.exit_code == 0, found.output
    assert json.loads(found.stdout)["policy"]["name"] == name


def test_every_source_offered_is_tried_here() -> None:
    ours = {"contrast", "copying", "gguf", "loaded", "local", "mixture", "ngram", "takedown"}
    assert set(SOURCES) == ours | SERVERS


def contrasted(tmp_path: Path, slm: str) -> Any:
    file = tmp_path / "purify.toml"
    file.write_text(
        f'[llm]\nmodel = "{LLM}"\ndtype = "float32"\ndevice = "cpu"\n{slm}\n[policy]\nname = "offset"\n'
        "[sampling]\nmax_tokens = 6\nseed = 1\n",
        "utf-8",
    )
    return build(read_config(file), Purifier)


def test_an_expert_and_an_anti_expert_come_from_a_file(tmp_path: Path) -> None:
    """The whole of `policy = "offset"`: three models, in tables of their own."""
    expert, anti = (f'{{ model = "{folder}", dtype = "float32", device = "cpu" }}' for folder in (SLM, LLM))
    purifier = contrasted(tmp_path, f'[slm]\nsource = "contrast"\nexpert = {expert}\nanti = {anti}\n')
    assert isinstance(purifier.slm, Contrast)
    given = [LocalSource.load(folder, dtype="float32", device="cpu") for folder in (LLM, SLM, LLM)]
    own = Purifier(given[0], Contrast(*given[1:]), PLUGINS.policy("offset"), plugins=PLUGINS)
    found, expected = (
        each.generate("The king", Sampling(max_tokens=6, seed=1))[0].tokens for each in (purifier, own)
    )
    assert found == expected


def test_an_expert_and_an_anti_expert_may_be_plain_directories_beside_the_file(tmp_path: Path) -> None:
    (tmp_path / "models").mkdir()
    for name, folder in (("expert", SLM), ("anti", SLM)):
        (tmp_path / "models" / name).symlink_to(folder)
    file = tmp_path / "purify.toml"
    file.write_text(
        f'[llm]\nmodel = "{SLM}"\n[slm]\nsource = "contrast"\nexpert = "models/expert"\n'
        'anti = { model = "models/anti" }\n[policy]\nname = "offset"\n',
        "utf-8",
    )
    config = read_config(file)
    assert config.slm["expert"] == str(tmp_path / "models" / "expert")
    assert config.slm["anti"] == {"model": str(tmp_path / "models" / "anti")}
    found = CliRunner().invoke(app, ["check", "--config", str(file)])
    assert found.exit_code == 0, found.output
    assert "expert (kind transformers" in " ".join(found.output.split())
    assert "sha256" not in found.output


@pytest.mark.parametrize(
    ("slm", "words"),
    [
        ('source = "contrast"\nexpert = "models/x"', "'anti' is missing"),
        (f'source = "contrast"\nexpert = "{SLM}"\nanti = "{SLM_1024}"', "take two models with one tokenizer"),
        ('source = "contrast"\nexpert = { source = "locl" }\nanti = "a"', "unknown source 'locl'"),
        ('source = "contrast"\nexprt = "a"\nanti = "a"', "option 'exprt'; did you mean 'expert'"),
        ('source = "contrast"\nexpert = 3\nanti = "a"', "expert must be a model's directory or hub id"),
        ('source = "loaded"\nmodel = "a"\ntokenizer = "b"', "write source = 'local'"),
        (f'source = "tgi"\nclient = "x"\ntokenizer = "{SLM}"', "name the server's url"),
    ],
)
def test_what_a_file_cannot_say_of_a_source_is_refused_in_words(tmp_path: Path, slm: str, words: str) -> None:
    with pytest.raises(PurifyError, match=words):
        contrasted(tmp_path, f"[slm]\n{slm}\n")


def test_a_secret_inside_a_source_is_read_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ANTI_TOKEN", "s3cret")
    table: dict[str, Any] = {"source": "contrast", "expert": "a", "anti": {"source": "tgi"}}
    table["anti"] |= {"api_key_env": "ANTI_TOKEN"}
    assert keys_of(PLUGINS, table)["anti"] == {"source": "tgi", "api_key": "s3cret"}
    table["anti"]["api_key_env"] = "NOT_SET_ANYWHERE"
    with pytest.raises(ConfigError, match="NOT_SET_ANYWHERE"):
        keys_of(PLUGINS, table)


@pytest.mark.parametrize("alignment", ["auto", "bytes", "common_tokens", "top_k_union"])
def test_every_alphabet_is_had_from_a_file(alignment: str, tmp_path: Path) -> None:
    file = tmp_path / "purify.toml"
    file.write_text(
        f'alignment = "{alignment}"\n[llm]\nmodel = "{SLM}"\n[slm]\nmodel = "{SLM_1024}"\n', "utf-8"
    )
    assert tomllib.loads(file.read_text("utf-8"))["alignment"] == alignment
    found = build(read_config(file), Purifier)
    assert found.generate("The king", Sampling(max_tokens=3, seed=0))[0].text
