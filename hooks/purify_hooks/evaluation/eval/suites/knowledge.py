"""The knowledge suite: what a policy keeps of the answers that the LLM gets right."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from random import Random
from typing import ClassVar

from purify_hooks.evaluation.eval.attempt import forced, gap
from purify_hooks.evaluation.eval.model_pair import ModelPair
from purify_hooks.evaluation.eval.questions import Fact
from purify_hooks.evaluation.eval.statistics import Metric, Sample
from purify_hooks.evaluation.eval.suites.base import ForcedSuite, Items, Samples, Seen
from purify_plugins.decode.forced_text import ForcedText, Likelihood
from purify_plugins.decode.likelihood import forced as forced_text
from purify_plugins.errors import PromptError
from purify_plugins.types import Chat, Vocabulary

SHOTS = 2
"""The first questions of each kind are examples in few-shot prompts, and are not asked."""
AROUND = 3
"""Other facts of the same kind that stand in the context beside the asked one."""
EVERY = 2
"""Of the longer forms, chat and context, one question in so many is asked."""
KINDS = ("facts", "arithmetic", "python", "translation")
"""The kinds of the package's own questions, which have a figure each."""
KEPT = "of the answers that the LLM gets right and the SLM does not, the share that is kept"


class Knowledge(ForcedSuite):
    """Questions with one right answer or a few, which is forced in several spellings.

    Right: greedy decoding writes a right answer and does not go on with its last word. Which questions count
    is decided by both models alone, greedily, in the same form. Sampled, kept is the probability of the right
    answers at temperature 1 over the LLM's, summed over the questions that count.
    """

    title = "Knowledge"
    metrics: ClassVar[Mapping[str, Metric]] = {
        "only_llm": Metric(f"{KEPT}, in every form but with the fact in the context", "more"),
        "shared": Metric("of the answers that both models get right, the share that is kept", "more"),
        "context": Metric(
            f"after {SHOTS} examples, with the fact in the context among {AROUND} others: of what the LLM "
            "gets right, the share kept",
            "more",
        ),
        **{
            name: Metric(f"{KEPT}, {words}", "more")
            for name, words in {
                "zero_shot": "a text broken off before the answer",
                "few_shot": f"after {SHOTS} examples with their answers",
                "chat": "as a message, through the models' chat templates",
                **{kind: f"{kind} alone" for kind in KINDS},
            }.items()
        },
        "right": Metric("share of all questions, in all forms, that get a right answer", "more"),
    }

    @property
    def possible(self) -> bool:
        """Whether some kind has questions beside its examples."""
        return any(len(facts) > SHOTS for facts in self._kinds().values())

    def asked(self, pair: ModelPair) -> Items:
        """For each form and kind its questions, of which each is forced with every right answer."""
        chats = reads_chats(pair)
        items: dict[str, list[list[ForcedText]]] = {}
        for kind, facts in self._kinds().items():
            shots, rest = facts[:SHOTS], facts[SHOTS:][: self.settings.items]
            shown = "".join(f"Q: {each.question}\nA: {each.answers[0]}\n\n" for each in shots)
            few = rest[::EVERY]
            items[f"zero_shot {kind}"] = [_answered(pair, each, each.statement) for each in rest]
            items[f"few_shot {kind}"] = [
                _answered(pair, each, f"{shown}Q: {each.question}\nA:") for each in rest
            ]
            items[f"context {kind}"] = [
                _answered(pair, each, f"{_context(each, facts)}\n{shown}Q: {each.question}\nA:")
                for each in few
            ]
            items[f"chat {kind}"] = [_chatted(pair, each) for each in few] if chats else []
        return items

    def found(self, seen: Seen) -> Samples:
        kept: dict[str, list[Sample]] = {name: [] for name in self.metrics}
        for group, items in seen.ours.items():
            form, kind = group.split(" ", 1)
            for ours, llm, slm in zip(items, seen.llm[group], seen.slm[group], strict=True):
                verdict = _right(ours, seen.vocabulary)
                kept["right"].append(Sample(float(verdict)))
                if not _right(llm, seen.vocabulary):
                    continue
                counted = Sample(float(verdict)) if seen.mode == "greedy" else _ratio(ours, llm)
                for name in _names(form, kind, _right(slm, seen.vocabulary)):
                    kept.setdefault(name, []).append(counted)
        return {name: samples for name, samples in kept.items() if name in self.metrics}

    def _kinds(self) -> dict[str, list[Fact]]:
        """The questions of each kind, in the file's order."""
        kinds: dict[str, list[Fact]] = {}
        for each in self.questions.knowledge:
            kinds.setdefault(each.kind, []).append(each)
        return kinds


def _names(form: str, kind: str, both: bool) -> tuple[str, ...]:
    """The metrics that a question counts in, which the LLM gets right and the SLM too or not."""
    if form == "context":
        return ("context",)
    return ("shared",) if both else ("only_llm", form, kind)


def _right(item: Sequence[Likelihood], vocabulary: Vocabulary) -> bool:
    """Whether greedy decoding writes one of the answers, and no more of a word or number after it."""
    return any(
        score.likeliest[:-1] == score.tokens[:-1]
        and not (
            vocabulary.spell(score.tokens[:-1])[-1:].isalnum()
            and vocabulary.spell(score.likeliest[-1:])[:1].isalnum()
        )
        for score in item
    )


def _chance(item: Sequence[Likelihood]) -> float:
    """The probability that a drawn answer begins with one of these."""
    return math.fsum(math.exp(math.fsum(score.logprobs[:-1])) for score in item)


def _ratio(ours: Sequence[Likelihood], llm: Sequence[Likelihood]) -> Sample:
    """A system's probability over the LLM's, weighed by the latter."""
    base = _chance(llm)
    return Sample(_chance(ours) / base, base)


def _answered(pair: ModelPair, fact: Fact, prompt: str) -> list[ForcedText]:
    """The prompt with each right answer."""
    return [_closed(forced(pair.slm, prompt, answer)) for answer in fact.answers]


def _chatted(pair: ModelPair, fact: Fact) -> list[ForcedText]:
    """A chat with each right answer, which begins its line as in most templates."""
    asked = chat(f"{fact.question} Give the answer only.")
    return [_closed(ForcedText(asked, forced_text(pair.slm, "\n", answer).tokens)) for answer in fact.answers]


def _closed(text: ForcedText) -> ForcedText:
    """The text and one place more, whose row says whether the answer's last word goes on."""
    return text._replace(tokens=(*text.tokens, text.tokens[-1]))


def _context(fact: Fact, others: Sequence[Fact]) -> str:
    """The fact among others of its kind, a line each, in an order of its own."""
    random = Random(fact.statement)
    shown = [fact, *random.sample([each for each in others if each != fact], min(AROUND, len(others) - 1))]
    random.shuffle(shown)
    return "".join(
        f"{each.statement}{gap(each.statement, each.answers[0])}{each.answers[0]}\n" for each in shown
    )


def chat(text: str) -> Chat:
    """A conversation of one message."""
    return Chat(({"role": "user", "content": text},))


def reads_chats(pair: ModelPair) -> bool:
    """Whether both models have a chat template."""
    try:
        return all(source.encodes and source.encode(chat("Hello.")) for source in (pair.llm, pair.slm))
    except PromptError:
        return False
