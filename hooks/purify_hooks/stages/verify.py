"""`verify`: answer again until two answers agree, or one is accepted; else refuse."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from re import Pattern

from purify_hooks.stages.wording import normalised, pattern, require, whole
from purify_plugins.errors import ConfigError, RefusedError
from purify_plugins.stages.request import Request
from purify_plugins.stages.stage import Answer, Draft, Stage


@dataclass(frozen=True)
class Verify(Stage):
    """Release the first answer that agrees with an earlier one, of at most `tries`.

    `agree` is a regular expression for the part that must agree, its first group where it has one; "" is the
    whole answer, in any case and punctuation. An answer in which it is not found agrees with none. An answer
    in which the regular expression `accept` is found is released at once, whatever others say. Where no
    answer is released, the request is refused (key "unverified").
    """

    tries: int = 3
    agree: str = ""
    accept: str = ""

    def __post_init__(self) -> None:
        require("verify", "tries", self.tries, whole(self.tries, 1), "a whole number, at least 1")
        _ = self._agree, self._accept  # raises now
        if self.tries < 2 and not self.accept:
            raise ConfigError("stage 'verify': two answers must agree; give tries = 2 or more, or `accept`")

    @cached_property
    def _agree(self) -> Pattern[str] | None:
        return pattern("verify", "agree", self.agree)

    @cached_property
    def _accept(self) -> Pattern[str] | None:
        return pattern("verify", "accept", self.accept)

    @property
    def choices(self) -> int:
        return self.tries

    def answer(self, request: Request) -> Answer:
        seen = set[str]()
        tried = 0
        while tried < self.tries:
            together = 1 if self._accept or tried else 2  # one alone settles nothing without `accept`
            drafts: list[Draft] = yield [request.seeded(tried + at) for at in range(together)]
            tried += together
            for draft in drafts:
                part = self._part(draft.text)
                if part in seen or (self._accept and self._accept.search(draft.text)):
                    return draft
                if part is not None:
                    seen.add(part)
        raise RefusedError(f"no two of {self.tries} answers agree", key="unverified")

    def _part(self, text: str) -> str | None:
        """What of an answer must agree with another's; None where it has no such part."""
        if self._agree is None:
            return normalised(text) or None
        found = self._agree.search(text)
        return normalised(found[1 if found.re.groups else 0] or "") or None if found else None
