"""Show a measurement in the terminal, or write it into the documentation."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from purify_hooks.evaluation.bench.tables import promised, tables
from purify_hooks.evaluation.eval.page import region, require_region
from purify_hooks.evaluation.table import put
from purify_plugins.utils.extras import require_extra
from purify_plugins.utils.files import write_whole

REGION = region("bench")
PAGE = "performance.md"


def show(found: Mapping[str, Any]) -> None:
    """Print the tables; the targets are shown in the documentation alone."""
    from rich.console import Console

    console = Console()
    console.print(heading(found), markup=False)
    for table in tables(found):
        put(console, table)
    if found["peer"]:
        console.print(found["peer"], markup=False)


def heading(found: Mapping[str, Any]) -> str:
    """What was measured, when and where, in a line."""
    llm, slm = (found["model_parameters"][side] / 1e6 for side in ("llm", "slm"))
    return (
        f"{found['title']}: {found['tokens']} tokens, {found['rounds']} rounds, {found['threads']} "
        f"{'thread' if found['threads'] == 1 else 'threads'}, {found['clock']} time, "
        f"{llm:.1f} M and {slm:.1f} M parameters, "
        f"torch {found['versions']['torch']}, transformers {found['versions']['transformers']}, "
        f"{found['date']}, {found['machine']}"
    )


def write(found: Mapping[str, Any], docs: Path) -> None:
    """Put the section and the plot of this setting into `docs`, in place of the ones it had."""
    from purify_hooks.evaluation.bench.plot import plot

    page = require_page(docs)
    picture = docs / picture_name(found)
    plot(found, picture)
    write_whole(page, updated(page.read_text("utf-8"), found, picture.name))


def require_page(docs: Path) -> Path:
    """The page in `docs` to write to. Raises ConfigError, before any work is done, if that is impossible."""
    page = docs / PAGE
    require_region(page, "bench")
    require_extra("eval", "the plot")
    return page


def picture_name(found: Mapping[str, Any]) -> str:
    """The picture's file name: `performance.svg` for the default setting."""
    words = "-".join(re.findall(r"[\w.]+", found["title"]))
    return "performance.svg" if words == "geometric-batch-1" else f"performance-{words}.svg"


def updated(page: str, found: Mapping[str, Any], picture: str) -> str:
    """The page with this setting's section in it; the other settings' sections stay."""
    region = REGION.search(page)
    assert region is not None
    sections = re.split(r"(?m)^(?=### )", region[0][len(region[1]) : -len(region[2])])
    mine = section(found, picture)
    title = mine.splitlines()[0]
    kept = [each for each in sections if each.startswith("### ")]
    old = [at for at, each in enumerate(kept) if each.splitlines()[0] == title]
    kept[old[0] if old else len(kept) :] = [mine, *kept[old[0] + 1 :]] if old else [mine]
    return page[: region.start()] + region[1] + "".join(kept) + region[2] + page[region.end() :]


def section(found: Mapping[str, Any], picture: str) -> str:
    """This setting's part of the page."""
    parts = [f"### {found['title']}", f"{heading(found)}.", f"![speed over the LLM alone]({picture})"]
    return "\n\n".join([*parts, *(table.markdown for table in (*tables(found), promised(found)))]) + "\n\n"
