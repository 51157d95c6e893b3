"""The same LLM purified by an SLM with another tokenizer: bytes a second, and passes a token."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

from purify_hooks.evaluation.bench.counting import Counting
from purify_hooks.evaluation.bench.designs import Decoding, Design, Generating, Stopwatch, WritingTask
from purify_hooks.evaluation.bench.models import BenchModels, Ids, batches
from purify_hooks.evaluation.bench.settings import CLOCKS, MODES, BenchSettings, Progress
from purify_hooks.evaluation.bench.timing import DesignTime, faster, per_second
from purify_hooks.evaluation.eval.statistics import rotated
from purify_plugins.decode.speculative import speculative
from purify_plugins.plugin.manager import Plugins


class CrossWritten(NamedTuple):
    """One design's output: bytes, tokens of the LLM, its forward passes after the prompts', and seconds."""

    size: int
    tokens: int
    passes: int
    seconds: float


def cross_tokenizer(
    settings: BenchSettings, models: BenchModels, plugins: Plugins, progress: Progress
) -> dict[str, Any]:
    """Compare the purified pair with the LLM alone, in bytes of text a second.

    Bytes, because the pair generates symbols smaller than tokens, and each design its own text.
    """
    from purify_hooks.evaluation.testbed import SLM_1024

    slm = plugins.source({"model": SLM_1024, "device": "cpu"})
    policy = plugins.policy(settings.policy, settings.parameters)
    purifier = Counting(models.llm, slm, policy, plugins=plugins)
    compared: dict[str, Design] = {"llm": Generating(models), "purified": Decoding(purifier, speculative)}
    facts = {"slm": SLM_1024.name, "alphabet": purifier.vocabulary.name}
    return {**facts, **{mode: _mode(settings, models, purifier, compared, mode, progress) for mode in MODES}}


def _mode(
    settings: BenchSettings,
    models: BenchModels,
    purifier: Counting,
    compared: dict[str, Design],
    mode: str,
    progress: Progress,
) -> dict[str, Any]:
    """Measure one mode, after a warm-up answer."""
    laps: dict[str, list[DesignTime]] = {name: [] for name in compared}
    written: dict[str, list[CrossWritten]] = {name: [] for name in compared}
    prompts = [(-1, next(batches(models, settings))[0])]
    prompts += [(at, each) for at, found in enumerate(batches(models, settings)) for each in found]
    for turn, (number, batch) in enumerate(prompts):
        for name in rotated(list(compared), turn):
            progress(f"another tokenizer, {mode}, round {number + 1}: {name}")
            found = _write(name, compared[name], models, purifier, settings, batch, MODES[mode])
            if number >= 0:
                laps[name].append(DesignTime(number, found.seconds / found.size, None))  # seconds a byte
                written[name].append(found)
    against = faster(laps, "purified", "llm")
    assert against is not None
    passes, tokens = (sum(each[at] for each in written["purified"]) for at in (2, 1))
    return {
        "vs_llm": against.middle,
        "quartiles": [against.low, against.high],
        "bytes_per_second": {name: per_second(each, 1) for name, each in laps.items()},
        "calls_per_token": passes / tokens,
    }


def _write(
    name: str,
    design: Design,
    models: BenchModels,
    purifier: Counting,
    settings: BenchSettings,
    batch: list[Ids],
    temperature: float,
) -> CrossWritten:
    """One batch of answers by one design, measured in bytes and in tokens of the LLM."""
    llm, alone = models.llm, name == "llm"
    texts = [llm.vocabulary.spell(prompt).decode() for prompt in batch]
    task = WritingTask(batch if alone else texts, settings.tokens, temperature)
    watch = Stopwatch(CLOCKS[settings.clock])
    with _passes(llm.model) as passes:
        answers = design(task, watch)
    seconds = watch.seconds
    spell = llm.vocabulary.spell if alone else purifier.vocabulary.spell
    spelled = [spell(answer) for answer in answers]
    tokens = sum(len(llm.encode(text.decode(errors="replace"))) for text in spelled)
    return CrossWritten(sum(map(len, spelled)), tokens, len(passes) - 1, seconds)


@contextmanager
def _passes(model: Any) -> Iterator[list[None]]:
    """A list that grows by one with each forward pass of the model."""
    found: list[None] = []
    hook = model.register_forward_hook(lambda *_: found.append(None))
    try:
        yield found
    finally:
        hook.remove()
