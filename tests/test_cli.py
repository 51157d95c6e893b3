"""The command line: what it prints, what it refuses, how it ends."""

from __future__ import annotations

import io
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from typer.testing import CliRunner, Result

from purify_plugins.certificates.explain import said
from purify_plugins.cli import app, chat
from purify_plugins.cli.chat import _welcome
from purify_plugins.cli.generate import style, styles
from purify_plugins.cli.options import SamplingOptions
from purify_plugins.cli.serve_summary import Address, summary
from purify_plugins.plugin.manager import load_plugins
from purify_plugins.plugin.preview import Preview
from purify_plugins.sampling import Sampling
from purify_plugins.testbed import LLM, SLM, SLM_1024
from purify_plugins.testing import ToySource
from purify_plugins.types import Token
from tests.fake_tgi import fake_tgi
from tests.remote.toy_server import Script, toy_source
from tests.strangers import Install, install
from tests.toys import BYTES, pair, real

__all__ = ["install"]

PAIR = ("--llm", str(LLM), "--slm", str(SLM))
EXAMPLE = Path(__file__).parent.parent / "docs/examples/purify-example-policy/purify_example_policy.py"
ODD = """
    from purify_plugins import ConfigError, hookimpl

    def picky(amount=None):
        if amount is None:
            raise ConfigError("picky: say how much")

    def needy(amount):
        pass

    @hookimpl
    def purify_policies():
        return {"picky": picky, "needy": needy}
"""
SHORT = ("--max-tokens", "8", "--seed", "1")


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No configuration in sight, and a wide terminal without colours."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("PURIFY_CONFIG", raising=False)
    monkeypatch.setenv("COLUMNS", "200")


def purify(*arguments: str, text: str | None = None) -> Result:
    return CliRunner().invoke(app, arguments, input=text)


def command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "purify_plugins", *arguments]


def configured(folder: Path, more: str = "") -> None:
    models = f"[llm]\nmodel = {json.dumps(str(LLM))}\n[slm]\nmodel = {json.dumps(str(SLM))}\n"
    (folder / "purify.toml").write_text(models + more, "utf-8")


def refused(result: Result, code: int, *words: str) -> None:
    """One sentence on standard error, nothing on standard output, no traceback."""
    assert result.exit_code == code, result.output
    assert result.stdout == ""
    assert result.stderr.startswith("error: ")
    assert len(result.stderr.splitlines()) == 1
    for word in words:
        assert word in result.stderr


# generate


def test_an_answer_is_printed_and_nothing_else() -> None:
    printed = purify("generate", "The king", *PAIR, *SHORT)
    assert printed.exit_code == 0
    written = json.loads(purify("generate", "The king", *PAIR, *SHORT, "--json").stdout)
    assert printed.stdout == written["text"] + "\n"
    assert set(written) == {"text", "tokens", "finish_reason", "certificate"}
    assert len(written["tokens"]) == 8
    assert written["certificate"]["method"]["policy"] == "balanced"


def test_a_prompt_can_come_from_standard_input() -> None:
    piped = purify("generate", "-", *PAIR, *SHORT, text="The king")
    assert piped.stdout == purify("generate", "The king", *PAIR, *SHORT).stdout


def test_every_sampling_field_is_an_option() -> None:
    fields = [name.replace("grammar", "json_schema") for name in Sampling.__dataclass_fields__]
    assert list(SamplingOptions.__dataclass_fields__) == fields
    help_ = purify("generate", "--help").stdout
    assert all(f"--{name.replace('_', '-')}" in help_ for name in fields)


def test_an_answer_can_be_json_under_a_schema(tmp_path: Path) -> None:
    file = tmp_path / "schema.json"
    file.write_text('{"enum": ["yes", "no"]}')
    result = purify("generate", "Is it?", *PAIR, "--seed", "1", "--json-schema", str(file), "--json")
    assert json.loads(json.loads(result.stdout)["text"]) in ("yes", "no")
    file.write_text('{"type": "objec"}')
    refused(purify("generate", "Is it?", *PAIR, "--json-schema", str(file)), 2, "Invalid type: objec")
    refused(purify("generate", "Is it?", *PAIR, "--json-schema", "gone.json"), 2, "cannot read 'gone.json'")


def test_every_option_reaches_the_answer() -> None:
    options = ("--temperature", "0.5", "--top-k", "9", "--top-p", "0.9", "--min-p", "0.01", "--ignore-eos")
    options = (*options, "--typical-p", "0.95")
    penalties = ("--repetition-penalty", "1.1", "--frequency-penalty", "0.2", "--stop", "Q", "--stop", "Z")
    result = purify(
        "generate",
        "The king",
        *PAIR,
        *SHORT,
        *options,
        *penalties,
        "--policy",
        "capped",
        "--set",
        "total=9",
        "--json",
    )
    method = json.loads(result.stdout)["certificate"]["method"]
    assert method["parameters"] == {"cap": 1.0, "total": 9}
    assert method["sampling"] == {
        "max_tokens": 8,
        "temperature": 0.5,
        "top_k": 9,
        "top_p": 0.9,
        "min_p": 0.01,
        "typical_p": 0.95,
        "repetition_penalty": 1.1,
        "frequency_penalty": 0.2,
        "seed": 1,
        "stop": ["Q", "Z"],
        "ignore_eos": True,
        "grammar": None,
    }


def test_a_configuration_says_what_is_not_typed(tmp_path: Path) -> None:
    configured(tmp_path, '[policy]\nname = "geometric"\nalpha = 0.25\n[sampling]\nmax_tokens = 3\n')
    method = json.loads(purify("generate", "The king", "--json").stdout)["certificate"]["method"]
    assert (method["parameters"], method["sampling"]["max_tokens"]) == ({"alpha": 0.25}, 3)
    typed = ("--set", "alpha=0.75", "--max-tokens", "2")
    method = json.loads(purify("generate", "The king", *typed, "--json").stdout)["certificate"]["method"]
    assert (method["parameters"], method["sampling"]["max_tokens"]) == ({"alpha": 0.75}, 2)


def test_another_policy_does_not_inherit_the_configured_one_s_fields(tmp_path: Path) -> None:
    configured(tmp_path, '[policy]\nname = "geometric"\nalpha = 0.25\n')
    assert json.loads(purify("check", "--policy", "minimum", "--json").stdout)["policy"] == {
        "name": "minimum"
    }


def test_explaining_changes_no_word_and_ends_with_a_legend() -> None:
    plain = purify("generate", "The king", *PAIR, *SHORT).stdout
    explained = purify("generate", "The king", *PAIR, *SHORT, "--explain").stdout
    assert explained.startswith(plain)
    assert "what the SLM did to each token" in explained
    assert "guarantee: passage" in explained


def test_explained_json_lists_what_the_llm_said_of_each_token() -> None:
    told = json.loads(purify("generate", "The king", *PAIR, *SHORT, "--explain", "--json").stdout)
    assert len(told["llm"]) == len(told["tokens"]) == 8
    assert all(logprob <= 0 for logprob in told["llm"])


def test_a_token_is_coloured_by_how_far_the_slm_moved_it() -> None:
    def moved(by: float) -> str:
        return style(Token(0, llm=-3.0, slm=-3.0, fused=-3.0 + by, kl=0.0, peak=0.0))

    assert moved(0.0) == ""
    assert len({moved(by) for by in (-3, -1.5, -0.7, 0, 0.7, 1.5, 3)}) == 7


@pytest.mark.parametrize("colours", ["truecolor", "256", "standard", None])
@pytest.mark.parametrize("without", [True, False])
def test_every_terminal_tells_what_was_taken_from_what_was_added(colours: Any, without: bool) -> None:
    """In sixteen colours -½ and +½ were one, and without colours all seven were."""
    console = Console(force_terminal=True, color_system=colours, no_color=without, file=io.StringIO())
    for each in styles(console):
        console.print("x", style=each, end="\n")
    assert isinstance(console.file, io.StringIO)
    shown = console.file.getvalue().splitlines()
    assert len(set(shown)) == (7 if colours else 1)  # nothing is written to a terminal that takes no styles


def test_a_stop_string_longer_than_the_output_stops_nothing() -> None:
    stop = "x" * 500
    result = purify("generate", "The king", *PAIR, *SHORT, "--stop", stop)
    assert result.exit_code == 0
    assert result.stdout == purify("generate", "The king", *PAIR, *SHORT).stdout


def test_the_version_is_printed() -> None:
    import purify_plugins

    result = purify("--version")
    assert (result.exit_code, result.stdout) == (0, f"purify-plugins {purify_plugins.__version__}\n")


GROUPS = [["serve"], ["demo"], ["generate"], ["eval"], ["eval", "build"], ["bench"], []]


@pytest.mark.parametrize("command", GROUPS)
def test_help_prints_what_stands_in_brackets(command: list[str]) -> None:
    """rich took `[the SLM's]`, `[refuse]` and `[purify-demo.html; …]` for styles and swallowed them."""
    from typer.main import get_command

    shown = re.sub(r"[\s│]+", " ", purify(*command, "--help").stdout)
    found: Any = get_command(app)
    for name in command:
        found = found.commands[name]
    texts = [help_ for each in found.params if (help_ := getattr(each, "help", None))]
    assert texts
    for text in texts:
        assert text.replace("\\[", "[") in shown


def test_help_says_whose_tokenizer_and_what_happens_when_the_server_fails() -> None:
    shown = re.sub(r"[\s│]+", " ", purify("serve", "--help").stdout)
    assert "[the SLM's]" in shown
    assert "[refuse]" in shown


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (None, "none"),
        (True, "true"),
        ([], "none"),
        (["a", "b"], "a, b"),
        (0.5, "0.5"),
        (3.727272727272727, "3.727"),
        ({"name": "linear", "weight": 0.5}, "linear (weight = 0.5)"),
        ({"name": "minimum"}, "minimum"),
        ({}, "none"),
    ],
)
def test_a_value_is_said_in_words_and_not_in_python(value: Any, words: str) -> None:
    assert said(value) == words


@pytest.mark.parametrize("arguments", [["check", *PAIR], ["policies"], ["policies", "consistency"]])
def test_no_table_prints_python(arguments: list[str]) -> None:
    """`purify check` said "seed None, stop []", and a policy inside a policy was a dict with its braces."""
    shown = purify(*arguments).stdout
    assert not re.search(r"\bNone\b|\bTrue\b|\bFalse\b|[\[{]['\]}]", shown), shown


@pytest.mark.parametrize("arguments", [["check", *PAIR], ["generate", "The king", *PAIR, *SHORT]])
def test_other_packages_print_nothing(arguments: list[str]) -> None:
    """Warnings that transformers, sentencepiece and others have for their own developers are no user's."""
    ended = subprocess.run(command(*arguments), capture_output=True, text=True, timeout=300)
    ours = ("loading both models", "comparing their", "reading the default sample", "warning: ")
    assert (ended.returncode, [line for line in ended.stderr.splitlines() if not line.startswith(ours)]) == (
        0,
        [],
    )


def test_loading_and_answering_in_python_deprecates_nothing() -> None:
    """transformers 5.24 told every program that `past_key_values` is deprecated: we asked outputs for it."""
    script = (
        "from purify_plugins import Purifier, Sampling\n"
        "from purify_plugins.testbed import LLM, SLM\n"
        "Purifier.load(LLM, SLM).generate('The king', Sampling(max_tokens=2))\n"
    )
    shown = [sys.executable, "-W", "default", "-c", script]
    ended = subprocess.run(shown, capture_output=True, text=True, timeout=300)
    assert ended.returncode == 0
    assert "deprecated" not in ended.stderr, ended.stderr


# Bad input


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--policy", "minimun"), ["unknown policy 'minimun'", "did you mean 'minimum'?"]),
        (("--policy", "geometric", "--set", "alpha=1.5"), ["alpha must be between 0 and 1, not 1.5"]),
        (("--policy", "geometric", "--set", "alpha=much"), ["alpha must be between 0 and 1, not 'much'"]),
        (("--policy", "geometric", "--set", "alpa=1"), ["option 'alpa'", "did you mean 'alpha'?"]),
        (("--set", "alpha"), ["--set takes KEY=VALUE"]),
        (("--max-tokens", "0"), ["max_tokens must be at least 1, not 0"]),
        (("--temperature", "-1"), ["temperature must be 0 (greedy), or finite and at least 1e-06"]),
        (("--config", "nowhere.toml"), ["cannot read 'nowhere.toml'"]),
        (("--certificate", "no/such/place.json"), ["there is no directory for 'no/such/place.json'"]),
    ],
)
def test_a_wrong_option_is_one_sentence_of_advice(arguments: tuple[str, ...], words: list[str]) -> None:
    refused(purify("generate", "The king", *PAIR, *arguments), 2, *words)


@pytest.mark.parametrize("prompt", ["", "word " * 600])
def test_a_prompt_that_cannot_be_read_is_refused(prompt: str) -> None:
    advice = "the prompt has" if prompt else "the prompt is empty"
    refused(purify("generate", prompt, *PAIR, "--json"), 2, advice)


def test_nothing_to_run_is_advised_about() -> None:
    refused(purify("generate", "The king"), 2, "there is no purify.toml here", "--config")


@pytest.mark.parametrize("command", ["generate", "chat", "check", "serve"])
def test_one_model_without_the_other_is_named(command: str) -> None:
    """`purify generate --llm DIR hi` spoke of purify.toml, and never of --slm."""
    prompt = ["hi"] if command == "generate" else []
    refused(purify(command, "--llm", str(LLM), *prompt), 2, "--slm is missing", "benign SLM")
    refused(purify(command, "--slm", str(SLM), *prompt), 2, "--llm is missing", "untrusted LLM")


def test_a_missing_model_is_named() -> None:
    result = purify("generate", "The king", "--llm", "./nowhere", "--slm", str(SLM))
    refused(result, 1, "there is no model directory './nowhere'")


def test_a_pickle_is_refused(tmp_path: Path) -> None:
    (tmp_path / "pickled").mkdir()
    shutil.copy(SLM / "config.json", tmp_path / "pickled")
    (tmp_path / "pickled" / "pytorch_model.bin").write_bytes(b"\x80\x04.")
    result = purify("generate", "The king", "--llm", "./pickled", "--slm", str(SLM))
    refused(result, 1, "pytorch_model.bin", "is a pickle, which can run code")


def test_models_of_two_languages_meet_in_bytes() -> None:
    two = ["--llm", str(LLM), "--slm", str(SLM_1024)]
    assert purify("generate", "The king", *two, *SHORT).exit_code == 0
    facts = json.loads(purify("check", *two, "--json").stdout)["vocabulary"]
    assert facts["tokens"] == 257
    assert facts["matched"] == "two tokenizers meet in bytes, 3.73 to a token of the LLM's"
    assert re.fullmatch(r"\d+ tokens in common, which are \d+% of the LLM's in a text", facts["coverage"])
    assert re.fullmatch(r"\d\.\d\d of the LLM and \d\.\d\d of the SLM .*", facts["calls"])
    assert "of boundaries" in facts["disagreement"]
    assert re.match(r"up to \d+\.\d% of a row of the LLM, \d+\.\d% of the SLM", facts["control tokens"])


def test_an_error_of_a_stream_leaves_no_certificate(tmp_path: Path) -> None:
    file = tmp_path / "answer.json"
    refused(purify("generate", "word " * 600, *PAIR, "--certificate", str(file)), 2, "the prompt has")
    assert list(tmp_path.iterdir()) == []


# A real process


def finished(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command(*arguments), capture_output=True, text=True, timeout=120, check=False)


def test_a_process_refuses_without_a_traceback() -> None:
    result = finished("generate", "The king", "--llm", "./nowhere", "--slm", str(SLM))
    assert (result.returncode, result.stdout) == (1, "")
    assert result.stderr.startswith("error: there is no model directory")
    assert "Traceback" not in result.stderr


def test_help_loads_nothing_heavy() -> None:
    probe = (
        "import sys; from purify_plugins.cli import app; app(['--help'], standalone_mode=False); "
        "print(sorted({'torch', 'transformers', 'numpy', 'jinja2'} & set(sys.modules)))"
    )
    result = subprocess.run(
        [sys.executable, "-c", probe], capture_output=True, text=True, timeout=200, check=True
    )
    assert result.stdout.splitlines()[-1] == "[]"


@pytest.fixture
def answering() -> Iterator[subprocess.Popen[str]]:
    """A process in the middle of an answer that takes long."""
    options = ("--max-tokens", "450", "--ignore-eos", "--certificate", "answer.json")
    arguments = command("generate", "The king", *PAIR, *options)
    environment = {**os.environ, "PYTHONUNBUFFERED": "1"}
    with subprocess.Popen(
        arguments,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
        preexec_fn=interruptible,
    ) as process:
        assert process.stdout is not None
        process.stdout.read(1)
        yield process
        process.kill()


def interruptible() -> None:
    """Heed Ctrl-C, which a shell has its background jobs ignore, and their children with them."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


@pytest.mark.slow
@pytest.mark.alone  # the signal has to come before the answer has ended
def test_ctrl_c_ends_an_answer_with_nothing_half_written(
    answering: subprocess.Popen[str], tmp_path: Path
) -> None:
    answering.send_signal(signal.SIGINT)
    _, errors = answering.communicate(timeout=120)
    assert answering.returncode == 130
    assert errors == "interrupted\n"
    assert list(tmp_path.iterdir()) == []


def test_a_closed_pipe_is_quiet(answering: subprocess.Popen[str]) -> None:
    assert answering.stdout is not None
    answering.stdout.close()
    assert answering.wait(timeout=120) != 0
    assert answering.stderr is not None
    assert "Traceback" not in answering.stderr.read()


# chat


def test_a_chat_answers_each_line_and_leaves_on_exit() -> None:
    result = purify("chat", *PAIR, *SHORT, text="Good day\n\nAnd then?\n/exit\nnever read\n")
    assert result.exit_code == 0
    assert result.stderr == ""
    assert len(result.stdout.strip()) > 0


def test_a_chat_says_how_to_use_it_and_keeps_that_from_the_models() -> None:
    alone = purify("chat", *PAIR, *SHORT, text="Good day\n")
    helped = purify("chat", *PAIR, *SHORT, text="/help\nGood day\n")
    assert helped.stdout == alone.stdout
    assert "/exit" in helped.stderr


def test_a_chat_begins_with_who_talks_and_under_which_guarantee() -> None:
    """It loaded in silence, and then there was a bare `>`."""
    welcome = _welcome(real("balanced"))
    assert "llm, purified by slm; policy balanced, guarantee passage." in welcome
    assert "/exit" in welcome


def test_a_chat_outlives_an_error() -> None:
    result = purify("chat", *PAIR, *SHORT, text=f"{'word ' * 600}\nGood day\n")
    assert result.exit_code == 0
    assert result.stderr.startswith("error: the prompt has")
    assert len(result.stdout.strip()) > 0


def test_ctrl_c_ends_the_answer_and_keeps_the_conversation(monkeypatch: pytest.MonkeyPatch) -> None:
    """The interrupted exchange is not kept: the next one begins where the last whole one ended."""
    asked: list[int] = []

    def interrupted_once(writer: Any, prompt: Any, explain: bool) -> Any:
        asked.append(len(prompt.messages))
        if len(asked) == 2:
            raise KeyboardInterrupt
        return type("Answer", (), {"text": "So be it."})

    monkeypatch.setattr(chat, "streamed", interrupted_once)
    monkeypatch.setattr("purify_plugins.configuration.build.Prepared.load", lambda *_: None)
    result = purify("chat", *PAIR, text="one\ntwo\nthree\n")
    assert asked == [1, 3, 3]
    assert result.exit_code == 0
    assert "interrupted" in result.stderr


# policies, plugins, check, verify


def test_every_policy_is_listed_with_its_guarantee() -> None:
    told = json.loads(purify("policies", "--json").stdout)
    assert set(told) == set(load_plugins([]).offers("purify_policies"))
    assert told["windowed"]["guarantee"] == "window"
    assert told["windowed"]["fields"] == {"cap": 3.0, "window": 4, "budget": 6.0}
    table = purify("policies").stdout
    assert all(name in table for name in told)


def test_a_policy_of_a_plain_class_is_listed_told_and_checked(install: Install, tmp_path: Path) -> None:
    """The tutorial's own policy ended `purify policies` with a traceback, and no other one was listed."""
    code = EXAMPLE.read_text("utf-8").replace("from __future__ import annotations\n", "")
    install("purify-example-policy", code, {"second-opinion": "purify_example_policy"})
    configured(tmp_path, '[policy]\nname = "second_opinion"\n')
    file = tmp_path / "purify.toml"
    file.write_text('plugins = ["purify-example-policy"]\n' + file.read_text("utf-8"))
    told = json.loads(purify("policies", "--json").stdout)
    assert told["second_opinion"]["fields"] == {"times": 4.0}
    assert set(told) > {"balanced", "geometric"}
    assert "times = 4.0" in purify("policies", "second_opinion").stdout
    assert "second_opinion" in purify("policies").stdout
    assert "second_opinion" in purify("check").stdout
    assert "second-opinion" in purify("plugins").stdout


def test_a_policy_that_cannot_be_made_hides_no_other(install: Install, tmp_path: Path) -> None:
    install("odd", ODD)
    (tmp_path / "purify.toml").write_text('plugins = ["odd"]\n[llm]\nmodel="a"\n[slm]\nmodel="b"\n')
    told = json.loads(purify("policies", "--json").stdout)
    assert told["picky"]["guarantee"] == "none at its defaults: picky: say how much"
    assert told["needy"]["guarantee"] == "depends on its fields"
    assert told["geometric"]["guarantee"] == "none"


def test_one_policy_is_told_whole() -> None:
    whole = purify("policies", "geometric").stdout
    assert "2402.14845" in whole
    assert "alpha = 0.5" in whole
    refused(purify("policies", "geometrik"), 2, "did you mean 'geometric'?")


def test_plugins_are_listed() -> None:
    found = {each["name"]: each for each in json.loads(purify("plugins", "--json").stdout)}
    assert found["policies"]["active"] is True
    assert found["policies"]["hooks"] == ["purify_policies"]
    assert "purify_policies" in purify("plugins").stdout


def test_a_check_says_what_would_run(tmp_path: Path) -> None:
    configured(tmp_path, '[policy]\nname = "anchored"\n')
    facts = json.loads(purify("check", "--json").stdout)
    assert facts["vocabulary"] == {"tokens": 2048, "matched": "identical"}
    assert facts["policy"]["name"] == "anchored"
    assert (facts["guarantee"], facts["adversary"]) == ("mean", "weights")
    assert facts["engines"] == {"llm": "in-process", "slm": "in-process"}
    assert facts["KV cache"] == {"llm": "on", "slm": "on"}
    assert facts["drafts"].startswith("on: the SLM drafts")
    assert facts["attention"] == {"llm": "sdpa", "slm": "sdpa"}
    told = purify("check").stdout
    assert "anchored" in told
    assert "KV cache" in told


@pytest.fixture
def certificate(tmp_path: Path) -> Path:
    file = tmp_path / "answer.json"
    assert purify("generate", "The king", *PAIR, *SHORT, "--certificate", str(file)).exit_code == 0
    return file


def test_a_certificate_is_verified_and_explained(certificate: Path) -> None:
    told = purify("verify", str(certificate), "--slm", str(SLM)).stdout
    assert "Claimed: passage. Holds for this answer: passage" in told
    assert "Recomputed with the SLM" in told
    assert "times as likely as from the SLM alone" in told
    assert "Limit: " in told


def test_a_certificate_can_come_from_standard_input(certificate: Path) -> None:
    verdict = json.loads(purify("verify", "-", "--json", text=certificate.read_text("utf-8") + "\n").stdout)
    assert verdict["valid"] is True
    assert verdict["recomputed_within"] is None


def test_an_altered_certificate_is_refused(certificate: Path) -> None:
    certificate.write_text(certificate.read_text("utf-8").replace("0.", "1.", 1), "utf-8")
    refused(purify("verify", str(certificate)), 1, "does not match its content")
    told = json.loads(purify("verify", str(certificate), "--json").stdout)
    assert (told["verdict"], told["exit_code"], told["error"]) == ("does not hold", 1, "AlteredError")


def edited(certificate: Path, old: str, new: str) -> str:
    """The certificate with a text in it replaced, and its digest made again."""
    from purify_plugins.canonical_json import canonical, digest

    body = json.loads(certificate.read_text("utf-8").replace(old, new))
    return canonical({**body, "digest": digest(body)})


def test_every_reason_to_refuse_a_certificate_has_a_code_and_a_way_out(certificate: Path) -> None:
    """A missing file, tampering and the wrong SLM all ended with code 1."""
    name = str(certificate)
    refused(purify("verify", "nowhere.json"), 3, "give the path of a file")
    refused(purify("verify", "-", text="{}"), 3, "malformed at format, which is missing")
    old = edited(certificate, "purify-certificate/2", "purify-certificate/1")
    refused(purify("verify", "-", text=old), 3, "check it with the version of purify-plugins that wrote it")
    refused(purify("verify", "-", text=certificate.read_text("utf-8").replace("eos", "soe")), 1, "altered")
    claimed = '"guarantee":"passage"'
    forged = edited(certificate, claimed, claimed.replace("passage", "path"))
    refused(purify("verify", "-", text=forged), 1, "has no such guarantee")
    tighter = edited(certificate, '"budget":5.0', '"budget":0.001')
    refused(purify("verify", "-", text=tighter), 1, "the steps exceed the budget of 'balanced'")
    refused(purify("verify", name, "--slm", str(LLM)), 1, "this is not the SLM")
    refused(purify("verify", name, "--answer", name), 1, "the certificate is not for this answer")
    refused(purify("verify", name, "--prompt", name), 2, "give --slm DIR too")
    refused(purify("verify", name, "--slm-digest", "abc"), 2, "64 hexadecimal digits")
    refused(purify("verify", name, "--expect", "answer"), 2, "--expect takes FIELD=VALUE")
    refused(purify("verify", name, "--set", "budget=5"), 2, "name it with --policy")


def test_a_certificate_is_held_against_all_that_its_reader_knows(tmp_path: Path, certificate: Path) -> None:
    answer, prompt = tmp_path / "answer.txt", tmp_path / "prompt.txt"
    where = ("--certificate", str(certificate), "--force")
    made = purify("generate", "The king", *PAIR, *SHORT, *where, "--json")
    answer.write_text(json.loads(made.stdout)["text"], "utf-8")
    prompt.write_text("The king\n", "utf-8")
    given = (
        "--answer",
        str(answer),
        "--policy",
        "balanced",
        "--slm-digest",
        str(SLM),
        "--llm-digest",
        str(LLM),
    )
    told = purify("verify", str(certificate), *given, "--expect", "answer.finish_reason=length")
    same = "the answer, the policy, the SLM's files, the LLM's files, answer.finish_reason"
    assert f"Compared with what you gave, and the same: {same}.\n" in told.stdout
    assert "Not compared, so its issuer's word: the prompt (--prompt FILE with --slm DIR), the models'" in (
        told.stdout
    )
    models = ("--slm", str(SLM), "--llm", str(LLM), "--prompt", str(prompt))
    verdict = json.loads(purify("verify", str(certificate), *models, "--json").stdout)
    assert verdict["recomputed_within"] < 1e-3
    assert verdict["checked"] == ["slm", "llm", "prompt"]
    loose = ("--policy", "balanced", "--set", "budget=50")
    refused(purify("verify", str(certificate), *loose), 1, "name every option that is not at its default")
    refused(purify("verify", str(certificate), "--slm-digest", str(LLM)), 1, "which is not the one given")


# purify serve


@pytest.fixture
def served(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """What `purify serve` would have served: the gateway's arguments and the configuration."""
    found: list[Any] = []
    monkeypatch.setattr(
        "purify_adapters.gateway.app.Gateway.serve",
        lambda self, listener: found.append((self, listener.getsockname())),
    )
    return found


def test_serve_puts_a_gateway_around_the_pair(served: list[Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GATEWAY_KEY", "k")
    limits = (
        "--max-concurrent",
        "3",
        "--queue",
        "2",
        "--deadline",
        "9",
        "--patience",
        "60",
        "--certificates",
        "5",
        "--model-id",
        "m",
    )
    where = ("--host", "0.0.0.0", "--port", "9999", "--api-key-env", "GATEWAY_KEY")
    result = purify("serve", *PAIR, *limits, *where, "--on-upstream-failure", "slm", "--policy", "geometric")
    assert result.exit_code == 0, result.output
    [(gateway, address)] = served
    settings = gateway.service.settings
    assert address == ("0.0.0.0", 9999)
    assert (settings.max_concurrent, settings.queue, settings.deadline) == (3, 2, 9.0)
    assert settings.patience == 60.0
    assert (settings.certificates, settings.model_id, settings.api_key) == (5, "m", "k")
    assert gateway.purifier.on_llm_failure == "slm"


def test_serve_asks_a_server_for_the_llm(monkeypatch: pytest.MonkeyPatch) -> None:
    built: list[Any] = []
    monkeypatch.setenv("TGI_KEY", "k")
    monkeypatch.setattr("purify_adapters.sources.http.preflight.looked_at", lambda **_: Preview())
    monkeypatch.setattr(
        "purify_plugins.configuration.build.Prepared.load",
        lambda ready, kind, *_: built.append(ready.config) or real(),
    )
    monkeypatch.setattr("purify_adapters.gateway.app.Gateway.serve", lambda self, *where: None)
    upstream = ("--upstream", "http://tgi:8080", "--slm", str(SLM), "--upstream-key-env", "TGI_KEY")
    upstream = (*upstream, "--port", "0")
    kind = ("--upstream-kind", "vllm")
    for more, tokenizer in (((), str(SLM)), (("--tokenizer", str(LLM)), str(LLM)), (kind, str(SLM))):
        done = purify("serve", *upstream, *more)
        assert done.exit_code == 0, done.stderr
        url = {"source": "server", "url": "http://tgi:8080", "api_key_env": "TGI_KEY"}
        named = "vllm" if more == kind else "auto"
        assert built.pop().llm == {**url, "tokenizer": tokenizer, "kind": named}


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((*PAIR, "--upstream", "http://a"), "--upstream or --llm, not both"),
        ((*PAIR, "--api-key-env", "NOT_THERE"), "NOT_THERE"),
        ((*PAIR, "--max-concurrent", "0"), "max_concurrent must be 1 or more"),
        ((*PAIR, "--workers", "0"), "--workers must be 1 or more"),
        ((*PAIR, "--workers", "2", "--queue", "-1"), "queue must be 0 or more"),
        ((*PAIR, "--workers", "2", "--certificates", "9"), "kept by the worker that issued them"),
        ((*PAIR, "--on-upstream-failure", "pray"), "'refuse' or 'slm'"),
        ((*PAIR, "--host", "no.such.host.invalid"), "names no address"),
        ((*PAIR, "--host", "203.0.113.7"), "this machine has no such address"),
        ((*PAIR, "--port", "99999"), "65535"),
    ],
)
def test_serve_refuses_what_it_cannot_serve(
    arguments: tuple[str, ...], words: str, served: list[Any]
) -> None:
    refused(purify("serve", *arguments), 2, words)
    assert served == []


def test_a_port_in_use_is_told_before_anything_is_loaded(monkeypatch: pytest.MonkeyPatch) -> None:
    """It was a traceback after both models had been read."""
    looked = "purify_plugins.configuration.build.prepare"
    monkeypatch.setattr(looked, lambda *_: pytest.fail("the models were looked at"))
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        refused(purify("serve", *PAIR, "--port", port), 2, "something listens there already")


def test_serve_says_what_it_serves_and_what_to_try(served: list[Any]) -> None:
    result = purify("serve", *PAIR, "--port", "0", "--policy", "geometric")
    for words in ("LLM", "SLM", "geometric", "guarantee", "everyone may ask", "try: curl http://127.0.0.1:"):
        assert words in result.stderr
    assert "512 tokens, prompt and answer together" in result.stderr


def test_serve_s_curl_names_the_key_that_there_is(served: list[Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """It was $KEY, whatever the variable: pasted, it was refused."""
    monkeypatch.setenv("GATEWAY_KEY", "k" * 40)
    result = purify("serve", *PAIR, "--port", "0", "--api-key-env", "GATEWAY_KEY", "--host", "0.0.0.0")
    assert "Bearer $GATEWAY_KEY" in result.stderr
    assert "k" * 40 not in result.output
    assert "at every address of this machine" in result.stderr


def test_serve_names_the_server_and_not_the_tokenizer(monkeypatch: pytest.MonkeyPatch) -> None:
    """The untrusted model was shown under the SLM's name: that is where its tokenizer came from."""
    with fake_tgi(Script(BYTES, b"abc"), top_n=8, prefill=False) as upstream:
        source = toy_source(upstream.url, BYTES, 8)
    address = Address("127.0.0.1", 8080)
    found = summary(pair(source, ToySource(BYTES, 2)), {"url": "http://me:pw@gpu:8080"}, address)
    assert (
        f"http://gpu:8080 (an untrusted server, tgi, shows the likeliest 8 of {len(BYTES)} tokens)" in found
    )


def test_serve_shows_no_password_of_an_upstream(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("purify_adapters.sources.http.preflight.looked_at", lambda **_: Preview())
    monkeypatch.setattr("purify_plugins.configuration.build.Prepared.load", lambda *_: real())
    monkeypatch.setattr("purify_adapters.gateway.app.Gateway.serve", lambda self, *where: None)
    upstream = ("--upstream", "http://me:hunter2@tgi:8080", "--slm", str(SLM), "--port", "0")
    result = purify("serve", *upstream)
    assert (result.exit_code, "tgi:8080" in result.stderr) == (0, True)
    assert "hunter2" not in result.output


# Request stages

STAGES = """
[[stage]]
name = "guardian"
classifier = "words"
words = ["king"]

[[stage]]
name = "cascade"

[request]
calls = 3
"""


def test_the_stages_are_listed_and_told_of() -> None:
    listed = purify("stages")
    assert {"cascade", "ensemble", "guardian", "never"} <= set(listed.output.split())
    told = purify("stages", "cascade")
    assert "sure = 0.9" in told.output
    assert json.loads(purify("stages", "--json").output)["cascade"]["fields"]["sure"] == 0.9
    assert "did you mean 'cascade'" in purify("stages", "cascde").output


def test_check_prints_the_chain_what_it_holds_back_and_its_remarks(tmp_path: Path) -> None:
    configured(tmp_path, STAGES)
    found = purify("check", "--config", str(tmp_path / "purify.toml"), "--seconds", "0", "--json")
    facts = json.loads(found.stdout)
    assert list(facts["stages"]) == ["1. guardian", "2. cascade"]
    assert facts["stages"]["1. guardian"]["words"]["count"] == 1
    assert (facts["hold-back"], facts["calls"]) == ("4 characters", 3)
    assert [warning for warning in facts["warnings"] if "uncalibrated" in warning]
