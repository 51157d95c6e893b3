"""The shown answers: to the first attack of each kind that succeeds on the LLM, by each system."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from purify_hooks.evaluation.demo.preset import FEW, PURIFIED
from purify_hooks.evaluation.eval.attempt import Attack, every_attack
from purify_hooks.evaluation.eval.model_pair import MODES, ModelPair
from purify_hooks.evaluation.eval.run import Plan, cached_pair
from purify_hooks.evaluation.eval.systems import ALONE, System
from purify_plugins.types import Certificate, Chat, Completion, Prompt, Vocabulary

LLM_ALONE = ALONE[0]
ANSWER = 60
"""Tokens of an answer to a harmless request, at most."""
TRIED = 4
"""Attacks of a kind that are tried on the LLM until one succeeds; sampled, about half do."""


@dataclass(frozen=True)
class Shown:
    """One attack and its answers, by system."""

    attack: Attack
    answers: Mapping[str, Completion]


@dataclass(frozen=True)
class KeptAnswer:
    """A harmless request in the models' chat template, and its answers, by system."""

    request: str
    answers: Mapping[str, Completion]


@dataclass(frozen=True)
class Exhibit:
    """One mode's answers, their vocabulary, and a summary of the first purified answer's certificate."""

    mode: str
    shown: tuple[Shown, ...]
    vocabulary: Vocabulary
    summary: tuple[str, ...]
    kept: tuple[KeptAnswer, ...] = ()
    """Answers to harmless requests: what purification leaves."""

    @property
    def certificate(self) -> Certificate:
        return self.shown[0].answers[PURIFIED.key].certificate


def exhibit(plan: Plan, mode: str, attacks: Sequence[Attack] = (), requests: Sequence[str] = ()) -> Exhibit:
    """The shown answers, in a worker process; `attacks` empty: to the first that succeed."""
    from purify_plugins.certificates import recompute, verify
    from purify_plugins.certificates.explain import summary

    pair = cached_pair(plan.models)
    first = [each for kind in every_attack(plan.questions, pair.slm).values() for each in kind[:TRIED]]
    alone = answered(plan, pair, LLM_ALONE, mode, attacks or first)
    kept = alone if attacks else working(alone)
    asked = [each.attack for each in kept]
    others = [answered(plan, pair, each, mode, asked) for each in FEW if each != LLM_ALONE]
    shown = tuple(_together(answers) for answers in zip(kept, *others, strict=True))
    certificate = shown[0].answers[PURIFIED.key].certificate
    verify(certificate, pair.plugins)
    told = summary(certificate, recompute(certificate, pair.slm), ["slm"])
    still = _kept(plan, pair, mode, requests)
    return Exhibit(mode, shown, pair.slm.vocabulary, tuple(told), still)


def answered(
    plan: Plan, pair: ModelPair, system: System, mode: str, attacks: Sequence[Attack]
) -> tuple[Shown, ...]:
    """A system's answers to attacks."""
    longest = max(attack.tokens for attack in attacks)
    answers = _written(plan, pair, system, mode, [attack.prompt for attack in attacks], longest)
    return tuple(Shown(attack, {system.key: one}) for attack, one in zip(attacks, answers, strict=True))


def _kept(plan: Plan, pair: ModelPair, mode: str, requests: Sequence[str]) -> tuple[KeptAnswer, ...]:
    """Every shown system's answers to harmless requests."""
    chats = [Chat(({"role": "user", "content": each},)) for each in requests]
    answers = {each.key: _written(plan, pair, each, mode, chats, ANSWER) for each in FEW} if chats else {}
    return tuple(
        KeptAnswer(request, {key: those[at] for key, those in answers.items()})
        for at, request in enumerate(requests)
    )


def _written(
    plan: Plan, pair: ModelPair, system: System, mode: str, prompts: Sequence[Prompt], tokens: int
) -> list[Completion]:
    from purify_plugins.purifier import Purifier

    policy = pair.policy(system)
    purifier = Purifier(pair.llm, pair.slm, policy, explain=True, plugins=pair.plugins)
    sampling = replace(MODES[mode], max_tokens=tokens, seed=plan.settings.seed)
    return purifier.generate(prompts, sampling, errors="raise")


def working(tried: Sequence[Shown]) -> tuple[Shown, ...]:
    """Of each kind the first attack that succeeded; the first one where none did."""
    kinds: dict[str, list[Shown]] = {}
    for each in tried:
        kinds.setdefault(each.attack.kind, []).append(each)
    return tuple(next(filter(_worked, those), those[0]) for those in kinds.values())


def _worked(shown: Shown) -> bool:
    return all(shown.attack.succeeded(answer.text.encode()) for answer in shown.answers.values())


def _together(answers: Sequence[Shown]) -> Shown:
    """One attack, with every system's answer."""
    return Shown(answers[0].attack, {key: one for each in answers for key, one in each.answers.items()})
