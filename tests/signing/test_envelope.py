"""DSSE envelopes, by the specification's own vectors."""

from __future__ import annotations

import base64
import json

import pytest

from purify_plugins.errors import CertificateError, NoCertificateError
from purify_plugins.signing.envelope import pae, read_envelope
from purify_plugins.signing.keys import PublicKey
from purify_plugins.verifying.opening import require_signed
from tests.signing.vectors import KEYS, VECTORS, Vector


def received(vector: Vector) -> bytes:
    signatures = [
        {"sig": sig, **({} if keyid is None else {"keyid": keyid})} for keyid, sig in vector.signatures
    ]
    envelope = {"payload": vector.payload, "payloadType": vector.kind, "signatures": signatures}
    return json.dumps(envelope).encode()


def accepts(vector: Vector) -> bool:
    """A verifier as the specification describes it, of our parts."""
    envelope = read_envelope(received(vector))
    keys = [PublicKey(bytes.fromhex(KEYS[name])) for name in vector.keys]
    try:
        require_signed(envelope, keys)
    except CertificateError:
        return False
    return envelope.payload_type in vector.supported


@pytest.mark.parametrize("name", VECTORS)
def test_the_specification_s_vectors(name: str) -> None:
    vector = VECTORS[name]
    assert accepts(vector) is vector.accepted
    if vector.accepted:
        assert read_envelope(received(vector)).signed.hex() == vector.pae


def test_the_specification_s_example() -> None:
    """Of protocol.md: its key is an ECDSA one, so that the bytes are checked, and the signature of them."""
    from cryptography.hazmat.primitives.asymmetric import ec, utils
    from cryptography.hazmat.primitives.hashes import SHA256

    kind = "http://example.com/HelloWorld"
    assert pae(kind, b"hello world") == b"DSSEv1 29 http://example.com/HelloWorld 11 hello world"
    sig = "A3JqsQGtVsJ2O2xqrI5IcnXip5GToJ3F+FnZ+O88SjtR6rDAajabZKciJTfUiHqJPcIAriEGAHTVeCUjW2JIZA=="
    found = json.dumps({"payload": "aGVsbG8gd29ybGQ=", "payloadType": kind, "signatures": [{"sig": sig}]})
    envelope = read_envelope(found.encode())
    raw = envelope.signatures[0].sig
    x = 46950820868899156662930047687818585632848591499744589407958293238635476079160
    y = 5640078356564379163099075877009565129882514886557779369047442380624545832820
    key = ec.EllipticCurvePublicNumbers(x, y, ec.SECP256R1()).public_key()
    der = utils.encode_dss_signature(int.from_bytes(raw[:32], "big"), int.from_bytes(raw[32:], "big"))
    key.verify(der, envelope.signed, ec.ECDSA(SHA256()))


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "{}",
        '{"payload":"","payloadType":"x","signatures":[]}',
        '{"payload":"","payloadType":"x","signatures":[{}]}',
        '{"payload":"","payloadType":"x","signatures":[{"sig":1}]}',
        '{"payload":"*","payloadType":"x","signatures":[{"sig":""}]}',
        '{"payload":"","payload":"","payloadType":"x","signatures":[{"sig":""}]}',
        '{"payload":"","payloadType":"x","signatures":[{"sig":"","sig":""}]}',
        '{"payload":"","payloadType":"x","signatures":[{"sig":""}],"steps":[]}',
        '{"payload":NaN,"payloadType":"x","signatures":[{"sig":""}]}',
        '{"payload":{"a":1},"payloadType":"x","signatures":[{"sig":""}]}',
        "[" * 100_000,
        "\ufeff{}",
    ],
)
def test_what_is_no_envelope_is_refused(text: str) -> None:
    with pytest.raises(NoCertificateError, match="no signed certificate"):
        read_envelope(text.encode())


def test_a_type_cannot_run_into_the_bytes() -> None:
    """What separates them is their lengths: no two pairs have one encoding."""
    pairs = [("a", b"b"), ("a 1", b""), ("", b"a 1 b"), ("a", b" b"), ("a ", b"b"), ("1", b"1 1")]
    assert len({pae(kind, body) for kind, body in pairs}) == len(pairs)


def test_base64_of_another_spelling_is_the_same_envelope_spelled_canonically() -> None:
    vector = VECTORS["url-safe-base64"]
    envelope = read_envelope(received(vector))
    assert json.loads(envelope.text)["payload"] == base64.b64encode(envelope.payload).decode()
