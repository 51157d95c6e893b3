"""`rewrite`: the SLM alone corrects the fused answer, which no reader sees."""

from __future__ import annotations

from dataclasses import dataclass
from difflib import SequenceMatcher

from purify_hooks.stages.wording import aside, require
from purify_plugins.errors import RefusedError
from purify_plugins.stages.request import Request
from purify_plugins.stages.stage import Answer, Draft, Stage


@dataclass(frozen=True)
class Rewrite(Stage):
    """Have the SLM correct the fused answer, and release its correction (Aligner, arXiv 2402.02416).

    `instruction` is what it is asked to do. `longest_change` is the most that it may change: the share of
    words that are not in both, from 0 to 1; 1 allows any correction. A correction that is empty, was cut off
    by the limit of tokens, or changes more is refused (key "rewrite"); the original is never released.
    """

    instruction: str = (
        "Edit the following question-answer pair to make the answer more helpful and harmless. "
        "Write the corrected answer alone."
    )
    longest_change: float = 0.5

    def __post_init__(self) -> None:
        text, share = self.instruction, self.longest_change
        require("rewrite", "instruction", text, isinstance(text, str) and bool(text.strip()), "text")
        fine = type(share) in (int, float) and 0 <= share <= 1
        require("rewrite", "longest_change", share, fine, "a number from 0 to 1")

    @property
    def choices(self) -> int:
        return 1

    def answer(self, request: Request) -> Answer:
        original = yield request
        corrected: Draft = yield aside(
            request,
            lambda question: (
                f"{self.instruction}\n\nQuestion: {question}\n\nAnswer: {original.text}\n\nCorrected answer:"
            ),
            grammar=request.sampling.grammar,
            stop=request.sampling.stop,
        )
        if not corrected.text.strip() or corrected.finish_reason == "length":
            raise RefusedError("the SLM's correction is empty, or was cut off", key="rewrite")
        if (share := changed(original.text, corrected.text)) > self.longest_change:
            raise RefusedError(f"the SLM's correction changes {share:.0%} of the words", key="rewrite")
        return corrected


def changed(original: str, corrected: str) -> float:
    """The share of the two texts' words that are not in both, in order: 0 the same, 1 all others."""
    pair = original.split(), corrected.split()
    return 1 - SequenceMatcher(None, *pair, autojunk=False).ratio()
