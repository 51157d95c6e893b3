"""Replaces attributes of modules, when these are imported, and restores them exactly."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

from purify_plugins.errors import PluginError

MISSING: Any = object()
"""Marks an attribute that did not exist before."""
Patch = Callable[["Monkeypatch", ModuleType], None]


class Monkeypatch:
    """The replaced attributes, in order; `undo` restores them."""

    def __init__(self) -> None:
        self.replaced: list[tuple[Any, str, Any, Any]] = []

    def replace(self, owner: Any, name: str, around: Callable[[Any], Any], inherited: Any = MISSING) -> None:
        """Replace `owner.name` by `around(original)`.

        `inherited` is the original if `owner` itself has none. Raises PluginError for a missing attribute:
        the library's version is not supported.
        """
        before = vars(owner).get(name, MISSING)
        if any(before is after for _, _, _, after in self.replaced):
            return  # patched already: a module was reloaded, its base was not
        original = inherited if before is MISSING else before
        if original is MISSING:
            where = f"{getattr(owner, '__module__', '')}.{owner.__name__}.{name}".lstrip(".")
            raise PluginError(
                f"this version has no {where}, so it cannot be purified; use a version that has"
            )
        after = around(original)
        setattr(owner, name, after)
        self.replaced.append((owner, name, before, after))

    def undo(self) -> None:
        """Restore the attributes, last first, except those that other code has replaced since."""
        while self.replaced:
            owner, name, before, after = self.replaced.pop()
            if vars(owner).get(name, MISSING) is not after:
                continue
            if before is MISSING:
                delattr(owner, name)
            else:
                setattr(owner, name, before)

    @property
    def names(self) -> list[str]:
        return [f"{_where(owner)}.{name}" for owner, name, _, _ in self.replaced]


def _where(owner: Any) -> str:
    return f"{owner.__module__}.{owner.__qualname__}" if isinstance(owner, type) else str(owner.__name__)


class AfterImport(MetaPathFinder):
    """Patches modules: imported ones at once, the others after their import.

    A reloaded module is patched again. A name that begins with `*` matches every module whose name ends so.
    """

    def __init__(self, monkeypatch: Monkeypatch, patches: dict[str, Patch]) -> None:
        self.monkeypatch, self.patches = monkeypatch, patches
        self.done: set[str] = set()
        self.endings = tuple(name.removeprefix("*") for name in patches if name.startswith("*"))

    @property
    def waiting(self) -> list[str]:
        """The modules that are not imported yet."""
        return [name for name in self.patches if name not in self.done]

    def start(self) -> None:
        sys.meta_path.insert(0, self)
        for name, module in list(sys.modules.items()):
            if self.found(name) is not None and isinstance(module, ModuleType):
                self.patch(name, module)

    def stop(self) -> None:
        if self in sys.meta_path:
            sys.meta_path.remove(self)

    def found(self, name: str) -> Patch | None:
        """The patch of a module, by name; None if it has none."""
        if name in self.patches:
            return self.patches[name]
        if not name.endswith(self.endings):
            return None
        return next(patch for key, patch in self.patches.items() if key[0] == "*" and name.endswith(key[1:]))

    def patch(self, name: str, module: ModuleType) -> None:
        if (patch := self.found(name)) is not None:
            patch(self.monkeypatch, module)
            self.done.add(name)

    def find_spec(
        self, name: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if self.found(name) is None:
            return None
        others = (finder for finder in sys.meta_path if finder is not self)
        specs = (finder.find_spec(name, path, target) for finder in others)
        spec = next((spec for spec in specs if spec is not None), None)
        if spec is not None and spec.loader is not None:
            spec.loader = _Patching(spec.loader, self)
        return spec


class _Patching(Loader):
    """Runs a module's own loader, then the patch, and leaves no trace in the module."""

    def __init__(self, loader: Any, finder: AfterImport) -> None:
        self.loader, self.finder = loader, finder

    def __getattr__(self, name: str) -> Any:
        """The original loader's other methods."""
        return getattr(self.loader, name)

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        return self.loader.create_module(spec)  # type: ignore[no-any-return]  # a loader's own

    def exec_module(self, module: ModuleType) -> None:
        name = module.__name__
        module.__loader__ = self.loader
        if module.__spec__ is not None:
            name = module.__spec__.name
            module.__spec__.loader = self.loader
        self.loader.exec_module(module)
        self.finder.patch(name, module)
