"""Keys, signatures and cards of the test bed's SLM, made as their makers make them."""

from __future__ import annotations

import json
import shutil
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat
from cryptography.x509.oid import NameOID

from purify_hooks.cards.skeleton import skeleton
from purify_plugins.plugin.manager import load_plugins
from purify_plugins.protocols import LogitSource
from purify_plugins.testbed import SLM

Key = ec.EllipticCurvePrivateKey


def copied(folder: Path, model: Path = SLM) -> Path:
    """A copy of a model that may be changed."""
    return Path(shutil.copytree(model, folder / "model"))


def private(folder: Path, name: str = "signer") -> Key:
    """A new key, and both halves as files."""
    key = ec.generate_private_key(ec.SECP256R1())
    secret = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    (folder / f"{name}.pem").write_bytes(secret)
    public = key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    (folder / f"{name}.pub.pem").write_bytes(public)
    return key


def signed(folder: Path, model: Path, name: str = "signer", links: bool = False) -> dict[str, str]:
    """The keys of a table whose model was signed by a new key of that name."""
    from model_signing import hashing, signing

    if not (folder / f"{name}.pem").exists():
        private(folder, name)
    config = signing.Config().use_elliptic_key_signer(private_key=folder / f"{name}.pem")
    config.set_hashing_config(hashing.Config().set_allow_symlinks(links))
    config.sign(model, folder / f"{name}.sig")
    return {
        "model": str(model),
        "signature": str(folder / f"{name}.sig"),
        "signature_key": str(folder / f"{name}.pub.pem"),
    }


def load(table: dict[str, Any]) -> LogitSource:
    return load_plugins([]).source(table)


def filled(table: dict[str, Any]) -> dict[str, Any]:
    """The card of a model, filled in."""
    source = load({key: table[key] for key in ("model", "source") if key in table})
    made = skeleton(source, Path(table["model"]))
    made["licence"] = {"name": "Apache-2.0", "source": "LICENSE"}
    made["training_data"] = [{"name": "Ten books", "origin": "corpus/README.md", "licence": "public domain"}]
    made["checks"] = [{"what": "names", "found": "none", "by": "A. Reader", "on": "2026-11-28"}]
    made["vouched_by"] = {"name": "A. Reader", "contact": "reader@example.org", "on": "2026-11-29"}
    return made


def write(file: Path, card: dict[str, Any]) -> Path:
    file.write_text(json.dumps(card), "utf-8")
    return file


def other_kind(folder: Path) -> Path:
    """The public half of an Ed25519 key."""
    public = ed25519.Ed25519PrivateKey.generate().public_key()
    (folder / "ed.pub.pem").write_bytes(public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))
    return folder / "ed.pub.pem"


def certified(folder: Path, name: str, issuer: tuple[Key, x509.Certificate] | None = None) -> Any:
    """A key and its certificate, an authority's own or one that an authority issued, as files too."""
    key = private(folder, name)
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    now = datetime.now(UTC)
    usage = dict.fromkeys(
        ("content_commitment", "key_encipherment", "data_encipherment", "key_agreement"), False
    )
    ca = issuer is None
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject if issuer is None else issuer[1].subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=30))
        .add_extension(x509.BasicConstraints(ca=ca, path_length=None), critical=True)
        .add_extension(
            x509.KeyUsage(
                digital_signature=not ca,
                key_cert_sign=ca,
                crl_sign=ca,
                encipher_only=False,
                decipher_only=False,
                **usage,
            ),
            critical=True,
        )
    )
    found = builder.sign(key if issuer is None else issuer[0], hashes.SHA256())
    (folder / f"{name}.crt").write_bytes(found.public_bytes(Encoding.PEM))
    return key, found
