"""`purify run`: the program and its children are purified, or do not start."""

from __future__ import annotations

import json
import os
import re
import resource
import shlex
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from textwrap import dedent
from typing import Any

import httpx
import pytest

from purify_adapters.activation.subprocess_env import BOOT
from purify_plugins.errors import RefusedError
from purify_plugins.running.interpreters import refuse_blind, refuse_text, shebang
from purify_plugins.running.launch import run as launch
from purify_plugins.testbed import LLM, SLM, attacks
from tests.adapters.canary import CONFIG, PLUGIN
from tests.fake_tgi import fake_tgi
from tests.ports import free_port
from tests.toys import both

ROOT = Path(__file__).parent.parent.parent
SAID = f"[slm]\nmodel = {json.dumps(str(SLM))}\n"
HEAVY = {
    "torch",
    "transformers",
    "numpy",
    "langchain_core",
    "llama_index",
    "huggingface_hub",
    "openai",
    "pydantic",
    "typer",
}


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder of its own, with a configuration; no other in sight."""
    monkeypatch.chdir(tmp_path)
    for variable in ("PURIFY_CONFIG", "PYTHONPATH", "PURIFY_PLUGINS"):
        monkeypatch.delenv(variable, raising=False)
    Path("purify.toml").write_text(SAID)


def write(name: str, code: str) -> Path:
    Path(name).write_text(dedent(code))
    return Path(name)


def python(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, *words], capture_output=True, text=True, timeout=250)


def purify_run(*words: str) -> subprocess.CompletedProcess[str]:
    return python("-m", "purify_plugins", "run", *words)


def printed(done: subprocess.CompletedProcess[str]) -> Any:
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


ACTIVE = "__import__('purify_plugins').status().active"
LOOK = f"""
    import json, sys
    active = {ACTIVE}
    here = [__name__, sys.argv, sys.path[0]]
    print(json.dumps({{"active": active, "here": here, "loaded": sorted(sys.modules)}}))
"""


# What can be run


def test_a_script_runs_as_python_runs_it(tmp_path: Path) -> None:
    write("app.py", LOOK)
    told, plain = (
        printed(purify_run("app.py", "--config", "of its own")),
        printed(python("app.py", "--config", "of its own")),
    )
    assert (told["active"], plain["active"]) == (True, False)
    assert told["here"] == plain["here"] == ["__main__", ["app.py", "--config", "of its own"], str(tmp_path)]


def test_a_module_runs_as_python_runs_it(tmp_path: Path) -> None:
    write("app.py", LOOK)
    told, plain = printed(purify_run("-m", "app", "-x")), printed(python("-m", "app", "-x"))
    assert (told["active"], plain["active"]) == (True, False)
    assert told["here"] == plain["here"] == ["__main__", [str(tmp_path / "app.py"), "-x"], str(tmp_path)]


def test_an_installed_command_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    script = write("serve", f"#!{sys.executable}\n{dedent(LOOK)}")
    script.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    told = printed(purify_run("serve", "app:app"))
    assert told["active"]
    assert told["here"][1] == [str(script.absolute()), "app:app"]


def test_python_itself_runs_with_its_own_options() -> None:
    assert printed(purify_run(sys.executable, "-u", "-c", dedent(LOOK)))["active"]


def test_a_program_begins_with_a_line_that_says_it_is_purified(tmp_path: Path) -> None:
    """Nothing told whether purification was on, and a child says nothing a second time."""
    write("app.py", "import subprocess, sys; subprocess.run([sys.executable, '-c', 'print(1)'])")
    told = purify_run("app.py")
    assert told.stderr == f"purify: on, policy 'balanced', {tmp_path / 'purify.toml'}\n"
    quiet = purify_run("--quiet", "app.py")
    assert (quiet.stderr, quiet.stdout) == ("", told.stdout)


def test_the_program_s_exit_code_is_ours() -> None:
    write("app.py", "raise SystemExit(7)")
    assert purify_run("app.py").returncode == 7


def test_nothing_heavy_is_loaded_before_the_program_asks() -> None:
    write("app.py", LOOK)
    assert not HEAVY & {name.split(".")[0] for name in printed(purify_run("app.py"))["loaded"]}


def spent(*words: str) -> float:
    """Processor seconds of a child."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert python(*words).returncode == 0
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


@pytest.mark.slow
@pytest.mark.alone
def test_starting_costs_at_most_150_milliseconds() -> None:
    """Of processor time, which other work changes little; the median of starts beside bare ones.

    A machine on which three standard modules take 25 ms or more is given six times as long as those.
    """
    write("app.py", "pass")
    standard = ("-c", "import dataclasses, importlib.metadata, inspect")
    spent("-m", "purify_plugins", "run", "app.py")  # whoever comes first writes the byte code
    extra, three = [], []
    for _ in range(9):
        bare = spent("app.py")
        extra.append(spent("-m", "purify_plugins", "run", "app.py") - bare)
        three.append(spent(*standard) - bare)
    assert median(extra) <= max(0.150, 6 * median(three)), (extra, three)


# What is refused

NEVER = "import pathlib; pathlib.Path('it-ran').touch()\n"


def refused(done: subprocess.CompletedProcess[str], *words: str) -> None:
    """Exit code 78 and one sentence, and the program's first line was not reached."""
    assert done.returncode == 78, done.stderr
    assert done.stdout == ""
    assert done.stderr.startswith("error: ")
    assert len(done.stderr.splitlines()) == 1
    assert not Path("it-ran").exists()
    for word in words:
        assert word in done.stderr


MISTAKES = {
    "a misspelt table": ("[slmm]\n", "did you mean 'slm'?"),
    "a misspelt key": (SAID + "[activation]\ntrustd = []\n", "did you mean 'trusted'?"),
    "a misspelt option of the policy": (
        SAID + "[policy]\nname = 'capped'\ntotl = 1\n",
        "did you mean 'total'?",
    ),
    "a misspelt policy": (SAID + "[policy]\nname = 'windowd'\n", "did you mean 'windowed'?"),
    "a misspelt source": ("[slm]\nsource = 'loca'\n", "did you mean 'local'?"),
    "a misspelt key of the source": (SAID + "dtyp = 'auto'\n", "did you mean 'dtype'?"),
    "a plugin that is missing": ("plugins = ['nowhere']\n" + SAID, "unknown plugin 'nowhere'"),
    "a wrong type": (
        SAID + "[activation]\ntrusted = 'all'\n",
        "activation.trusted must be a list",
    ),
    "a wrong type of an option": (SAID + "[policy]\nname = 'capped'\ntotal = 'much'\n", "total"),
    "a wrong number": (SAID + "[sampling]\nmax_tokens = 0\n", "max_tokens must be at least 1"),
    "no SLM": ("batch_size = 3\n", "[slm] is missing"),
    "an SLM without a model": ("[slm]\ndtype = 'auto'\n", "[slm]: missing a required argument: 'model'"),
    "an SLM that is nowhere": ("[slm]\nmodel = '/no/where'\n", "there is no model directory '/no/where'"),
    "an SLM that is not beside the file": (
        "[slm]\nmodel = 'models/small'\n",
        "'models/small' is no directory in",
    ),
    "an SLM's directory without a model": ("[slm]\nmodel = '.'\n", "has no config.json"),
    "no TOML": ("[slm\n", "not valid TOML"),
    "trust in everything": (SAID + "[activation]\ntrusted = ['*']\n", "trusted must not be '*'"),
    "a secret that is not set": (SAID + "revision_env = 'NO_SUCH'\n", "gives $NO_SUCH"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_stops_the_program_before_its_first_line(mistake: str) -> None:
    app = write("app.py", NEVER)
    text, words = MISTAKES[mistake]
    Path("purify.toml").write_text(text)
    refused(purify_run(str(app)), words)


def test_a_configuration_that_is_missing_or_unreadable_stops_the_program() -> None:
    app = write("app.py", NEVER)
    refused(purify_run("--config", "gone.toml", str(app)), "cannot read", "gone.toml")
    refused(purify_run("--config", ".", str(app)), "Is a directory")
    Path("purify.toml").unlink()
    refused(purify_run(str(app)), "there is no purify.toml here")


@pytest.mark.parametrize(
    ("words", "advice"),
    [
        (["gone.py"], "there is no program 'gone.py'"),
        (["no-such-command"], "there is no program 'no-such-command'"),
        (["ls"], "is not a Python program"),
        ([], "usage: purify run"),
        (["-m"], "there is no program to run"),
        (["--confg", "x", "app.py"], "unknown option '--confg'"),
        (["-x", "app.py"], "unknown option '-x'"),
        (["--config"], "--config needs a file"),
        (["python", "-I", "app.py"], "leave -I out"),
    ],
    ids=lambda words: " ".join(words) if isinstance(words, list) else "",
)
def test_what_cannot_be_purified_is_not_run(
    words: list[str], advice: str, capsys: pytest.CaptureFixture[str]
) -> None:
    write("app.py", NEVER)
    assert launch(words) == (78 if words else 2)
    assert advice in capsys.readouterr().err
    assert not Path("it-ran").exists()


def test_the_configuration_beside_the_script_is_found(tmp_path: Path) -> None:
    (tmp_path / "deep").mkdir()
    write("deep/app.py", "import purify_plugins; print(purify_plugins.status().config)")
    Path("purify.toml").rename("deep/purify.toml")
    assert purify_run("deep/app.py").stdout.strip() == str(tmp_path / "deep" / "purify.toml")


def test_one_line_is_enough_and_a_mistake_in_the_file_ends_the_program() -> None:
    write("app.py", f"import purify_plugins.auto\n{LOOK}".replace("\n    ", "\n"))
    assert printed(python("app.py"))["active"]
    Path("purify.toml").write_text("[slmm]\n")
    write("app.py", f"try:\n    import purify_plugins.auto\nexcept Exception:\n    pass\n{NEVER}")
    refused(python("app.py"), "did you mean 'slm'?")


def test_one_line_finds_the_configuration_beside_the_program(tmp_path: Path) -> None:
    """`purify run x/app.py` found x/purify.toml, and the line in x/app.py did not."""
    (tmp_path / "deep").mkdir()
    write("deep/app.py", "import purify_plugins.auto; print(purify_plugins.status().config)")
    Path("purify.toml").rename("deep/purify.toml")
    assert python("deep/app.py").stdout.strip() == str(tmp_path / "deep" / "purify.toml")


# Children


def test_children_are_purified_or_refused(tmp_path: Path) -> None:
    """Even those whose environment was swept clean."""
    write(
        "app.py",
        f"""
        import asyncio, json, multiprocessing, os, subprocess, sys

        LOOK = [sys.executable, "-c", "print({ACTIVE})"]

        def run(words, **options):
            try:
                done = subprocess.run(words, capture_output=True, text=True, check=True, **options)
                return done.stdout.strip()
            except Exception as error:
                return f"{{type(error).__name__}}: {{error}}"

        async def later():
            child = await asyncio.create_subprocess_exec(*LOOK, stdout=subprocess.PIPE)
            return (await child.communicate())[0].decode().strip()

        def spawned(answers):
            answers.put(str({ACTIVE}))

        def started(method):
            context = multiprocessing.get_context(method)
            answers = context.Queue()
            child = context.Process(target=spawned, args=(answers,))
            child.start()
            answer = answers.get(timeout=100)
            child.join()
            return answer

        if __name__ == "__main__":
            told = {{
                "plain": run(LOOK),
                "swept": run(LOOK, env={{"PATH": os.environ["PATH"]}}),
                "shell": run(f"{{sys.executable}} look.py", shell=True),
                "asyncio": asyncio.run(later()),
                "spawn": started("spawn"),
                "fork": started("fork"),
                **{{flag: run([LOOK[0], flag, *LOOK[1:]]) for flag in ("-I", "-E", "-S", "-sE", "-uI")}},
                "shell -I": run(f"{{sys.executable}} -I look.py", shell=True),
                "shebang": run(["./blind"]),
            }}
            os.environ.pop("PYTHONPATH")
            told["swept here"] = run(LOOK)
            os.environ.pop("PYTHONPATH", None)
            told["spawn after"] = started("spawn")
            print(json.dumps(told))
        """,
    )
    write("look.py", f"print({ACTIVE})")
    write("blind", f"#!{sys.executable} -I\nprint('raw')").chmod(0o755)
    told = printed(purify_run("app.py"))
    blind = {"-I", "-E", "-S", "-sE", "-uI", "shell -I", "shebang"}
    assert {name: told[name] for name in told.keys() - blind} == dict.fromkeys(told.keys() - blind, "True")
    for name in blind:
        assert told[name].startswith("RefusedError: a Python started with -"), name


def test_a_child_that_cannot_be_purified_ends_before_its_first_line() -> None:
    write("app.py", NEVER)
    environment = {**os.environ, "PYTHONPATH": BOOT, "PURIFY_CONFIG": "/gone.toml"}
    done = subprocess.run([sys.executable, "app.py"], env=environment, capture_output=True, text=True)
    refused(done, "cannot read '/gone.toml'")


def test_a_python_without_purify_plugins_ends_with_a_reason(tmp_path: Path) -> None:
    """Another environment's: it finds the boot directory, and nothing of ours."""
    write("app.py", NEVER)
    code = "import runpy, sys; sys.modules['purify_adapters'] = None; runpy.run_path(sys.argv[1])"
    refused(
        python("-c", code, f"{BOOT}/sitecustomize.py"), "cannot be purified", "install purify-plugins for it"
    )


def test_the_next_sitecustomize_runs_too(tmp_path: Path) -> None:
    (tmp_path / "theirs").mkdir()
    write("theirs/sitecustomize.py", "import os; os.environ['THEIRS'] = 'ran'")
    write(
        "app.py", f"import os, sitecustomize\nprint(os.environ['THEIRS'], sitecustomize.__file__, {ACTIVE})"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([BOOT, str(tmp_path / "theirs")])}
    done = subprocess.run([sys.executable, "app.py"], env=environment, capture_output=True, text=True)
    assert done.stdout.split() == ["ran", str(tmp_path / "theirs" / "sitecustomize.py"), "True"], done.stderr


@pytest.mark.parametrize(
    "words",
    [
        "python app.py -I",
        "python -m app -E",
        "python -c pass -S",
        "python -W error -u x.py",
        "ls -I",
        "python -X importtime -P x",
        "python --version",
    ],
)
def test_a_python_that_sees_its_environment_may_start(words: str) -> None:
    refuse_blind(words.split())


SCRIPTS = {
    "blind": "#!/usr/bin/env -S python -I\n",
    "blind.sh": "#!/bin/sh\n# it's a script\nset -e\nexec python -I app.py\n",
    "path.sh": "#!/bin/sh\nexport PYTHONPATH=src\nexec /other/python app.py\n",
    "fine.sh": "#!/bin/sh\nexport PYTHONPATH=src:$PYTHONPATH\npython app.py -I\nls -I\n",
}


@pytest.fixture
def scripts() -> None:
    for name, text in SCRIPTS.items():
        write(name, text).chmod(0o755)


@pytest.mark.parametrize(
    ("command", "fault"),
    [
        ("python -I app.py", "-I"),
        ("/usr/bin/python3.11 -sE -m app", "-sE"),
        ("python -W error -S x.py", "-S"),
        ("python -X dev -bIc pass", "-bIc"),
        ("nice -n 5 python -I x.py", "-I"),
        ("timeout 5 ./blind.sh", "-I"),
        ("nice ./blind", "-I"),
        ("sh blind.sh", "-I"),
        ("./blind.sh", "-I"),
        ("uv run python -I x.py", "-I"),
        ("xargs -n1 python -S", "-S"),
        ("env FOO=1 python -E x.py", "-E"),
        ("env -S 'python -I x.py'", "-I"),
        ("env -i python x.py", "env -i"),
        ("env - nice python x.py", "env -i"),
        ("env --ignore-environment -C / A=1 sh -c 'python x.py'", "env -i"),
        ("env -u PYTHONPATH /other/python x.py", "PYTHONPATH="),
        ("env PYTHONPATH=src /other/python x.py", "PYTHONPATH="),
        ("./path.sh", "PYTHONPATH="),
        ("sudo -u me bash -lc 'cd x && python y.py'", "sudo"),
        ("ssh host python x.py", "ssh"),
        ("docker run image python x.py", "docker"),
    ],
)
def test_a_command_whose_python_would_not_find_us_is_refused(scripts: None, command: str, fault: str) -> None:
    with pytest.raises(RefusedError, match=re.escape(f"leave {fault} out")):
        refuse_blind(shlex.split(command))


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("FOO=1 python -I x", "-I"),
        ("exec python -I x", "-I"),
        ("cd x && python -I y | cat", "-I"),
        ("(python -S y)", "-S"),
        ("echo $(python -I x)", "-I"),
        ("echo `python -I x`", "-I"),
        ("if true; then python -I x; fi", "-I"),
        ("for f in a b; do python -I $f; done", "-I"),
        ("$PYTHON -I x", "-I"),
        ('python -I -c "\nimport os\n"', "-I"),
        ("python x # it's\npython -I y", "-I"),
        ("echo it's # broken\npython -I y", "-I"),
        ("PYTHONPATH=src /other/python x", "PYTHONPATH="),
        ("export PYTHONPATH=src; /other/python x", "PYTHONPATH="),
        ("unset PYTHONPATH\n/other/python x", "PYTHONPATH="),
        ("FOO='a\nb'; env -i python x", "env -i"),
    ],
)
def test_a_shells_text_is_read_for_such_commands(text: str, fault: str) -> None:
    with pytest.raises(RefusedError, match=re.escape(f"leave {fault} out")):
        refuse_text(text)


@pytest.mark.parametrize(
    "text",
    [
        *("./fine.sh", "python x.py; ls -I", "echo 'python -I'", "git commit -m 'python -I'", "it's broken"),
        *(
            "env FOO=1 python x.py",
            "sudo ls",
            "PYTHONPATH=src:$PYTHONPATH /other/python x",
            "",
            "# python -I",
        ),
        "python - <<E\nprint('-I')\nE",
    ],
)
def test_a_shells_text_that_starts_none_may_run(scripts: None, text: str) -> None:
    refuse_text(text)


@pytest.mark.parametrize(
    ("text", "interpreter"),
    [
        ("#!/usr/bin/python3 -Es\n", ["/usr/bin/python3", "-Es"]),
        ("#!/usr/bin/env -S python -I\n", ["python", "-I"]),
        ("#!/bin/sh\n'''exec' \"/a/long/python\" \"$0\" \"$@\"\n' '''\n", ["/a/long/python"]),
        ("print()\n", []),
        ("", []),
    ],
)
def test_a_script_s_first_line_names_its_interpreter(text: str, interpreter: list[str]) -> None:
    assert shebang(str(write("script", text))) == interpreter
    assert shebang("/no/such/file") == []


@pytest.mark.slow
def test_a_spawned_child_generates_through_the_purifier(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With real models: the LLM is sure of one token, which the SLM never says."""
    info = tmp_path / "canary_slm-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: canary-slm\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[purify]\ncanary-slm = canary_slm\n")
    write("canary_slm.py", PLUGIN)
    Path("purify.toml").write_text(CONFIG)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path), str(ROOT)]))
    write(
        "app.py",
        """
        import json, multiprocessing
        from tests.adapters.canary import tampered, tokenizer, word

        def generate(_):
            from purify_plugins import status
            ids = tokenizer()("Once upon a time", return_tensors="pt")["input_ids"]
            text = tokenizer().decode(tampered().generate(ids, max_new_tokens=4)[0])
            return [word() in text, status().active and status().total.purified]

        if __name__ == "__main__":
            with multiprocessing.get_context("spawn").Pool(1) as pool:
                print(json.dumps([generate(0), *pool.map(generate, [0])]))
        """,
    )
    assert json.loads(python("app.py").stdout) == [[True, False], [True, False]]
    assert printed(purify_run("app.py")) == [[False, 1], [False, 1]]


# The example programs

EXAMPLES = ROOT / "docs" / "examples" / "activation"
RECITED = attacks().passages[3]


def configured(folder: Path) -> None:
    """The examples' own configuration, with the test bed's models in their places."""
    text = (EXAMPLES / "purify.toml").read_text("utf-8")
    text = text.replace("models/small", str(SLM)).replace("models/large", str(LLM))
    (folder / "purify.toml").write_text(text)


@pytest.mark.slow
@pytest.mark.parametrize("program", ["chain.py", "rag.py"])
def test_an_example_recites_and_purified_it_does_not(program: str, tmp_path: Path) -> None:
    configured(tmp_path)
    words = (str(EXAMPLES / program), str(LLM), RECITED.prefix)
    plain, ours = python(*words), purify_run("--config", "purify.toml", *words)
    assert (plain.returncode, ours.returncode) == (0, 0), plain.stderr + ours.stderr
    assert RECITED.continuation[:100] in plain.stdout
    assert ours.stdout.strip()
    assert RECITED.continuation[:24] not in ours.stdout


@pytest.mark.slow
def test_the_example_service_recites_and_purified_it_does_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`purify run uvicorn service:app`, in front of a server with the test bed's LLM."""
    configured(tmp_path)
    uvicorn = write("uvicorn", f"#!{sys.executable}\nfrom uvicorn.main import main\nmain()\n")
    uvicorn.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("HF_HUB_OFFLINE", "0")
    with fake_tgi(both()[0], top_n=2048) as server:
        monkeypatch.setenv("TGI", str(server))
        plain = told_by_service([sys.executable, "uvicorn"])
        ours = told_by_service(
            [sys.executable, "-m", "purify_plugins", "run", "--config", "purify.toml", "uvicorn"]
        )
    assert RECITED.continuation[:100] in plain
    assert ours.strip()
    assert RECITED.continuation[:24] not in ours


def told_by_service(uvicorn: Sequence[str]) -> str:
    """What the service answers, started by a command."""
    port = free_port()
    words = [*uvicorn, "service:app", "--app-dir", str(EXAMPLES), "--port", str(port), "--log-level", "error"]
    with subprocess.Popen(words) as service:
        try:
            return str(answered(f"http://127.0.0.1:{port}/story")["story"])
        finally:
            service.terminate()


def answered(url: str) -> Any:
    """The JSON at a URL, as soon as its server is up."""
    end = time.monotonic() + 200
    while time.monotonic() < end:
        try:
            return httpx.get(url, params={"beginning": RECITED.prefix}, timeout=100).json()
        except httpx.ConnectError:
            time.sleep(0.1)
    raise AssertionError(f"{url} does not answer")
