"""`source = "mixture"`: the weighted mean of the probabilities of several models."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from hashlib import sha256
from typing import TYPE_CHECKING, Any

from purify_plugins.canonical_json import canonical
from purify_plugins.errors import ConfigError, VocabularyError
from purify_plugins.plugin.preview import Preview
from purify_plugins.protocols import LogitSource, Reading, Session
from purify_plugins.threat import Engine, weakest
from purify_plugins.types import Prompt, Vocabulary

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, eq=False)
class MixtureSource(LogitSource):
    """Mix models in probability: p = Σ w_i p_i, so that what any of them knows is known, at its weight.

    `members` are models: a directory or hub id each, or a table with a `source` and its keys. All run here
    and have one tokenizer. `weights`, one a member, are divided by their sum; unset, they are equal. With
    `share` the weights follow the text, prompt included: after each token they are the posterior of which
    member predicts it (Bayes' rule), of which `share` then returns to the given weights (fixed share,
    Herbster and Warmuth 1998); 0 is Bayes' rule alone. Either way the mixture is one language model, and
    every guarantee is against it. The first member's tokenizer and template read the prompts for all.
    Raises VocabularyError for two tokenizers, ConfigError for a model behind a server or wrong numbers.
    """

    members: list[LogitSource]
    weights: list[float | int] | None = None
    share: float | int | None = None

    def __post_init__(self) -> None:
        check_numbers(self.members, self.weights, self.share)
        for number, member in enumerate(self.members, start=1):
            if member.capabilities is not None:
                raise ConfigError(
                    f"member {number} of the mixture is behind a server, which shows parts of rows, and "
                    "those cannot be mixed; run every member here"
                )
        object.__setattr__(self, "members", in_one_vocabulary(self.members))

    @property
    def vocabulary(self) -> Vocabulary:
        return self.members[0].vocabulary

    @property
    def context_length(self) -> int | None:
        """The shortest of the members'."""
        known = (member.context_length for member in self.members)
        return min((each for each in known if each is not None), default=None)

    @property
    def engine(self) -> Engine:
        """What runs the members: the least trusted."""
        return weakest(*(member.engine for member in self.members))

    @property
    def reading(self) -> Reading:
        """How each member is read, in their order."""
        each = [member.reading for member in self.members]
        trees = "on" if self.share is None and all(reading.trees == "on" for reading in each) else "off"
        return Reading(
            "; ".join(reading.cache for reading in each),
            trees,
            "; ".join(reading.attention for reading in each),
        )

    @property
    def parameters(self) -> int | None:
        known = [member.parameters for member in self.members]
        return None if None in known else sum(each or 0 for each in known)

    @property
    def in_thread(self) -> bool:
        return all(member.in_thread for member in self.members)

    @property
    def tokenizer(self) -> Any:
        """The first member's, which renders and reads prompts."""
        return self.members[0].tokenizer

    @property
    def encodes(self) -> bool:
        return self.members[0].encodes

    def encode(self, prompt: Prompt) -> tuple[int, ...]:
        return self.members[0].encode(prompt)

    def over(self, change: Callable[[LogitSource], LogitSource]) -> LogitSource:
        return replace(self, members=[change(member) for member in self.members])

    def open(self, prompts: Sequence[Prompt], scored: int = 0) -> tuple[Session, Tensor]:
        from purify_hooks.mixture.session import Weighted, opened

        if self.encodes:  # every member reads the same ids
            prompts = [self.encode(prompt) for prompt in prompts]
        return opened(Weighted(self.members, self.proportions, self.share), prompts, scored)

    @property
    def proportions(self) -> list[float]:
        """The weights, summing to 1."""
        return _proportions(self.weights, len(self.members))

    def identity(self) -> Mapping[str, Any]:
        """The members with their weights; beside their files the rule: other weights are another model.

        Of a mixture with a member that names no files none are named.
        """
        told = {
            str(number): {"weight": weight, **member.identity()}
            for number, (member, weight) in enumerate(
                zip(self.members, self.proportions, strict=True), start=1
            )
        }
        share = {} if self.share is None else {"share": self.share}
        files = {"mixture": self._rule} if all(each.get("files") for each in told.values()) else {}
        for number, each in told.items() if files else ():
            files |= {f"{number}/{name}": digest for name, digest in each["files"].items()}
        return {"name": "mixture", "kind": "mixture", **share, "members": told, "files": files}

    @property
    def _rule(self) -> str:
        """SHA-256 of everything but the members that a row depends on."""
        rule = {"weights": self.proportions, "share": self.share}
        return sha256(canonical(rule).encode()).hexdigest()


def check_numbers(
    members: Sequence[Any], weights: Sequence[float | int] | None, share: float | int | None
) -> None:
    """Raise ConfigError for fewer than two members, and for weights or a share out of range."""
    if not isinstance(members, list | tuple) or len(members) < 2:
        named = len(members) if isinstance(members, list | tuple) else 1
        raise ConfigError(f"a mixture has two members or more, not {named}; name them all in a list")
    _proportions(weights, len(members))
    if share is not None and not 0 <= share <= 1:
        raise ConfigError(f"share must be from 0 to 1, not {share}")


def looked_at(
    members: list[LogitSource], weights: list[float | int] | None = None, share: float | int | None = None
) -> Preview:
    """The preview of a mixture, before its members are loaded. Raises ConfigError."""
    check_numbers(members, weights, share)
    return Preview(mixes=True)


def _proportions(weights: Sequence[float | int] | None, members: int) -> list[float]:
    """The weights, summing to 1. Raises ConfigError."""
    given = [1.0] * members if weights is None else weights
    if len(given) != members:
        raise ConfigError(f"the mixture has {members} members and {len(given)} weights; give one a member")
    if not all(math.isfinite(each) and each > 0 for each in given):
        raise ConfigError(
            f"weights must be finite and above 0, not {[*given]}; leave a member out instead of 0"
        )
    return [each / sum(given) for each in given]


def in_one_vocabulary(members: Sequence[LogitSource]) -> list[LogitSource]:
    """The members in the ids of the first. Raises VocabularyError for another tokenizer's.

    They may differ in ids, in end tokens, and in tokens that were added later; a token that a member lacks
    has probability 0 there.
    """
    from purify_plugins.tokenizers.vocabulary_map import align

    first, found = members[0], [members[0]]
    for number, other in enumerate(members[1:], start=2):
        if other.vocabulary.fingerprint == first.vocabulary.fingerprint:
            found.append(other)
            continue
        if _ordinary(other.vocabulary) == _ordinary(first.vocabulary):
            remapped, same = align(other, first)
            if same is first:
                found.append(remapped)
                continue
        raise VocabularyError(
            f"member {number} of the mixture has another tokenizer ({other.vocabulary.name!r}, "
            f"{len(other.vocabulary)} tokens) than the first ({first.vocabulary.name!r}, "
            f"{len(first.vocabulary)}); mix models of one tokenizer, and build n-grams with that"
        )
    return found


def _ordinary(vocabulary: Vocabulary) -> set[bytes]:
    """What the tokens spell that are neither control nor added ones."""
    left_out = vocabulary.added | vocabulary.control.keys()
    return {token for index, token in enumerate(vocabulary.tokens) if index not in left_out}
