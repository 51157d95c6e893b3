"""The same attacks through other guards and through ours: `python docs/compare.py --envs DIRECTORY`.

Writes the table of docs/compare.md, which lists what each system needs. DIRECTORY has a virtual environment
for each, named as in `GUARDS`; one that is not there is left out, and the table says so.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer

from purify_hooks.evaluation.eval.page import fill_region
from purify_hooks.evaluation.table import Table

sys.path.insert(0, str(Path(__file__).parent / "compare"))
from attacks import FORBIDDEN, OWN, PASSAGE, Bench, Guard, rows, user
from host import Script, hosting

PAGE = Path(__file__).parent / "compare.md"
GUARDS: Mapping[str, tuple[str, str, str]] = {
    "purify-plugins": ("", "purify.py", ""),
    "LangChain PIIMiddleware, stream_events": ("langchain", "langchain_pii.py", "events"),
    "LangChain PIIMiddleware, stream": ("langchain", "langchain_pii.py", "messages"),
    "LiteLLM proxy": ("litellm", "litellm_proxy.py", ""),
    "NeMo Guardrails": ("nemo", "nemo.py", ""),
    "NeMo Guardrails, stream_first off": ("nemo", "nemo.py", "checked first"),
    "Guardrails AI": ("guardrails", "guards_of_guardrails.py", ""),
    "LLM Guard": ("llm_guard", "llm_guard_scanners.py", ""),
    "Presidio": ("presidio", "presidio.py", ""),
}
"""A system -> its virtual environment (none: this one), its program in docs/compare, and how that streams."""


@contextmanager
def bench(envs: Path, keep: Path, name: str) -> Iterator[Bench]:
    """A guard in front of a host. Raises LookupError for one that is not installed."""
    env, program, how = GUARDS[name]
    python = envs / env / "bin" / "python" if env else Path(sys.executable)
    if not python.is_file():
        raise LookupError(f"{python} is not there")
    with hosting() as host:
        told = json.dumps({"host": host.url, "own": OWN, "forbidden": [FORBIDDEN, PASSAGE], "how": how})
        log = (keep / f"{name}.log").open("w")  # open for as long as the process

        def start() -> Guard:
            reading, writing = os.pipe()
            command = [str(python), str(Path(__file__).parent / "compare" / program), told, str(writing)]
            process = subprocess.Popen(
                command, text=True, stdin=subprocess.PIPE, stdout=log, stderr=log, pass_fds=[writing]
            )
            os.close(writing)
            return Guard(process, os.fdopen(reading))

        found = Bench(host, start, start())
        try:
            yield found
        finally:
            found.guard.close()


def measured(envs: Path, keep: Path, name: str) -> None:
    """Keep every attack's outcome on one system; those that are kept are not measured again."""
    file = keep / f"{name}.json"
    found = json.loads(file.read_text()) if file.is_file() else {}
    with bench(envs, keep, name) as placed:
        print(f"{name}: {placed.guard.versions}", file=sys.stderr)
        plain = placed.ask(Script(lambda _: "Hello."), messages=[user("Hello?")])
        if plain["text"] != "Hello.":
            raise LookupError(f"it does not answer a harmless request: {plain['error'][:200]}")
        found["version"] = placed.guard.versions
        for row, attack in rows():
            if row not in found:
                lacking = any(word in row for word in placed.guard.lacks)
                found[row] = "not made for it" if lacking else attack(placed)
                print(f"  {row}: {found[row]}", file=sys.stderr, flush=True)
                file.write_text(json.dumps(found, indent=1))


def table(keep: Path) -> Table:
    """The outcomes that are kept, a column a system."""
    files = {name: keep / f"{name}.json" for name in GUARDS}
    found = {name: json.loads(file.read_text()) for name, file in files.items() if file.is_file()}
    names = ["version", *(row for row, _ in rows())]
    lines = [(row, *(each.get(row, "–") for each in found.values())) for row in names]
    left = [name for name in GUARDS if name not in found]
    note = f"Not measured here: {', '.join(left)}." if left else ""
    return Table("Attacks", ("", *found), tuple(lines), note)


def main(
    envs: Annotated[Path, typer.Option(help="The directory of virtual environments.")] = Path("compare-envs"),
    only: Annotated[str, typer.Option(help="One system.")] = "",
    keep: Annotated[Path, typer.Option(help="A directory for outcomes, a file a system.")] = Path(
        "compare-out"
    ),
    write: Annotated[bool, typer.Option(help="Measure nothing: write what is kept.")] = False,
) -> None:
    """Ask every guard every attack, or write the outcomes into docs/compare.md."""
    keep.mkdir(exist_ok=True)
    if write:
        fill_region(PAGE, "compare", f"\n{table(keep).markdown}\n\n")
        return
    for name in GUARDS:
        if not only or name == only:
            try:
                measured(envs, keep, name)
            except LookupError as error:
                print(f"{name} is left out: {error}", file=sys.stderr)


if __name__ == "__main__":
    typer.run(main)
