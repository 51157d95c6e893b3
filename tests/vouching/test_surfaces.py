"""Cards and signatures where they are told: /info, purify check, and what never loads an LLM's files."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from purify_adapters.activation.active import _read
from purify_plugins import ConfigError
from purify_plugins.cli.options import load_pair, prepared
from purify_plugins.cli.reload import Attempts, renewed
from purify_plugins.configuration.config import Config, read_config
from purify_plugins.configuration.consent import named_by
from purify_plugins.configuration.find import read_table
from purify_plugins.plugin.manager import load_plugins
from purify_plugins.signing.keys import HeldKey
from purify_plugins.testbed import LLM, SLM
from purify_plugins.verifying.examine import Known, examined
from tests.adapters.gateways import Served, serving
from tests.signing.issuing import purify
from tests.vouching.vouchers import filled, write

ASKED = {"inputs": "Once upon a time", "parameters": {"max_new_tokens": 4, "do_sample": True}}
HEAD = f'[llm]\nmodel = "{LLM}"\n[slm]\nmodel = "{SLM}"\ncard = "card.json"\n[policy]\nname = "geometric"\n'


@pytest.fixture(scope="module")
def card() -> dict[str, Any]:
    return filled({"model": SLM})


@pytest.fixture
def folder(tmp_path: Path, card: dict[str, Any]) -> Path:
    write(tmp_path / "card.json", card)
    return tmp_path


def configured(folder: Path, key: HeldKey, alpha: float) -> Config:
    """A configuration with a card and a key; its records are beside it."""
    (folder / "issuer.pem").write_bytes(key.pem)
    (folder / "issuer.pem").chmod(0o600)
    more = f'alpha = {alpha}\n[certificate]\nkey = "issuer.pem"\nstore = "records"\n'
    (folder / "purify.toml").write_text(HEAD + more)
    return read_config(folder / "purify.toml")


def sha256(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()


def asked(served: Served) -> bytes:
    """The certificate of a new answer, as it is handed out."""
    digest = served.post("/generate", ASKED).headers["x-purify-certificate"]
    return served.client.get(f"/certificates/{digest}").content


@pytest.fixture
def served(folder: Path) -> Iterator[tuple[Served, HeldKey, Config]]:
    key = HeldKey.new()
    config = configured(folder, key, 0.5)
    with serving(load_pair(prepared(config)), certificates=64) as found:
        yield found, key, config


def test_a_reload_takes_another_key_and_goes_on_with_the_card_that_was_checked(
    served: tuple[Served, HeldKey, Config], folder: Path, card: dict[str, Any]
) -> None:
    """Both keys' chains are whole after it. A card that is exchanged under its name is not read again."""
    gateway, key, config = served
    before, first = sha256(folder / "card.json"), asked(gateway)
    info = gateway.client.get("/info").json()
    assert info["vouching"] == {"slm": {"card": {"sha256": before}}}
    assert info["certificate_keys"] == [key.public.id]
    write(folder / "card.json", {**card, "notes": "another"})
    other = HeldKey.new()
    Attempts(config, gateway.app).attempt(configured(folder, other, 0.25))()
    second = asked(gateway)
    info = gateway.client.get("/info").json()
    assert (info["certificate_keys"], info["vouching"]["slm"]["card"]["sha256"]) == (
        [other.public.id],
        before,
    )
    for certificate, by in ((first, key), (second, other)):
        seen = examined(
            certificate, Known(keys=(by.public,), chain=folder / "records" / "chain"), load_plugins([])
        )
        assert seen.code == 0
        assert seen.certificate.body["models"]["slm"]["card"] == {"sha256": before}


def test_a_reload_that_names_another_card_loads_its_model_again_or_is_refused(
    served: tuple[Served, HeldKey, Config], folder: Path, card: dict[str, Any]
) -> None:
    gateway, _, config = served
    write(folder / "second.json", {**card, "notes": "another"})
    now = (folder / "purify.toml").read_text("utf-8").replace("card.json", "second.json")
    (folder / "purify.toml").write_text(now)
    found = renewed(read_config(folder / "purify.toml"), config, gateway.app.models)
    assert found.slm.identity()["card"] == {"sha256": sha256(folder / "second.json")}
    assert found.given_models[0] is gateway.app.models["llm"]
    (folder / "second.json").write_text("{}")
    with pytest.raises(ConfigError, match=r"\[slm\] .*second.json' is no provenance card"):
        renewed(read_config(folder / "purify.toml"), config, gateway.app.models)


def test_purify_check_reports_the_card(folder: Path) -> None:
    (folder / "purify.toml").write_text(HEAD)
    said = purify("check", "--config", folder / "purify.toml", "--seconds", 0, "--json")
    assert json.loads(said.stdout)["slm"]["card"] == {"sha256": sha256(folder / "card.json")}


def test_consent_names_the_files(folder: Path) -> None:
    (folder / "purify.toml").write_text(HEAD)
    assert f"card {folder / 'card.json'}" in "\n".join(named_by(read_table(folder / "purify.toml")))


@pytest.mark.parametrize("key", ["card", "signature", "signature_key"])
def test_the_llm_of_a_program_has_no_files_that_could_be_compared(key: str, folder: Path) -> None:
    (folder / "purify.toml").write_text(f'[llm]\n{key} = "x"\n[slm]\nmodel = "{SLM}"\n')
    with pytest.raises(ConfigError, match=rf"\[llm\] {key} cannot be checked: the LLM is the program's own"):
        _read(folder / "purify.toml")


def test_the_llm_of_vllm_has_none_either(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from purify_adapters.vllm_engine.running import purifier_of

    (folder / "purify.toml").write_text(f'[llm]\ncard = "card.json"\n[slm]\nmodel = "{SLM}"\n')
    monkeypatch.setenv("PURIFY_CONFIG", str(folder / "purify.toml"))
    with pytest.raises(ConfigError, match="card cannot be checked: the LLM is vLLM's own"):
        purifier_of(None)
