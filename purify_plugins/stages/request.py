"""`Request`: what a stage asks for; its verbs return changed copies."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Self

from purify_plugins.errors import ConfigError
from purify_plugins.sampling import Sampling
from purify_plugins.types import Chat

if TYPE_CHECKING:
    from purify_plugins.protocols import Constraint
    from purify_plugins.stages.checks import Check
    from purify_plugins.stages.vault import Vault
    from purify_plugins.types import Prompt


@dataclass(frozen=True)
class Request:
    """A question to the two models; immutable, its verbs return changed copies.

    `shown` is what the LLM reads instead of `prompt`; None: the same. `slm_only` asks the SLM alone: nothing
    is sent to the LLM. `strength`, from 1 down to 0, is the share of the policy's latitude that is left.
    `never` are constraints on its tokens, `checks` judge its text before it is released, `vault` puts true
    values back in it. `draw` tells candidates of one request apart: the same seed draws other numbers for
    each. `cited` are the texts that the prompt quotes, by id and digest as certificates have them, `sources`
    by id and text. `about` is what the application says of the request (`user`, `conversation`).
    """

    prompt: Prompt
    sampling: Sampling = field(default_factory=Sampling)
    shown: Prompt | None = None
    slm_only: bool = False
    strength: float = 1.0
    never: tuple[Constraint, ...] = ()
    checks: tuple[Check, ...] = ()
    vault: Vault | None = None
    draw: tuple[int, ...] = ()
    cited: tuple[tuple[str, str], ...] = ()
    sources: tuple[tuple[str, str], ...] = field(default=(), repr=False)
    about: Mapping[str, str] = field(default_factory=dict)
    _seal: str = field(init=False, repr=False, compare=False, default="")

    def __post_init__(self) -> None:
        fine = (
            isinstance(self.sampling, Sampling),
            isinstance(self.checks, tuple),
            isinstance(self.never, tuple),
            isinstance(self.draw, tuple) and all(type(each) is int for each in self.draw),
        )
        if not all(fine):
            raise ConfigError(
                "a request has a Sampling, tuples of checks, constraints and numbers; use its verbs"
            )
        if type(self.strength) not in (int, float) or not 0 <= self.strength <= 1:
            raise ConfigError(f"a request's strength is a number from 0 to 1, not {self.strength!r}")
        object.__setattr__(self, "_seal", self._sealed())

    def _sealed(self) -> str:
        return repr((self.prompt, self.shown))

    @property
    def intact(self) -> bool:
        """Whether its prompts are as they were; messages are mappings, which can be changed in place."""
        return self._seal == self._sealed()

    def alone(self) -> Self:
        """The SLM alone answers it."""
        return replace(self, slm_only=True, shown=None)

    def seeded(self, candidate: int) -> Self:
        """Another candidate answer to it; candidate 0 is drawn with other numbers than the request itself."""
        return replace(self, draw=(*self.draw, candidate))

    def asking(self, prompt: Prompt) -> Self:
        """The same settings for another prompt, which both models read."""
        return replace(self, prompt=prompt, shown=None)

    def saying(self, text: str) -> Self:
        """The same conversation with `text` as its last message's content, or as the prompt of text."""
        if not isinstance(self.prompt, Chat):
            return self.asking(text)
        *before, last = self.prompt.messages
        return self.asking(Chat((*before, {**last, "content": text}), self.prompt.tools))

    def showing(self, prompt: Prompt) -> Self:
        """The LLM reads this prompt instead."""
        return replace(self, shown=prompt)

    def weaker(self, factor: float) -> Self:
        """The policy's latitude times `factor`, from 0 to 1. Raises ConfigError."""
        if not 0 <= factor <= 1:
            raise ConfigError(f"strength is only ever lowered: give a factor from 0 to 1, not {factor!r}")
        return replace(self, strength=self.strength * factor)

    def forbidding(self, *constraints: Constraint) -> Self:
        """Constrained further."""
        return replace(self, never=(*self.never, *constraints))

    def checked(self, *checks: Check) -> Self:
        """Judged by these checks too."""
        return replace(self, checks=(*self.checks, *checks))

    def veiled(self, vault: Vault) -> Self:
        """With true values put back in its answer by `vault`."""
        return replace(self, vault=vault)

    def sampled(self, **options: Any) -> Self:
        """With these sampling options. Raises ConfigError, UnknownNameError."""
        return replace(self, sampling=replace(self.sampling, **options))

    @property
    def text(self) -> str:
        """The text of the prompt, or of its last message; "" for token ids."""
        if isinstance(self.prompt, str):
            return self.prompt
        if not isinstance(self.prompt, Chat):
            return ""
        content = self.prompt.messages[-1].get("content") or ""
        return content if isinstance(content, str) else "".join(map(_part, content))


def _part(part: Any) -> str:
    return part if isinstance(part, str) else str(part.get("text", ""))
