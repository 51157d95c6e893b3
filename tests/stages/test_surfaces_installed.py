"""The same cases where `purify.toml` sets the stages: the command line, and activated programs."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from huggingface_hub import AsyncInferenceClient, InferenceClient
from typer.testing import CliRunner

import purify_plugins
from purify_plugins import RefusedError
from purify_plugins.cli import app
from tests.adapters.activating import Activate, install, on
from tests.stages.surfaces import MESSAGES, Seen, Tokens, _later, read
from tests.stages.theatre import LENGTH, PROMPT, SAID, SEED, TRUE, Case, cases
from tests.strangers import Install

__all__ = ["install", "on"]

PLUGIN = """
    from purify_plugins import hookimpl
    from tests.stages.theatre import Programme, storyteller
    from tests.toys import both

    @hookimpl
    def purify_sources():
        return {"storyteller": storyteller, "benign": lambda: both()[1]}

    @hookimpl
    def purify_stages():
        return {"programme": Programme}
"""
CONFIG = f"""
plugins = ["theatre"]
[llm]
source = "storyteller"
seed = 1
[slm]
source = "storyteller"
seed = 2
[policy]
name = "geometric"
[sampling]
max_tokens = {LENGTH}
"""
SEEN = ("blocked in the middle", "ended in the operator's words", "redone", "restored", "broken")


@pytest.fixture
def case(request: pytest.FixtureRequest, install: Install, tmp_path: Path, monkeypatch: Any) -> Case:
    """A case, and the configuration with its program in the working directory."""
    install("theatre", PLUGIN)
    found = cases()[request.param]
    (tmp_path / "purify.toml").write_text(CONFIG + found.config)
    monkeypatch.chdir(tmp_path)
    return found


def shown(case: Case, streamed: bool) -> str:
    return (case.before if streamed else "") if case.error else case.due


def unseen(case: Case, *written: str) -> None:
    for secret in case.secrets:
        assert not [each for each in written if secret in each]


# The command line


def purify(*arguments: str, text: str | None = None) -> Any:
    return CliRunner().invoke(app, [*arguments, "--seed", str(SEED)], input=text)


@pytest.mark.parametrize("case", SEEN, indirect=True)
def test_what_is_printed(case: Case) -> None:
    printed = purify("generate", PROMPT)
    assert printed.exit_code == (1 if case.error else 0)
    assert printed.stdout == shown(case, streamed=True) + ("" if case.error else "\n")
    explained = purify("generate", PROMPT, "--explain")
    assert explained.stdout.startswith(shown(case, streamed=True))
    whole = purify("generate", PROMPT, "--json")
    assert (json.loads(whole.stdout)["text"] if whole.stdout else "") == shown(case, streamed=False)
    talked = purify("chat", text=PROMPT)
    assert talked.stdout == shown(case, streamed=True) + ("" if case.error else "\n")
    unseen(case, *(each.output + each.stderr for each in (printed, explained, whole, talked)))


# Activated programs

URL = "http://127.0.0.1:9/"
ASKED: dict[str, Any] = {"max_new_tokens": LENGTH, "seed": SEED, "do_sample": True}
CHAT: dict[str, Any] = {"messages": MESSAGES, "max_tokens": LENGTH, "seed": SEED}


def content(piece: Any) -> str:
    return str(piece.choices[0].delta.content or "")


def blocking(ask: Callable[[Any], Any], text_of: Callable[[Any], str]) -> Seen:
    return read(lambda: ask(InferenceClient(URL)), text_of)


def awaited(ask: Callable[[Any], Any], text_of: Callable[[Any], str]) -> Seen:
    return read(lambda: _later(lambda: ask(AsyncInferenceClient(URL))), text_of)


HUB: dict[str, tuple[bool, Callable[[], Seen]]] = {
    "text_generation": (False, lambda: blocking(lambda c: [c.text_generation(PROMPT, **ASKED)], str)),
    "text_generation details": (
        False,
        lambda: blocking(
            lambda c: [c.text_generation(PROMPT, details=True, **ASKED)], lambda e: e.generated_text
        ),
    ),
    "text_generation streamed": (
        True,
        lambda: blocking(lambda c: c.text_generation(PROMPT, stream=True, **ASKED), str),
    ),
    "text_generation details streamed": (
        True,
        lambda: blocking(
            lambda c: c.text_generation(PROMPT, details=True, stream=True, **ASKED), lambda e: e.token.text
        ),
    ),
    "chat_completion": (
        False,
        lambda: blocking(lambda c: [c.chat_completion(**CHAT)], lambda e: e.choices[0].message.content),
    ),
    "chat_completion streamed": (
        True,
        lambda: blocking(lambda c: c.chat_completion(stream=True, **CHAT), content),
    ),
    "async text_generation": (False, lambda: awaited(lambda c: c.text_generation(PROMPT, **ASKED), str)),
    "async chat_completion streamed": (
        True,
        lambda: awaited(lambda c: c.chat_completion(stream=True, **CHAT), content),
    ),
}


@pytest.mark.parametrize("case", SEEN, indirect=True)
def test_what_activated_clients_get(case: Case, on: Activate, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("DEBUG")
    on(case.config, base=CONFIG)
    for streamed, ask in HUB.values():
        seen = ask()
        assert seen.error == ("RefusedError" if case.error else None)
        assert seen.text == shown(case, streamed)
        unseen(case, seen.written, caplog.text)


def test_what_activated_transformers_get(on: Activate, install: Install) -> None:
    from tests.adapters.test_transformers import original, tokenizer

    install("theatre", PLUGIN)
    base = 'plugins = ["theatre"]\n[slm]\nsource = "benign"\n'
    ids = tokenizer()("Once upon a time", return_tensors="pt")["input_ids"]

    def written(more: str, **options: Any) -> str:
        purify_plugins.deactivate()
        on(more, base=base)
        found = original().generate(ids, max_new_tokens=10, do_sample=False, **options)
        return str(tokenizer().decode(found[0, ids.shape[1] :]))

    def stage(kind: str) -> str:
        return f'[[stage]]\nname = "programme"\nkind = "{kind}"\ntext = "{hidden}"\n'

    plain = written("")
    hidden = next(each for each in plain.split()[2:] if plain.count(each) == 1 and len(each) > 2)
    before = plain[: plain.index(hidden)]
    assert written(stage("restores")) == plain.replace(hidden, TRUE)
    said = f'[request]\non_refusal = "text"\nrefusals = {{ default = "{SAID}" }}\n'
    assert written(stage("blocks") + said) == before + SAID
    tokens = Tokens()
    with pytest.raises(RefusedError):
        written(stage("blocks"), streamer=tokens)
    assert before.startswith(tokenizer().decode(torch.tensor(tokens.kept)))
