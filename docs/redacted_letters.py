"""One letter a request, from a context that the SLM does not read: `python docs/redacted_letters.py`.

A toy LLM reads a secret of twelve letters and tells the one asked for; to the SLM all letters are alike.
Prints how many a user has after twelve requests, with an allowance and without, for docs/redacted.md.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from tempfile import TemporaryDirectory

import torch
from torch import Tensor

from purify_hooks.private.redacted import Redacted
from purify_hooks.stages.allowance import Allowance
from purify_plugins import Purifier, Sampling
from purify_plugins.plugin.manager import load_plugins
from purify_plugins.stages import Stage
from purify_plugins.testing import ToySource, letters

LETTERS = "abcdefghijklmnopqrstuvwxyz0123456789"
LENGTH, SECRETS, NATS = 12, 20, 12.0
POLICIES = ("balanced", "windowed", "capped")


@dataclass(frozen=True)
class Telling(ToySource):
    """Reads a dot for each letter up to the one that is asked for, and the secret; tells that letter."""

    def logits(self, tokens: Sequence[int]) -> Tensor:
        dot = self.vocabulary.tokens.index(b".")
        asked = sum(token == dot for token in tokens)
        row = torch.full((len(self.vocabulary),), -30.0)
        row[tokens[2 * asked - 1] if len(tokens) >= asked + LENGTH else 0] = 0.0
        return row


@contextmanager
def chains() -> Iterator[dict[str, Sequence[Stage]]]:
    """Without an allowance, and with one in a file of its own."""
    with TemporaryDirectory() as folder:
        store = str(Path(folder) / "allowance.sqlite")
        yield {
            "": [Redacted(instead="")],
            f"{NATS:g} nats": [Allowance(NATS, store=store), Redacted(instead="")],
        }


def told(policy: str, chain: Sequence[Stage], secret: str) -> int:
    """How many letters of a secret are right after a request for each."""
    vocabulary = letters(LETTERS + ".")
    pair = Telling(vocabulary), ToySource(vocabulary, sharpness=0.0)
    purifier = Purifier(*pair, load_plugins().policy(policy), stages=chain)
    right = 0
    for at, letter in enumerate(secret):
        prompt = "." * (at + 1) + f"<private>{secret}</private>"
        [answer] = purifier.generate([prompt], Sampling(max_tokens=1, ignore_eos=True), errors="raise")
        right += answer.text == letter
    return right


def main() -> None:
    """Print the table."""
    dice = random.Random(0)
    secrets = ["".join(dice.choice(LETTERS) for _ in range(LENGTH)) for _ in range(SECRETS)]
    for policy in POLICIES:
        for name in ("", f"{NATS:g} nats"):
            found = []
            for secret in secrets:
                with chains() as ways:
                    found.append(told(policy, ways[name], secret))
            print(f"{policy:10} {name or 'no allowance':14} {fmean(found):5.1f} of {LENGTH}")


if __name__ == "__main__":
    main()
