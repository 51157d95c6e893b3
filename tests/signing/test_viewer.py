"""The viewer, in headless Chromium: the verdicts of a page that works offline."""

from __future__ import annotations

import base64
import hashlib
import html
import json
import re
import shutil
import subprocess
from pathlib import Path
from random import Random

import pytest

from purify_plugins.canonical_json import canonical, digest
from purify_plugins.signing.keys import HeldKey
from tests.signing.edits import inside, letter
from tests.signing.issuing import answer, sign

VIEWER = Path(__file__).parents[2] / "docs" / "viewer.html"
CHROMIUM = shutil.which("chromium")
FLAGS = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
)
KEY, OTHER = HeldKey.new(), HeldKey.new()
RUN = """<script>
const cases = %s, read = text => Uint8Array.from(atob(text), c => c.charCodeAt(0)), told = [];
(async () => {
  for (const each of cases) {
    await show(Object.fromEntries(Object.entries(each).map(([name, text]) => [name, read(text)])));
    const lines = [...document.querySelectorAll("li")].map(li => li.textContent);
    told.push([document.getElementById("verdict").textContent, lines]);
  }
  document.body.append(Object.assign(document.createElement("pre"), { textContent: JSON.stringify(told) }));
})();
</script></html>"""


def shown(folder: Path, cases: list[dict[str, bytes]]) -> list[tuple[str, list[str]]]:
    """The verdict and the findings of each case, by the page itself."""
    if CHROMIUM is None:
        pytest.skip("Chromium is not installed (apt-get install chromium)")
    encoded = [{name: base64.b64encode(data).decode() for name, data in each.items()} for each in cases]
    page = folder / "viewer.html"
    page.write_text(VIEWER.read_text("utf-8").replace("</html>", RUN % json.dumps(encoded)), "utf-8")
    order = [CHROMIUM, *FLAGS, f"--user-data-dir={folder / 'profile'}", "--virtual-time-budget=20000"]
    found = subprocess.run([*order, "--dump-dom", page.as_uri()], capture_output=True, text=True, timeout=240)
    [told] = re.findall("<pre>(.*?)</pre>", found.stdout, re.S)
    return [(verdict, lines) for verdict, lines in json.loads(html.unescape(told))]


@pytest.mark.slow
def test_the_page_says_what_the_command_says(tmp_path: Path) -> None:
    made = answer(length=8)
    signed, text, key = sign(made.certificate, KEY), made.text.encode(), KEY.public.pem.encode()
    whole = {"certificate": signed, "answer": text, "key": key}
    plain = made.certificate.text.encode()
    cases = {
        "HOLDS. The key you gave has signed it": whole,
        "HOLDS. The key you gave": {**whole, "answer": text + b"\r\n"},
        "CANNOT TELL, since it is signed": {"certificate": signed, "answer": text},
        "CANNOT TELL, since no answer": {"certificate": signed, "key": key},
        "DOES NOT HOLD: the key that you gave": {**whole, "key": OTHER.public.pem.encode()},
        "DOES NOT HOLD: the certificate is not for this": {**whole, "answer": text + b" "},
        "DOES NOT HOLD: the certificate is not signed": {**whole, "certificate": plain},
        "DOES NOT HOLD: that is a private key": {**whole, "key": KEY.pem},
        "DOES NOT HOLD: it is no JSON": {**whole, "certificate": signed[:-9]},
        "HOLDS, as far as it can": {"certificate": plain, "answer": text},
        "DOES NOT HOLD: its digest": {
            "certificate": plain.replace(b'"bytes":', b'"bytes":1', 1),
            "answer": text,
        },
    }
    for expected, (verdict, lines) in zip(cases, shown(tmp_path, [*cases.values()]), strict=True):
        assert verdict.startswith(f"Verdict: {expected}"), (expected, verdict)
        assert bool(lines) is not verdict.startswith("Verdict: DOES NOT")


@pytest.mark.slow
def test_the_page_names_a_card_and_a_signature_and_compares_a_card(tmp_path: Path) -> None:
    made, card = answer(length=3), b'{"format": "purify-card/1"}'
    body = json.loads(made.certificate.text)
    told = hashlib.sha256(card).hexdigest()
    body["models"]["slm"] |= {"card": {"sha256": told}, "signature": {"sha256": "1" * 64, "key": "2" * 64}}
    text = canonical({**body, "digest": digest(body)}).encode()
    given = {"certificate": text, "answer": made.text.encode()}
    cases = [
        {**given, "card": card},
        {**given, "card": b"{}"},
        {**given, "certificate": made.certificate.text.encode(), "card": card},
    ]
    (fine, lines), (other, _), (none, _) = shown(tmp_path, cases)
    assert fine.startswith("Verdict: HOLDS")
    assert f"has SHA-256 {told}: ask for it" in "\n".join(lines)
    assert f"the key it was checked with {'2' * 64}" in "\n".join(lines)
    assert "names another provenance card" in other
    assert "names no provenance card" in none


@pytest.mark.slow
def test_the_page_refuses_what_was_edited(tmp_path: Path) -> None:
    """Of what is signed; spellings of the envelope around it are the command's matter."""
    made = answer(length=3)
    signed, key = sign(made.certificate, KEY), KEY.public.pem.encode()
    edits = [inside(signed, Random(seed)) for seed in range(40)]
    edits += [letter(json.loads(signed)["payload"].encode(), Random(seed)) for seed in range(5)]
    cases = [
        {"certificate": each, "answer": made.text.encode(), "key": key} for each in edits if each != signed
    ]
    assert all(verdict.startswith("Verdict: DOES NOT HOLD") for verdict, _ in shown(tmp_path, cases))
