"""Collect the modules of purify-plugins that a check needs: what `own/` and `ROOTS` import at module level.

They come under the name `purify_verify`, without docstrings and comments, half of their size; `own/`
has what stands in place of a module here.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path
from shutil import rmtree
from tempfile import mkdtemp
from typing import Any

HERE = Path(__file__).parent
TOP = HERE.parent.parent
PLACES = {
    "purify_plugins": TOP / "purify_plugins",
    "purify_hooks.policies": TOP / "hooks/purify_hooks/policies",
}
NAME = "purify_verify"
ROOTS = ("purify_plugins.certificates.schema", "purify_plugins.signing.timestamps")
"""What functions import, and a check needs; all else follows from `own/`."""
IMPORT = re.compile(r"^(\s*(?:from|import) )(purify_plugins|purify_hooks)\b", re.M)


def place(module: str) -> Path | None:
    """A module's file, ours in `own/` before the checkout's; None: somebody else's."""
    for package, folder in PLACES.items():
        if module == package or module.startswith(f"{package}."):
            inside = module.removeprefix(package).replace(".", "/").strip("/")
            bases = (HERE / "own", folder) if package == "purify_plugins" else (folder,)
            names = (f"{inside}.py", f"{inside}/__init__.py".strip("/"))
            return next((base / name for base in bases for name in names if (base / name).is_file()), None)
    return None


def target(module: str, file: Path) -> str:
    """Where a module's file comes in the wheel."""
    renamed = module.replace("purify_hooks.policies", f"{NAME}.policies").replace("purify_plugins", NAME)
    base = renamed.replace(".", "/")
    return f"{base}/__init__.py" if file.name == "__init__.py" else f"{base}.py"


def imported(module: str, file: Path) -> Iterator[str]:
    """The modules that a file imports as it is imported."""
    package = module if file.name == "__init__.py" else module.rpartition(".")[0]
    for node in ast.parse(file.read_text("utf-8")).body:
        if isinstance(node, ast.Import):
            yield from (each.name for each in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
            base = ".".join([*above, *([node.module] if node.module else [])])
            yield base
            yield from (f"{base}.{each.name}" for each in node.names)


def collected() -> dict[str, Path]:
    """Every module of the wheel, and its file."""
    found: dict[str, Path] = {}
    waiting = ["purify_plugins", "purify_plugins.__main__", *ROOTS]
    while waiting:
        module = waiting.pop()
        file = place(module)
        if file is None or module in found:
            continue
        found[module] = file
        waiting += [module.rpartition(".")[0], *imported(module, file)]
    return found


def renamed(text: str) -> str:
    """A module with its imports of ours under the wheel's name, and without what only its readers need."""
    tree = ast.parse(IMPORT.sub(lambda at: at[1] + NAME, text))
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef):
            kept = [each for each in node.body if not _remark(each)]
            node.body = kept or [ast.Pass()]
    return f"{ast.unparse(tree)}\n"


def _remark(node: ast.stmt) -> bool:
    """Whether a statement does nothing as it runs: a text alone, or imports for a type checker."""
    if isinstance(node, ast.If):
        return isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING" and not node.orelse
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)


def write(folder: Path) -> list[str]:
    """Write every module below a folder; their paths there."""
    paths = []
    for module, file in collected().items():
        path = target(module, file)
        paths.append(path)
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_text(renamed(file.read_text("utf-8")), "utf-8")
    return sorted(paths)


try:
    from hatchling.builders.hooks.plugin.interface import BuildHookInterface
except ImportError:  # the tests read what is collected without a build
    pass
else:

    class Collect(BuildHookInterface):  # type: ignore[type-arg]  # hatchling's own
        """Puts what was collected into the wheel."""

        def initialize(self, version: str, build_data: dict[str, Any]) -> None:
            self.folder = Path(mkdtemp())
            for path in write(self.folder):
                build_data["force_include"][str(self.folder / path)] = path

        def finalize(self, version: str, build_data: dict[str, Any], artifact_path: str) -> None:
            rmtree(self.folder)
