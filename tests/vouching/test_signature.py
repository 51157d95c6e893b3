"""A model is loaded as it was signed, or not at all: whatever was changed, added or linked, and when."""

from __future__ import annotations

import base64
import hashlib
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from purify_hooks.local.source import LocalSource
from purify_plugins import ConfigError, ModelError, Purifier, PurifyError, Sampling
from purify_plugins.certificates import read, recompute, verify
from purify_plugins.configuration.config import read_config
from purify_plugins.plugin.manager import load_plugins
from purify_plugins.testbed import LLM, SLM, SLM_1024
from purify_plugins.types import Completion
from purify_plugins.vouching import vouched as vouching
from tests.vouching.vouchers import certified, copied, load, other_kind, private, signed

pytest.importorskip("model_signing", reason="the extra [model-signing] is not installed")


@pytest.fixture
def table(tmp_path: Path) -> dict[str, str]:
    """A copy of the SLM, signed."""
    return signed(tmp_path, copied(tmp_path))


def weights(model: Path) -> Path:
    return model / "model.safetensors"


def flipped(file: Path) -> None:
    data = bytearray(file.read_bytes())
    data[-1] ^= 1
    file.write_bytes(data)


def test_a_signed_model_is_loaded_and_its_certificates_name_the_signature_and_the_key(
    table: dict[str, str],
) -> None:
    [answer] = Purifier.load(LLM, table).generate("Once upon a time", Sampling(max_tokens=3, seed=1))
    assert isinstance(answer, Completion)
    told = answer.certificate.body["models"]["slm"]
    bundle = Path(table["signature"]).read_bytes()
    assert told["signature"]["sha256"] == hashlib.sha256(bundle).hexdigest()
    der = base64.b64decode("".join(Path(table["signature_key"]).read_text("utf-8").splitlines()[1:-1]))
    assert told["signature"]["key"] == hashlib.sha256(der).hexdigest()
    assert "signature" not in answer.certificate.body["models"]["llm"]
    verify(read(answer.certificate.text), load_plugins([]))
    recompute(read(answer.certificate.text), LocalSource.load(SLM))  # by whoever has the model alone


def test_the_answers_are_those_of_the_model_without_a_signature(table: dict[str, str]) -> None:
    draws = Sampling(max_tokens=8, seed=3)
    alone, vouched = (Purifier.load(LLM, slm).generate(["A", "The old"], draws) for slm in (SLM, table))
    assert [each.text for each in alone] == [each.text for each in vouched]


def linked(model: Path) -> None:
    (model / "config.json").rename(model.parent / "config.json")
    (model / "config.json").symlink_to(model.parent / "config.json")


def repointed(model: Path) -> None:
    weights(model).unlink()
    weights(model).symlink_to(weights(SLM_1024))


ATTACKS: dict[str, tuple[Callable[[Path], Any], str]] = {
    "weights": (lambda model: flipped(weights(model)), "model.safetensors differs"),
    "another model's": (
        lambda model: weights(model).write_bytes(weights(SLM_1024).read_bytes()),
        "model.safetensors differs",
    ),
    "tokenizer": (
        lambda model: (model / "tokenizer_config.json").write_text('{"tokenizer_class": "x"}'),
        "tokenizer_config.json differs",
    ),
    "pickle": (
        lambda model: (model / "pytorch_model.bin").write_bytes(b"\x80"),
        "model.bin was added",
    ),
    "template": (lambda model: (model / "a.jinja").write_text("{{ 1 }}"), "a.jinja was added"),
    "below": (lambda model: [(model / "d").mkdir(), (model / "d" / "x").write_text("x")], "d/x was added"),
    "missing": (
        lambda model: (model / "special_tokens_map.json").unlink(),
        "map.json is missing",
    ),
    "linked": (linked, "a symbolic link"),
    "repointed": (repointed, "a symbolic link"),
    "fifo": (lambda model: os.mkfifo(model / "x.json"), "is no regular file"),
}


@pytest.mark.parametrize("attack", ATTACKS)
def test_what_was_changed_after_signing_is_refused_before_a_weight_is_read(
    attack: str, table: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    change, said = ATTACKS[attack]
    change(Path(table["model"]))
    monkeypatch.setattr("purify_hooks.local.source.read_model", lambda *_: pytest.fail("it was loaded"))
    with pytest.raises(ModelError, match=said):
        load(table)


def test_code_that_was_added_is_refused(table: dict[str, str]) -> None:
    (Path(table["model"]) / "modeling.py").write_text("raise SystemExit")
    with pytest.raises(ModelError, match=r"its own code \(modeling.py\)|modeling.py was added"):
        load(table)


def test_a_signature_by_another_key_is_refused_and_the_key_that_was_expected_is_named(
    table: dict[str, str], tmp_path: Path
) -> None:
    other = signed(tmp_path, Path(table["model"]), "mallory")
    with pytest.raises(ModelError, match=r"was not signed by the key that is expected \([0-9a-f]{64}\); ask"):
        load({**table, "signature": other["signature"]})


def edited(file: str, edit: Callable[[dict[str, Any]], Any]) -> None:
    body = json.loads(Path(file).read_text("utf-8"))
    edit(body)
    Path(file).write_text(json.dumps(body), "utf-8")


def payload(body: dict[str, Any], edit: Callable[[dict[str, Any]], Any]) -> None:
    envelope = body["dsseEnvelope"]
    stated = json.loads(base64.b64decode(envelope["payload"]))
    edit(stated)
    envelope["payload"] = base64.b64encode(json.dumps(stated).encode()).decode()


def test_a_signature_that_names_the_key_and_is_not_its_own_is_refused(
    table: dict[str, str], tmp_path: Path
) -> None:
    """The hint in a bundle is anybody's to write."""
    material = json.loads(Path(table["signature"]).read_text("utf-8"))["verificationMaterial"]
    other = signed(tmp_path, Path(table["model"]), "mallory")
    edited(
        other["signature"],
        lambda body: body["verificationMaterial"]["publicKey"].update(material["publicKey"]),
    )
    with pytest.raises(ModelError, match="is no signature by the key that is expected"):
        load({**table, "signature": other["signature"]})


def test_a_list_of_files_that_was_edited_to_fit_is_refused(table: dict[str, str]) -> None:
    flipped(weights(Path(table["model"])))
    digest = hashlib.sha256(weights(Path(table["model"])).read_bytes()).hexdigest()

    def fit(stated: dict[str, Any]) -> None:
        for each in stated["predicate"]["resources"]:
            if each["name"] == "model.safetensors":
                each["digest"] = digest

    edited(table["signature"], lambda body: payload(body, fit))
    with pytest.raises(ModelError, match="is no signature by the key"):
        load(table)


def swapping(model: Path, back: bool) -> Callable[..., Any]:
    """A check of the signature, after which the weights are exchanged, size and time of change kept."""

    def check(*given: Any) -> None:
        real(*given)
        file, good = weights(model), weights(model).read_bytes()
        times = file.stat().st_atime_ns, file.stat().st_mtime_ns
        flipped(file)
        if back:
            file.write_bytes(good)
        os.utime(file, ns=times)

    real = vouching.require_signed
    return check


@pytest.mark.parametrize("back", [False, True])
def test_weights_that_are_exchanged_between_the_check_and_the_load_are_refused(
    back: bool, table: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where they are put back before anybody looks, with the old time of change."""
    monkeypatch.setattr(vouching, "require_signed", swapping(Path(table["model"]), back))
    with pytest.raises(
        ModelError, match="changed since its signature was checked" if back else "none of the"
    ):
        load(table)


def test_a_file_that_is_there_only_while_the_model_is_loaded_is_noticed(
    table: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    real = vouching.require_signed

    def check(*given: Any) -> None:
        real(*given)
        (Path(table["model"]) / "chat_template.jinja").write_text("{{ 'x' }}")
        (Path(table["model"]) / "chat_template.jinja").unlink()

    monkeypatch.setattr(vouching, "require_signed", check)
    with pytest.raises(ModelError, match="changed since its signature was checked"):
        load(table)


def test_the_signature_is_the_one_that_was_read(
    table: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its file is read once: what it is exchanged for later is neither believed nor named."""
    real = vouching.require_signed
    before = hashlib.sha256(Path(table["signature"]).read_bytes()).hexdigest()

    def check(*given: Any) -> None:
        Path(table["signature"]).write_text("{}")
        real(*given)

    monkeypatch.setattr(vouching, "require_signed", check)
    assert load(table).identity()["signature"]["sha256"] == before


def test_links_are_followed_where_they_were_signed_as_such(tmp_path: Path) -> None:
    """As in the hub's cache, whose snapshots are links."""
    model = copied(tmp_path)
    linked(model)
    table = signed(tmp_path, model, links=True)
    assert load(table).identity()["signature"]
    flipped(tmp_path / "config.json")
    with pytest.raises(PurifyError, match=r"config.json differs|is not valid JSON"):
        load(table)


def test_a_directory_that_is_a_link_itself_is_what_it_links_to(table: dict[str, str], tmp_path: Path) -> None:
    (tmp_path / "current").symlink_to(table["model"])
    assert load({**table, "model": str(tmp_path / "current")}).identity()["signature"]


def test_a_gguf_file_is_signed_alone_or_with_its_directory(tmp_path: Path) -> None:
    from tests.remote.real_servers import write_gguf

    folder = tmp_path / "gguf"
    folder.mkdir()
    file = write_gguf(SLM, folder / "slm.gguf")
    for place, given in ((file, file), (folder, file), (folder, folder)):
        table = {**signed(tmp_path, place), "model": str(given)}
        assert load(table).identity()["signature"]
    flipped(file)
    with pytest.raises(ModelError, match="differs"):
        load(table)


Change = Callable[[dict[str, Any], Path], object]
WRONG: dict[str, tuple[Change, str]] = {
    "no key": (lambda table, _: table.pop("signature_key"), "says nothing without signature_key"),
    "no signature": (lambda table, _: table.pop("signature"), "checks nothing without signature"),
    "number": (lambda table, _: table.update(signature=3), "must be the path of a file, not 3"),
    "empty": (lambda table, _: table.update(signature_key=" "), "must be the path of a file, not ' '"),
    "gone": (lambda table, _: table.update(signature="gone"), "signature: cannot read 'gone'"),
    "folder": (lambda table, folder: table.update(signature=str(folder)), "which is no file"),
    "no json": (lambda table, _: table.update(signature=table["signature_key"]), "is no signature of a"),
    "private": (
        lambda table, folder: table.update(signature_key=str(folder / "signer.pem")),
        "holds a private key",
    ),
    "ed25519": (
        lambda table, folder: table.update(signature_key=str(other_kind(folder))),
        "elliptic-curve keys",
    ),
    "signature": (lambda table, _: table.update(signature_key=table["signature"]), "no public key in PEM"),
    "misspelt": (lambda table, _: table.update(signatur="x"), "unknown source 'local' option 'signatur'"),
}


@pytest.mark.parametrize("wrong", WRONG)
def test_a_wrong_key_or_signature_is_one_sentence(wrong: str, table: dict[str, str], tmp_path: Path) -> None:
    change, said = WRONG[wrong]
    change(table, tmp_path)
    with pytest.raises(ConfigError, match=said):
        Purifier.load(LLM, table)


BUNDLES: dict[str, tuple[Callable[[dict[str, Any]], Any], str]] = {
    "sigstore": (
        lambda body: body.update(verificationMaterial={"certificate": {"rawBytes": ""}, "tlogEntries": [{}]}),
        "a log on the network; none is asked here",
    ),
    "unnamed": (lambda body: body["verificationMaterial"]["publicKey"].pop("hint"), "does not name its key"),
    "old": (lambda body: payload(body, lambda stated: stated.update(predicateType="v0.1")), "is in the form"),
    "shards": (
        lambda body: payload(
            body, lambda stated: stated["predicate"]["serialization"].update(method="shards")
        ),
        "not of whole files by SHA-256",
    ),
    "two": (lambda body: body["dsseEnvelope"]["signatures"].append({}), "is no signature of a model"),
    "list": (lambda body: body.update(dsseEnvelope=[]), "is no signature of a model"),
}


@pytest.mark.parametrize("kind", BUNDLES)
def test_a_signature_of_another_kind_is_refused_with_what_to_do(kind: str, table: dict[str, str]) -> None:
    edit, said = BUNDLES[kind]
    edited(table["signature"], edit)
    with pytest.raises(ConfigError, match=said):
        load(table)


def test_a_remote_llm_has_nothing_to_sign(table: dict[str, str]) -> None:
    remote = {"source": "tgi", "url": "http://127.0.0.1:9", "tokenizer": str(LLM)}
    for source in (remote, {"source": "mixture", "members": [str(SLM), str(SLM_1024)]}):
        vouched = {**source, "signature": table["signature"], "signature_key": table["signature_key"]}
        with pytest.raises(ConfigError, match="has no files here, so there is nothing that a card or a sig"):
            load(vouched)


def test_a_member_of_a_mixture_may_be_signed(table: dict[str, str]) -> None:
    mixed = load({"source": "mixture", "members": [table, str(SLM)]})
    assert "signature" in mixed.identity()["members"]["1"]


def test_an_authority_s_certificate_takes_the_place_of_a_key(tmp_path: Path) -> None:
    from model_signing import signing

    model, authority = copied(tmp_path), certified(tmp_path, "authority")
    certified(tmp_path, "signer", authority)
    certified(tmp_path, "stranger")
    signing.Config().use_certificate_signer(
        private_key=tmp_path / "signer.pem",
        signing_certificate=tmp_path / "signer.crt",
        certificate_chain=[tmp_path / "authority.crt"],
    ).sign(model, tmp_path / "model.sig")
    table = {"model": str(model), "signature": str(tmp_path / "model.sig")}
    assert load({**table, "signature_key": str(tmp_path / "authority.crt")}).identity()["signature"]
    with pytest.raises(ModelError, match="by the authority that is expected"):
        load({**table, "signature_key": str(tmp_path / "stranger.crt")})
    with pytest.raises(ConfigError, match="made with a certificate, signature_key is a public key"):
        load({**table, "signature_key": str(tmp_path / "signer.pub.pem")})
    flipped(weights(model))
    with pytest.raises(ModelError, match=r"model\.safetensors differs"):
        load({**table, "signature_key": str(tmp_path / "authority.crt")})


def test_the_files_of_a_configuration_lie_beside_it(table: dict[str, str], tmp_path: Path) -> None:
    file = tmp_path / "purify.toml"
    file.write_text(
        f'[llm]\nmodel = "{LLM}"\n[slm]\nmodel = "model"\nsignature = "signer.sig"\n'
        'signature_key = "signer.pub.pem"\n'
    )
    assert read_config(file).slm["signature"] == str(tmp_path / "signer.sig")
    assert Purifier.from_config(file).slm.identity()["signature"]
    flipped(weights(Path(table["model"])))
    with pytest.raises(ModelError, match=r"purify.toml: \[slm\] .*model.safetensors differs"):
        Purifier.from_config(file)


def test_a_wrong_signature_is_found_before_the_other_model_is_loaded(
    table: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    private(tmp_path, "other")
    monkeypatch.setattr("purify_hooks.local.source.read_model", lambda *_: pytest.fail("it was loaded"))
    with pytest.raises(ModelError, match="was not signed by the key"):
        Purifier.load(LLM, {**table, "signature_key": str(tmp_path / "other.pub.pem")})


def test_plugins_of_others_are_asked_for_nothing_new(table: dict[str, str]) -> None:
    """The keys are taken off before a source's factory is called: any source has them."""
    assert load({"source": "local", **table}).inner.identity().keys().isdisjoint({"signature", "card"})


def test_a_signature_may_lie_in_the_directory_that_it_is_of(table: dict[str, str]) -> None:
    inside = Path(table["model"]) / "model.sig"
    Path(table["signature"]).rename(inside)
    assert load({**table, "signature": str(inside)}).identity()["signature"]
    (Path(table["model"]) / "other.sig").write_text("x")
    with pytest.raises(ModelError, match=r"other\.sig was added"):
        load({**table, "signature": str(inside)})
