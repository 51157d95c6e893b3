"""Plugins: off until named, fatal when broken, and heard through every hook."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from purify_plugins import (
    ConfigError,
    LogitSource,
    PluginError,
    Purifier,
    RefusedError,
    Remarks,
    ToolFormat,
    UnknownNameError,
    hookimpl,
)
from purify_plugins.configuration.config import Config
from purify_plugins.plugin import hookspecs
from purify_plugins.plugin.arguments import check_arguments
from purify_plugins.plugin.installed import installed
from purify_plugins.plugin.listing import listing
from purify_plugins.plugin.manager import OFFERS, Plugins, load_plugins
from purify_plugins.testing import ToySource
from tests.strangers import HALF, Install, install
from tests.toys import BYTES, few, toys

__all__ = ["install"]  # a fixture is used by its name

# Who is let in


def test_a_strangers_plugin_is_not_imported_until_it_is_named(install: Install) -> None:
    imported = install("half-plugin", HALF)
    plugins = load_plugins([])
    listing(plugins)
    assert "half" not in plugins.offers("purify_policies")
    with pytest.raises(UnknownNameError, match="unknown policy 'half'"):
        plugins.policy("half")
    assert not imported.exists()
    assert load_plugins(["half-plugin"]).policy("half").alpha == 0.5
    assert imported.exists()


@pytest.mark.parametrize("name", ["half-plugin", "half_plugin"])
def test_a_plugin_is_named_by_its_distribution_or_its_entry_point(install: Install, name: str) -> None:
    install("half-plugin", HALF)
    assert "half" in load_plugins([name]).offers("purify_policies")


@pytest.mark.parametrize(
    ("value", "active"), [("half-plugin", True), (" half_plugin , ", True), ("", False), (" , ", False)]
)
def test_the_environment_can_name_plugins(
    install: Install, monkeypatch: pytest.MonkeyPatch, value: str, active: bool
) -> None:
    install("half-plugin", HALF)
    monkeypatch.setenv("PURIFY_PLUGINS", value)
    assert ("half" in load_plugins().offers("purify_policies")) == active
    assert "half" not in load_plugins([]).offers("purify_policies")


def test_a_named_plugin_that_is_missing_is_fatal(install: Install) -> None:
    install("half-plugin", HALF)
    with pytest.raises(PluginError) as error:
        load_plugins(["half-plugn"])
    assert str(error.value) == ("unknown plugin 'half-plugn'; did you mean 'half-plugin'? (is it installed?)")


@pytest.mark.parametrize(
    ("code", "words"),
    [
        ("raise RuntimeError('no licence')", "plugin 'broken' does not load: no licence"),
        (
            "import does_not_exist_at_all",
            "plugin 'broken' does not load: No module named 'does_not_exist_at_all'",
        ),
        ("1 +", "plugin 'broken' does not load: invalid syntax"),
        (
            "from purify_plugins import hookimpl\n@hookimpl\ndef purify_polices(): return {}",
            "plugin 'broken' does not load: unknown hook 'purify_polices' in plugin",
        ),
        (
            "from purify_plugins import hookimpl\n@hookimpl\ndef purify_request(purifer): pass",
            r"plugin 'broken' does not load: Plugin 'broken' for hook 'purify_request'",
        ),
    ],
)
def test_a_named_plugin_that_is_broken_is_fatal(install: Install, code: str, words: str) -> None:
    install("broken", code)
    load_plugins([])
    with pytest.raises(PluginError, match=words):
        load_plugins(["broken"])


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ("raise KeyError('oops')", r"plugin 'broken' failed in purify_policies: KeyError\('oops'\)"),
        ("return None", "plugin 'broken' must return a mapping from purify_policies"),
        ("return ['half']", "plugin 'broken' must return a mapping from purify_policies"),
    ],
)
def test_a_plugin_that_offers_nonsense_is_named(install: Install, body: str, words: str) -> None:
    install("broken", f"from purify_plugins import hookimpl\n@hookimpl\ndef purify_policies():\n    {body}\n")
    with pytest.raises(PluginError, match=words):
        load_plugins(["broken"]).policy("half")


def test_a_refusal_of_ours_passes_through_unchanged(install: Install) -> None:
    head = "from purify_plugins import *\n@hookimpl\ndef purify_policies():\n"
    install("broken", head + "    raise ConfigError('set KEY first')\n")
    with pytest.raises(ConfigError, match=r"^set KEY first$"):
        load_plugins(["broken"]).policy("half")


def test_two_plugins_that_offer_one_name_are_both_named(install: Install) -> None:
    install("half-one", HALF)
    install("half-two", HALF)
    with pytest.raises(PluginError) as error:
        load_plugins(["half-one", "half-two"]).policy("half")
    assert "'half_one'" in str(error.value)
    assert "'half_two'" in str(error.value)
    assert "both offer the policy 'half'; name only one of them in `plugins`" in str(error.value)
    assert load_plugins(["half-one"]).policy("half")


def test_a_stranger_cannot_take_a_bundled_name(install: Install) -> None:
    install("impostor", HALF.replace('"half": Half', '"windowed": Half'))
    assert load_plugins([]).policy("windowed").guarantee == "window"
    with pytest.raises(PluginError, match="both offer the policy 'windowed'"):
        load_plugins(["impostor"]).policy("windowed")


@pytest.mark.parametrize("name", ["policies", "local"])
def test_a_stranger_cannot_stand_in_for_a_bundled_plugin(install: Install, name: str) -> None:
    imported = install("impostor", HALF, {name: "impostor"})
    assert load_plugins([])
    assert not imported.exists()
    with pytest.raises(
        PluginError, match=f"two distributions install a plugin named '{name}'; uninstall one"
    ):
        load_plugins(["impostor"])


def test_the_listing_says_what_is_installed_and_what_is_in_use(install: Install) -> None:
    install("half-plugin", HALF)
    found = {each.name: each for each in listing(load_plugins([]))}
    assert found["policies"].active
    assert found["policies"].distribution == "purify-plugins"
    assert "purify_policies" in found["policies"].hooks
    half = found["half_plugin"]
    assert (half.distribution, half.version, half.active, half.hooks) == ("half-plugin", "1.2", False, ())
    found = {each.name: each for each in listing(load_plugins(["half-plugin"]))}
    assert (found["half_plugin"].active, found["half_plugin"].hooks) == (True, ("purify_policies",))


def test_bundled_plugins_come_first_and_through_the_same_door(install: Install) -> None:
    install("aaa", HALF)
    entries = installed()
    assert {"policies", "local"} <= {entry.name for entry in entries}
    assert entries[-1].name == "aaa"


# What is built by name


def test_an_unknown_option_names_the_nearest() -> None:
    plugins = load_plugins([])
    with pytest.raises(UnknownNameError) as error:
        plugins.policy("windowed", {"budgett": 3})
    assert str(error.value) == "unknown policy 'windowed' option 'budgett'; did you mean 'budget'?"
    with pytest.raises(
        UnknownNameError, match=r"unknown source 'local' option 'devise'; did you mean 'device'?"
    ):
        plugins.source({"model": ".", "devise": "cpu"})
    with pytest.raises(UnknownNameError, match=r"unknown source 'locl'; did you mean 'local'?"):
        plugins.source({"source": "locl", "model": "."})


def test_a_factory_that_takes_anything_is_asked_itself() -> None:
    check_arguments("toy option", lambda **anything: None, ["whatever"])
    with pytest.raises(UnknownNameError, match=r"unknown toy option 'sed'; did you mean 'seed'?"):
        check_arguments("toy option", lambda seed: None, ["sed"])


def test_a_missing_option_is_named() -> None:
    with pytest.raises(ConfigError, match="source 'local': 'model' is missing"):
        load_plugins([]).source({"source": "local"})


def test_a_policy_inside_a_policy_may_be_named() -> None:
    plugins = load_plugins([])
    outer = plugins.policy("consistency", {"policy": "minimum", "beta": 1.0})
    assert plugins.name_of(outer.policy) == "minimum"
    outer = plugins.policy({"name": "consistency", "policy": {"name": "windowed", "cap": 1.0}})
    assert outer.policy.cap == 1.0
    with pytest.raises(UnknownNameError, match="unknown policy 'minimun'"):
        plugins.policy("consistency", {"policy": "minimun"})


def test_objects_stand_for_themselves() -> None:
    plugins, toy, policy = load_plugins([]), ToySource(BYTES), toys().policy
    assert plugins.source(toy) is toy
    assert plugins.policy(policy) is policy
    assert plugins.name_of(policy) == "geometric"


# Every hook


def loaded(plugin: object) -> Plugins:
    plugins = load_plugins([])
    plugins.register(plugin, name="mine")
    return plugins


def policies() -> None:
    class Mine:
        @hookimpl
        def purify_policies(self) -> Any:
            return {"mine": type(toys("minimum").policy)}

    assert loaded(Mine()).policy("mine").name == "minimum"


def sources() -> None:
    class Mine:
        @hookimpl
        def purify_sources(self) -> Any:
            return {"toy": lambda seed=0: ToySource(BYTES, seed)}

    source = loaded(Mine()).source({"source": "toy", "seed": 3})
    assert isinstance(source, LogitSource)
    assert source == ToySource(BYTES, 3)


def adapters() -> None:
    class Mine:
        @hookimpl
        def purify_adapters(self) -> Any:
            return {"callable": lambda purifier: lambda prompt: purifier.generate([prompt], few())[0].text}

    ask = loaded(Mine()).make("purify_adapters", "callable", {"purifier": toys()})
    assert ask("x") == toys().generate("x", few())[0].text


def tool_formats() -> None:
    class Mine:
        @hookimpl
        def purify_tool_formats(self) -> Any:
            return {"angled": lambda: ToolFormat("<call>", "</call>", sign="<call>")}

    assert loaded(Mine()).make("purify_tool_formats", "angled", {}).begin == "<call>"


def suites() -> None:
    class Mine:
        @hookimpl
        def purify_suites(self) -> Any:
            return {"shouting": lambda questions, settings: questions}

    assert loaded(Mine()).make("purify_suites", "shouting", {"questions": "loud", "settings": None}) == "loud"


def commands() -> None:
    class Mine:
        @hookimpl
        def purify_commands(self) -> Any:
            return {"hello": "hello:main"}

    assert loaded(Mine()).offers("purify_commands")["hello"] == "hello:main"


def checks() -> None:
    class Mine:
        @hookimpl
        def purify_checks(self) -> Any:
            return {"age": lambda purifier, config, texts, seconds: Remarks({}, [f"{seconds:g} s is short"])}

    from purify_plugins.cli.check import remarks

    found = remarks(toys(plugins=loaded(Mine())), Config(llm={}, slm={}), (), 0.0)
    assert found["age"].warnings == ["0 s is short"]


def decode() -> None:
    class Mine:
        @hookimpl(wrapper=True)
        def purify_decode(self, prompts: Any) -> Any:
            steps = yield
            return self.twice(steps)

        def twice(self, steps: Any) -> Any:
            nonlocal seen
            for step in steps:
                seen += 1
                yield step

    seen = 0
    toys(plugins=loaded(Mine())).generate("x", few())
    assert seen == 8


def request() -> None:
    class Mine:
        @hookimpl
        def purify_request(self, purifier: Purifier, prompts: Any, sampling: Any) -> None:
            raise RefusedError(f"{len(prompts)} prompts of {sampling.max_tokens} tokens")

    with pytest.raises(RefusedError, match="1 prompts of 8 tokens"):
        toys(plugins=loaded(Mine())).generate(["x", "y"], few())


def completed() -> None:
    class Mine:
        @hookimpl
        def purify_completed(self, completion: Any) -> None:
            texts.append(completion.text)

    texts: list[str] = []
    answers = toys(plugins=loaded(Mine())).generate(["x", "y"], few())
    assert texts == [answer.text for answer in answers]


def stages() -> None:
    class Mine:
        @hookimpl
        def purify_stages(self) -> Any:
            return {"quiet": lambda: "a stage"}

    assert loaded(Mine()).make("purify_stages", "quiet", {}) == "a stage"


HOOKS: dict[str, Callable[[], None]] = {
    "purify_policies": policies,
    "purify_sources": sources,
    "purify_adapters": adapters,
    "purify_tool_formats": tool_formats,
    "purify_suites": suites,
    "purify_commands": commands,
    "purify_checks": checks,
    "purify_stages": stages,
    "purify_decode": decode,
    "purify_request": request,
    "purify_completed": completed,
}
SPECIFIED = [
    name for name, hook in inspect.getmembers(hookspecs, inspect.isfunction) if name.startswith("purify_")
]


@pytest.mark.parametrize("hook", SPECIFIED)
def test_every_hook_is_heard(hook: str) -> None:
    HOOKS[hook]()


@pytest.mark.parametrize("hook", SPECIFIED)
def test_every_hook_has_a_sentence_and_an_example(hook: str) -> None:
    text = inspect.getdoc(getattr(hookspecs, hook)) or ""
    assert ">>> @hookimpl" in text
    assert text.splitlines()[0].endswith((".", ";", ","))


def test_every_offer_is_of_a_specified_kind() -> None:
    assert set(OFFERS) <= set(SPECIFIED)


@pytest.mark.parametrize("hook", sorted(OFFERS))
def test_what_is_bundled_can_be_listed(hook: str) -> None:
    assert isinstance(load_plugins([]).offers(hook), dict)


def test_a_module_can_be_a_plugin(install: Install, tmp_path: Path) -> None:
    install("quiet", "from purify_plugins import hookimpl\n@hookimpl\ndef purify_request(): pass\n")
    toys(plugins=load_plugins(["quiet"])).generate("x", few())


def test_a_certificate_names_an_installed_plugin_by_its_distribution(install: Install) -> None:
    install("quiet", "from purify_plugins import hookimpl\n@hookimpl\ndef purify_request(): pass\n")
    [answer] = toys(plugins=load_plugins(["quiet"])).generate("x", few())
    [told] = answer.certificate.body["method"]["plugins"]
    [found] = [each for each in listing(load_plugins(["quiet"])) if each.name == "quiet"]
    assert told == {"name": "quiet", "distribution": found.distribution, "version": found.version}
    assert told["distribution"]
    assert told["version"]
