"""`purify-verify`, the light installation: small, quick, and of one mind with the full one."""

from __future__ import annotations

import importlib
import json
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from random import Random
from runpy import run_path
from typing import Any

import pytest

from purify_plugins import Purifier, Sampling
from purify_plugins.certificates.explain_stages import explained
from purify_plugins.plugin.manager import load_plugins
from purify_plugins.signing.keys import HeldKey
from purify_plugins.testbed import LLM, SLM
from purify_plugins.verifying.examine import Known, examined, in_order
from tests.signing.edits import forged, inside, letter
from tests.signing.issuing import answer, published, sign
from tests.toys import real

ROOT = Path(__file__).parents[2]
LIGHT = ROOT / "packages" / "purify-verify"
ALLOWED = {"purify_verify", "cryptography", "_cffi_backend", "_openssl"}
PROBE = """
import sys
sys.path.insert(0, sys.argv[1])
before = set(sys.modules)
from purify_verify.verifying.command import main
from purify_verify.verifying.shelf import Shelf
code = main(Shelf(), sys.argv[2:])
ours = {name.partition(".")[0] for name in set(sys.modules) - before}
print(sorted(ours - set(sys.stdlib_module_names)), file=sys.stderr)
sys.exit(code)
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The modules of the wheel, as a build would put them into it."""
    made = tmp_path_factory.mktemp("light")
    run_path(str(LIGHT / "collect.py"))["write"](made)
    return made


@dataclass(frozen=True)
class Light:
    """The light installation's own functions and classes."""

    examined: Any
    in_order: Any
    explained: Any
    known: Any
    shelf: Any
    error: Any
    key: Any


@pytest.fixture(scope="module")
def light(folder: Path) -> Iterator[Light]:
    sys.path.insert(0, str(folder))
    try:
        found = importlib.import_module("purify_verify.verifying.examine")
        yield Light(
            found.examined,
            found.in_order,
            importlib.import_module("purify_verify.certificates.explain_stages").explained,
            found.Known,
            importlib.import_module("purify_verify.verifying.shelf").Shelf(),
            importlib.import_module("purify_verify.errors").PurifyError,
            importlib.import_module("purify_verify.signing.keys").PublicKey,
        )
    finally:
        sys.path.remove(str(folder))


def test_it_needs_the_standard_library_and_cryptography(folder: Path, tmp_path: Path) -> None:
    key = HeldKey.new()
    (tmp_path / "answer.json").write_bytes(sign(answer(length=2).certificate, key))
    asked = [str(tmp_path / "answer.json"), "--key", str(published(key, tmp_path)), "--policy", "balanced"]
    order = [sys.executable, "-c", PROBE, str(folder), *asked]
    found = subprocess.run(order, capture_output=True, text=True, check=False)
    assert found.returncode == 0, found.stderr
    assert found.stdout.startswith("Verdict: HOLDS. The key you gave has signed it")
    assert set(json.loads(found.stderr.replace("'", '"'))) <= ALLOWED


def test_what_it_prints_is_what_the_full_one_prints(light: Light) -> None:
    key = HeldKey.new()
    data = sign(answer(length=8).certificate, key)
    full = examined(data, Known(keys=(key.public,)), load_plugins([]))
    found = light.examined(data, light.known(keys=(light.key(key.public.raw),)), light.shelf)
    expected = in_order(full, explained(full.certificate, None, ["key"]))
    assert light.in_order(found, light.explained(found.certificate, None, ["key"])) == expected


# Agreement


def originals() -> list[str]:
    """Certificates of many kinds: policies, walks, greedy ones, a grammar, another tokenizer, stages."""
    policies = ("balanced", "windowed", "capped", "geometric", "anchored", "consistency", "minimum")
    found = [answer(length=6, policy=policy).certificate.text for policy in policies]
    greedy = real("balanced").generate("The king", Sampling(max_tokens=4, temperature=0.0), errors="raise")
    stops = Sampling(max_tokens=9, stop=("e",), top_p=0.9, temperature=0.7)
    stopped = real("balanced").generate("The king", stops, errors="raise")
    from purify_hooks.stages.ensemble import Ensemble

    chain = Purifier.load(LLM, SLM, stages=[Ensemble(n=2)])
    staged = chain.generate("The king", max_tokens=4, errors="raise")
    return [*found, *(each.certificate.text for each in (*greedy, *stopped, *staged))]


def outcome(check: Any, data: bytes, known: Any, policies: Any, error: type[Exception]) -> tuple[Any, ...]:
    try:
        found = check(data, known, policies)
    except error as refusal:
        return type(refusal).__name__, str(refusal)
    return found.code, found.verdict, found.findings


def candidates(count: int) -> Iterator[bytes]:
    """Real ones, and ones that were edited with their digest made again, or not, or by a letter."""
    key, texts = HeldKey.new(), originals()
    for seed in range(count):
        random = Random(seed)
        text = random.choice(texts)
        kind = seed % 8
        if kind == 0:
            yield text.encode()
        elif kind < 5:
            yield forged(text, random)[0].encode(errors="surrogatepass")
        elif kind == 5:
            yield forged(text, random, mend=False)[0].encode(errors="surrogatepass")
        elif kind == 6:
            yield letter(text.encode(), random)
        else:
            yield inside(sign(answer(length=6).certificate, key), random)


def agree(light: Light, count: int) -> dict[str, int]:
    plugins, known, seen = load_plugins([]), Known(), {}
    for data in candidates(count):
        from purify_plugins.errors import PurifyError

        full = outcome(examined, data, known, plugins, PurifyError)
        found = outcome(light.examined, data, light.known(), light.shelf, light.error)
        assert found == full, data
        seen[str(full[0])] = seen.get(str(full[0]), 0) + 1
    return seen


def test_full_and_light_say_the_same(light: Light) -> None:
    seen = agree(light, 160)
    assert {"0", "ForgedError", "NoCertificateError"} <= seen.keys()


@pytest.mark.slow
def test_full_and_light_say_the_same_of_a_thousand(light: Light) -> None:
    assert sum(agree(light, 1000).values()) == 1000


# The wheel


@pytest.mark.slow
def test_the_wheel_is_small(tmp_path: Path) -> None:
    order = [sys.executable, "-m", "build", "--wheel", "--no-isolation", str(LIGHT), "-o", str(tmp_path)]
    subprocess.run(order, check=True, capture_output=True)
    [wheel] = tmp_path.glob("*.whl")
    assert wheel.stat().st_size <= 100_000
    with zipfile.ZipFile(wheel) as held:
        names = [name for name in held.namelist() if name.endswith(".py")]
        [metadata] = [name for name in held.namelist() if name.endswith("METADATA")]
        needs = [
            line for line in held.read(metadata).decode().splitlines() if line.startswith("Requires-Dist")
        ]
    assert all(name.startswith("purify_verify/") for name in names)
    assert needs == ["Requires-Dist: cryptography>=45"]


@pytest.mark.slow
@pytest.mark.alone
def test_it_starts_within_a_third_of_a_second(folder: Path, tmp_path: Path) -> None:
    """CPU seconds of the best of five: what else runs on the machine must not decide."""
    import resource

    (tmp_path / "answer.json").write_text(answer(length=8).certificate.text, "utf-8")
    times = []
    for _ in range(5):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        order = [sys.executable, "-I", "-c", PROBE, str(folder), str(tmp_path / "answer.json")]
        subprocess.run(order, check=True, capture_output=True)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        times.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    assert min(times) <= 0.3
