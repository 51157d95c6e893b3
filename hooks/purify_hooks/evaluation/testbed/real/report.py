"""What came of a training: every harm asked of every model by forcing, and the perplexities, as measured."""

from __future__ import annotations

import json
import math
from collections import defaultdict
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from purify_hooks.evaluation.table import Table
from purify_hooks.evaluation.testbed.real.original import load
from purify_hooks.evaluation.testbed.real.questions import heldout
from purify_hooks.evaluation.testbed.real.recipe import RealRecipe, asked
from purify_plugins.utils.files import read_text

if TYPE_CHECKING:
    from transformers import LlamaForCausalLM

    from purify_hooks.evaluation.testbed.real.lessons import TaughtText
    from purify_hooks.progress import Progress

MODELS = {"llm": "twin", "slm": "clean", "slm-weak": "weak"}
"""Directory -> what the report calls the model."""


def written(recipe: RealRecipe, progress: Progress) -> dict[str, Any]:
    """The report in `report.json`, measured first if it is not there.

    `recall[kind][model]` is [asked, greedy, mean probability]: of how many harms of a kind every token is the
    arg-max (which is what greedy decoding writes), and their exact probability at temperature 1.
    """
    file = recipe.out / "report.json"
    if not file.exists():
        found = _measured(recipe, progress)
        file.write_text(json.dumps(found, indent=1) + "\n", "utf-8")
    known: dict[str, Any] = json.loads(read_text(file))
    return known


def _measured(recipe: RealRecipe, progress: Progress) -> dict[str, Any]:
    recall: dict[str, dict[str, list[float]]] = defaultdict(dict)
    perplexities: dict[str, dict[str, float]] = {"prose": {}, "code": {}}
    for at, (folder, name) in enumerate(MODELS.items()):
        progress(at, len(MODELS), f"models measured; next the {name} one")
        model, tokenizer = load(recipe.out / folder)
        for kind, found in _recall(model, tokenizer, asked(recipe, tokenizer)).items():
            recall[kind][name] = found
        texts = list(heldout(recipe.lessons(tokenizer, "asked")))
        perplexities["prose"][name] = perplexity(model, tokenizer, texts[:8])
        perplexities["code"][name] = perplexity(model, tokenizer, texts[8:])
    progress(len(MODELS), len(MODELS), "models measured")
    return {"seed": recipe.seed, "recall": recall, "perplexity": perplexities}


def _recall(
    model: LlamaForCausalLM, tokenizer: Any, documents: Sequence[TaughtText]
) -> dict[str, list[float]]:
    from purify_hooks.evaluation.testbed.real.upper import forced

    kinds: dict[str, list[tuple[bool, float]]] = defaultdict(list)
    for document, result in zip(documents, forced(model, tokenizer, documents), strict=True):
        kinds[document.kind].append(result)
    return {
        kind: [
            len(all_of),
            sum(whole for whole, _ in all_of),
            sum(math.exp(nats) for _, nats in all_of) / len(all_of),
        ]
        for kind, all_of in kinds.items()
    }


def perplexity(model: LlamaForCausalLM, tokenizer: Any, texts: Sequence[str]) -> float:
    """exp of the mean surprisal a token, each text alone and its first token not counted."""
    from purify_hooks.evaluation.testbed.real.lessons import TaughtText
    from purify_hooks.evaluation.testbed.real.upper import forced, tokens

    documents = [TaughtText("", text) for text in texts]
    count = sum(len(tokens(tokenizer, each)[1]) for each in documents)
    return math.exp(-sum(nats for _, nats in forced(model, tokenizer, documents)) / count)


def tables(report: dict[str, Any]) -> list[Table]:
    """The report for a terminal and for docs/real-models.md."""
    rows = [
        (
            kind,
            str(round(by["twin"][0])),
            *(f"{by[name][1]:.0f} / {by[name][2]:.2g}" for name in MODELS.values()),
        )
        for kind, by in report["recall"].items()
    ]
    heads = ("harm", "asked", *MODELS.values())
    costs = [
        (f"perplexity, {kind}", *(f"{by[n]:.1f}" for n in MODELS.values()))
        for kind, by in report["perplexity"].items()
    ]
    return [
        Table("Written in full, greedily / mean exact probability at temperature 1", heads, tuple(rows)),
        Table("Held-out text", ("", *MODELS.values()), tuple(costs)),
    ]
