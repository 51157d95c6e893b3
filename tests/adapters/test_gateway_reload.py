"""The gateway takes another configuration over whole or not at all, and answers go on meanwhile."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest

from purify_plugins.certificates import read, verify
from purify_plugins.cli.options import load_pair, prepared
from purify_plugins.cli.reload import Attempts, Hangups, Reloads, hangups, renewed, settled, told
from purify_plugins.configuration.config import Config, read_config
from purify_plugins.configuration.digest import config_digest
from purify_plugins.errors import ConfigError
from purify_plugins.testbed import LLM, SLM, SLM_1024
from tests.adapters.gateways import Served, serving

ASKED = {"inputs": "Once upon a time", "parameters": {"max_new_tokens": 4, "do_sample": True}}


def written(file: Path, policy: str = "geometric", slm: Path = SLM, **parameters: float) -> Config:
    """A configuration of the test bed's pair, written to a file and read from there."""
    rest = "".join(f"{name} = {number}\n" for name, number in parameters.items())
    file.write_text(f'[llm]\nmodel = "{LLM}"\n[slm]\nmodel = "{slm}"\n[policy]\nname = "{policy}"\n{rest}')
    return read_config(file)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "purify.toml"


@pytest.fixture
def served(file: Path) -> Iterator[Served]:
    config = written(file, alpha=0.5)
    purifier = load_pair(prepared(config)).replace(configuration=config_digest(config))
    with serving(purifier, certificates=64) as found:
        yield found


def certified(served: Served) -> dict[str, Any]:
    """The `method` of a new answer's certificate."""
    digest = served.post("/generate", ASKED).headers["x-purify-certificate"]
    method: dict[str, Any] = served.client.get(f"/certificates/{digest}").json()["method"]
    return method


def test_a_reload_changes_the_policy_and_the_digest_and_loads_no_model_again(
    served: Served, file: Path
) -> None:
    before, models = read_config(file), served.app.models
    now = written(file, alpha=0.25)
    assert served.client.get("/info").json()["configuration"] == config_digest(before)
    Attempts(before, served.app).attempt(now)()
    method = certified(served)
    assert (method["parameters"], method["configuration"]) == (
        {"alpha": 0.25},
        {"sha256": config_digest(now)},
    )
    assert served.client.get("/info").json()["configuration"] == config_digest(now) != config_digest(before)
    assert served.app.models == models
    assert "changed: policy; models loaded: none; " in told(now, before)


def test_a_model_whose_settings_changed_is_loaded_again_and_the_other_is_not(
    served: Served, file: Path
) -> None:
    before, models = read_config(file), served.app.models
    now = written(file, slm=SLM_1024)
    found = renewed(now, before, models)
    assert found.given_models[0] is models["llm"]
    assert found.given_models[1] is not models["slm"]
    assert "models loaded: slm; " in told(now, before)


def test_a_certificate_with_a_configuration_is_verified_and_one_without_has_no_such_field(
    served: Served, file: Path
) -> None:
    plain = served.app.purifier.replace(configuration=None)
    for purifier, digest in ((served.app.purifier, config_digest(read_config(file))), (plain, None)):
        [completion] = purifier.generate("Once", max_tokens=3)
        proof = read(completion.certificate.text)
        verify(proof, purifier.plugins)
        told = completion.certificate.body["method"].get("configuration")
        assert told == (None if digest is None else {"sha256": digest})
    with pytest.raises(ConfigError, match="64 hexadecimal digits"):
        plain.replace(configuration="mine")


def until(condition: Callable[[], Any], seconds: float = 60.0) -> Any:
    end = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < end
        time.sleep(0.02)
    return found


def test_a_bad_file_is_refused_in_a_line_and_the_old_one_goes_on(
    served: Served, file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    hangup, config, said = Hangups(), read_config(file), ""
    Reloads(lambda: read_config(file), config, served.app).start(hangup)
    for wrong, named in (
        ("[llm", "not valid TOML"),
        (f'[llm]\nmodel = "{LLM}"\n[slm]\nmodel = "{SLM}"\n[policy]\nname = "geometrc"', "geometrc"),
        (f'[llm]\nmodel = "{LLM}"\n[slm]\nmodel = "/nowhere"', "/nowhere"),
        (f'[llm]\nmodel = "{LLM}"\n[slm]\nmodel = "{SLM}"\nport = 80', "port"),
    ):
        file.write_text(wrong)
        hangup.came(signal.SIGHUP)
        said = until(lambda: capsys.readouterr().err)
        assert said.startswith("reload refused: ")
        assert said.endswith("; the configuration of before goes on\n")
        assert named in said
        assert certified(served)["configuration"]["sha256"] == config_digest(config)
    written(file, alpha=0.5)
    hangup.came(signal.SIGHUP)
    assert "nothing has changed" in until(lambda: capsys.readouterr().err)
    now = written(file, alpha=0.75)
    hangup.came(signal.SIGHUP)
    assert f"reloaded: configuration {config_digest(now)}" in until(lambda: capsys.readouterr().err)
    assert certified(served)["configuration"]["sha256"] == config_digest(now)


def test_answers_in_flight_end_under_the_configuration_they_began_with(served: Served, file: Path) -> None:
    """Through a storm of reloads, each while twenty-five streams run."""
    old, new = read_config(file), written(file, alpha=0.25)
    attempts = Attempts(old, served.app)
    body = {"inputs": "Once upon", "parameters": {"max_new_tokens": 24, "do_sample": True}}
    taken: list[str] = []

    def stream(_: int) -> dict[str, Any]:
        with httpx.stream("POST", f"{served.url}/generate_stream", json=body, timeout=60) as found:
            last = [line for line in found.iter_lines() if line.startswith("data:")][-1]
        digest = json.loads(last.removeprefix("data:"))["purify"]["certificate"]
        kept: dict[str, Any] = served.client.get(f"/certificates/{digest}").json()["method"]
        return kept

    def storm() -> None:
        for config in (new, old) * 5:
            attempts.attempt(config)()
            taken.append(config_digest(config))

    with ThreadPoolExecutor(26) as pool:
        storming, found = pool.submit(storm), list(pool.map(stream, range(25)))
        storming.result()
    alphas = {config_digest(old): 0.5, config_digest(new): 0.25}
    assert [method["parameters"]["alpha"] for method in found] == [
        alphas[method["configuration"]["sha256"]] for method in found
    ]
    assert (len(found), len(taken)) == (25, 10)
    assert served.idle()


def test_a_file_that_is_still_being_written_is_not_taken(file: Path) -> None:
    """Half of a file may be valid, and lack what protects: it was taken as it stood."""
    whole = written(file, alpha=0.5)
    text = file.read_text()
    parts = iter([text[: text.index("[policy]")], text[: text.index("alpha")]])

    def slowly() -> Config:
        file.write_text(next(parts, text))
        return read_config(file)

    assert settled(slowly) == whole


def test_a_configuration_s_digest_is_of_what_it_says_and_of_no_secret(file: Path) -> None:
    config = written(file, alpha=0.5)
    text = file.read_text()
    file.write_text("# a comment\n" + text.replace("alpha = 0.5", "alpha   =   0.5"))
    assert config_digest(read_config(file)) == config_digest(config)
    assert config_digest(written(file, alpha=0.25)) != config_digest(config)
    secret = replace(config, llm={**config.llm, "api_key": "s3cret", "url": "http://me:pw@host"})
    other = replace(config, llm={**config.llm, "api_key": "another", "url": "http://host"})
    assert config_digest(secret) == config_digest(other) != config_digest(config)


@pytest.mark.skipif(not hasattr(signal, "SIGHUP"), reason="this system has no SIGHUP")
def test_a_signal_during_the_start_is_kept_until_there_is_something_to_reload() -> None:
    with hangups() as hangup:
        os.kill(os.getpid(), signal.SIGHUP)
        assert hangup.taken()
        assert not hangup.taken()
        os.kill(os.getpid(), signal.SIGHUP)
        hangup.wait()


FLOODED = """
import os, threading, time
from purify_plugins.cli.reload import hangups
with hangups() as hangup:
    seen = threading.Event()

    def taking():
        while True:
            hangup.wait()
            seen.set()

    threading.Thread(target=taking, daemon=True).start()
    print("on", flush=True)
    while not seen.is_set() or hangup.taken():
        time.sleep(0.1)
    print("well", flush=True)
    os._exit(0)
"""


@pytest.mark.skipif(not hasattr(signal, "SIGHUP"), reason="this system has no SIGHUP")
def test_signals_faster_than_their_handler_neither_stop_nor_end_the_service() -> None:
    """The second of two waited for a lock that the first held, which it had interrupted."""
    command = [sys.executable, "-c", FLOODED]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "on\n"
        end = time.monotonic() + 0.5
        while time.monotonic() < end:
            process.send_signal(signal.SIGHUP)
        try:
            said, wrong = process.communicate(timeout=60)
        finally:
            process.kill()
    assert (process.returncode, said, wrong) == (0, "well\n", "")


@pytest.mark.slow
@pytest.mark.alone
@pytest.mark.parametrize("workers", [1, 2])
def test_sighup_reloads_all_workers_or_none(workers: int, file: Path) -> None:
    """With real processes, streams under way, a signal during the start, and a worker that dies."""
    old = written(file, alpha=0.5)
    command = [sys.executable, "-m", "purify_plugins", "serve", "--config", str(file), "--port", "0"]
    log = file.parent / "log"
    with log.open("w") as said, ThreadPoolExecutor(8) as pool:
        process = subprocess.Popen([*command, "--workers", str(workers)], stderr=said)
        try:
            until(lambda: "loading " in log.read_text(), 240)  # before that, a signal ends the process
            process.send_signal(signal.SIGHUP)
            url = until(lambda: re.search(r"try: curl (http://[\d.:]+)", log.read_text()), 240)[1]

            def seen(_: int = 0) -> str:
                return str(httpx.get(f"{url}/info", trust_env=False, timeout=60).json()["configuration"])

            def ask(_: int) -> int:
                return httpx.post(f"{url}/generate", json=ASKED, trust_env=False, timeout=60).status_code

            until(lambda: "nothing has changed" in log.read_text(), 120)
            asking = [pool.submit(ask, number) for number in range(100)]
            new = written(file, alpha=0.25)
            for _ in range(20):
                process.send_signal(signal.SIGHUP)
            until(lambda: f"reloaded: configuration {config_digest(new)}" in log.read_text(), 120)
            assert {seen() for _ in range(20)} == {config_digest(new)}
            file.write_text("[llm")
            process.send_signal(signal.SIGHUP)
            until(lambda: "reload refused" in log.read_text(), 120)
            assert {seen() for _ in range(20)} == {config_digest(new)} != {config_digest(old)}
            assert {job.result() for job in asking} == {200}
            process.send_signal(signal.SIGTERM)
            assert process.wait(60) == 0
        finally:
            process.kill()
            process.wait()
    assert "Traceback" not in log.read_text()
