"""Ways to start another Python: each child asks the canary's server for a chat, and prints what it got."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import sysconfig
import venv
from dataclasses import dataclass
from pathlib import Path
from textwrap import dedent
from typing import Any

ROOT = Path(__file__).parent.parent.parent

CHILD = """
    import json, os, sys, urllib.request

    def ask():
        try:
            body = json.dumps({"messages": []}).encode()
            asked = urllib.request.Request(URL + "/v1/chat/completions", body)
            return urllib.request.urlopen(asked).read().decode()
        except Exception as error:
            return f"purified, by {type(error).__name__}"

    if __name__ == "__main__":
        print(ask(), flush=True)
"""
"""What every child runs; under activation its request is refused, in the child."""

DRIVER = """
    import asyncio, concurrent.futures, json, multiprocessing, os, subprocess, sys, threading
    from child import ask

    PY, OTHER = sys.executable, OTHER_PYTHON

    def run(words, **options):
        done = subprocess.run(words, capture_output=True, text=True, timeout=200, **options)
        return done.stdout + (f"exit {done.returncode}: {done.stderr}" if done.returncode else "")

    def shell(text):
        return run(text, shell=True)

    def unseen(text):
        '''By a program that is no Python and no shell, whose words nobody can read.'''
        return run(["awk", 'BEGIN { system("' + text.replace('"', '\\\\\\\\"') + '") }'])

    def system(text):
        assert os.system(text + " > told") == 0
        return open("told").read()

    def posix_spawn(environment):
        out = (os.POSIX_SPAWN_OPEN, 1, "told", os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        os.waitpid(os.posix_spawn(PY, [PY, "child.py"], environment, file_actions=[out]), 0)
        return open("told").read()

    def forked(become):
        '''Another program in the place of a copy of this process.'''
        ours, theirs = os.pipe()
        child = os.fork()
        if not child:
            os.dup2(theirs, 1)
            try:
                become()
            except BaseException as error:
                os.write(1, f"refused: {error}".encode())
            os._exit(1)
        os.close(theirs)
        text = open(ours).read()
        os.waitpid(child, 0)
        return text

    def swept():
        return {"PATH": os.environ["PATH"]}

    def queued(answers):
        answers.put(ask())

    def started(method):
        context = multiprocessing.get_context(method)
        answers = context.Queue()
        child = context.Process(target=queued, args=(answers,))
        child.start()
        answer = answers.get(timeout=200)
        child.join()
        return answer

    def pool(method):
        with multiprocessing.get_context(method).Pool(1) as workers:
            return workers.apply(ask)

    def executor():
        with concurrent.futures.ProcessPoolExecutor(1) as workers:
            return workers.submit(ask).result(60)

    async def later():
        child = await asyncio.create_subprocess_exec(PY, "child.py", stdout=subprocess.PIPE)
        return (await child.communicate())[0].decode()

    def script(name, text):
        with open(name, "w") as file:
            file.write(text)
        os.chmod(name, 0o755)
        return "./" + name

    WAYS = {
        "subprocess": lambda: run([PY, "child.py"]),
        "subprocess with an empty environment": lambda: run([PY, "child.py"], env={}),
        "subprocess with an environment of bytes": lambda: run([PY, "child.py"], env={b"PYTHONPATH": b"src"}),
        "subprocess, PYTHONPATH=src in its environment": lambda: run(
            [PY, "child.py"], env={**os.environ, "PYTHONPATH": "src"}
        ),
        "a shell's text": lambda: shell(f"{PY} child.py"),
        "os.system": lambda: system(f"{PY} child.py"),
        "os.popen": lambda: os.popen(f"{PY} child.py").read(),
        "asyncio": lambda: asyncio.run(later()),
        "os.posix_spawn": lambda: posix_spawn(swept()),
        "os.execv": lambda: forked(lambda: os.execv(PY, [PY, "child.py"])),
        "os.execve, by keyword": lambda: forked(
            lambda: os.execve(path=PY, argv=[PY, "child.py"], env=swept())
        ),
        "os.spawnv": lambda: forked(lambda: os.spawnv(os.P_WAIT, PY, [PY, "child.py"])),
        "multiprocessing: spawn": lambda: started("spawn"),
        "multiprocessing: fork": lambda: started("fork"),
        "multiprocessing: forkserver": lambda: started("forkserver"),
        "multiprocessing: a pool": lambda: pool("spawn"),
        "concurrent.futures: a process pool": executor,
        "python -I": lambda: run([PY, "-I", "child.py"]),
        "python -E": lambda: run([PY, "-E", "child.py"]),
        "python -S": lambda: run([PY, "-S", "child.py"]),
        "python -sE": lambda: run([PY, "-sE", "child.py"]),
        "nice python -I": lambda: run(["nice", "-n", "1", PY, "-I", "child.py"]),
        "env python -I": lambda: run(["env", "A=1", PY, "-I", "child.py"]),
        "timeout python -S": lambda: run(["timeout", "50", PY, "-S", "child.py"]),
        "xargs python -I": lambda: run(["xargs", PY, "-I"], input="child.py"),
        "exec python -I": lambda: shell(f"exec {PY} -I child.py"),
        "FOO=1 python -I": lambda: shell(f"FOO=1 {PY} -I child.py"),
        "cd and python -I": lambda: shell(f"cd . && {PY} -I child.py"),
        "sh -c 'python -I'": lambda: run(["sh", "-c", f"{PY} -I child.py"]),
        "os.system: python -I": lambda: system(f"{PY} -I child.py"),
        "os.execv: python -I": lambda: forked(lambda: os.execv(PY, [PY, "-I", "child.py"])),
        "a script whose first line is python -I": lambda: run(
            [script("blind", f"#!{PY} -I\\n" + open("child.py").read())]
        ),
        "a shell script that starts python -I": lambda: run(
            [script("blind.sh", f"#!/bin/sh\\n# it's a script\\n{PY} -I child.py\\n")]
        ),
        "env -i python": lambda: run(["env", "-i", PY, "child.py"]),
        "env -i in a shell's text": lambda: shell(f"env -i FOO=1 {PY} child.py"),
        "sudo python": lambda: run([script("sudo", '#!/bin/sh\\nexec env -i "$@"\\n'), PY, "child.py"]),
        "PYTHONPATH=src python": lambda: shell(f"PYTHONPATH=src {PY} child.py"),
        "env PYTHONPATH=src python": lambda: run(["env", "PYTHONPATH=src", PY, "child.py"]),
        "a shell script that exports PYTHONPATH=src": lambda: run(
            [script("path.sh", f"#!/bin/sh\\nexport PYTHONPATH=src\\nexec {PY} child.py\\n")]
        ),
        "PYTHONPATH=src and another environment's python": lambda: shell(f"PYTHONPATH=src {OTHER} child.py"),
        "another environment's python": lambda: run([OTHER, "child.py"]),
        "uv run": lambda: run([script("uv", f'#!/bin/sh\\nshift\\nexec "$@"\\n'), "run", PY, "child.py"]),
        "unseen: python": lambda: unseen(f"{PY} child.py"),
        "unseen: PYTHONPATH=src python": lambda: unseen(f"PYTHONPATH=src {PY} child.py"),
        "unseen: python -I": lambda: unseen(f"{PY} -I child.py"),
        "unseen: python -E": lambda: unseen(f"{PY} -E child.py"),
        "unseen: python -S": lambda: unseen(f"{PY} -S child.py"),
        "unseen: env -i python": lambda: unseen(f"env -i {PY} child.py"),
        "unseen: PYTHONPATH=src and another environment's python": lambda: unseen(
            f"PYTHONPATH=src {OTHER} child.py"
        ),
        "a program that is no Python": lambda: run(
            ["awk", "BEGIN { getline < \\"word\\"; print }"]
        ),
    }

    if __name__ == "__main__":
        told = {}

        def tell(name):
            try:
                told[name] = WAYS[name]()
            except Exception as error:
                told[name] = f"refused, by {type(error).__name__}: {error}"

        for name in WAYS:
            tell(name)
        print(json.dumps(told))
"""

LATE = """
    import concurrent.futures, json, multiprocessing, subprocess, sys
    import purify_plugins
    from child import ask

    SERVER = "import sys; from child import ask; [print(ask(), flush=True) for line in sys.stdin]"

    def activated():
        try:
            purify_plugins.activate("purify.toml")
        except purify_plugins.ConfigError as error:
            return f"refused: {error}"

    def pool(method):
        with multiprocessing.get_context(method).Pool(1) as workers:
            told = [workers.apply(ask), activated() or workers.apply(ask)]
            workers.terminate()
            workers.join()
        return told

    def executor():
        with concurrent.futures.ProcessPoolExecutor(1) as workers:
            return [workers.submit(ask).result(60), activated() or workers.submit(ask).result(60)]

    def forked_anew():
        context = multiprocessing.get_context("forkserver")

        def started():
            with context.Pool(1) as workers:
                answer = workers.apply(ask)
                workers.terminate()
                workers.join()
            return answer

        return [started(), activated() or started()]

    def server():
        words = [sys.executable, "-c", SERVER]
        with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as child:
            def asked():
                print("", file=child.stdin, flush=True)
                return child.stdout.readline()

            told = [asked(), activated() or asked()]
            child.stdin.close()
        return told

    WAYS = {
        "workers of a pool, started before": lambda: pool("fork"),
        "workers of a process pool of concurrent.futures, started before": executor,
        "a forkserver, started before": forked_anew,
        "a process started before, asked over a pipe": server,
    }

    if __name__ == "__main__":
        told = {}
        for name, way in WAYS.items():
            told[name] = way()
            purify_plugins.deactivate()
        print(json.dumps(told))
"""
"""The same with processes that are there when purification is switched on: their answers before and after."""

PURIFIED = {
    "a forkserver, started before",
    *("subprocess", "subprocess with an empty environment", "subprocess with an environment of bytes"),
    *("subprocess, PYTHONPATH=src in its environment", "a shell's text", "os.system", "os.popen", "asyncio"),
    *("os.posix_spawn", "os.execv", "os.execve, by keyword", "os.spawnv"),
    *("multiprocessing: spawn", "multiprocessing: fork", "multiprocessing: forkserver"),
    *("multiprocessing: a pool", "concurrent.futures: a process pool"),
    *("PYTHONPATH=src python", "env PYTHONPATH=src python", "a shell script that exports PYTHONPATH=src"),
    *("uv run", "unseen: python", "unseen: PYTHONPATH=src python", "unseen: python -I", "unseen: python -E"),
}
"""Children that are purified."""
REFUSED = {
    *("workers of a pool, started before", "workers of a process pool of concurrent.futures, started before"),
    *("python -I", "python -E", "python -S", "python -sE", "nice python -I", "env python -I"),
    *("timeout python -S", "xargs python -I", "exec python -I", "FOO=1 python -I", "cd and python -I"),
    *("sh -c 'python -I'", "os.system: python -I", "os.execv: python -I"),
    *("a script whose first line is python -I", "a shell script that starts python -I"),
    *("env -i python", "env -i in a shell's text", "sudo python"),
    *("PYTHONPATH=src and another environment's python", "another environment's python"),
}
"""Children that are not started, or end at once; and workers beside which nothing is switched on."""
OPEN = {
    "a process started before, asked over a pipe": "nothing tells it from any other process",
    "unseen: python -S": "it reads nothing of ours, and only what a shell or a script starts is looked at",
    "unseen: env -i python": "nothing tells it of us, and only what a shell or a script starts is looked at",
    "unseen: PYTHONPATH=src and another environment's python": "purify-plugins is not installed there",
    "a program that is no Python": "only Pythons are purified",
}
"""Named in the documentation with these reasons."""


def environment(folder: Path) -> Path:
    """A Python with all that this one has, and our file beside it, as an installation puts it there."""
    venv.create(folder, with_pip=False)
    [site] = folder.glob("lib/python*/site-packages")
    paths = [*map(str, (ROOT, ROOT / "adapters", ROOT / "hooks")), sysconfig.get_path("purelib"), *sys.path]
    lines = [path for path in paths if path and Path(path).is_dir()]
    (site / "aaa.pth").write_text("\n".join(lines) + "\n")
    (site / "zzz_purify.pth").write_text((ROOT / "zzz_purify.pth").read_text())
    return folder / "bin" / "python"


@dataclass(frozen=True)
class Told:
    """What each way's child has printed, without purification and with it."""

    raw: dict[str, str]
    ours: dict[str, str]


def told(folder: Path, url: str, word: str) -> Told:
    """Run both programs in a folder that has a configuration."""
    python = environment(folder / "ours")
    venv.create(folder / "other", with_pip=False)
    (folder / "word").write_text(word)
    (folder / "child.py").write_text(f"URL = {url!r}\n" + dedent(CHILD))
    other = str(folder / "other" / "bin" / "python")
    (folder / "driver.py").write_text(dedent(DRIVER).replace("OTHER_PYTHON", repr(other)))
    (folder / "late.py").write_text(dedent(LATE))
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("PURIFY", "PYTHON"))}

    def run(*words: str) -> Any:
        done = subprocess.run(
            [python, *words], cwd=folder, env=clean, capture_output=True, text=True, timeout=250
        )
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    raw, ours, late = run("driver.py"), run("-m", "purify_plugins", "run", "driver.py"), run("late.py")
    return Told(
        {**raw, **{way: answers[0] for way, answers in late.items()}},
        {**ours, **{way: answers[1] for way, answers in late.items()}},
    )
