"""Two small works, an index of them, and what an answer holds of a work."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from purify_hooks.protected.build import IndexOptions, build
from purify_hooks.protected.folding import letters_of, words_of
from purify_hooks.protected.index import PrintIndex, open_index

TIDE = (
    "The tide clerk of Marrowby kept two ledgers, one for the boats that came home and one for the "
    "boats that only seemed to. On the eve of the salt fair he opened the second book and found his own "
    "name, written in a hand that trembled as his never had, beside the hour of the morning bell. He "
    "read it twice, for he did not believe what the candle showed him, and then he shut the ledger as "
    "one shuts a door upon a guest."
)
HERON = (
    "Quillan Voss sold umbrellas in a town where it had not rained for eleven years. Nobody laughed at "
    "him. Each autumn the mayor bought three, for luck, and each spring returned them unopened, with a "
    "note of thanks and a heron's feather pressed between the ribs; so it went on until the summer of "
    "the brass clouds."
)


def index_of(
    folder: Path, works: Sequence[str] = (TIDE, HERON), common: str = "", **options: Any
) -> PrintIndex:
    """The index of texts, each a file of `folder`."""
    (folder / "works").mkdir()
    for at, text in enumerate(works):
        (folder / "works" / f"work-{at}.txt").write_text(text, "utf-8")
    (folder / "common.txt").write_text(common, "utf-8")
    places = (folder / "common.txt",) if common else ()
    options = {"works": (folder / "works",), "common": places, "out": folder / "index.prints", **options}
    build(IndexOptions(**options), lambda *_: None)
    return open_index(folder / "index.prints")


def longest_run(text: str, work: str = TIDE) -> int:
    """The most words in a row of a work whose letters stand in a text, whatever its spaces."""
    letters, words = letters_of(text), words_of(work)
    most = 0
    for start in range(len(words)):
        while start + most < len(words) and "".join(words[start : start + most + 1]) in letters:
            most += 1
    return most
