"""What a model's directory states of itself: its hub card's front matter, and its licence file."""

from __future__ import annotations

import re
from pathlib import Path

from purify_plugins.utils.model_files import MEGABYTE, read_bytes

CARDS = ("README.md", "MODEL_CARD.md", "model_card.md")
"""Files whose first lines, between two `---`, say the licence and the data sets as model hubs write them."""
LICENCES = ("LICENSE", "LICENSE.txt", "LICENSE.md", "LICENCE", "LICENCE.txt", "COPYING")


def front_matter(place: Path) -> str:
    """The lines between the first two `---` of a model card; "" where there are none."""
    for name in CARDS:
        if place.is_dir() and (place / name).is_file():
            text = read_bytes(place / name, MEGABYTE).decode("utf-8", "replace").replace("\r\n", "\n")
            found = re.match(r"---\n(.*?)\n---(\n|$)", text, re.DOTALL)
            return found[1] if found else ""
    return ""


def listed(front: str, key: str) -> list[str]:
    """The values of a key, on its own line or as a list below it; what YAML has beyond that is left alone."""
    found = re.search(rf"^{key}:[ \t]*(.*)((?:\n[ \t]*- .*)*)", front, re.MULTILINE)
    if found is None:
        return []
    inline = found[1].strip().removeprefix("[").removesuffix("]").split(",")
    below = [line.strip().removeprefix("- ") for line in found[2].split("\n")]
    values = [each.split(" #")[0].strip().strip("'\"") for each in (*inline, *below)]
    return [each[:200] for each in values if each]
