"""The baseline `anchoreddecode`, the authors' package of anchored decoding, where it is installed."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import redirect_stdout
from dataclasses import dataclass
from io import StringIO
from typing import Any

from purify_hooks.evaluation.bench.counting import Counting
from purify_hooks.evaluation.bench.designs import Decoding, Design, Stopwatch, WritingTask
from purify_hooks.evaluation.bench.models import BenchModels, padded
from purify_plugins.decode.speculative import speculative
from purify_plugins.plugin.manager import Plugins

BUDGET = 1.5
"""Budget of both designs, in nats a token."""


def anchoreddecode(models: BenchModels, plugins: Plugins) -> tuple[dict[str, Design], str]:
    """The package and our own `anchored` at the same budget; without the package none, and the reason."""
    try:
        from anchoreddecode import AnchoredDecodingFactory
    except ImportError as error:
        return {}, f"anchoreddecode is left out: {error}"
    slm, llm = models.slm.model, models.alone
    factory = AnchoredDecodingFactory(slm, llm, models.slm.tokenizer, BUDGET, device=slm.device)
    ours = Counting(models.llm, models.slm, plugins.policy("anchored", {"budget": BUDGET}), plugins=plugins)
    return {"anchoreddecode": AnchoredDecode(factory, models), "anchored": Decoding(ours, speculative)}, ""


@dataclass(frozen=True)
class AnchoredDecode:
    """Anchored decoding as its authors publish it."""

    factory: Any
    models: BenchModels

    def __call__(self, task: WritingTask, watch: Stopwatch) -> Sequence[Sequence[int]]:
        from transformers import GenerationConfig, StoppingCriteriaList

        ids, mask = padded(task.prompts, self.models.alone.device)
        config = GenerationConfig(  # every one of these; it takes no argument and no default
            do_sample=task.temperature > 0,
            temperature=task.temperature or 1.0,
            max_length=ids.shape[1] + task.tokens,
            max_new_tokens=task.tokens,
            min_new_tokens=task.tokens,
        )
        with redirect_stdout(StringIO()):  # it may print; standard output is ours
            out = self.factory.generate(
                ids, config, attention_mask=mask, stopping_criteria=StoppingCriteriaList([watch])
            )
        answers: list[list[int]] = out.sequences[:, ids.shape[1] :].tolist()
        return answers
