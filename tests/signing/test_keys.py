"""Keys in files, in the environment and in a security module; every key of [certificate] has an effect."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from purify_plugins import ConfigError, Purifier, Sampling, UnknownNameError
from purify_plugins.configuration.config import check_config, read_config
from purify_plugins.configuration.signing import issuing, signing_key
from purify_plugins.signing.hardware import TokenKey
from purify_plugins.signing.keys import HeldKey, PublicKey, key_in_file
from purify_plugins.testbed import LLM, SLM
from purify_plugins.verifying.opening import opened
from tests.signing.issuing import answer, purify


@pytest.fixture
def pair(tmp_path: Path) -> Path:
    """A new pair of keys, by its private file."""
    assert purify("keys", "new", tmp_path / "issuer.pem").exit_code == 0
    return tmp_path / "issuer.pem"


def public(private: Path) -> PublicKey:
    return PublicKey.read(private.with_name(f"{private.name}.pub").read_bytes(), "it")


def test_a_new_pair_is_for_its_owner_alone(pair: Path) -> None:
    assert pair.stat().st_mode & 0o777 == 0o600
    assert key_in_file(pair).public == public(pair)
    again = purify("keys", "new", pair)
    assert (again.exit_code, "never written over" in again.stderr) == (2, True)


def test_the_id_is_what_openssl_says(pair: Path) -> None:
    printed = purify("keys", "id", f"{pair}.pub").stdout.strip()
    assert printed == public(pair).id
    if shutil.which("openssl"):
        order = ["openssl", "pkey", "-pubin", "-in", f"{pair}.pub", "-outform", "DER"]
        der = subprocess.run(order, check=True, capture_output=True).stdout
        assert hashlib.sha256(der).hexdigest() == printed


def test_a_key_that_others_can_read_signs_nothing(pair: Path) -> None:
    pair.chmod(0o640)
    with pytest.raises(ConfigError, match="run chmod 600"):
        key_in_file(pair)


@pytest.mark.parametrize(
    "text", ["", "hello", "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----"]
)
def test_what_is_no_key_is_refused(tmp_path: Path, text: str) -> None:
    file = tmp_path / "key"
    file.write_text(text)
    file.chmod(0o600)
    with pytest.raises(ConfigError, match="no unencrypted private Ed25519 key"):
        key_in_file(file)
    with pytest.raises(ConfigError, match=r"no public Ed25519 key|holds a private key"):
        PublicKey.read(text.encode(), "it")


def test_a_private_key_given_in_place_of_the_public_one_is_said_to_be(pair: Path) -> None:
    with pytest.raises(ConfigError, match="give the public one, and keep this one"):
        PublicKey.read(pair.read_bytes(), "it")


def test_a_key_of_another_algorithm_is_refused(tmp_path: Path) -> None:
    from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, generate_private_key
    from cryptography.hazmat.primitives.serialization import (
        Encoding,
        NoEncryption,
        PrivateFormat,
        PublicFormat,
    )

    made = generate_private_key(SECP256R1())
    file = tmp_path / "key"
    file.write_bytes(made.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    file.chmod(0o600)
    with pytest.raises(ConfigError, match="no unencrypted private Ed25519 key"):
        key_in_file(file)
    pem = made.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    with pytest.raises(ConfigError, match="no public Ed25519 key"):
        PublicKey.read(pem, "it")


@pytest.mark.parametrize("one_line", [False, True])
def test_a_key_can_be_in_the_environment(pair: Path, monkeypatch: pytest.MonkeyPatch, one_line: bool) -> None:
    text = pair.read_bytes()
    monkeypatch.setenv("ISSUER", (base64.b64encode(text) if one_line else text).decode())
    assert signing_key("env:ISSUER").public == public(pair)
    monkeypatch.setenv("ISSUER", "hunter2")
    with pytest.raises(ConfigError, match="no unencrypted private Ed25519 key") as error:
        signing_key("env:ISSUER")
    assert "hunter2" not in str(error.value)
    monkeypatch.delenv("ISSUER")
    with pytest.raises(ConfigError, match="is not set"):
        signing_key("env:ISSUER")


# [certificate]


def configured(folder: Path, certificate: dict[str, Any]) -> Purifier:
    lines = [f"{key} = {json.dumps(value)}" for key, value in certificate.items()]
    table = "\n".join(["[certificate]", *lines])
    models = f"[llm]\nmodel = {json.dumps(str(LLM))}\n[slm]\nmodel = {json.dumps(str(SLM))}\n"
    (folder / "purify.toml").write_text(models + table, "utf-8")
    found = issuing(read_config(folder / "purify.toml").certificate)["signer"]
    return Purifier.load(LLM, SLM).replace(signer=found)


def test_a_key_signs_each_answer_and_changes_nothing_in_it(pair: Path) -> None:
    """A key beside the file, by its name there."""
    purifier = configured(pair.parent, {"key": "issuer.pem"})
    drawn = Sampling(max_tokens=4, seed=1)
    [signed] = purifier.generate("The king", drawn)
    [plain] = purifier.replace(signer=None).generate("The king", drawn)
    assert plain.certificate.issued == plain.certificate.text == signed.certificate.text
    found = opened(signed.certificate.issued.encode(), [public(pair)])
    assert found.certificate.text == signed.certificate.text


def test_every_named_key_signs(pair: Path) -> None:
    other = pair.with_name("other.pem")
    purify("keys", "new", other)
    [answer] = configured(pair.parent, {"key": ["issuer.pem", "other.pem"]}).generate("A", max_tokens=2)
    found = opened(answer.certificate.issued.encode(), [public(pair), public(other)])
    assert {each.id for each in found.signers} == {public(pair).id, public(other).id}


def test_a_log_gets_a_line_for_each_and_a_root(pair: Path) -> None:
    purifier = configured(pair.parent, {"key": "issuer.pem", "store": "kept"})
    purifier.generate(["A", "B"], max_tokens=2, errors="raise")
    assert purifier.signer is not None
    purifier.signer.close()
    [lines] = (pair.parent / "kept/chain").glob("*.links.jsonl")
    assert len(lines.read_text("utf-8").splitlines()) == 2
    assert len([*(pair.parent / "kept/chain").glob("*.root.json")]) == 1
    assert "king" not in lines.read_text("utf-8")


@pytest.mark.parametrize(
    ("table", "why"),
    [
        ({"retention": "184d"}, "neither key nor store is there"),
        ({"key": "issuer.pem", "retention": "184d"}, "retention needs store"),
        ({"key": "issuer.pem", "keep": "digests"}, "keep needs store"),
        ({"store": "x", "retention": "6 months"}, "retention must be a number of days, such as '184d'"),
        ({"store": "x", "retention": "0d"}, "retention must be a number of days"),
        ({"store": "x", "keep": "everything"}, "keep must be 'digests' or 'certificates'"),
        ({"store": "x", "on_error": "ignore"}, "on_error must be 'refuse' or 'warn'"),
        ({"store": "postgres://x"}, "is an address; a store is a file"),
        ({"store": "sqlite:"}, "store must be 'sqlite:FILE' or a directory"),
        ({"store": "issuer.pem"}, "cannot make the directory"),
        ({"store": "x", "timestamp": "http://tsa.invalid"}, "timestamp needs key"),
        ({"key": 3}, "key must be text in quotes"),
        ({"key": []}, "key must be"),
        ({"key": "nowhere.pem"}, "cannot read the key"),
        ({"key": "issuer.pem", "timestamp": "http://tsa.invalid"}, "timestamp needs store"),
        ({"key": "issuer.pem", "store": "x", "timestamp": "ftp://tsa"}, r"must be the http\(s\) address"),
        ({"key": ["issuer.pem", "issuer.pem"]}, "each named once"),
        ({"key": "pkcs11:token=a"}, "its PIN is never in a file"),
    ],
)
def test_a_wrong_table_says_where_and_why(pair: Path, table: dict[str, Any], why: str) -> None:
    with pytest.raises(ConfigError, match=why) as error:
        configured(pair.parent, table)
    assert "purify.toml: [certificate]" in str(error.value)


def test_an_unknown_key_is_told_the_nearest() -> None:
    with pytest.raises(UnknownNameError, match="did you mean 'key'"):
        issuing(check_config({"llm": {}, "slm": {}, "certificate": {"keys": "a"}}).certificate)


def test_no_key_no_signature() -> None:
    assert issuing({}) == {"signer": None, "store": None}
    assert answer(length=2).certificate.envelope == ""


# A security module

MODULE = Path("/usr/lib/softhsm/libsofthsm2.so")
MAKE = """
import sys, pkcs11
lib = pkcs11.lib(sys.argv[1])
with lib.get_token(token_label="purify").open(rw=True, user_pin="1234") as session:
    curve = {pkcs11.Attribute.EC_PARAMS: bytes.fromhex("130c656477617264733235353139")}
    made = session.create_domain_parameters(pkcs11.KeyType.EC_EDWARDS, curve, local=True)
    made.generate_keypair(mechanism=pkcs11.Mechanism.EC_EDWARDS_KEY_PAIR_GEN, store=True, label="issuer")
"""


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """SoftHSM's token with a key that it made itself, by its URI."""
    pytest.importorskip("pkcs11", reason="the extra [pkcs11] is not installed")
    if not MODULE.exists() or not shutil.which("softhsm2-util"):
        pytest.skip("SoftHSM is not installed (apt-get install softhsm2)")
    (tmp_path / "tokens").mkdir()
    settings = tmp_path / "softhsm2.conf"
    settings.write_text(f"directories.tokendir = {tmp_path / 'tokens'}\nobjectstore.backend = file\n")
    monkeypatch.setenv("SOFTHSM2_CONF", str(settings))
    monkeypatch.setenv("ISSUER_PIN", "1234")
    token = [
        "softhsm2-util",
        "--init-token",
        "--free",
        "--label",
        "purify",
        "--pin",
        "1234",
        "--so-pin",
        "5678",
    ]
    subprocess.run(token, check=True, capture_output=True)
    subprocess.run(
        [sys.executable, "-c", MAKE, str(MODULE)], check=True
    )  # what opens it first keeps its settings
    return f"pkcs11:token=purify;object=issuer?module-path={MODULE}&pin-source=env:ISSUER_PIN"


def test_a_key_can_stay_in_a_security_module(module: str, monkeypatch: pytest.MonkeyPatch) -> None:
    key = signing_key(module)
    assert isinstance(key, TokenKey)
    assert key.public.verifies(key.sign(b"what is signed"), b"what is signed")
    made = issuing({"key": module})["signer"]
    assert made is not None
    found = made.signed(answer(length=2).certificate)
    assert opened(found.issued.encode(), [key.public]).signers == (key.public,)
    with pytest.raises(ConfigError, match="no key of a security module"):
        TokenKey(module.replace("object=issuer", "object=nobody")).sign(b"")
    monkeypatch.delenv("ISSUER_PIN")
    with pytest.raises(ConfigError, match="the PIN's environment variable 'ISSUER_PIN' is not set"):
        TokenKey(module).sign(b"")


def test_a_forked_process_has_a_chain_of_its_own(tmp_path: Path) -> None:
    """A child that went on with its parent's numbers would give two certificates one place."""
    made = issuing({"key": _written(HeldKey.new(), tmp_path)})["signer"]
    assert made is not None
    certificate = answer(length=2).certificate
    first = opened(made.signed(certificate).issued.encode()).statement
    read, write = os.pipe()
    if (child := os.fork()) == 0:
        os.write(write, made.signed(certificate).issued.encode())
        os._exit(0)
    os.close(write)
    os.waitpid(child, 0)
    with os.fdopen(read, "rb") as pipe:
        theirs = opened(pipe.read()).statement
    mine = opened(made.signed(certificate).issued.encode()).statement
    assert first
    assert theirs
    assert mine
    assert (theirs.link.sequence, mine.link.sequence) == (0, 1)
    assert theirs.link.chain != first.link.chain == mine.link.chain
    assert mine.link.previous == first.digest


def _written(key: HeldKey, folder: Path) -> str:
    file = folder / "key.pem"
    file.write_bytes(key.pem)
    file.chmod(0o600)
    return str(file)
