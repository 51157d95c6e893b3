"""The cache of results: one cell for each system, suite and mode, appended to a file when it is finished.

A cell's key is a digest of all it depends on: both models, the policy and its fields, the suite, its
questions and settings. The same question to the same models is answered from the file.
"""

from __future__ import annotations

import ast
import hashlib
import inspect
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cache
from importlib import import_module
from importlib.util import resolve_name
from pathlib import Path
from typing import TYPE_CHECKING, Any

from purify_hooks.evaluation.eval.statistics import Sample
from purify_plugins.canonical_json import canonical, jsonable, options
from purify_plugins.errors import ConfigError
from purify_plugins.utils.files import read_bytes

if TYPE_CHECKING:
    from purify_hooks.evaluation.eval.chains import Chain
    from purify_hooks.evaluation.eval.model_pair import ModelPair
    from purify_hooks.evaluation.eval.suites.base import Suite
    from purify_hooks.evaluation.eval.systems import System
    from purify_plugins.plugin.manager import Plugins
    from purify_plugins.policy import FusionPolicy

MEASURING = (
    "purify_hooks.evaluation.eval.attempt",
    "purify_hooks.evaluation.eval.model_pair",
    "purify_hooks.evaluation.eval.suites.base",
    "purify_plugins.decode.likelihood",
    "purify_plugins.decode.forcing",
    "purify_plugins.decode.fusion",
    "purify_plugins.decode.sessions",
    "purify_plugins.tokenizers.cross.beam",
    "purify_plugins.tokenizers.cross.prompt_scores",
    "purify_plugins.tokenizers.cross.source",
    "purify_plugins.tokenizers.template_words",
)
"""Modules that every suite measures with: a cell is stale when one of them has changed."""
EVALUATION = "purify_hooks.evaluation.eval"
DRIVING = (
    "purify_plugins.requests.staged",
    "purify_plugins.stages.driver",
    "purify_plugins.stages.matches",
    "purify_plugins.stages.release",
    "purify_plugins.stages.windows",
)
"""Modules that request stages are run by: a cell of a chain is stale when one of them has changed."""
Samples = Mapping[str, Sequence[Sample]]


@dataclass(frozen=True)
class Cell:
    """A finished measurement: each metric's items, and the CPU seconds they took."""

    key: str
    system: str
    suite: str
    mode: str
    seconds: float
    samples: Samples

    def line(self) -> str:
        return json.dumps(asdict(self))

    @classmethod
    def read(cls, line: str) -> Cell:
        """Parse a line that `line` wrote. Raises ValueError for an incomplete one."""
        record = json.loads(line)
        samples = {name: [Sample(*each) for each in seen] for name, seen in record.pop("samples").items()}
        return cls(**record, samples=samples)


def key(pair: ModelPair, system: System, name: str, suite: Suite, mode: str) -> str:
    """SHA-256 of everything a cell depends on, including the code that measures and fuses."""
    policy = pair.policy(system)
    body = {
        "models": {"llm": jsonable(pair.llm.identity()), "slm": jsonable(pair.slm.identity())},
        "system": system.key if system.alone else "both",
        "policy": {"name": system.policy, "fields": options(policy, pair.plugins.name_of)},
        "suite": {"name": name, "mode": mode},
        "code": [*map(code, (*_policies(pair.plugins, policy), *_modules(suite), *MEASURING))],
        "questions": suite.questions.digest,
        "settings": asdict(suite.settings),
        **(_stages(pair, system.chain) if system.chain else {}),
    }
    return hashlib.sha256(canonical(body).encode()).hexdigest()


def _policies(plugins: Plugins, policy: FusionPolicy) -> list[str]:
    """The modules of a policy and of any policy inside it, and what these import."""
    told = options(policy, plugins.name_of).values()
    inside = [plugins.policy(each) for each in told if isinstance(each, Mapping) and "name" in each]
    more = [module for each in inside for module in _policies(plugins, each)]
    return sorted({*reached(type(policy.original).__module__), *more})


def _modules(suite: Suite) -> list[str]:
    """The modules of a suite's own class and of those that it inherits from, and what these import."""
    mine = [each.__module__ for each in type(suite).__mro__ if each.__module__.startswith("purify_")]
    return sorted({module for each in mine for module in reached(each)})


def _stages(pair: ModelPair, chain: Chain) -> Mapping[str, Any]:
    """What a cell depends on of a chain of request stages."""
    made = chain.made(pair.plugins)
    stages = [[type(each).__name__, each.public(), code(type(each).__module__)] for each in made]
    return {"stages": jsonable(stages), "request": jsonable(chain.request), "driving": [*map(code, DRIVING)]}


@cache
def reached(module: str) -> list[str]:
    """A module and those of its own package, and of the evaluation, that it and they import."""
    found, left = set[str](), [module]
    while left:
        if (each := left.pop()) not in found:
            found.add(each)
            left += _imported(each)
    return sorted(found)


def _imported(module: str) -> list[str]:
    """The modules of its own package, and of the evaluation, that a module imports when it runs."""
    package = module.rpartition(".")[0]
    imports = (each for each in _run(ast.parse(_source(module))) if isinstance(each, ast.ImportFrom))
    named = [resolve_name(f"{'.' * each.level}{each.module or ''}", package) for each in imports]
    return [each for each in named if each.startswith((f"{package}.", f"{EVALUATION}."))]


def _run(node: ast.AST) -> Iterator[ast.AST]:
    """Everything inside, but for what only a type checker reads."""
    for child in ast.iter_child_nodes(node):
        if not (isinstance(child, ast.If) and ast.unparse(child.test) == "TYPE_CHECKING"):
            yield child
            yield from _run(child)


@cache
def code(module: str) -> str:
    """SHA-256 of a module's source; empty where there is none."""
    source = _source(module)
    return hashlib.sha256(source.encode()).hexdigest() if source else ""


def _source(module: str) -> str:
    try:
        return inspect.getsource(import_module(module))
    except (OSError, TypeError):
        return ""


class ResultsCache:
    """The file of finished cells; lines are only ever appended.

    Beside it, `pieces` has what was read for suites that are not finished.
    """

    def __init__(self, file: Path) -> None:
        self.file = file
        self.cells: dict[str, Cell] = {}
        for line in lines(file):
            try:
                cell = Cell.read(line)
            except (ValueError, TypeError):  # the line that a killed run was writing
                continue
            self.cells[cell.key] = cell

    @property
    def pieces(self) -> Path:
        return self.file.with_name("pieces.jsonl")

    def add(self, cell: Cell) -> None:
        """Append a cell. Raises ConfigError."""
        self.cells[cell.key] = cell
        append(self.file, cell.line())


def lines(file: Path) -> list[str]:
    """A file's lines; none where there is no file. Raises ConfigError."""
    return read_bytes(file).decode("utf-8", "replace").splitlines() if file.exists() else []


def append(place: Path, line: str) -> None:
    """Append a line of its own, also after an incomplete one. Raises ConfigError."""
    try:
        with place.open("ab+") as file:
            file.seek(0, 2)
            if file.tell() and (file.seek(-1, 2), file.read(1))[1] != b"\n":
                file.write(b"\n")
            file.write(line.encode() + b"\n")
    except OSError as error:
        raise ConfigError(f"cannot write {str(place)!r}: {error.strerror}") from error
