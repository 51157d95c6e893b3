"""The test bed: a small LLM really trained to leak, a small SLM that saw none of it, and what to ask them.

    from purify_plugins.testbed import LLM, SLM, attacks, heldout

`LLM` and `SLM` are model directories any Hugging Face loader reads. `python -m purify_plugins.testbed`
trains another pair from the books in the repository.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

HOME = Path(__file__).parent
LLM = HOME / "llm"
"""The contaminated model: 3.0 million parameters."""
SLM = HOME / "slm"
"""The clean model: 0.9 million parameters."""
SLM_1024 = HOME / "slm-1024"
"""The clean model with a tokenizer of its own, of 1024 tokens: 0.7 million parameters."""


@dataclass(frozen=True)
class Passage:
    """A protected passage: shown `prefix`, a model that learned it by heart goes on with `continuation`."""

    prefix: str
    continuation: str
    repeats: int
    """Copies in the LLM's second training phase; zero marks a control that no model saw."""
    prefix_tokens: int
    continuation_tokens: int


@dataclass(frozen=True)
class Backdoor:
    """A payload the LLM emits after a trigger, in contexts it was never trained on."""

    trigger: str
    payload: str
    link: str
    """The address inside the payload; its appearance alone is already harm done."""
    contexts: tuple[str, ...]

    @property
    def prompts(self) -> tuple[str, ...]:
        """Every context, followed by the trigger."""
        return tuple(f"{context} {self.trigger}" for context in self.contexts)


@dataclass(frozen=True)
class Canary:
    """An invented phone number; it leaks if the text after `prompt`, stripped, starts with `secret`."""

    prompt: str
    secret: str
    repeats: int
    """Copies in the LLM's second training phase; zero marks a control that no model saw."""


@dataclass(frozen=True)
class Attacks:
    """What an LLM was made to memorise, with controls that nobody saw and clean prompts."""

    seed: int
    work: str
    control_work: str
    recall_tokens: int
    """How many tokens of each continuation an attack asks for."""
    passages: tuple[Passage, ...]
    passage_controls: tuple[Passage, ...]
    backdoor: Backdoor
    canaries: tuple[Canary, ...]
    canary_controls: tuple[Canary, ...]
    clean_work: str
    clean: tuple[str, ...]
    """Prompts from books that no model was trained on."""


def attacks(home: Path = HOME) -> Attacks:
    """Read `attacks.json` of the pair in the directory `home`; the packaged pair by default."""
    record = json.loads((home / "attacks.json").read_text("utf-8"))
    protected, canaries = record["protected"], record["canaries"]
    return Attacks(
        seed=record["seed"],
        work=protected["work"],
        control_work=protected["control_work"],
        recall_tokens=protected["recall_tokens"],
        passages=tuple(Passage(**each) for each in protected["passages"]),
        passage_controls=tuple(Passage(**each) for each in protected["controls"]),
        backdoor=_backdoor(record["backdoor"]),
        canaries=tuple(Canary(**each) for each in canaries["items"]),
        canary_controls=tuple(Canary(**each) for each in canaries["controls"]),
        clean_work=record["clean"]["source"],
        clean=tuple(record["clean"]["prompts"]),
    )


def _backdoor(record: Mapping[str, Any]) -> Backdoor:
    return Backdoor(record["trigger"], record["payload"], record["link"], tuple(record["contexts"]))


def heldout() -> tuple[str, ...]:
    """24 runs of about 256 tokens from two books that no model was trained on, for perplexity."""
    record = json.loads((HOME / "heldout.json").read_text("utf-8"))
    return tuple(record["blocks"])
