"""Commands of plugins: one file and one line, nobody else's name, and named where they break."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from purify_plugins.cli import app
from tests.strangers import Install, install

__all__ = ["install"]

COUNT = """
    from pathlib import Path
    from purify_plugins import ConfigError, hookimpl

    def count(file: Path) -> None:
        "Count the certificates in a file."
        if not file.exists():
            raise ConfigError(f"there is no {file}")
        print(len(file.read_text("utf-8").splitlines()))

    @hookimpl
    def purify_commands():
        return {"count": count}
"""
GROUP = """
    import typer
    from purify_plugins import hookimpl

    audit = typer.Typer(help="Look after certificates [all of them].")

    @audit.command()
    def keep() -> None:
        print("kept")

    @audit.command()
    def drop() -> None:
        print("dropped")

    @hookimpl
    def purify_commands():
        return {"audit": audit}
"""


def offering(value: str) -> str:
    return f"from purify_plugins import hookimpl\n@hookimpl\ndef purify_commands():\n    return {value}\n"


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("PURIFY_CONFIG", raising=False)


def purify(*arguments: str) -> Result:
    return CliRunner().invoke(app, arguments)


def use(monkeypatch: pytest.MonkeyPatch, *plugins: str) -> None:
    monkeypatch.setenv("PURIFY_PLUGINS", ",".join(plugins))


def test_a_plugin_s_command_is_one_file_and_one_line(
    install: Install, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    imported = install("purify-count", COUNT)
    assert "count" not in purify("--help").stdout
    assert "no command 'count'" in purify("count", "some.jsonl").stderr
    assert not imported.exists(), "a plugin that is not named is not imported"
    use(monkeypatch, "purify-count")
    assert "Count the certificates in a file." in purify("--help").stdout
    (tmp_path / "some.jsonl").write_text("{}\n{}\n{}\n")
    assert purify("count", "some.jsonl").stdout == "3\n"
    missing = purify("count", "none.jsonl")
    assert (missing.exit_code, missing.stderr) == (2, "error: there is no none.jsonl\n")
    assert "`purify count` needs FILE" in purify("count").stderr
    assert "did you mean 'count'?" in purify("coun", "some.jsonl").stderr


def test_a_configuration_brings_the_commands_of_its_plugins(install: Install, tmp_path: Path) -> None:
    install("purify-audit", GROUP)
    (tmp_path / "purify.toml").write_text(
        'plugins = ["purify-audit"]\n[llm]\nmodel = "a"\n[slm]\nmodel = "b"\n'
    )
    assert purify("audit", "keep").stdout == "kept\n"
    assert "[all of them]" in purify("audit", "--help").stdout


def test_a_configuration_that_cannot_be_read_hides_no_bundled_command(tmp_path: Path) -> None:
    (tmp_path / "purify.toml").write_text("plugins = [")
    assert "generate" in purify("--help").stdout
    assert "did you mean 'generate'?" in purify("genrate").stderr
    assert "not valid TOML" in purify("policies").stderr


@pytest.mark.parametrize("name", ["generate", "eval", "run"])
def test_no_plugin_takes_the_place_of_a_bundled_command(
    install: Install, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    install("impostor", COUNT.replace('"count"', f'"{name}"'))
    use(monkeypatch, "impostor")
    told = purify("--help")
    assert told.exit_code == 1
    assert "both offer the command" in told.stderr
    assert "'impostor'" in told.stderr
    assert "Count the certificates" not in purify(name, "--help").output


@pytest.mark.parametrize(
    ("code", "words"),
    [
        ("raise RuntimeError('no licence')", "plugin 'broken' does not load: no licence"),
        (offering("1 / 0"), "plugin 'broken' failed in purify_commands: ZeroDivisionError"),
        (offering("['count']"), "plugin 'broken' must return a mapping from purify_commands"),
        (offering("{'odd': 'gone:main'}"), "plugin 'broken': command 'odd' does not load: No module named"),
        (offering("{'odd': 'math:main'}"), "plugin 'broken': command 'odd' does not load: module 'math' has"),
        (offering("{'odd': 3}"), "plugin 'broken': command 'odd' does not load: it must be a function"),
    ],
)
@pytest.mark.parametrize("asked", [("--help",), ()])
def test_a_plugin_whose_command_breaks_is_named(
    install: Install, monkeypatch: pytest.MonkeyPatch, code: str, words: str, asked: tuple[str, ...]
) -> None:
    install("broken", code)
    use(monkeypatch, "broken")
    told = purify(*asked)
    assert (told.exit_code, told.stdout) == (1, "")
    assert words in told.stderr
    assert len(told.stderr.splitlines()) == 1
    assert purify("policies", "--help").exit_code == 0, "bundled commands still explain themselves"


def test_a_command_named_by_its_place_is_imported_when_it_is_used(
    install: Install, monkeypatch: pytest.MonkeyPatch
) -> None:
    imported = install("heavy-work", COUNT)
    install("purify-light", offering("{'count': 'heavy_work:count', 'light': lambda: print('light')}"))
    use(monkeypatch, "purify-light")
    assert purify("light").stdout == "light\n"
    assert not imported.exists()
    assert purify("count", "none.jsonl").exit_code == 2
    assert imported.exists()


def test_a_command_imports_no_other_command() -> None:
    probe = (
        "import sys; from purify_plugins.cli import app; app(['allow', '--help'], standalone_mode=False); "
        "print(*(name for name in sys.modules if name.startswith('purify_')))"
    )
    done = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True, check=True)
    loaded = set(done.stdout.splitlines()[-1].split())
    assert "purify_plugins.cli.run" in loaded
    assert not {f"purify_plugins.cli.{name}" for name in ("generate", "inspect", "serve", "verify")} & loaded
    assert not any("command" in name for name in loaded if name.startswith("purify_hooks"))
