"""A purify.toml in a stranger's checkout sends no secret anywhere and shows none."""

from __future__ import annotations

import json
import os
import re
import stat
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Barrier, BrokenBarrierError, Thread
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from purify_plugins import ConfigError, ModelError, Purifier, PurifyError
from purify_plugins.cli import app
from purify_plugins.configuration import consent
from purify_plugins.configuration.build import build
from purify_plugins.configuration.config import check_config, read_config
from purify_plugins.configuration.consent import store
from purify_plugins.configuration.find import find_config, permitted
from purify_plugins.configuration.secrets import Secret, secret_keys, secrets
from purify_plugins.testbed import LLM, SLM

SECRET = "wJalrXUtnFEMI-K7MDENG"
SENDING = ("tgi", "vllm", "llama_cpp", "llama_cpp_python")


class Listener(ThreadingHTTPServer):
    """A stranger's server, and all that it was told."""

    heard: list[str]

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


class _Hearing(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        server: Any = self.server
        server.heard.append(f"{self.path} {self.headers}")
        self.send_error(404)

    do_POST = do_GET

    def log_message(self, *_: Any) -> None:
        """Tests are quiet."""


@pytest.fixture
def stranger() -> Iterator[Listener]:
    server = Listener(("127.0.0.1", 0), _Hearing)
    server.heard = []
    Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


@pytest.fixture(autouse=True)
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory somebody has cloned, in which they stand with a secret in their environment."""
    folder = tmp_path / "checkout"
    folder.mkdir()
    monkeypatch.chdir(folder)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
    monkeypatch.delenv("PURIFY_CONFIG", raising=False)
    return folder


def hostile(url: str, source: str = "tgi", name: str = "purify.toml", key: str = "api_key_env") -> Path:
    table = "tool.purify." if name == "pyproject.toml" else ""
    text = f"""
[{table}llm]
source = '{source}'
url = '{url}'
tokenizer = '{LLM}'
{key} = 'AWS_SECRET_ACCESS_KEY'
[{table}slm]
model = '{SLM}'
"""
    Path(name).write_text(text)
    return Path(name)


def purify(*arguments: str) -> Result:
    return CliRunner().invoke(app, list(arguments), catch_exceptions=True)


COMMANDS: dict[str, tuple[str, ...]] = {
    "check": ("check",),
    "generate": ("generate", "A"),
    "chat": ("chat",),
    "serve": ("serve",),
    "policies": ("policies",),
    "status": ("status",),
    "run": ("run", "app.py"),
}


@pytest.mark.parametrize("source", SENDING)
@pytest.mark.parametrize("command", COMMANDS)
def test_no_command_sends_a_secret_for_a_file_that_was_only_found(
    stranger: Listener, command: str, source: str
) -> None:
    """`purify check` in a checkout sent $AWS_SECRET_ACCESS_KEY to the URL beside its name."""
    hostile(stranger.url, source)
    Path("app.py").write_text("print('ran')")
    answered = purify(*COMMANDS[command])
    assert answered.exit_code not in (0, 1), answered.output
    told = answered.output + answered.stderr
    assert f"gives $AWS_SECRET_ACCESS_KEY (api_key_env) to {stranger.url}" in told
    assert "if you trust it, run `purify allow purify.toml` once" in told.replace(str(Path.cwd()) + "/", "")
    assert SECRET not in told
    assert "Traceback" not in told
    assert stranger.heard == []


def by_langchain() -> Any:
    from purify_adapters.langchain import ChatPurified

    return ChatPurified()


def by_llama_index() -> Any:
    from purify_adapters.llama_index import PurifiedLLM

    return PurifiedLLM.from_config()


def by_activation() -> Any:
    import purify_plugins

    return purify_plugins.activate()


WAYS = {
    "from Python": Purifier.from_config,
    "read": read_config,
    "LangChain": by_langchain,
    "LlamaIndex": by_llama_index,
    "activate": by_activation,
}


@pytest.mark.parametrize("name", ["purify.toml", "pyproject.toml"])
@pytest.mark.parametrize("way", WAYS)
def test_no_way_into_the_library_does_either(stranger: Listener, way: str, name: str) -> None:
    hostile(stranger.url, name=name)
    with pytest.raises(
        ConfigError, match=rf"{name} \[llm\] gives \$AWS_SECRET_ACCESS_KEY .*run `purify allow"
    ):
        WAYS[way]()
    assert stranger.heard == []


def test_a_file_beside_a_program_is_only_found_too(stranger: Listener, tmp_path: Path) -> None:
    hostile(stranger.url)
    Path("app.py").write_text("print('ran')")
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    command = [sys.executable, "-m", "purify_plugins", "run", str(Path("app.py").absolute())]
    ran = subprocess.run(command, cwd=elsewhere, capture_output=True, text=True, timeout=200)
    assert ran.returncode == 78
    assert "gives $AWS_SECRET_ACCESS_KEY" in ran.stderr
    assert SECRET not in ran.stdout + ran.stderr
    assert stranger.heard == []


def test_what_was_allowed_once_is_read_until_it_changes(stranger: Listener) -> None:
    file = hostile(stranger.url)
    allowed = purify("allow")
    assert allowed.exit_code == 0
    assert f"purify.toml [llm] gives $AWS_SECRET_ACCESS_KEY (api_key_env) to {stranger.url}" in allowed.output
    assert SECRET not in allowed.output
    assert find_config() == file
    with pytest.raises(PurifyError) as failed:
        Purifier.from_config()
    assert any(SECRET in each for each in stranger.heard)  # the user has said so
    assert SECRET not in str(failed.value)
    file.write_text(file.read_text() + "# changed\n")
    with pytest.raises(ConfigError, match=r"run `purify allow purify\.toml` once"):
        find_config()
    assert purify("allow", "purify.toml").exit_code == 0
    assert find_config() == file


def test_consent_does_not_hang_on_what_the_environment_holds(
    stranger: Listener, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`purify allow` with the variable unset said nothing of it; set later, it was sent without asking."""
    file = hostile(stranger.url)
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    with pytest.raises(ConfigError, match=r"gives \$AWS_SECRET_ACCESS_KEY \(api_key_env\)"):
        find_config()
    told = purify("allow").output
    assert f"purify.toml [llm] gives $AWS_SECRET_ACCESS_KEY (api_key_env) to {stranger.url}" in told
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
    assert find_config() == file


def test_what_was_allowed_covers_no_more_than_what_was_shown(tmp_path: Path) -> None:
    """A link inside the checkout that is turned elsewhere leaves the file's content as it was."""
    Path("purify.toml").write_text(
        f"[llm]\nmodel = '{LLM}'\n[slm]\nmodel = '{SLM}'\n[activation]\nstatus = 'link'\n"
    )
    Path("link").symlink_to(tmp_path / "one")
    assert f"writes into {tmp_path / 'one'}, which is outside" in purify("allow").output
    assert find_config()
    Path("link").unlink()
    Path("link").symlink_to(tmp_path / "other")
    with pytest.raises(ConfigError, match=f"writes into {tmp_path / 'other'}"):
        find_config()


def test_allow_says_which_models_servers_and_plugins_a_file_names() -> None:
    hostile("http://user:hunter2@127.0.0.1:9")
    Path("purify.toml").write_text("plugins = ['purify-strange']\n" + Path("purify.toml").read_text())
    told = purify("allow").output
    assert f"purify.toml [llm] source tgi, tokenizer {LLM}, url http://127.0.0.1:9\n" in told
    assert f"purify.toml [slm] model {SLM}\n" in told
    assert "purify.toml plugins: purify-strange\n" in told


def test_two_that_are_allowed_at_once_are_both_remembered(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each wrote what it had read before the other wrote: one was forgotten."""
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "home"))
    read, both = consent._remembered, Barrier(2, timeout=1)

    def slowly() -> Mapping[str, str]:
        found = read()
        with suppress(BrokenBarrierError):  # the other waits for its turn
            both.wait()
        return found

    monkeypatch.setattr(consent, "_remembered", slowly)
    files = [tmp_path / name for name in ("a.toml", "b.toml")]
    threads = [Thread(target=consent.allow, args=(file, b"", ["x"])) for file in files]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert read().keys() == {str(file.resolve()) for file in files}


def test_allow_says_where_there_is_nothing_to_allow() -> None:
    Path("purify.toml").write_text(f"[llm]\nmodel = '{LLM}'\n[slm]\nmodel = '{SLM}'\n")
    told = purify("allow")
    assert told.exit_code == 0
    assert "nothing here needs allowing" in told.output
    assert not store().exists()


def test_a_strangers_words_cannot_hide_what_stands_above_them() -> None:
    escape = "\\u001b[2K\\r"
    Path("purify.toml").write_text(f"[llm]\nurl = 'http://127.0.0.1:9'\napi_key_env = \"NO{escape}\"\n")
    told = purify("allow").output
    assert "\x1b" not in told
    assert "\r" not in told
    assert r"gives $NO\x1b[2K\r (api_key_env) to http://127.0.0.1:9" in told


def test_a_model_in_a_list_of_tables_is_looked_at_too() -> None:
    Path("purify.toml").write_text(
        "[[llm.members]]\nurl = 'http://127.0.0.1:9'\ntoken_env = 'NOT_SET_YET'\n[slm]\n"
    )
    with pytest.raises(ConfigError, match=r"\[llm.members\] gives \$NOT_SET_YET \(token_env\)"):
        find_config()


def test_the_same_text_elsewhere_is_another_file(stranger: Listener, tmp_path: Path) -> None:
    file = hostile(stranger.url)
    purify("allow")
    copy = tmp_path / "copy"
    copy.mkdir()
    (copy / "purify.toml").write_text(file.read_text())
    os.chdir(copy)
    with pytest.raises(ConfigError, match="gives"):
        find_config()


def test_a_file_that_was_named_needs_nobody_s_leave(monkeypatch: pytest.MonkeyPatch) -> None:
    file = hostile("http://127.0.0.1:9")
    assert find_config(file) == file
    monkeypatch.setenv("PURIFY_CONFIG", str(file))
    assert find_config() == file


def test_what_the_user_allowed_is_theirs_alone_to_read() -> None:
    hostile("http://127.0.0.1:9")
    purify("allow")
    assert stat.S_IMODE(store().parent.stat().st_mode) == 0o700
    store().write_text("{")
    with pytest.raises(ConfigError, match="gives"):  # a damaged list allows nothing
        find_config()


def test_an_ordinary_file_is_read_as_ever() -> None:
    Path("purify.toml").write_text(f"[llm]\nmodel = '{LLM}'\n[slm]\nmodel = '{SLM}'\n")
    assert find_config() == Path("purify.toml")
    assert not store().exists()


PLAIN = f"[llm]\nmodel = '{LLM}'\n[slm]\nmodel = '{SLM}'\n"


@pytest.mark.parametrize("place", ["/somewhere", "../elsewhere", "a/../../b"])
@pytest.mark.parametrize(
    ("table", "key", "kind"),
    [
        ("[activation]", "status", ""),
        ("[certificate]", "store", ""),
        ("[certificate]", "store", "sqlite:"),
        ("[[stage]]", "store", ""),
    ],
)
def test_a_file_that_was_only_found_writes_beside_itself_alone(
    table: str, key: str, kind: str, place: str
) -> None:
    Path("purify.toml").write_text(f"{PLAIN}{table}\n{key} = '{kind}{place}'\n")
    words = rf"{re.escape(table)} writes into .*, which is outside its own directory"
    with pytest.raises(ConfigError, match=words):
        find_config()
    Path("purify.toml").write_text(f"{PLAIN}{table}\n{key} = '{kind}within'\n")
    assert find_config()


@pytest.mark.parametrize("key", ["'env:KEY'", "'pkcs11:object=key'", "['own.pem', '../user.pem']"])
def test_a_file_that_was_only_found_signs_with_no_key_of_the_user_s(key: str) -> None:
    Path("purify.toml").write_text(f"{PLAIN}[certificate]\nkey = {key}\n")
    with pytest.raises(ConfigError, match=r"\[certificate\] signs answers by the key in (env:|pkcs11:|\.\.)"):
        find_config()
    Path("purify.toml").write_text(f"{PLAIN}[certificate]\nkey = 'own.pem'\n")
    assert find_config()


# What is a secret


@pytest.mark.parametrize(
    "key", ["model_env", "dtype_env", "device_env", "revision_env", "device_map_env", "source_env"]
)
def test_only_what_a_source_calls_a_secret_comes_from_the_environment(key: str) -> None:
    """`model_env = "AWS_SECRET_ACCESS_KEY"` printed the value: there is no model directory 'wJal…'."""
    config = check_config(
        {"llm": {key: "AWS_SECRET_ACCESS_KEY", "model": str(SLM)}, "slm": {"model": str(SLM)}}
    )
    with pytest.raises(ConfigError, match=f"{key}: .* is no secret, so its value is not taken") as refused:
        build(config, Purifier)
    assert SECRET not in str(refused.value)


@pytest.mark.parametrize("key", ["url_env", "tokenizer_env", "top_n_env", "client_env"])
@pytest.mark.parametrize("source", SENDING)
def test_nor_does_a_server_s_url(source: str, key: str, stranger: Listener) -> None:
    table = {"source": source, "url": stranger.url, "tokenizer": str(LLM), key: "AWS_SECRET_ACCESS_KEY"}
    with pytest.raises(ConfigError, match="is no secret") as refused:
        build(check_config({"llm": table, "slm": {"model": str(SLM)}}), Purifier)
    assert SECRET not in str(refused.value)
    assert stranger.heard == []


def test_every_source_with_a_key_declares_it() -> None:
    from purify_plugins.plugin.manager import load_plugins

    for name, factory in load_plugins([]).offers("purify_sources").items():
        here = ("local", "loaded", "contrast", "copying", "gguf", "mixture", "ngram")
        assert ("api_key" in secret_keys(factory)) or name in here


def test_a_secret_by_any_name_is_declared_by_its_type() -> None:
    def source(url: str, passphrase: str | Secret | None = None) -> None:
        """A plugin's."""

    found = secrets({"passphrase_env": "AWS_SECRET_ACCESS_KEY"}, secret_keys(source))
    assert found == {"passphrase": SECRET}
    assert SECRET not in repr(found)
    assert "url" not in secret_keys(source)


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("ftp://127.0.0.1", "url must be a server's"),
        ("127.0.0.1:8081", "url must be a server's"),
        ("http://a\r\nX-Evil: 1", "url must be a server's"),
        ("http:// a", "url must be a server's"),
        ("http://[", "url must be a server's"),
        ("http://a:99999999", "url must be a server's"),
        ("file:///etc/passwd", "url must be a server's"),
    ],
)
@pytest.mark.parametrize("source", SENDING)
def test_a_url_is_a_server_s(source: str, url: str, words: str) -> None:
    table = {"source": source, "url": url, "tokenizer": str(LLM)}
    with pytest.raises(ConfigError, match=words) as refused:
        build(check_config({"llm": table, "slm": {"model": str(SLM)}}), Purifier)
    assert url not in str(refused.value)


@pytest.mark.parametrize("key", ["a\r\nX-Evil: 1", "two words", "schlüssel", "a\x00"])
def test_a_key_that_no_header_may_hold_is_refused_unseen(key: str, stranger: Listener) -> None:
    table = {"source": "tgi", "url": stranger.url, "tokenizer": str(LLM), "api_key": key}
    with pytest.raises(ConfigError, match="api_key holds what no header may") as refused:
        build(check_config({"llm": table, "slm": {"model": str(SLM)}}), Purifier)
    assert key not in str(refused.value)
    assert stranger.heard == []


# Errors say where


BAD: dict[str, tuple[str, str]] = {
    "a number": ("model = 3", "[llm] model must be text in quotes, not 3"),
    "a list": ("model = ['a']", "[llm] model must be text in quotes, not ['a']"),
    "true": ("model = true", "[llm] model must be text in quotes, not True"),
    "nothing": ("model = ''", "[llm] model must be a directory, a GGUF file or a hub id, not ''"),
    "no model": ("dtype = 'auto'", "[llm] "),
    "a file": (f"model = '{SLM}/model.safetensors'", "[llm] '"),
    "a directory that is missing": ("model = './gone'", "[llm] there is no model directory"),
    "a directory without a model": ("model = '.'", "[llm] "),
    "a dtype": (f"model = '{SLM}'\ndtype = 3", "[llm] dtype must be text in quotes, not 3"),
    "a dtype nobody knows": (f"model = '{SLM}'\ndtype = 'int4'", "[llm] dtype must be one of auto,"),
    "a source": ("source = 3", "[llm] source must be a name, not 3"),
    "a source nobody offers": ("source = 'loocal'", "[llm] unknown source 'loocal'; did you mean 'local'?"),
    "an option nobody takes": (f"model = '{SLM}'\ndtyp = 'auto'", "[llm] unknown "),
    "a URL": (f"source = 'tgi'\nurl = 3\ntokenizer = '{LLM}'", "[llm] url must be text in quotes, not 3"),
    "a time": (
        f"source = 'tgi'\nurl = 'http://127.0.0.1:9'\ntokenizer = '{LLM}'\nread = 'soon'",
        "[llm] read must be a number, not 'soon'",
    ),
    "a tokenizer": (
        "source = 'tgi'\nurl = 'http://127.0.0.1:9'\ntokenizer = 3",
        "[llm] tokenizer must be text",
    ),
    "a variable that is not set": ("source = 'tgi'\napi_key_env = 'NO_SUCH'", "[llm] api_key_env names the"),
    "a policy": (
        f"model = '{SLM}'\n[policy]\nname = 'geometric'\nalpha = 2",
        "[policy] geometric: alpha must",
    ),
    "a policy without a name": (f"model = '{SLM}'\n[policy]\nalpha = 1", "[policy] "),
}


@pytest.mark.parametrize("name", BAD)
def test_an_error_names_the_file_and_the_table(name: str) -> None:
    """`[llm] model = 3` was "expected str, bytes or os.PathLike object, not int"."""
    said, words = BAD[name]
    Path("purify.toml").write_text(f"[slm]\nmodel = '{SLM}'\n[llm]\n{said}\n")
    purify("allow")  # where a secret is named, whether it is set or not
    with pytest.raises((ConfigError, ModelError)) as refused:
        Purifier.from_config()
    assert str(refused.value).startswith(f"purify.toml: {words}")


@pytest.mark.parametrize("table", ["llm", "slm"])
def test_it_names_the_right_one_of_two(table: str) -> None:
    other = {"llm": "slm", "slm": "llm"}[table]
    Path("purify.toml").write_text(f"[{table}]\nmodel = './gone'\n[{other}]\nmodel = '{SLM}'\n")
    with pytest.raises(ModelError, match=rf"^purify.toml: \[{table}\] there is no model directory"):
        Purifier.from_config()


def test_a_program_that_starts_names_them_too() -> None:
    Path("purify.toml").write_text("[slm]\nmodel = 3\n")
    with pytest.raises(ConfigError, match=r"purify.toml: \[slm\] model must be text in quotes, not 3"):
        by_activation()


def test_a_password_in_a_url_is_shown_to_nobody() -> None:
    hostile("http://user:hunter2@127.0.0.1:9")
    told = [purify("check"), purify("allow"), purify("check")]
    assert told[1].exit_code == 0
    assert "http://127.0.0.1:9" in told[1].output
    assert all("hunter2" not in each.output + each.stderr for each in told)


def test_a_model_inside_another_s_table_is_looked_at_too() -> None:
    inner = "anti = { source = 'tgi', url = 'http://127.0.0.1:9', api_key_env = 'AWS_SECRET_ACCESS_KEY' }"
    Path("purify.toml").write_text(f"[llm]\nsource = 'contrast'\n{inner}\n[slm]\nmodel = '{SLM}'\n")
    with pytest.raises(ConfigError, match=r"\[llm.anti\] gives \$AWS_SECRET_ACCESS_KEY"):
        find_config()
    config = check_config({"llm": {"source": "contrast", "expert": {"model_env": "HOME"}}, "slm": {}})
    with pytest.raises(ConfigError, match="model_env: model is no secret"):
        build(config, Purifier)


def test_what_is_allowed_is_written_as_json(stranger: Listener) -> None:
    file = hostile(stranger.url)
    purify("allow")
    assert list(json.loads(store().read_text())) == [str(file.resolve())]
    assert permitted(file) == file
