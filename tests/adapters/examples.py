"""The first examples of clients' own documentation, kept in `clients/`, and what runs them."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import venv
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import pytest
from filelock import FileLock

HERE = Path(__file__).parent
URL = "http://localhost:8080"
"""The gateway's address in the examples."""
APART = (
    *("litellm==1.110.2", "langchain-openai==1.7.4"),
    *("llama-index-llms-openai-like==0.8.1", "llama-index-llms-huggingface-api==0.8.0"),
)
"""Clients that want an `openai` below 3."""
OLD = ("text-generation==0.7.0", "requests==2.34.2")
"""It wants a `huggingface_hub` below 1, and imports `requests` without saying so."""
NODE = ("openai@6.49.0", "ai@6.0.326", "@ai-sdk/openai@3.0.141", "@ai-sdk/openai-compatible@2.0.92")
ELSEWHERE = ("openai", "huggingface-hub", "huggingface_hub")
"""What the clients apart want other releases of than we do; the rest is as pinned."""
UNREACHABLE = ("from versions: none", "ENOTFOUND", "EAI_AGAIN", "ECONNREFUSED", "ETIMEDOUT", "E404")
"""How pip and npm say that there is no registry here, or that it has not what is asked for."""
TURN = "-- next example --"

PYTHON = """
import ast, asyncio, inspect, sys, traceback

for path in sys.argv[2:]:
    print(sys.argv[1], flush=True)
    try:
        code = compile(open(path).read(), path, "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
        awaited = eval(code, {"__name__": "__main__"})
        if inspect.isawaitable(awaited):
            asyncio.run(awaited)
    except Exception as error:
        print(f"raised {type(error).__name__}: {error}")
        traceback.print_exc()
"""
JAVASCRIPT = """
for (const path of process.argv.slice(3)) {
  console.log(process.argv[2]);
  await import(path).catch((error) => {
    console.log(`raised ${error.name}: ${error.message}`);
    console.error(error);
  });
}
"""


@dataclass(frozen=True)
class Client:
    """A client and its examples, by what they ask for, read from a page of `clients/`."""

    page: Path

    @cached_property
    def text(self) -> str:
        return self.page.read_text("utf-8")

    @property
    def name(self) -> str:
        return self.text.partition("\n")[0].removeprefix("# ")

    @property
    def package(self) -> str:
        found = re.search(r"^Package: `(.*)`$", self.text, re.M)
        assert found, self.page
        return found[1]

    @property
    def examples(self) -> dict[str, str]:
        found = re.findall(r"^## (.*?)\n\n```\w+\n(.*?)^```$", self.text, re.M | re.S)
        assert len(found) == self.text.count("\n## "), self.page
        return dict(found)


CLIENTS = [Client(page) for page in sorted((HERE / "clients").glob("*.md"))]


def run(client: Client, url: str, base: Path, scratch: Path) -> dict[str, str]:
    """What each example prints, by what it asks for; an error's words after `raised`.

    Environments and packages are kept under `base`. Skips the test where they cannot be had.
    """
    node = client.package in NODE
    command = _node(base) if node else [_python(client.package, base), "-c", PYTHON]
    scratch = base / "node" / scratch.name if node else scratch  # where `import` finds the packages
    scratch.mkdir(exist_ok=True)
    files = []
    for number, code in enumerate(client.examples.values()):
        files.append(scratch / f"{number}.{'mjs' if node else 'py'}")
        files[-1].write_text(code.replace(URL, url), "utf-8")
    own = {"OPENAI_BASE_URL": f"{url}/v1", "OPENAI_API_KEY": "k", "HF_HUB_OFFLINE": "0"}
    quiet = {"LITELLM_LOCAL_MODEL_COST_MAP": "True", "AI_SDK_LOG_WARNINGS": "false"}
    done = subprocess.run(
        [*command, TURN, *files],
        capture_output=True,
        text=True,
        timeout=200,
        env={**os.environ, **own, **quiet},
    )
    said = done.stdout.split(TURN)[1:]
    assert len(said) == len(files), done.stderr
    print(done.stderr)  # shown by pytest where the test fails
    return dict(zip(client.examples, said, strict=True))


def _python(package: str, base: Path) -> Path:
    for name, packages in {"apart": APART, "old": OLD}.items():
        if package in packages:
            return environment(base / name, packages)
    return Path(sys.executable)


def environment(where: Path, packages: Sequence[str]) -> Path:
    """The Python of an environment with these packages, made once a test session."""
    python = where / "bin" / "python"
    with FileLock(f"{where}.lock"):
        if not python.exists():
            lines = (HERE.parent.parent / "constraints.txt").read_text("utf-8").splitlines()
            pins = [line for line in lines if line.partition("==")[0] not in ELSEWHERE]
            limits = where.with_suffix(".txt")
            limits.write_text("\n".join(pins), "utf-8")
            venv.create(where, with_pip=True)
            _install([python, "-m", "pip", "install", "-q", "--no-compile", "-c", limits, *packages], where)
    return python


def _node(base: Path) -> list[str | Path]:
    """Node with the packages, where its `import` finds them. Skips without node, or without npm."""
    where = base / "node"
    with FileLock(f"{where}.lock"):
        if not where.exists():
            for program in ("node", "npm"):
                if subprocess.run(["sh", "-c", f"command -v {program}"], capture_output=True).returncode:
                    pytest.skip(f"{program} is not installed here")
            where.mkdir()
            (where / "all.mjs").write_text(JAVASCRIPT, "utf-8")
            _install(["npm", "install", "--no-audit", "--no-fund", "--prefix", where, *NODE], where)
    return ["node", where / "all.mjs"]


def _install(command: Sequence[str | Path], where: Path) -> None:
    """Install packages, or leave nothing: skip where their registry cannot be had, fail where they clash."""
    done = subprocess.run(command, capture_output=True, text=True, timeout=600)
    if done.returncode:
        where.rename(f"{where}.broken")
        if any(sign in done.stderr for sign in UNREACHABLE):
            pytest.skip(f"the registry gives none of it: {done.stderr.strip().splitlines()[-1]}")
        raise AssertionError(done.stderr)
