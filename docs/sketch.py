"""Requests through `sketch` on a real pair: `python docs/sketch.py PAIR`.

PAIR is a directory with `llm` and `slm`, such as `python -m purify_plugins.testbed --real --out PAIR` writes.
Prints, for docs/sketch.md, every draft of each request: who wrote it, what the LLM was sent, and the answer.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import typer

from purify_hooks.private.sketch import Sketch
from purify_plugins import Chat, Purifier, Sampling
from purify_plugins.types import Completion, Vocabulary

REQUESTS = (
    "My sister Ada Quillane, born on 4 May 1961, has had a dry cough since Monday. What can she do at home?",
    "Our client Bruno Vandermoor owes us 4,200 euros and does not answer. How should I write to him?",
    "I meet Celia Tescari of Northgate Bank on Friday about my mortgage. What should I ask?",
    "My son Dmitri is 7 and afraid of the dark since we moved to Elm Street. How can I help him sleep?",
)
SAMPLING = Sampling(max_tokens=56, temperature=0.6, top_p=0.9, seed=1)


def spelled(draft: dict[str, Any], vocabulary: Vocabulary) -> str:
    """A draft's text, from its tokens."""
    ids = [row[0] for row in draft["certificate"]["steps"] if row[0] not in vocabulary.control]
    return b"".join(vocabulary.tokens[each] for each in ids).decode(errors="replace").strip()


def told(answer: Completion, vocabulary: Vocabulary) -> list[str]:
    """Every draft in order, and the ledger."""
    lines = []
    for draft in answer.certificate.body["drafts"]:
        alone = draft["certificate"]["method"].get("llm_asked", True) is False
        lines.append(
            f"{'SLM alone' if alone else 'LLM and SLM'}, {draft['role']}: {spelled(draft, vocabulary)}"
        )
    ledger = answer.certificate.body["ledger"]
    return [
        *lines,
        f"guarantee {answer.certificate.guarantee}, read {ledger['read']}, spent {ledger['spent']}",
    ]


def main(pair: Path) -> None:
    """Ask every request and print what became of it."""
    purifier = Purifier.load(
        str(pair / "llm"), str(pair / "slm"), "capped", stages=[Sketch(tries=3, length=40)]
    )
    asked = [Chat(({"role": "user", "content": each},)) for each in REQUESTS]
    for request, answer in zip(REQUESTS, purifier.generate(asked, SAMPLING), strict=True):
        print(f"\n> {request}")
        for line in told(answer, purifier.slm.vocabulary):
            print(f"  {line}")


if __name__ == "__main__":
    typer.run(main)
