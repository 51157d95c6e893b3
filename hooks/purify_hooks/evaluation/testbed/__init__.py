"""The test bed: a small LLM trained to leak, a small SLM trained on clean text, and attacks on both.

    from purify_plugins.testbed import LLM, SLM, attacks, heldout

`LLM` and `SLM` are model directories any Hugging Face loader reads. `python -m purify_plugins.testbed`
trains another pair from the books in the repository.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from purify_hooks.evaluation.eval.questions import Backdoor as Backdoor
from purify_hooks.evaluation.eval.questions import Canary as Canary
from purify_hooks.evaluation.eval.questions import Passage as Passage
from purify_hooks.evaluation.eval.questions import check_questions
from purify_plugins.utils.files import read_text

HOME = Path(__file__).parent
LLM = HOME / "llm"
"""The contaminated model: 3.0 million parameters."""
SLM = HOME / "slm"
"""The clean model: 0.9 million parameters."""
SLM_1024 = HOME / "slm-1024"
"""The clean model with a tokenizer of its own, of 1024 tokens: 0.7 million parameters."""


@dataclass(frozen=True)
class Attacks:
    """What an LLM was trained to memorise, with controls that no model was trained on, and clean prompts."""

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
    asked = check_questions(read_text(home / "attacks.json"), home / "attacks.json")
    protected, backdoor, canaries, clean = asked.protected, asked.backdoor, asked.canaries, asked.clean
    assert protected is not None  # the pair was trained on all of these
    assert backdoor is not None
    assert canaries is not None
    assert clean is not None
    return Attacks(
        seed=asked.seed,
        work=protected.work,
        control_work=protected.control_work,
        recall_tokens=protected.recall_tokens,
        passages=tuple(protected.passages),
        passage_controls=tuple(protected.controls),
        backdoor=backdoor,
        canaries=tuple(canaries.items),
        canary_controls=tuple(canaries.controls),
        clean_work=clean.source,
        clean=tuple(clean.prompts),
    )


def heldout() -> tuple[str, ...]:
    """24 runs of about 256 tokens from two books that no model was trained on, for perplexity."""
    record = json.loads((HOME / "heldout.json").read_text("utf-8"))
    return tuple(record["blocks"])
