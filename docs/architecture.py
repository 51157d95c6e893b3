"""Draw the rooms of the code and the arrows between them, from its imports: `python docs/architecture.py`.

Writes docs/architecture.svg. Every import counts: those inside functions and those for type checkers too.
`tests/test_architecture.py` checks what the drawing shows, and that the file is up to date.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping
from functools import cache
from html import escape
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parent.parent
OUT = ROOT / "docs" / "architecture.svg"
PACKAGES = {"purify_plugins": ROOT, "purify_hooks": ROOT / "hooks", "purify_adapters": ROOT / "adapters"}
FILES = [path for name, top in PACKAGES.items() for path in sorted((top / name).rglob("*.py"))]


class Room(NamedTuple):
    """Modules of the core that belong together, and what they are for."""

    name: str
    modules: tuple[str, ...]
    purpose: str


ROOMS = (
    Room(
        "errors, utils",
        ("errors", "_version", "utils"),
        "errors that say what to do; files, messages",
    ),
    Room(
        "types",
        ("grammar", "sampling", "types", "threat", "protocols", "policy", "foreign", "canonical_json"),
        "the nouns; what a model and a policy offer; what an answer may claim",
    ),
    Room("sources", ("sources",), "wrappers of models; batching across threads"),
    Room("vouching", ("vouching",), "cards and signatures of a model's files"),
    Room("tokenizers", ("tokenizers",), "token bytes, chat templates, two tokenizers in one vocabulary"),
    Room("decode", ("decode",), "the loop: ask both models, fuse, draw, repeat"),
    Room("plugin", ("plugin",), "the hooks, and which plugin offers what"),
    Room("certificates", ("certificates",), "issued, verified, recomputed with the models, explained"),
    Room("signing", ("signing",), "keys, signed envelopes, the chain over certificates, its log"),
    Room("verifying", ("verifying",), "checks of a certificate by its reader, without a model"),
    Room("store", ("store",), "the append-only record of certificates: retention, erasure, search"),
    Room("stages", ("stages",), "programs around a decode: what they ask, read and check"),
    Room(
        "purifier",
        ("purifier", "requests", "configuration"),
        "Purifier, purify.toml, requests and their outcomes",
    ),
    Room("running", ("running",), "purification of a whole program: purify run"),
    Room("cli", ("cli",), "the command purify"),
    Room("public names", ("", "__main__", "auto", "testing", "testbed"), "what import purify_plugins offers"),
)
"""The rooms of the core, bottom to top: a room imports only what is below it."""
OUTSIDE = {
    "purify_hooks": "bundled plugins: policies, the model in this process, evaluation",
    "purify_adapters": "other software: servers, frameworks, the gateway, activation",
}


def module(path: Path) -> str:
    top = next(top for name, top in PACKAGES.items() if path.is_relative_to(top / name))
    return ".".join(path.relative_to(top).with_suffix("").parts).removesuffix(".__init__")


MODULES = {module(path): path for path in FILES}


def imported(name: str, path: Path) -> Iterator[str]:
    """The modules that a file imports, wherever in it."""
    package = name if path.name == "__init__.py" else name.rpartition(".")[0]
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            yield from (each.name for each in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
            base = ".".join([*above, *([node.module] if node.module else [])])
            yield from (whole if (whole := f"{base}.{e.name}") in MODULES else base for e in node.names)


@cache
def graph() -> Mapping[str, frozenset[str]]:
    """Each module of ours and those of ours that it imports."""
    return {
        name: frozenset(each for each in imported(name, path) if each in MODULES) - {name}
        for name, path in MODULES.items()
    }


def reached(graph: Mapping[str, frozenset[str]], start: str) -> set[str]:
    """What can be reached from `start` along one arrow or more."""
    found, todo = set[str](), [start]
    while todo:
        new = graph[todo.pop()] - found
        found |= new
        todo += new
    return found


def circles(graph: Mapping[str, frozenset[str]]) -> list[set[str]]:
    """The sets of modules each of which reaches every other, largest first."""
    after = {name: reached(graph, name) for name in graph}
    found = {frozenset(other for other in after[name] if name in after[other]) for name in graph}
    return sorted((set(each) for each in found if len(each) > 1), key=len, reverse=True)


def room(name: str) -> str:
    """The room of a module of the core; the package of any other."""
    package, _, inside = name.partition(".")
    first = inside.partition(".")[0]
    if package != "purify_plugins":
        return package
    return next(each.name for each in ROOMS if first in each.modules)


def arrows() -> set[tuple[str, str]]:
    """Which room imports which."""
    found = {(room(name), room(each)) for name, all_ in graph().items() for each in all_}
    return {(one, other) for one, other in found if one != other}


def drawn() -> list[tuple[str, str]]:
    """The arrows inside the core that do not follow from others, which is all a reader must see."""
    inside = {each.name for each in ROOMS}
    found = {arrow for arrow in arrows() if inside.issuperset(arrow)}
    steps = {each: frozenset(other for one, other in found if one == each) for each in inside}
    return sorted(
        (one, other)
        for one, other in found
        if not any(other in reached(steps, between) for between in steps[one] - {other})
    )


# The drawing

WIDTH, LEFT, FLOOR, GAP, TOP = 760, 20, 46, 18, 128
RIGHT = 640
STYLE = """
  svg { color-scheme: light dark; }
  text { fill: #1f1e1b; font: 14px system-ui, "Segoe UI", Roboto, "DejaVu Sans", sans-serif; }
  .name { font-weight: 650; font-size: 15px; } .soft { fill: #5f5c54; font-size: 13px; }
  .paper { fill: #fbfaf6; } .room { fill: #fff; stroke: #14695a; } .outside { fill: #fff; stroke: #a39d8f; }
  .arrow { fill: none; stroke: #14695a; stroke-width: 1.5; } .head { fill: #14695a; }
  @media (prefers-color-scheme: dark) {
    .paper { fill: #141517; } .room { fill: #1b1d20; stroke: #59c3ab; }
    .outside { fill: #1b1d20; stroke: #6b6860; }
    text { fill: #e9e6df; } .soft { fill: #a5a197; } .arrow { stroke: #59c3ab; } .head { fill: #59c3ab; }
  }"""


def svg() -> str:
    """The picture: a floor for each room, above them what builds on the core, an arrow from user to used."""
    places = {each.name: TOP + at * (FLOOR + GAP) for at, each in enumerate(reversed(ROOMS))}
    height = TOP + len(ROOMS) * (FLOOR + GAP) + 24
    parts = [*_outside(), *(_floor(each, places[each.name]) for each in ROOMS), *_lines(places)]
    note = "An arrow is an import, also one for a type; those that follow from others are left out."
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" role="img" '
        'aria-label="The rooms of purify-plugins and which imports which">\n'
        f"<style>{STYLE}\n</style>\n"
        '<defs><marker id="head" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="8" markerHeight="8" '
        'orient="auto"><path class="head" d="M0 0 L8 4 L0 8 z"/></marker></defs>\n'
        f'<rect class="paper" width="{WIDTH}" height="{height}" rx="8"/>\n'
        + "\n".join(parts)
        + f'\n<text class="soft" x="{LEFT}" y="{height - 14}">{escape(note)}</text>\n</svg>\n'
    )


def _floor(each: Room, y: int) -> str:
    return (
        f'<rect class="room" x="{LEFT}" y="{y}" width="{RIGHT - LEFT}" height="{FLOOR}" rx="6"/>\n'
        f'<text class="name" x="{LEFT + 14}" y="{y + 20}">{escape(each.name)}</text>\n'
        f'<text class="soft" x="{LEFT + 14}" y="{y + 38}">{escape(each.purpose)}</text>'
    )


def _outside() -> Iterator[str]:
    """The packages that build on the core, side by side, and an arrow from each to the core."""
    wide = (WIDTH - 2 * LEFT - 16) // 2
    for at, (name, purpose) in enumerate(OUTSIDE.items()):
        x, (first, second) = LEFT + at * (wide + 16), purpose.split(": ")
        yield (
            f'<rect class="outside" x="{x}" y="20" width="{wide}" height="70" rx="6"/>\n'
            f'<text class="name" x="{x + 14}" y="42">{name}</text>\n'
            f'<text class="soft" x="{x + 14}" y="61">{first}:</text>\n'
            f'<text class="soft" x="{x + 14}" y="79">{second}</text>\n'
            f'<path class="arrow" marker-end="url(#head)" d="M{x + wide // 2} 90 V{TOP - 4}"/>'
        )


def _lines(places: Mapping[str, int]) -> Iterator[str]:
    """Straight down to the next floor, else in a curve past those between."""
    order = [each.name for each in reversed(ROOMS)]
    neighbours = set(pairwise(order))
    for one, other in drawn():
        down, up = places[one] + FLOOR, places[other]
        if (one, other) in neighbours:
            path = f"M{LEFT + 60} {down} V{up - 1}"
        else:
            out = RIGHT + 18 * (order.index(other) - order.index(one))
            path = f"M{RIGHT} {down - 14} C{out} {down - 14} {out} {up + 14} {RIGHT + 1} {up + 14}"
        yield f'<path class="arrow" marker-end="url(#head)" d="{path}"/>'


if __name__ == "__main__":
    OUT.write_text(svg(), encoding="utf-8")
