"""The documentation says what the code does, and what it shows runs."""

from __future__ import annotations

import ast
import dataclasses
import importlib
import importlib.util
import inspect
import os
import re
import signal
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from contextlib import suppress
from html import unescape
from pathlib import Path
from time import perf_counter
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

import purify_plugins
from purify_hooks.evaluation.eval.model_pair import ModelPair
from purify_hooks.evaluation.eval.questions import Clean, Questions
from purify_hooks.evaluation.eval.statistics import Metric, Sample
from purify_hooks.evaluation.eval.suites.base import Suite, SuiteSettings
from purify_hooks.evaluation.eval.systems import ALONE
from purify_hooks.policies import POLICIES
from purify_plugins import Purifier, RefusedError, Remarks, Sampling, ToolFormat, hookimpl
from purify_plugins.certificates import COLUMNS, schema
from purify_plugins.cli.commands import Offered
from purify_plugins.configuration.config import Config, check_config
from purify_plugins.plugin.manager import load_plugins
from purify_plugins.stages import Stage
from purify_plugins.testbed import LLM, SLM
from purify_plugins.testing import ToySource, byte_vocabulary
from tests.ports import free_port

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"
EXAMPLE = DOCS / "examples" / "purify-example-policy"
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted(DOCS.glob("*.md")), EXAMPLE / "README.md"]
FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
RUNNABLE = {"python", "toml", "sh"}
IMPORTABLE = [str(ROOT), str(ROOT / "adapters"), str(ROOT / "hooks")]
"""Where the three packages of this checkout are."""

every_page = pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())


def load(path: Path) -> ModuleType:
    """The module at `path`, which no import statement reaches."""
    spec = importlib.util.spec_from_file_location(f"docs_{path.stem}", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # where dataclasses look their annotations up
    spec.loader.exec_module(module)
    return module


generate = load(DOCS / "generate.py")


def text(page: Path) -> str:
    return page.read_text("utf-8")


def blocks(page: Path, language: str) -> list[str]:
    """A page's fenced blocks in one language, in order."""
    return [block for found, block in FENCE.findall(text(page)) if found == language]


# What is generated


@pytest.mark.parametrize("page", sorted(DOCS.glob("*.md")), ids=lambda page: page.name)
def test_a_page_is_what_the_generator_writes(page: Path) -> None:
    assert text(page) == generate.render(text(page)), f"{page.name} is stale; run python docs/generate.py"


def test_everything_generated_has_a_place() -> None:
    places = {name for page in DOCS.glob("*.md") for _, name, _ in generate.REGION.findall(text(page))}
    assert places == set(generate.REGIONS)


def test_generating_twice_changes_nothing() -> None:
    page = "# A page\n\n<!-- generated: limits -->\n<!-- end -->\n"
    once = generate.render(page)
    assert once != page
    assert generate.render(once) == once


@pytest.mark.parametrize("name", POLICIES)
def test_a_policy_gives_its_formula_its_guarantee_its_source_and_every_option(name: str) -> None:
    policy = POLICIES[name]
    doc = inspect.cleandoc(policy.__doc__ or "") + "\n".join(generate.field_docs(policy))
    assert re.search("[=∝≥]", doc)
    assert re.search("[Gg]uarantee", doc)
    assert "Source: " in doc
    for field in dataclasses.fields(policy):
        assert re.search(rf"\b{field.name}\b", doc), f"say in the docstring of {name} what {field.name} does"
    assert f"## {name}\n" in text(DOCS / "policies.md")


@pytest.mark.parametrize("field", [field.name for field in dataclasses.fields(Sampling)])
def test_a_sampling_option_has_a_line_under_it(field: str) -> None:
    assert generate.field_docs(Sampling)[field].endswith(".")
    assert f"| `{field}` |" in text(DOCS / "configuration.md")


@pytest.mark.parametrize("key", [field.name for field in dataclasses.fields(Config)])
def test_a_configuration_key_says_what_it_is_for(key: str) -> None:
    assert generate.field_docs(Config)[key].endswith(".")
    assert f"| `{key}` |" in text(DOCS / "configuration.md")


@pytest.mark.parametrize("source", load_plugins(()).offers("purify_sources"))
def test_a_source_says_what_each_of_its_keys_does(source: str) -> None:
    factory = generate.sources()[source]
    for key in inspect.signature(factory).parameters:
        assert f"`{key}`" in (factory.__doc__ or ""), f"say in the docstring of {source} what {key} does"


@pytest.mark.parametrize("name", generate.error_kinds())
def test_an_error_is_public_has_a_sentence_and_stands_in_the_tree(name: str) -> None:
    kind = generate.error_kinds()[name]
    assert name in purify_plugins.__all__ or name == "PurifyError"
    assert generate.sentence(kind).endswith(".")
    assert re.search(rf"^[│├└─ ]*{name}\b", generate.errors.__doc__, re.MULTILINE)
    assert f"## {name}\n" in text(DOCS / "errors.md")


def test_the_tree_of_errors_is_the_classes_own() -> None:
    lines = [
        line for line in generate.errors.__doc__.splitlines() if "Error" in line.split("  ")[0] or "─" in line
    ]
    path: list[str] = []
    for line in lines:
        name = re.search(r"\w+Error", line)
        assert name is not None
        depth = name.start() // 4
        path[depth:] = [name[0]]
        bases = [base.__name__ for base in generate.error_kinds()[name[0]].__bases__]
        assert bases == ([path[depth - 1]] if depth else ["Exception"])


def test_every_environment_variable_is_documented() -> None:
    packages = (ROOT / "purify_plugins", ROOT / "hooks", ROOT / "adapters")
    sources = [text(path) for package in packages for path in package.rglob("*.py")]
    names = {name for source in sources for name in re.findall(r"\bPURIFY_[A-Z_]+\b", source)}
    assert names >= {"PURIFY_CONFIG", "PURIFY_PLUGINS"}
    assert {name for name in names if f"`{name}`" not in text(DOCS / "configuration.md")} == set()


@pytest.mark.parametrize(
    "kind",
    [
        schema.CertificateBody,
        schema.AnswerFields,
        schema.ContextFields,
        schema.MethodFields,
        schema.TotalsFields,
    ],
)
def test_every_field_of_a_certificate_is_documented(kind: Any) -> None:
    page = text(DOCS / "certificates.md")
    assert [name for name in (*kind.names(), *COLUMNS) if f"`{name}`" not in page] == []


def test_the_readme_s_figures_are_its_picture_s() -> None:
    """Both are of one run: `python docs/picture.py` draws the one and prints the other."""
    told = re.search(r"Of \d+ (?:sampled )?attacks(?s:.)*? its time a token", text(ROOT / "README.md"))
    assert told is not None
    drawn = unescape(" ".join(re.findall(r"<text[^>]*>([^<]*)", text(DOCS / "demo.svg"))[:2]))
    number = r"\d+(?:\.\d+)?"
    assert re.findall(number, told[0]) == re.findall(number, drawn)
    assert len(re.findall(number, drawn)) == 5


# The hooks' examples, run through the manager that will run them


@dataclasses.dataclass(frozen=True)
class Half:
    """Any policy."""

    guarantee = "none"
    lookback = 0

    def start(self, context: Any) -> Any:
        return ()

    def fuse(self, llm: Any, slm: Any, state: Any) -> Any:
        return (llm + slm) / 2

    def advance(self, state: Any, tokens: Any, llm: Any, slm: Any, fused: Any) -> Any:
        return state


GIVEN = {
    "Half": Half,
    "Path": Path,
    "Metric": Metric,
    "Stage": Stage,
    "Sample": Sample,
    "Sampling": Sampling,
    "Suite": Suite,
    "dataclass": dataclasses.dataclass,
    "RefusedError": RefusedError,
    "Remarks": Remarks,
    "ToolFormat": ToolFormat,
    "ToySource": ToySource,
    "byte_vocabulary": byte_vocabulary,
    "hookimpl": hookimpl,
    "perf_counter": perf_counter,
}


def with_example(hook: str) -> Purifier:
    """Two toys under a policy, with one hook's example as a plugin."""
    names = dict(GIVEN)
    exec(generate.example(generate.hooks()[hook]), names)
    purifier = Purifier.load(ToySource(byte_vocabulary(), 1), ToySource(byte_vocabulary(), 2), Half())
    purifier.plugins.register(SimpleNamespace(**{hook: names[hook]}), name="example")
    purifier.plugins.check_pending()
    return purifier


SHORT = Sampling(max_tokens=4, seed=0)


@pytest.mark.parametrize("hook", generate.hooks())
def test_a_hook_has_a_sentence_an_example_and_a_test_of_it(hook: str) -> None:
    assert generate.sentence(generate.hooks()[hook]).endswith(".")
    assert f"def {hook}(" in generate.example(generate.hooks()[hook])
    assert f"## {hook}\n" in text(DOCS / "hooks.md")
    assert f"test_the_example_of_{hook}" in globals()


def test_the_example_of_purify_policies() -> None:
    assert with_example("purify_policies").plugins.policy("half") == Half()


def test_the_example_of_purify_sources() -> None:
    made = with_example("purify_sources").plugins.source({"source": "toy", "seed": 3})
    assert made.identity()["name"] == "toy 3"


def test_the_example_of_purify_adapters() -> None:
    purifier = with_example("purify_adapters").replace(sampling=SHORT)
    adapter = purifier.plugins.make("purify_adapters", "callable", {"purifier": purifier})
    assert adapter("hello") == purifier.generate("hello")[0].text


def test_the_example_of_purify_tool_formats() -> None:
    plugins = with_example("purify_tool_formats").plugins
    assert plugins.make("purify_tool_formats", "angled", {}) == ToolFormat("<call>", "</call>", "<call>")


def test_the_example_of_purify_suites() -> None:
    plugins = with_example("purify_suites").plugins
    questions = Questions(clean=Clean(prompts=["hello", "you"]))
    suite = plugins.make("purify_suites", "shouting", {"questions": questions, "settings": SuiteSettings()})
    toys = [ToySource(byte_vocabulary(), seed) for seed in (1, 2)]
    [*samples] = suite.measure(ModelPair(*toys, plugins), ALONE[0], "greedy")["capitals"]
    assert len(samples) == 2
    assert {sample.value for sample in samples} <= {0.0, 1.0}


def test_the_example_of_purify_commands(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "audit.jsonl").write_text("{}\n{}\n", "utf-8")
    command = Offered(with_example("purify_commands").plugins).command("count")
    assert command.help == "Count the certificates in a file of one a line."
    command.main([str(tmp_path / "audit.jsonl")], standalone_mode=False)
    assert capsys.readouterr().out == "2\n"


def test_the_example_of_purify_checks() -> None:
    from purify_plugins.cli.check import remarks

    found = remarks(with_example("purify_checks"), Config(llm={}, slm={}), (), 0.0)
    assert found["length"] == Remarks({"context": 0}, ["the SLM reads little"])


def test_the_example_of_purify_stages() -> None:
    purifier = with_example("purify_stages")
    sure, unsure = (purifier.plugins.make("purify_stages", "slm_first", {"sure": p}) for p in (0.0, 1.0))
    [alone] = purifier.replace(stages=[sure]).generate("hello", SHORT)
    [fused] = purifier.replace(stages=[unsure]).generate("hello", SHORT)
    assert all(step.slm_only for step in alone.steps)
    assert not any(step.slm_only for step in fused.steps)


def test_the_example_of_purify_decode(capsys: pytest.CaptureFixture[str]) -> None:
    answers = with_example("purify_decode").generate(["one", "two"], SHORT)
    assert len(answers) == 2
    assert capsys.readouterr().out.startswith("2 answers in ")


def test_the_example_of_purify_request() -> None:
    purifier = with_example("purify_request")
    assert purifier.generate("hello", SHORT)
    with pytest.raises(RefusedError, match="names a secret"):
        purifier.generate("a secret", SHORT)


def test_the_example_of_purify_completed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    answers = with_example("purify_completed").generate(["one", "two"], SHORT)
    written = (tmp_path / "audit.jsonl").read_text("utf-8").splitlines()
    assert written == [answer.certificate.text for answer in answers]


# What a page shows


@every_page
def test_a_page_opens_with_something_that_runs(page: Path) -> None:
    languages = [language for language, _ in FENCE.findall(text(page))]
    assert languages
    assert (
        languages[0] in RUNNABLE or short(page) == "you-were-sent-a-certificate.md"
    )  # of the reader's files


@pytest.mark.filterwarnings("ignore:The `__fields")  # LlamaIndex's agents look at all of pydantic's members
@pytest.mark.filterwarnings("ignore:Accessing the 'model_")  # and at these
@every_page
def test_the_python_on_a_page_runs(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {"__name__": page.stem}
    for block in blocks(page, "python"):
        exec(compile(block, str(page), "exec", dont_inherit=True), names)
    for test in checks_among(names):
        test()


NOT_RUN = {
    "README.md": "it installs; tests/test_demo.py runs the demonstration",
    "CONTRIBUTING.md": "it installs; .ci/run does, and runs the rest of it",
    "install.md": "it installs; .ci/run does, by the README's command",
    "activation.md": "app.py is the reader's program; tests/adapters/test_run.py runs three",
    "deploy.md": "it installs; tests/adapters/test_ray_serve.py runs the application that it shows",
    "scaling.md": "it takes minutes; tests/test_scaling.py runs every part of it, small",
    "performance.md": "it takes minutes; tests/test_bench.py runs every part of it, small",
    "real-models.md": "it trains for minutes; tests/real does, and runs what it shows",
    "stages.md": "it takes the reader's questions; tests/stages/test_tuning.py runs it",
    "tgi.md": "it is a test of this suite",
    "tutorial.md": "it installs; .ci/run does, and runs the example's own tests",
    "purify-example-policy/README.md": "it installs; .ci/run does, and runs the example's own tests",
}
"""Pages whose first command is not run here, and why. The Python of every page is."""

SHELLS = [page for page in PAGES if blocks(page, "sh")]


def short(page: Path) -> str:
    return f"{EXAMPLE.name}/README.md" if page.parent == EXAMPLE else page.name


@pytest.mark.slow
@pytest.mark.parametrize("page", [each for each in SHELLS if short(each) not in NOT_RUN], ids=short)
def test_the_first_command_on_a_page_runs_as_it_stands(page: Path, tmp_path: Path) -> None:
    """In a checkout, where the two model directories that a page names are there, and its first file."""
    if short(page) == "provenance.md":
        pytest.importorskip("model_signing", reason="the extra [model-signing] is not installed")
    for folder in ("purify_plugins", "hooks"):
        (tmp_path / folder).symlink_to(ROOT / folder)
    (tmp_path / "models").mkdir()
    for name, model in (("large", LLM), ("small", SLM)):
        (tmp_path / "models" / name).symlink_to(model)
    for file in [each for each in blocks(page, "toml") if "[slm]" in each][:1]:
        (tmp_path / "purify.toml").write_text(file, "utf-8")
    port = str(free_port())
    command = "set -e\n" + blocks(page, "sh")[0].replace("8080", port)
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    told = tmp_path / "told.txt"
    with told.open("w") as output:
        shell = subprocess.Popen(
            ["bash", "-c", command],
            cwd=tmp_path,
            env={**os.environ, "PATH": path, "PYTHONPATH": os.pathsep.join(IMPORTABLE)},
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        ended = shell.wait(timeout=240)
    finally:
        with suppress(ProcessLookupError):
            os.killpg(shell.pid, signal.SIGKILL)  # a server that was left running, too
        shell.wait()
    assert ended == 0, told.read_text("utf-8")


def test_every_page_that_is_not_run_is_there_and_has_a_command() -> None:
    assert set(NOT_RUN) <= {short(page) for page in SHELLS}


def test_no_page_and_no_error_installs_from_an_index_that_has_nothing() -> None:
    """`pip install purify-plugins[…]` stood on five pages and in three errors, and failed for everyone."""
    sources = [
        path for folder in ("purify_plugins", "hooks", "adapters") for path in (ROOT / folder).rglob("*.py")
    ]
    for path in [*PAGES, *sources]:
        found = re.findall(r"""pip install[^\n`]*["' ]purify[-_]plugins.*""", path.read_text("utf-8"))
        assert not found, f"{path.relative_to(ROOT)}: {found}"


def checks_among(names: dict[str, Any]) -> Iterator[Any]:
    """The test functions a page has defined, and the methods of its test classes."""
    for name, value in names.items():
        if name.startswith("test_"):
            yield value
        if name.startswith("Test"):
            yield from (getattr(value(), method) for method in dir(value) if method.startswith("test_"))


def test_the_tutorial_tests_its_policy() -> None:
    assert "class TestCertified(PolicyConformance)" in text(DOCS / "tutorial.md")


@every_page
def test_the_toml_on_a_page_is_a_configuration(page: Path) -> None:
    models = {"llm": {"model": "large"}, "slm": {"model": "small"}}
    for block in blocks(page, "toml"):
        table = tomllib.loads(block)
        if "project" in table:
            assert block in text(EXAMPLE / "pyproject.toml")
            continue
        config = check_config({**models, **table})
        if not config.plugins:
            load_plugins(()).policy(config.policy)


@pytest.fixture(scope="module")
def commands() -> set[str]:
    from typer.main import get_command

    cli = importlib.import_module("purify_plugins.cli")
    found: Any = get_command(cli.app)
    return set(found.commands)


@every_page
def test_the_commands_on_a_page_exist(page: Path, commands: set[str]) -> None:
    shell = "\n".join(blocks(page, "sh"))
    inline = " ".join(re.findall(r"`(purify\s[^`]*)`", FENCE.sub("", text(page))))
    named = set(re.findall(r"(?:^|&& |\s)purify\s+([a-z]+)", f"{shell}\n{inline}"))
    assert named <= commands, "where an entry point in pyproject.toml is new, run pip install -e . again"


@pytest.mark.parametrize("page", [*PAGES, ROOT / "SECURITY.md"], ids=lambda page: page.name)
def test_a_page_s_links_lead_somewhere(page: Path) -> None:
    for target, anchor in re.findall(r"\]\((?!https?:)([^)#\s]*)(?:#([^)\s]+))?\)", text(page)):
        other = (page.parent / target).resolve() if target else page
        assert other.exists(), f"{page.name} links to {target}, which is not there"
        assert not anchor or anchor in anchors(other), f"{page.name}: {target} has no heading #{anchor}"


def anchors(page: Path) -> set[str]:
    """The ids that both MkDocs and GitHub give a page's headings."""
    headings = re.findall(r"^#+ (.*)$", FENCE.sub("", text(page)), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading).strip().lower().replace(" ", "-") for heading in headings}


def test_the_citation_names_this_version() -> None:
    assert f"version: {purify_plugins.__version__}\n" in text(ROOT / "CITATION.cff")


def test_every_page_is_on_the_site() -> None:
    site = text(ROOT / "mkdocs.yml")
    assert [page.name for page in DOCS.glob("*.md") if f": {page.name}\n" not in site] == []


# The architecture's walk from the command line to a token and back

STEPS = re.findall(r"^\| .*?\| `(\S+\.py)` \| (.+) \|$", text(DOCS / "architecture.md"), re.MULTILINE)


def defined(tree: ast.Module) -> set[str]:
    """The functions, the classes and, as `Class.method`, the methods of a file."""
    tops = [node for node in tree.body if isinstance(node, ast.FunctionDef | ast.ClassDef)]
    methods = {
        f"{kind.name}.{each.name}"
        for kind in tops
        if isinstance(kind, ast.ClassDef)
        for each in kind.body
        if isinstance(each, ast.FunctionDef)
    }
    return methods | {each.name for each in tops}


@pytest.mark.parametrize(("file", "names"), STEPS)
def test_every_step_of_the_walk_is_in_the_code(file: str, names: str) -> None:
    found = set(re.findall(r"`([\w.]+)`", names))
    assert found
    assert found <= defined(ast.parse(text(ROOT / file))), "docs/architecture.md names another function"


def test_the_walk_is_found() -> None:
    assert len(STEPS) > 25


# The example plugin; its own tests run where it is installed


def test_the_tutorial_shows_the_example_as_it_is() -> None:
    module = text(EXAMPLE / "purify_example_policy.py")
    policy = module[module.index("@dataclass") : module.index("@hookimpl")].strip()
    offer = module[module.index("@hookimpl") :].split("\n\n\n")[0]
    assert policy in text(DOCS / "tutorial.md")
    assert offer in text(DOCS / "tutorial.md")


def test_the_example_offers_its_policy() -> None:
    plugins = load_plugins(())
    plugins.register(load(EXAMPLE / "purify_example_policy.py"))
    assert plugins.policy("second_opinion", {"times": 8.0}).times == 8.0


@pytest.mark.parametrize("runner", [".ci/run", ".github/workflows/ci.yml"])
def test_ci_installs_the_harness_and_runs_its_tests(runner: str) -> None:
    """They are skipped where it is not installed, and the extra `test` leaves it out."""
    assert re.search(r"pip install \S.*,harness\]'", text(ROOT / runner))
    assert "pytest -m slow tests/adapters/test_lm_eval.py" in text(ROOT / runner)


@pytest.mark.parametrize("runner", [".ci/run", ".github/workflows/ci.yml"])
def test_ci_installs_and_runs_the_example(runner: str) -> None:
    assert re.search(r"pip install --no-deps \S*purify-example-policy", text(ROOT / runner))
    assert re.search(r"pytest \S*purify-example-policy", text(ROOT / runner))
