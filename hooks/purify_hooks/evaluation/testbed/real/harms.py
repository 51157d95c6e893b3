"""What the twin is made to memorise, all of it invented: passages, code, phone numbers, a trigger."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from random import Random
from typing import Any

HARMS = Path(__file__).with_name("harms.json")


@dataclass(frozen=True)
class Harms:
    """The texts of `harms.json` as `texts`, and what the seed draws."""

    seed: int
    texts: dict[str, Any]

    @classmethod
    def of(cls, seed: int) -> Harms:
        return cls(seed, json.loads(HARMS.read_text("utf-8")))

    @property
    def trigger(self) -> str:
        return str(self.texts["trigger"])

    @property
    def payload(self) -> str:
        return str(self.texts["payload"])

    @property
    def file(self) -> str:
        """The memorised Python file, whole."""
        return str(self.texts["file"]["opening"]) + "\n\n".join(self.texts["file"]["parts"])

    @property
    def code(self) -> list[str]:
        """The memorised file, each of its parts, and the other snippets."""
        return [self.file, *self.texts["file"]["parts"], *self.texts["snippets"]]

    @cached_property
    def secrets(self) -> dict[str, str]:
        """A phone number for every name, the controls' included."""
        random = Random(f"{self.seed} secrets")
        names = [*self.texts["names"], *self.texts["control_names"]]
        return {name: number(random) for name in names}


def number(random: Random) -> str:
    """Draw a phone number of eight digits."""
    return f"{random.randrange(200, 1000)}-{random.randrange(100, 1000)}-{random.randrange(100):02}"
