"""What we ship, what importing it costs, and what its source may never do."""

from __future__ import annotations

import ast
import importlib
import inspect
import re
import subprocess
import sys
import tomllib
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

import purify_plugins

ROOT = Path(__file__).parent.parent
PACKAGES = {
    "purify_plugins": ROOT / "purify_plugins",
    "purify_adapters": ROOT / "adapters" / "purify_adapters",
    "purify_hooks": ROOT / "hooks" / "purify_hooks",
}
SOURCES = sorted(path for package in PACKAGES.values() for path in package.rglob("*.py"))
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]

PROMISED = {"Chat", "Chunk", "Completion", "FusionPolicy", "LogitSource", "PurifyError", "Purifier"}
PROMISED |= {"Sampling", "Vocabulary", "hookimpl"}
HEAVY = {"torch", "transformers", "numpy", "langchain", "langchain_core", "llama_index", "matplotlib"}

FORBIDDEN_NAMES = {"eval", "exec", "__import__"}
FORBIDDEN_MODULES = {"pickle", "cPickle", "_pickle", "dill", "cloudpickle", "joblib", "marshal", "shelve"}
FORBIDDEN_CALLS = {"os.system", "os.popen", "torch.load", "yaml.load", "yaml.unsafe_load", "numpy.load"}


def fresh(code: str) -> str:
    """What a new interpreter prints when it runs `code` outside the repository."""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd="/")
    return done.stdout.strip()


# What importing costs


def test_every_public_name_is_listed_in_order() -> None:
    assert purify_plugins.__all__ == sorted(purify_plugins.__all__)
    public = {name for name, value in vars(purify_plugins).items() if not inspect.ismodule(value)}
    assert {name for name in public if not name.startswith("_")} <= set(purify_plugins.__all__)


def test_every_listed_name_is_there_and_every_promised_one_is_listed() -> None:
    for name in purify_plugins.__all__:
        assert getattr(purify_plugins, name) is not None
    assert set(purify_plugins.__all__) >= PROMISED


def test_importing_loads_no_model_library_and_no_framework() -> None:
    loaded = fresh("import purify_plugins, sys; print(*sys.modules)").split()
    assert "purify_plugins" in loaded
    assert not HEAVY & set(loaded)


@pytest.mark.slow
@pytest.mark.alone
def test_importing_takes_less_than_150_milliseconds() -> None:
    """Of processor time: the clock on the wall would measure the machine's other work."""
    clock = "from time import process_time as now; start = now(); import purify_plugins; print(now() - start)"
    assert min(float(fresh(clock)) for _ in range(5)) < 0.15


def test_the_version_is_the_distribution_s() -> None:
    assert purify_plugins.__version__ == PROJECT["version"]


# What the repository holds


@pytest.mark.parametrize("folder", ["adapters", "hooks"])
def test_a_folder_that_holds_a_package_is_not_one(folder: str) -> None:
    """An `__init__.py` here would let anyone `import hooks`, and take the name from another project."""
    assert not (ROOT / folder / "__init__.py").exists()
    assert [path.name for path in (ROOT / folder).iterdir() if path.is_dir()] == [f"purify_{folder}"]


@pytest.mark.parametrize(
    "command",
    [
        "pip install -c constraints.txt -e '.[all]' && purify demo",
        "pip install -c constraints.txt -e '.[all,test]' && pytest",
    ],
)
def test_the_readme_gives_the_command(command: str) -> None:
    assert command in (ROOT / "README.md").read_text("utf-8").splitlines()


@pytest.mark.parametrize("runner", [".ci/run", ".github/workflows/ci.yml"])
def test_ci_runs_the_readme_s_command(runner: str) -> None:
    assert "pip install -c constraints.txt -e '.[all,test]' && pytest" in (ROOT / runner).read_text("utf-8")


def test_the_extra_all_holds_every_extra_but_the_tests() -> None:
    """And but what is much (pandas, spaCy, ray's 300 MB, Helm's 100), compiled, or of use to few."""
    extras = PROJECT["optional-dependencies"]
    [everything] = extras["all"]
    named = re.fullmatch(r"purify-plugins\[(.+)\]", everything)
    assert named is not None
    apart = {"harness", "privacy", "ray", "deploy", "real", "pkcs11", "timestamp", "model-signing"}
    assert set(named[1].split(",")) == set(extras) - {"all", "test"} - apart


@pytest.mark.parametrize("target", PROJECT["entry-points"]["purify"].values())
def test_every_bundled_plugin_can_be_imported(target: str) -> None:
    importlib.import_module(target)


# What the wheel holds


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Iterator[zipfile.ZipFile]:
    folder = tmp_path_factory.mktemp("wheel")
    build = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(folder), str(ROOT)]
    subprocess.run(build, check=True, capture_output=True)
    [path] = folder.glob("*.whl")
    with zipfile.ZipFile(path) as opened:
        yield opened


def test_the_wheel_holds_three_packages_and_their_metadata(wheel: zipfile.ZipFile) -> None:
    metadata = f"purify_plugins-{PROJECT['version']}.dist-info"
    assert {name.split("/")[0] for name in wheel.namelist()} == {*PACKAGES, metadata, "zzz_purify.pth"}
    assert f"{metadata}/licenses/LICENSE" in wheel.namelist()


@pytest.mark.parametrize("package", PACKAGES)
def test_the_wheel_holds_every_file_of_a_package(wheel: zipfile.ZipFile, package: str) -> None:
    home = PACKAGES[package]
    files = {path.relative_to(home.parent).as_posix() for path in home.rglob("*") if path.is_file()}
    kept = {name for name in files if "__pycache__" not in name}
    assert kept == {name for name in wheel.namelist() if name.startswith(f"{package}/")}
    assert f"{package}/py.typed" in kept


def test_the_wheel_holds_the_test_bed(wheel: zipfile.ZipFile) -> None:
    bed = {f"{model}/{file}" for model in ("llm", "slm") for file in ("model.safetensors", "tokenizer.json")}
    bed |= {"attacks.json", "heldout.json"}
    assert {f"purify_hooks/evaluation/testbed/{name}" for name in bed} <= set(wheel.namelist())


def test_the_wheel_carries_no_books(wheel: zipfile.ZipFile) -> None:
    assert not [name for name in wheel.namelist() if "corpus" in name.split("/")]


def test_at_start_up_the_wheel_looks_for_one_variable_and_does_nothing_without_it(
    wheel: zipfile.ZipFile, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every Python here reads this line; only a purified program's children have the variable."""
    assert [name for name in wheel.namelist() if name.endswith(".pth")] == ["zzz_purify.pth"]
    line = wheel.read("zzz_purify.pth").decode()
    before = {name for name in sys.modules if name.startswith("purify")}
    monkeypatch.delenv("PURIFY_ACTIVE", raising=False)
    exec(line)  # as `site` does
    assert {name for name in sys.modules if name.startswith("purify")} == before
    assert re.fullmatch(r"import os; os\.environ\.get\(.PURIFY_ACTIVE.\) and __import__\(.[\w.]+.\)\n", line)


# What the source may never do


def dotted(node: ast.expr) -> str:
    """`a.b.c` for such an expression, with "" for whatever is not a plain name."""
    if isinstance(node, ast.Attribute):
        return f"{dotted(node.value)}.{node.attr}"
    return node.id if isinstance(node, ast.Name) else ""


def forbidden(source: str) -> Iterator[str]:
    """Every construct in `source` that could run code a model, a file or a caller brought along."""
    for node in ast.walk(ast.parse(source)):
        match node:
            case ast.Import(names=names):
                imported = [alias.name for alias in names]
            case ast.ImportFrom(module=module, names=names):
                imported = [f"{module}", *(f"{module}.{alias.name}" for alias in names)]
            case ast.Call(func=function, keywords=keywords):
                imported = []
                called = dotted(function)
                if called in FORBIDDEN_NAMES | FORBIDDEN_CALLS:
                    yield called
                for keyword in keywords:
                    harmless = isinstance(keyword.value, ast.Constant) and not keyword.value.value
                    if keyword.arg in ("shell", "trust_remote_code") and not harmless:
                        yield f"{keyword.arg}="
            case ast.Dict(keys=keys, values=values):
                imported = []
                for key, value in zip(keys, values, strict=True):
                    harmless = isinstance(value, ast.Constant) and not value.value
                    if isinstance(key, ast.Constant) and key.value == "trust_remote_code" and not harmless:
                        yield "trust_remote_code:"
            case _:
                continue
        for name in imported:
            if name.split(".")[0] in FORBIDDEN_MODULES or name in FORBIDDEN_CALLS:
                yield f"import {name}"


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_the_source_runs_no_code_it_was_handed(path: Path) -> None:
    assert not list(forbidden(path.read_text("utf-8")))


@pytest.mark.parametrize(
    "planted",
    [
        "eval('1')",
        "exec(code)",
        "import pickle",
        "from pickle import loads",
        "import marshal as m",
        "from torch import load",
        "torch.load(path)",
        "yaml.load(text)",
        "import os; os.system('ls')",
        "subprocess.run('ls', shell=True)",
        "subprocess.run('ls', shell=flag)",
        "AutoModel.from_pretrained(path, trust_remote_code=True)",
        "options = {'trust_remote_code': True}",
    ],
)
def test_the_lint_sees_what_it_forbids(planted: str) -> None:
    assert list(forbidden(planted))


@pytest.mark.parametrize(
    "innocent",
    [
        "model.eval()",
        "re.compile(pattern)",
        "safetensors.torch.load_file(path)",
        "subprocess.run(['ls'], shell=False)",
        "AutoModel.from_pretrained(path, trust_remote_code=False)",
    ],
)
def test_the_lint_lets_the_innocent_pass(innocent: str) -> None:
    assert not list(forbidden(innocent))
