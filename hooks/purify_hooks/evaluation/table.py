"""A table of text, for the terminal, the documentation and the report alike."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table as Grid


@dataclass(frozen=True)
class Table:
    """A title, a head, and rows of text; the first column names the row."""

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    note: str = ""
    more: Collection[str] = ()
    """The columns in which more is better; a page shades shares of harm in the others."""

    @property
    def empty(self) -> bool:
        """Whether no row has a figure."""
        return not any(map(has_figure, self.rows))

    @property
    def markdown(self) -> str:
        lines = [self.columns, ["---"] * len(self.columns), *self.rows]
        body = "\n".join(f"| {' | '.join(line)} |" for line in lines)
        return "\n\n".join(part for part in (f"**{self.title}**", body, self.note) if part)


def has_figure(row: Sequence[str]) -> bool:
    """Whether a row says more than dashes beside its name."""
    return any(set(cell) - set("– /") for cell in row[1:])


def grid(table: Table) -> Grid:
    """The table for the terminal."""
    from rich import box
    from rich.markup import escape
    from rich.table import Table as Grid

    # Eighty columns are few: no padding at the edges, and one space where two columns meet.
    looks: Any = {"box": box.SIMPLE_HEAD, "pad_edge": False, "collapse_padding": True, "show_edge": False}
    drawn = Grid(*table.columns, title=table.title, caption=table.note or None, **looks)
    drawn.columns[0].no_wrap = True
    for row in table.rows:
        drawn.add_row(*map(escape, row))
    return drawn


def put(console: Console, table: Table) -> None:
    """Print a table; where a terminal is too narrow for its words, a sentence for each row."""
    from rich.measure import Measurement

    drawn = grid(table)
    endless = console.options.update(
        max_width=10_000
    )  # else what is measured is never wider than the terminal
    if Measurement.get(console, endless, drawn).minimum <= console.width:
        console.print(drawn)
        return
    console.print(f"\n{table.title}", style="bold", markup=False)
    for name, *figures in table.rows:
        told = ", ".join(f"{what} {figure}" for what, figure in zip(table.columns[1:], figures, strict=True))
        console.print(f"{name}: {told}", markup=False)
    if table.note:
        console.print(table.note, markup=False)
