"""`source = "takedown"`: an LLM whose rows named works are taken out of, before the policy."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

from purify_hooks.takedown.alignment import AWAY, SHIFTS
from purify_hooks.takedown.anchor import ENTER, LEAVE, LIKELY, PLACES, Anchor, Form, TakedownRule
from purify_hooks.takedown.works import TakedownList, find
from purify_plugins.errors import ConfigError, VocabularyError
from purify_plugins.plugin.preview import Preview
from purify_plugins.protocols import LogitSource, Session
from purify_plugins.sources.wrapper import SourceWrapper, closed_on_error
from purify_plugins.types import Prompt, Vocabulary

if TYPE_CHECKING:
    from torch import Tensor

    from purify_hooks.takedown.session import TakedownSession


@dataclass(frozen=True, eq=False)
class TakedownSource(SourceWrapper):
    """Take named works out of an LLM's rows before the policy, while a text recites them.

    `model` is the LLM: a directory or hub id, or a table with a `source` and its keys; it may be behind a
    server. `works` is a directory that `purify takedown build` made: models of n-grams of the works and of
    common text, memory-mapped. A row is changed only while it is more likely than not that the text recites
    the works, of which only tokens after `sure` tokens in a row of a work are evidence. `form` "linear" takes
    `alpha` (log p_works - log p_neutral) off every token that the works make likelier than common text does;
    "rank" removes the `most` such tokens. The works' next `ahead` tokens count as such wherever the recital
    may go on. Divergence Decoding (2605.31293), with n-grams, a gate and an alignment.
    What the policy bounds stays bounded: it is the LLM alone that changes.
    Raises ConfigError for numbers out of range, ModelError, VocabularyError for another tokenizer's works.
    """

    model: LogitSource
    works: str | Path
    form: Form = "linear"
    alpha: float | int = 3.0
    most: int = 20
    sure: int = 7
    ahead: int = 32

    def __post_init__(self) -> None:
        longest = self.listed.works.order - 1
        if self.rule.sure > longest:
            raise ConfigError(f"sure must be at most {longest} with this list, not {self.sure}")
        if self.model.symbolic:
            raise ConfigError("the LLM's ids are symbols, which n-grams of tokens know nothing of")
        require_one_tokenizer(self.model.vocabulary, self.listed)

    @cached_property
    def rule(self) -> TakedownRule:
        return checked_rule(self.form, self.alpha, self.most, self.sure, self.ahead)

    @cached_property
    def listed(self) -> TakedownList:
        """The models of n-grams, and what they were made of."""
        return TakedownList.load(self.works)

    @cached_property
    def anchor(self) -> Anchor:
        known, listed = self.model.vocabulary, self.listed
        kept = known.eos | known.control.keys() | known.added
        return Anchor(listed.works, listed.neutral, self.rule, frozenset(kept))

    @property
    def source(self) -> LogitSource:  # type: ignore[override]  # the configuration calls it `model`
        return self.model

    @property
    def inner(self) -> LogitSource:
        """Itself: the LLM's rows are these."""
        return self

    def over(self, change: Callable[[LogitSource], LogitSource]) -> LogitSource:
        return replace(self, model=change(self.model))

    def open(self, prompts: Sequence[Prompt], scored: int = 0) -> tuple[Session, Tensor]:
        from purify_hooks.takedown.session import TakedownSession

        session, logits = self.model.open(prompts, scored)
        with closed_on_error(session):
            found = TakedownSession(session, self.model, self.anchor)
            return found, found.first(logits)

    def extend_all(self, sessions: Sequence[TakedownSession], tokens: Sequence[Tensor]) -> list[Tensor]:
        logits = self.model.extend_all([each.session for each in sessions], tokens)
        return [each.extended(*read) for each, *read in zip(sessions, tokens, logits, strict=True)]

    def branch_all(
        self, sessions: Sequence[TakedownSession], tokens: Sequence[Tensor], seen: Sequence[Tensor]
    ) -> list[Tensor]:
        logits = self.model.branch_all([each.session for each in sessions], tokens, seen)
        return [each.branched(*read) for each, *read in zip(sessions, tokens, seen, logits, strict=True)]

    def identity(self) -> Mapping[str, Any]:
        """The LLM's, with the rule, and the takedown list by digest and count."""
        from hashlib import sha256

        from purify_plugins.canonical_json import canonical

        told = dict(self.model.identity())
        chances = {"enter": ENTER, "leave": LEAVE, "likely": LIKELY}
        constants = {**chances, "away": AWAY, "shifts": list(SHIFTS), "places": PLACES}
        rule = {**asdict(self.rule), **constants, **self.listed.public()}
        found = {**told, "takedown": rule}
        if "files" in told:
            digest = sha256(canonical(rule).encode()).hexdigest()
            found["files"] = {**told["files"], "takedown": digest}
        return found


def checked_rule(form: Form, alpha: float, most: int, sure: int, ahead: int) -> TakedownRule:
    """The rule. Raises ConfigError."""
    if form not in get_args(Form):
        raise ConfigError(f"form must be {' or '.join(map(repr, get_args(Form)))}, not {form!r}")
    if not 0 < alpha <= 100:
        raise ConfigError(f"alpha must be above 0 and at most 100, not {alpha}")
    if most < 1:
        raise ConfigError(f"most must be at least 1, not {most}")
    if sure < 2:
        raise ConfigError(f"sure must be at least 2 tokens, not {sure}: one word is no sign of a work")
    if not 1 <= ahead <= 1000:
        raise ConfigError(f"ahead must be from 1 to 1,000 tokens, not {ahead}")
    return TakedownRule(form, float(alpha), most, sure, ahead)


def require_one_tokenizer(llm: Vocabulary, listed: TakedownList) -> None:
    """Raise VocabularyError where an ordinary token has another id in the works' tokenizer."""
    theirs = listed.vocabulary
    apart = llm.added | theirs.added | llm.control.keys() | theirs.control.keys()
    pairs = zip(llm.tokens, theirs.tokens, strict=False)
    ours = sum(1 for each in range(len(llm)) if each not in apart)
    same = sum(1 for at, (one, other) in enumerate(pairs) if one == other and at not in apart)
    if same != ours:
        raise VocabularyError(
            f"the takedown list has the tokenizer of {theirs.name!r} ({len(theirs)} tokens), and the LLM "
            f"{llm.name!r} another ({len(llm)}); build the list again with --tokenizer of the LLM"
        )


def looked_at(
    model: LogitSource,
    works: str | Path,
    form: Form = "linear",
    alpha: float | int = 3.0,
    most: int = 20,
    sure: int = 7,
    ahead: int = 32,
) -> Preview:
    """The preview of an LLM with works taken out, before it is loaded. Raises ConfigError, ModelError."""
    checked_rule(form, alpha, most, sure, ahead)
    find(works)
    return Preview(mixes=True)
