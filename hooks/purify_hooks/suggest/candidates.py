"""How each model of the catalogue compares with an LLM."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from purify_hooks.suggest.catalogue import PROVENANCE, Published, TokenizerFamily, read_catalogue
from purify_hooks.suggest.llm import UntrustedModel
from purify_hooks.suggest.local_copies import at_hand, local_digest

Meeting = Literal["tokens", "bytes", "unknown"]
"""How an SLM meets the LLM: in its tokens (one tokenizer), in bytes (two), or not known here."""


@dataclass(frozen=True)
class Candidate:
    """A published model beside an LLM.

    `meets` is how the two are fused; `relative_cost` the share of the LLM's time that a token of it takes,
    by its parameters (None where the LLM's are not known); `at_hand` where it is on this machine, or "".
    """

    published: Published
    family: TokenizerFamily
    meets: Meeting
    relative_cost: float | None
    at_hand: str

    @property
    def memory(self) -> dict[str, int]:
        """Bytes of its weights in float32 (as on a CPU) and bfloat16."""
        return {"float32": 4 * self.published.parameters, "bfloat16": 2 * self.published.parameters}

    def json(self) -> dict[str, Any]:
        """All of it as JSON."""
        told = {**vars(self.published), "tokenizer": self.family.name, "tokenizer_of": self.family.used_by}
        cost = {"relative_cost": self.relative_cost, "memory": self.memory, "at_hand": self.at_hand}
        return {**told, "meets": self.meets, **cost}


def candidates(llm: UntrustedModel) -> list[Candidate]:
    """The catalogue's models no larger than the LLM, those in its tokens first, then by their data."""
    families, models = read_catalogue()
    known = next((key for key, each in families.items() if each.sha256 == llm.digest), None)
    found = [_candidate(each, families[each.tokenizer], known, llm) for each in models]
    smaller = [each for each in found if each.relative_cost is None or each.relative_cost <= 1]
    return sorted(smaller, key=_rank)


def _candidate(each: Published, family: TokenizerFamily, known: str | None, llm: UntrustedModel) -> Candidate:
    place = at_hand(each.model)
    digest = family.sha256 or (local_digest(place) if place else "")
    meets: Meeting = "tokens" if digest == llm.digest else "bytes"
    if not digest and known is None:  # neither tokenizer is recorded: the two may be one
        meets = "unknown"
    cost = each.parameters / llm.parameters if llm.parameters else None
    return Candidate(each, family, meets, cost, place)


def _rank(candidate: Candidate) -> tuple[int, int, int]:
    meeting: Sequence[Meeting] = ("tokens", "unknown", "bytes")
    published = candidate.published
    return meeting.index(candidate.meets), PROVENANCE.index(published.provenance), published.parameters
