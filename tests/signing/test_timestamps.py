"""Time-stamps of a day's root, by an authority in a thread that `openssl ts` answers for."""

from __future__ import annotations

import shutil
import subprocess
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from purify_plugins.errors import ChainError, ConfigError, UncheckableError
from purify_plugins.plugin.manager import load_plugins
from purify_plugins.signing.keys import HeldKey
from purify_plugins.signing.signer import Signer
from purify_plugins.verifying.examine import Known, examined
from tests.signing.issuing import several

pytest.importorskip("rfc3161_client", reason="the extra [timestamp] is not installed")
KEY = HeldKey.new()
SETTINGS = """
[tsa]
default_tsa = one
[one]
serial = {folder}/serial
signer_digest = sha256
default_policy = 1.2.3.4
digests = sha256, sha384, sha512
ess_cert_id_alg = sha256
[req]
distinguished_name = name
[name]
[ca]
basicConstraints = critical,CA:TRUE
keyUsage = critical,keyCertSign
[leaf]
basicConstraints = CA:FALSE
keyUsage = critical,digitalSignature
extendedKeyUsage = critical,timeStamping
"""


@dataclass(frozen=True)
class Authority:
    """Where it answers, and the certificate of its root."""

    url: str
    root: bytes


def openssl(folder: Path, *arguments: str) -> None:
    subprocess.run(["openssl", *arguments], cwd=folder, check=True, capture_output=True)


def certified(folder: Path) -> None:
    """A root and the authority's own key, which it certifies."""
    (folder / "settings").write_text(SETTINGS.format(folder=folder))
    (folder / "serial").write_text("01")
    for name in ("root", "tsa"):
        openssl(folder, "genpkey", "-algorithm", "RSA", "-out", f"{name}.pem")
    root = ("-x509", "-key", "root.pem", "-subj", "/CN=Root", "-extensions", "ca", "-out", "root.crt")
    openssl(folder, "req", "-config", "settings", *root)
    openssl(
        folder, "req", "-config", "settings", "-new", "-key", "tsa.pem", "-subj", "/CN=TSA", "-out", "csr"
    )
    signed = ("-CA", "root.crt", "-CAkey", "root.pem", "-CAcreateserial", "-out", "tsa.crt")
    openssl(folder, "x509", "-req", "-in", "csr", *signed, "-extfile", "settings", "-extensions", "leaf")


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Authority]:
    if not shutil.which("openssl"):
        pytest.skip("openssl is not installed")
    folder = tmp_path_factory.mktemp("tsa")
    certified(folder)

    class Answering(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            (folder / "query").write_bytes(self.rfile.read(int(self.headers["Content-Length"])))
            reply = ("-reply", "-config", "settings", "-queryfile", "query", "-signer", "tsa.crt")
            openssl(folder, "ts", *reply, "-inkey", "tsa.pem", "-out", "response")
            self.send_response(200)
            self.end_headers()
            self.wfile.write((folder / "response").read_bytes())

        def log_message(self, *_: object) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), Answering)
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    yield Authority(f"http://127.0.0.1:{server.server_port}/", (folder / "root.crt").read_bytes())
    server.shutdown()
    server.server_close()


def check(data: bytes, folder: Path, authorities: bytes | None) -> str:
    known = Known((KEY.public,), chain=folder, authorities=authorities)
    return "\n".join(examined(data, known, load_plugins([])).findings)


def test_a_day_s_root_is_dated_and_the_date_is_checked(authority: Authority, tmp_path: Path) -> None:
    signer = Signer([KEY], tmp_path / "log", authority.url)
    [_, made] = several(2, signer)
    signer.close()
    data = made.issued.encode()
    assert "by an authority you gave" in check(data, tmp_path / "log", authority.root)
    assert "give --tsa FILE" in check(data, tmp_path / "log", None)
    with pytest.raises(ConfigError, match="no PEM file"):
        check(data, tmp_path / "log", b"none")
    [stamp] = (tmp_path / "log").glob("*.tsr")
    whole = bytearray(stamp.read_bytes())
    whole[-9] ^= 1
    stamp.write_bytes(bytes(whole))
    with pytest.raises(ChainError, match="not by an authority"):
        check(data, tmp_path / "log", authority.root)
    stamp.unlink()
    with pytest.raises(UncheckableError, match="no time-stamp"):
        check(data, tmp_path / "log", authority.root)


def test_an_authority_that_does_not_answer_is_logged_and_costs_no_answer(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    signer = Signer([KEY], tmp_path / "log", "http://127.0.0.1:9/")
    assert len(several(1, signer)) == 1
    signer.close()
    assert "has no time-stamp" in caplog.text
    assert [*(tmp_path / "log").glob("*.root.json")]
