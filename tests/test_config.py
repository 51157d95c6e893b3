"""Configuration: every key has an effect, and every mistake is answered with advice."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any, get_type_hints

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ConfigDict, TypeAdapter

from purify_plugins import ConfigError, PluginError, Purifier, PurifyError, Sampling, UnknownNameError
from purify_plugins.certificates.calibration_record import CalibrationRecord, settings_digest
from purify_plugins.cli.options import ModelOptions, configuration_exists, configured, named_plugins
from purify_plugins.configuration.build import build, prepare
from purify_plugins.configuration.config import (
    ActivationConfig,
    Config,
    WatermarkConfig,
    check_config,
    has_type,
    read_config,
)
from purify_plugins.configuration.find import find_config
from purify_plugins.configuration.secrets import secrets
from purify_plugins.testbed import LLM, SLM, SLM_1024
from purify_plugins.testing import ToySource
from purify_plugins.tokenizers.cross.choose import EPS
from tests.strangers import Install, install
from tests.toys import AB, pair

__all__ = ["install"]  # a fixture is used by its name

TOY = """
    from purify_plugins import hookimpl
    from tests.toys import AB, Failing

    OPENED = []

    class Toy(Failing):
        def open(self, prompts, scored=0):
            OPENED.append(len(prompts))
            return super().open(prompts, scored)

    @hookimpl
    def purify_sources():
        return {"toy": lambda seed=1, at=99: Toy(AB, seed, at=at)}
"""
BASE: dict[str, Any] = {
    "plugins": ["toy-plugin"],
    "llm": {"source": "toy", "at": 2},
    "slm": {"source": "toy", "seed": 2},
    "policy": {"name": "geometric"},
    "sampling": {"max_tokens": 12, "seed": 1, "ignore_eos": True},
    "calibration": {},
    "on_llm_failure": "slm",
    "batch_size": 2,
    "walk": "speculative",
    "alignment": "auto",
    "fidelity": "default",
    "stage": [],
    "request": {},
    "certificate": {},
}
OTHER: dict[str, Any] = {
    "plugins": [],
    "llm": {"source": "toy", "at": 2, "seed": 7},
    "slm": {"source": "toy", "seed": 7},
    "policy": {"name": "minimum"},
    "calibration": {
        **CalibrationRecord("x", "0" * 64, 300, "", "", 2.0, 3.0, 0.01, "0.1.0").as_json(),
        "settings": settings_digest(BASE["policy"]),
    },
    "sampling": {"max_tokens": 12, "seed": 2, "ignore_eos": True},
    "on_llm_failure": "refuse",
    "batch_size": 3,
    "walk": "lockstep",
    "alignment": "bytes",
    "stage": [{"name": "cascade", "sure": 0.0}],
}
"""For every key of the configuration, another value."""


def observed(table: Mapping[str, Any]) -> Any:
    """What an application would notice of a configuration."""
    try:
        purifier = build(check_config(table), Purifier)
        answers = purifier.generate(["a", "b", "ab"])
        import toy_plugin  # type: ignore[import-not-found]  # installed by the test

        return (
            [answer.certificate.text for answer in answers],
            [*toy_plugin.OPENED],
            toy_plugin.OPENED.clear(),
        )
    except PurifyError as error:
        return str(error)


@pytest.mark.parametrize("key", sorted({*BASE} - {"fidelity", "request", "certificate"}))
def test_every_key_has_an_effect(install: Install, key: str) -> None:
    install("toy-plugin", TOY)
    before = observed(BASE)
    assert before == observed(BASE)
    assert observed({**BASE, key: OTHER[key]}) != before


STAGED = {**BASE, "stage": [{"name": "ensemble", "n": 2}]}
"""A configuration whose answers take drafts."""


@pytest.mark.parametrize(
    "request_table",
    [
        {"calls": 1},
        {"tokens": 2},
        {"calls": 1, "on_refusal": "text", "refusals": {"default": "No."}},
        {"calls": 1, "on_refusal": "text", "refusals": {"default": "Never."}},
    ],
    ids=["calls", "tokens", "on_refusal", "refusals"],
)
def test_every_request_option_has_an_effect(install: Install, request_table: dict[str, Any]) -> None:
    install("toy-plugin", TOY)
    before = observed(STAGED)
    assert observed({**STAGED, "request": {}}) == before
    refused, found = (observed({**STAGED, "request": each}) for each in ({"calls": 1}, request_table))
    assert found != before
    assert (found == refused) == (request_table == {"calls": 1})


@pytest.mark.parametrize(
    ("table", "words"),
    [
        ({"stage": [{"name": "cascde"}]}, "unknown stage 'cascde'; did you mean 'cascade'?"),
        ({"stage": [{"sure": 1.0}]}, "a stage needs a name; see `purify stages`"),
        ({"stage": [{"name": "cascade", "sur": 1.0}]}, "did you mean 'sure'?"),
        ({"stage": {"name": "cascade"}}, "stage must be a list"),
        ({"request": {"call": 3}}, "unknown request option 'call'; did you mean 'calls'?"),
        ({"request": {"calls": 0}}, "calls must be a whole number, at least 1, not 0"),
        ({"request": {"on_refusal": "text"}}, "needs a text for every refusal"),
        ({"request": {"on_refusal": "open"}}, "on_refusal must be 'error' or 'text', not 'open'"),
    ],
)
def test_a_mistake_in_stages_is_answered_with_its_place(
    tmp_path: Path, table: dict[str, Any], words: str
) -> None:
    models = {side: {"model": str(SLM)} for side in ("llm", "slm")}
    with pytest.raises(ConfigError) as raised:
        prepare(check_config({**models, **table}, tmp_path / "purify.toml"))
    assert words in str(raised.value)
    assert "purify.toml" in str(raised.value)


def test_a_stage_s_files_are_relative_to_their_configuration(tmp_path: Path) -> None:
    (tmp_path / "words.txt").write_text("forbidden\n", encoding="utf-8")
    table = {
        **{side: {"model": str(SLM)} for side in ("llm", "slm")},
        "stage": [{"name": "guardian", "classifier": "words", "file": "words.txt"}],
    }
    [stage] = prepare(check_config(table, tmp_path / "purify.toml")).options["stages"]
    assert stage.file == str(tmp_path / "words.txt")


@pytest.mark.parametrize("fidelity", ["exact", "default", "fast"])
def test_fidelity_has_an_effect_between_two_tokenizers(fidelity: Any) -> None:
    models = {"llm": {"model": str(SLM)}, "slm": {"model": str(SLM_1024)}}
    purifier = build(check_config({**models, "fidelity": fidelity}), Purifier)
    assert purifier.slm.identity()["alphabet"]["eps"] == EPS[fidelity]


def test_the_rough_alignment_has_an_effect_between_two_tokenizers() -> None:
    models = {"llm": {"model": str(SLM)}, "slm": {"model": str(SLM_1024)}}
    found = {
        kind: build(check_config({**models, "alignment": kind}), Purifier) for kind in ("auto", "top_k_union")
    }
    assert [each.policy.guarantee for each in found.values()] == ["passage", "none"]
    assert [len(each.vocabulary) for each in found.values()] == [257, 2048]


def test_every_key_is_tried() -> None:
    """Those of `[activation]` concern a whole program; tests/adapters/test_activation.py tries them.

    `[[tenant]]` concerns the gateway; tests/adapters/test_gateway_tenants.py tries it, and
    tests/test_watermark.py tries `[watermark]`.
    """
    assert {*BASE, "activation", "tenant", "watermark"} == {field.name for field in fields(Config)}


CHANGED: dict[str, Any] = {
    "max_tokens": 3,
    "temperature": 0.0,
    "top_k": 1,
    "top_p": 0.1,
    "min_p": 0.9,
    "typical_p": 0.1,
    "repetition_penalty": 5.0,
    "frequency_penalty": 5.0,
    "seed": 2,
    "stop": ["b"],
    "ignore_eos": True,
    "grammar": {"kind": "regex", "text": "a+"},
}


@pytest.mark.parametrize("option", [field.name for field in fields(Sampling)])
def test_every_sampling_option_has_an_effect(option: str) -> None:
    purifier = pair(ToySource(AB, 1), ToySource(AB, 2))
    base = {"max_tokens": 12, "seed": 1}
    prompts = ["a", "b", "ab", "ba", "aab"]

    def tokens(**options: Any) -> list[tuple[int, ...]]:
        answers = purifier.generate(prompts, Sampling(**{**base, **options}))
        return [answer.tokens for answer in answers]

    assert tokens() == tokens()
    assert tokens(**{option: CHANGED[option]}) != tokens()


# Where it is


def write(folder: Path, text: str, name: str = "purify.toml") -> Path:
    file = folder / name
    file.write_text(text)
    return file


TOML = f"""
batch_size = 5
[llm]
model = "{LLM}"
[slm]
model = "{SLM}"
[policy]
name = "capped"
total = 7.5
[sampling]
max_tokens = 9
stop = ["x", "y"]
"""


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("PURIFY_CONFIG", raising=False)
    monkeypatch.delenv("PURIFY_PLUGINS", raising=False)


def check(config: Config) -> None:
    assert config.batch_size == 5
    assert config.policy == {"name": "capped", "total": 7.5}
    assert Sampling(**config.sampling) == Sampling(max_tokens=9, stop=("x", "y"))


def test_a_file_is_named_found_here_or_by_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "far").mkdir()
    far = write(tmp_path / "far", TOML)
    check(read_config(far))
    check(read_config(str(far)))
    monkeypatch.setenv("PURIFY_CONFIG", str(far))
    check(read_config())
    monkeypatch.delenv("PURIFY_CONFIG")
    write(tmp_path, TOML)
    check(read_config())


def test_the_argument_wins_over_the_environment_and_that_over_the_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here, one, two = (write(tmp_path, TOML, name) for name in ("purify.toml", "one.toml", "two.toml"))
    assert find_config().resolve() == here
    monkeypatch.setenv("PURIFY_CONFIG", str(one))
    assert find_config() == one
    assert find_config(two) == two


def test_pyproject_may_hold_the_configuration(tmp_path: Path) -> None:
    tables = TOML.replace("[", "[tool.purify.").replace('[tool.purify."x"', '["x"')
    text = "[project]\nname = 'x'\n[tool.purify]\n" + tables
    file = write(tmp_path, text, "pyproject.toml")
    check(read_config())
    check(read_config(file))


def test_purify_toml_wins_over_pyproject(tmp_path: Path) -> None:
    write(tmp_path, "[tool.purify]\nbatch_size = 1\n", "pyproject.toml")
    write(tmp_path, TOML)
    check(read_config())


def test_model_directories_are_relative_to_their_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "deep"
    (folder / "models" / "llm").mkdir(parents=True)
    file = write(folder, '[llm]\nmodel = "models/llm"\n[slm]\nmodel = "org/name"\n')
    config = read_config(file)
    assert config.llm["model"] == str(folder / "models" / "llm")
    assert config.slm["model"] == "org/name"
    (folder / "small.gguf").write_bytes(b"")
    assert read_config(write(folder, '[llm]\nmodel = "small.gguf"\n[slm]\n')).llm["model"] == str(
        folder / "small.gguf"
    )
    write(folder, '[llm]\nmodel = "models/llm"\n[slm]\nmodel = "org/name"\n')
    monkeypatch.chdir(folder)
    assert Path(read_config().llm["model"]).samefile(folder / "models" / "llm")


def test_the_defaults_are_those_of_the_documentation() -> None:
    config = check_config({"llm": {"model": "a"}, "slm": {"model": "b"}})
    assert (config.policy, config.plugins, config.sampling) == ({"name": "balanced"}, [], {})
    assert (config.on_llm_failure, config.batch_size) == ("refuse", 32)


# Mistakes


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[llm]\nmodel = 'a'\n", "{file}: [slm] is missing"),
        ("", "{file}: [llm] is missing"),
        ("llm = 3\n[slm]\n", "{file}: llm must be a table, not 3"),
        ("polcy = 3\n", "{file}: unknown key 'polcy'; did you mean 'policy'?"),
        (
            "[tool.purify]\n",
            "{file}: unknown key 'tool'; there is 'activation', 'alignment', ",
        ),
        ("batch_size = 0\n[llm]\n[slm]\n", "{file}: batch_size must be at least 1, not 0"),
        ("batch_size = 2.0\n[llm]\n[slm]\n", "{file}: batch_size must be a whole number, not 2.0"),
        (
            "on_llm_failure = 'llm'\n[llm]\n[slm]\n",
            "{file}: on_llm_failure must be 'refuse' or 'slm', not 'llm'",
        ),
        ("plugins = 'one'\n[llm]\n[slm]\n", "{file}: plugins must be a list, such as"),
        (
            "[llm]\n[slm]\n[sampling]\ntemprature = 1\n",
            "{file}: unknown sampling option 'temprature'; did you mean 'temperature'?",
        ),
        (
            "[llm]\n[slm]\n[sampling]\nmax_tokens = 0\n",
            "{file}: sampling: max_tokens must be at least 1, not 0",
        ),
        (
            "[llm]\n[slm]\n[sampling]\nmax_tokens = 'many'\n",
            "{file}: sampling: max_tokens must be a whole number, not 'many'",
        ),
        (
            "[llm]\n[slm]\n[activation]\ntrustd = []\n",
            "{file}: unknown activation option 'trustd'; did you mean 'trusted'?",
        ),
        (
            "[llm]\n[slm]\n[activation]\ntrusted = 'all'\n",
            "{file}: activation.trusted must be a list",
        ),
        ("activation = 3\n[llm]\n[slm]\n", "{file}: activation must be a table, not 3"),
        ("[llm\n", "{file}: not valid TOML, "),
        ("[llm]\n[llm]\n", "{file}: not valid TOML, "),
    ],
)
def test_a_mistake_is_answered_with_advice(tmp_path: Path, text: str, words: str) -> None:
    file = write(tmp_path, text)
    with pytest.raises(ConfigError) as error:
        read_config(file)
    assert str(error.value).startswith(words.replace("{file}", str(file)))
    assert "\n" not in str(error.value)


STRICT = ConfigDict(strict=True)
HINTS = {
    f"{kind.__name__}.{key}": hint
    for kind in (Config, ActivationConfig, WatermarkConfig, Sampling)
    for key, hint in get_type_hints(kind).items()
}
LEAF = (
    st.none() | st.booleans() | st.integers(-2, 2) | st.floats() | st.sampled_from(["auto", "slm", "", "x"])
)
VALUE = LEAF | st.lists(LEAF, max_size=3) | st.dictionaries(st.sampled_from(["a", 1]), LEAF, max_size=2)


@pytest.mark.parametrize("key", HINTS)
@given(value=VALUE)
def test_what_is_plainly_right_is_what_pydantic_takes_as_it_is(key: str, value: Any) -> None:
    """Checked by hand, for `purify run` cannot wait for pydantic's import."""
    if has_type(value, HINTS[key]):
        taken = TypeAdapter(HINTS[key], config=STRICT).validate_python(value)
        assert repr(taken) == repr(value)


def test_a_usual_file_is_plainly_right() -> None:
    usual: dict[str, Any] = {
        "Config.llm": {"model": "a"},
        "Config.plugins": ["one"],
        "Config.walk": "auto",
        "Config.batch_size": 3,
        "ActivationConfig.trusted": ["a", "b"],
        "ActivationConfig.status": "told",
        "Sampling.max_tokens": 7,
        "Sampling.temperature": 0.5,
        "Sampling.ignore_eos": True,
    }
    assert [key for key, value in usual.items() if not has_type(value, HINTS[key])] == []


def test_a_file_that_is_not_text_is_not_toml(tmp_path: Path) -> None:
    file = tmp_path / "purify.toml"
    file.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ConfigError, match="not valid TOML"):
        read_config(file)


def test_no_file_says_where_it_was_looked_for() -> None:
    with pytest.raises(ConfigError) as error:
        read_config()
    assert str(error.value) == (
        "there is no purify.toml here; write one, or name it with --config or PURIFY_CONFIG"
    )


def test_a_file_that_cannot_be_read_says_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError, match=r"cannot read '.*gone.toml': No such file or directory"):
        read_config(tmp_path / "gone.toml")
    monkeypatch.setenv("PURIFY_CONFIG", str(tmp_path))
    with pytest.raises(ConfigError, match=r"cannot read '.*': Is a directory"):
        read_config()


def test_a_command_line_builds_on_a_pyproject_too(tmp_path: Path) -> None:
    """`--llm` alone was refused beside one, and its plugins were not loaded."""
    tables = (
        "[tool.purify]\nplugins = ['x']\n[tool.purify.llm]\nmodel = 'l'\n[tool.purify.slm]\nmodel = 's'\n"
    )
    write(tmp_path, tables, "pyproject.toml")
    assert configuration_exists(None)
    assert named_plugins(None) == ("x",)
    config = configured(ModelOptions("another", None))
    assert config.llm["model"] == "another"
    assert Path(config.slm["model"]).name == "s"


@pytest.mark.parametrize("text", ["", "[project]\nname = 'x'\n", "[tool.ruff]\n"])
def test_a_pyproject_without_our_table_is_not_a_configuration(tmp_path: Path, text: str) -> None:
    write(tmp_path, text, "pyproject.toml")
    assert not configuration_exists(None)
    with pytest.raises(ConfigError, match=r"there is no purify.toml here"):
        read_config()


def test_our_table_must_be_a_table(tmp_path: Path) -> None:
    file = write(tmp_path, "[tool]\npurify = 3\n", "pyproject.toml")
    with pytest.raises(ConfigError) as error:
        read_config()
    assert str(error.value) == f"{file.name}: [tool.purify] must be a table"


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (
            {"llm": {"model": "/no/such/model"}},
            "there is no model directory '/no/such/model'; give a directory or a hub id",
        ),
        ({"llm": {"source": "loocal"}}, "unknown source 'loocal'; did you mean 'local'?"),
        ({"llm": {}}, "source 'local': "),
        ({"llm": {"model": 3}}, "source 'local': "),
        (
            {"llm": {"model": str(LLM), "dtype": "int4"}},
            "dtype must be one of auto, float32, bfloat16, float16, not 'int4'",
        ),
        (
            {"llm": {"model": str(LLM), "device": "abacus"}},
            "there is no device 'abacus' here; use 'auto' or 'cpu'",
        ),
        ({"policy": {"alpha": 1}}, "[policy] needs a name; see `purify policies`"),
        (
            {"policy": {"name": "geometric", "alpha": 1.5}},
            "geometric: alpha must be between 0 and 1, not 1.5",
        ),
        (
            {"policy": {"name": "geometric", "aplha": 1}},
            "unknown policy 'geometric' option 'aplha'; did you mean 'alpha'?",
        ),
        ({"plugins": ["mine"]}, "unknown plugin 'mine'; there is "),
    ],
)
def test_what_cannot_be_built_is_refused_in_one_sentence(change: dict[str, Any], words: str) -> None:
    table = {"llm": {"model": str(SLM)}, "slm": {"model": str(SLM)}, **change}
    with pytest.raises((ConfigError, PluginError, PurifyError)) as error:
        build(check_config(table), Purifier)
    assert str(error.value).startswith(words)


# Secrets


def test_a_secret_is_read_from_the_variable_it_names(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TGI_TOKEN", "s3cret")
    assert secrets({"token_env": "TGI_TOKEN", "url": "x"}) == {"token": "s3cret", "url": "x"}


@pytest.mark.parametrize("variable", ["NOT_SET_ANYWHERE", 3, ["TGI_TOKEN"]])
def test_a_secret_that_is_not_set_is_named(variable: Any) -> None:
    with pytest.raises(ConfigError) as error:
        secrets({"token_env": variable})
    assert str(error.value) == f"token_env names the environment variable {variable!r}, which is not set"


def test_a_secret_reaches_the_source_and_nothing_else(
    install: Install, monkeypatch: pytest.MonkeyPatch
) -> None:
    install("toy-plugin", TOY.replace("at=99:", "at=99, token='':"))
    monkeypatch.setenv("TGI_TOKEN", "s3cret")
    table = {**BASE, "llm": {"source": "toy", "token_env": "TGI_TOKEN"}}
    config = check_config(table)
    purifier = build(config, Purifier)
    assert "s3cret" not in repr(config) + repr(purifier.__dict__) + purifier.generate("a")[0].certificate.text


# Plugins


def test_the_environment_adds_plugins_unless_the_file_lists_its_own(
    install: Install, monkeypatch: pytest.MonkeyPatch
) -> None:
    imported = install("toy-plugin", TOY)
    monkeypatch.setenv("PURIFY_PLUGINS", "toy-plugin")
    install("quiet", "")
    assert build(check_config({**BASE, "plugins": []}), Purifier).generate("a")
    assert imported.exists()
    with pytest.raises(UnknownNameError, match="unknown source 'toy'"):
        build(check_config({**BASE, "plugins": ["quiet"]}), Purifier)
