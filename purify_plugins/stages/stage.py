"""`Stage`: a program around a decode. `Draft`: an answer that it reads, which no reader has seen."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from functools import cached_property
from inspect import isgeneratorfunction
from typing import TYPE_CHECKING, Any, ClassVar, Self

from purify_plugins.canonical_json import counted, jsonable
from purify_plugins.stages.vault import restored

if TYPE_CHECKING:
    from purify_plugins.protocols import LogitSource
    from purify_plugins.stages.request import Request
    from purify_plugins.stages.vault import Vault
    from purify_plugins.types import Certificate, Completion, FinishReason, Token


@dataclass(frozen=True, eq=False)
class Draft:
    """A whole answer to `request`, unseen; made by the core only.

    A stage may read it, and return it to release it. Its `text` has the surrogates that the models read, but
    for a stage around the one that put them there: for that `vault` puts the true values back.
    """

    request: Request
    completion: Completion
    vault: Vault | None = None

    @cached_property
    def text(self) -> str:
        drawn = self.completion.text
        return drawn if self.vault is None else restored(self.vault, drawn)

    def seen_from(self, request: Request) -> Draft:
        """The draft as the stage that answers `request` reads it."""
        outside = request.vault is None and self.request.vault is not None
        return replace(self, vault=self.request.vault) if outside else self

    @property
    def steps(self) -> tuple[Token, ...]:
        return self.completion.steps

    @property
    def finish_reason(self) -> FinishReason:
        return self.completion.finish_reason

    @property
    def certificate(self) -> Certificate:
        return self.completion.certificate

    @cached_property
    def confidence(self) -> float:
        """The SLM's probability of a token, its geometric mean over the answer: from 0 to 1."""
        found = [token.slm for token in self.steps]
        return math.exp(sum(found) / len(found)) if found else 0.0

    @cached_property
    def surprise(self) -> float | None:
        """Mean log LLM/SLM (nats) of a token; None where the LLM's figures are not known (see `explain`)."""
        found = [token.llm - token.slm for token in self.steps if token.llm is not None]
        return sum(found) / len(found) if found and len(found) == len(self.steps) else None


Answer = Generator["Request | Sequence[Request]", Any, "Request | Draft"]
"""A program: it yields requests, and gets their drafts; it returns what is released, or streamed."""


class Stage(ABC):
    """A program that answers a request by asking for others; a frozen dataclass whose fields are its options.

    `withheld` are the fields that certificates show as a digest and a count; `paths` are those that name
    files or directories, which in `purify.toml` are relative to it.
    """

    withheld: ClassVar[tuple[str, ...]] = ()
    paths: ClassVar[tuple[str, ...]] = ()

    @property
    def name(self) -> str:
        """Its name for errors; certificates have the name that its plugin offers it by."""
        return type(self).__name__

    @abstractmethod
    def answer(self, request: Request) -> Answer | Request | Draft:
        """Answer a request; a generator, or a function that needs no drafts.

        What it yields (a Request or a list) is answered unseen: it gets a Draft, or a list of drafts. A
        Request that it returns is answered and streamed; a Draft that it returns is released. Raises
        RefusedError, whose `key` names the operator's text for it.
        """

    @property
    def choices(self) -> int | None:
        """The most fused answers that it picks one from; None: unknown. 1 where `answer` is a plain function.

        The ledger adds ln(choices) to what an answer may cost; where it is unknown, as many as there may be
        calls.
        """
        return None if isgeneratorfunction(self.answer) else 1

    @property
    def holds_back(self) -> float:
        """The most characters at the end of an answer that its checks hold back; infinity: all of it."""
        return 0.0

    def remarks(self) -> Sequence[str]:
        """What `purify check` warns of, a sentence each."""
        return ()

    def bind(self, slm: LogitSource) -> Self:
        """The stage for a Purifier with this SLM, which is loaded; what takes long is loaded now.

        By default itself. A stage that judges texts by the SLM keeps it (`guardian`).
        """
        return self

    def public(self) -> Mapping[str, Any]:
        """Its options as certificates state them, as JSON."""
        values = {each.name: getattr(self, each.name) for each in fields(self)}  # type: ignore[arg-type]
        return {
            name: counted(value) if name in self.withheld else jsonable(value)
            for name, value in values.items()
        }
