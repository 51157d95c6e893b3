"""`never`: texts that no answer holds, by a mask on both models' rows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from purify_hooks.stages.wording import require, texts
from purify_plugins.errors import ConfigError
from purify_plugins.stages.request import Request
from purify_plugins.stages.stage import Stage
from purify_plugins.utils.files import read_text

if TYPE_CHECKING:
    from purify_plugins.decode.deny_list import DenyList


@dataclass(frozen=True)
class Never(Stage):
    """Rule out every token that would complete one of these texts, in both models' rows before the policy.

    `texts` are the texts, `file` names a file with more, one a line; in any spacing, and with `any_case` in
    any case. Nothing is held back, asked again or added to the ledger: the SLM under the same mask is what
    the fused model is compared with. Certificates have a digest of the texts and their count.
    """

    texts: tuple[str, ...] = field(default=(), repr=False)
    file: str = ""
    any_case: bool = True
    withheld: ClassVar[tuple[str, ...]] = ("texts",)
    paths: ClassVar[tuple[str, ...]] = ("file",)

    def __post_init__(self) -> None:
        given = texts(self.texts)
        fine = given is not None  # an error must not quote the list
        require("never", "texts", type(self.texts), fine, "a list of texts, none of them blank")
        require("never", "file", self.file, isinstance(self.file, str), "a file's path")
        require("never", "any_case", self.any_case, isinstance(self.any_case, bool), "true or false")
        listed = read_text(Path(self.file)).splitlines() if self.file else []
        found = (*(given or ()), *(line.strip() for line in listed if line.strip()))
        if not found:
            raise ConfigError("stage 'never': give `texts`, or a `file` of them, one a line")
        object.__setattr__(self, "texts", found)

    @cached_property
    def denied(self) -> DenyList:
        """The constraint; one object, so that rows of a batch decode together."""
        from purify_plugins.decode.deny_list import DenyList

        return DenyList(self.texts, any_case=self.any_case)

    @property
    def choices(self) -> int:
        return 1

    def answer(self, request: Request) -> Request:
        return request.forbidding(self.denied)

    def public(self) -> Mapping[str, Any]:
        return {name: value for name, value in super().public().items() if name != "file"}
