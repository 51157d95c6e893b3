"""`gatekeeper`: what is private does not reach the LLM's host; its reader gets it back."""

from __future__ import annotations

import os
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar

from purify_hooks.private.shapes import LONGEST
from purify_hooks.private.veil import veiled
from purify_hooks.stages.wording import require, texts
from purify_plugins.errors import ConfigError, RefusedError
from purify_plugins.stages.stage import Stage

if TYPE_CHECKING:
    from purify_hooks.private.finders import Finder
    from purify_plugins.stages.request import Request

LEAST_KEY = 16
"""The least characters of the key that surrogates follow from."""


@dataclass(frozen=True)
class Gatekeeper(Stage):
    """Show both models surrogates in place of private values, and put the values back in the answer.

    `kinds` names what is looked for (all kinds that need no model, if not given), `patterns` are regular
    expressions by the name of their kind, `words` the file that lists texts, one a line, `tagger` the
    directory of a token classifier, `libraries` are "phonenumbers:REGION" and "presidio". A surrogate is of
    its value's type, and follows by HMAC from the key in the environment variable `key_env` and the value
    alone: it is the same over turns, replicas and restarts. Without `key_env` the key is drawn anew for each
    process. `slm_reads` "surrogate": both models read the same.
    """

    kinds: tuple[str, ...] | None = None
    patterns: Mapping[str, str] = field(default_factory=dict, repr=False)
    words: str | tuple[str, ...] = field(default="", repr=False)
    tagger: str = ""
    libraries: tuple[str, ...] = ()
    key_env: str = ""
    slm_reads: str = "surrogate"
    withheld: ClassVar[tuple[str, ...]] = ()
    paths: ClassVar[tuple[str, ...]] = ("words", "tagger")

    def __post_init__(self) -> None:
        if self.kinds is not None:
            kinds = texts(self.kinds)
            require("gatekeeper", "kinds", self.kinds, kinds is not None, "a list of kinds")
            object.__setattr__(self, "kinds", kinds)
        fine = isinstance(self.patterns, Mapping) and all(
            isinstance(each, str) for each in self.patterns.values()
        )
        require(
            "gatekeeper", "patterns", self.patterns, fine, "a table of regular expressions, by their kind"
        )
        if not isinstance(self.words, str):
            fine = texts(self.words) is not None
            require("gatekeeper", "words", type(self.words), fine, "a file, or a list of texts, none blank")
            object.__setattr__(self, "words", tuple(self.words))
        libraries = texts(self.libraries)
        require(
            "gatekeeper", "libraries", self.libraries, libraries is not None, "a list of detectors' names"
        )
        object.__setattr__(self, "libraries", libraries)
        for name in ("tagger", "key_env"):
            require("gatekeeper", name, vars(self)[name], isinstance(vars(self)[name], str), "a text")
        if self.slm_reads != "surrogate":
            raise ConfigError(
                f"stage 'gatekeeper': slm_reads must be 'surrogate', not {self.slm_reads!r}: both models "
                "read the same, or each would veto the other's private words"
            )
        if self.kinds == () and not (self.patterns or self.words or self.tagger or self.libraries):
            raise ConfigError(
                "stage 'gatekeeper': kinds = [] leaves nothing to look for; leave it out for all kinds, or "
                "give patterns, words, a tagger or libraries"
            )
        _ = self._finder, self._key

    @cached_property
    def _finder(self) -> Finder:
        from purify_hooks.private.finders import finder

        return finder(self.kinds, self.patterns, self.words or (), self.tagger or None, self.libraries)

    @cached_property
    def _key(self) -> bytes:
        if not self.key_env:
            return secrets.token_bytes(32)
        key = os.environ.get(self.key_env, "")
        if len(key) < LEAST_KEY:
            raise ConfigError(
                f"stage 'gatekeeper': the environment variable {self.key_env!r}, which key_env names, must "
                f"hold a secret of at least {LEAST_KEY} characters; `openssl rand -hex 32` makes one"
            )
        return key.encode("utf-8", "surrogateescape")

    @property
    def holds_back(self) -> float:
        return LONGEST

    def answer(self, request: Request) -> Request:
        if request.vault is not None:
            raise RefusedError("a request has one gatekeeper; give this one's kinds to the first")
        return veiled(request, self._finder, self._key, self.patterns)

    def remarks(self) -> Sequence[str]:
        found = [
            "the gatekeeper keeps back what it finds, and no detector finds everything; see docs/private.md",
            "the gatekeeper puts values back after every mask and check: what other stages keep out of "
            "answers they keep out of text with surrogates in it",
        ]
        if not self.key_env:
            found.append(
                "the gatekeeper has no key_env: its key is drawn anew in each process, so surrogates change "
                "with a restart, and between replicas"
            )
        if not self.tagger:
            found.append("the gatekeeper has no tagger: of names it finds those in `words` alone")
        return found

    def public(self) -> Mapping[str, Any]:
        """Its options; of the operator's patterns and words how many there are, and not even a digest."""
        return {
            "kinds": "all" if self.kinds is None else list(self.kinds),
            "patterns": len(self.patterns),
            "words": bool(self.words),
            "tagger": bool(self.tagger),
            "libraries": list(self.libraries),
            "keyed": bool(self.key_env),
            "slm_reads": self.slm_reads,
        }
