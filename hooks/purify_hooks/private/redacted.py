"""`redacted`: the LLM reads the whole context, and the SLM reads it without what is private."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

from purify_hooks.private.labelling import LabellingStage
from purify_plugins.errors import RefusedError
from purify_plugins.stages.request import Request


@dataclass(frozen=True)
class Redacted(LabellingStage):
    """Have the SLM read the prompt without what is private in it, while the LLM reads all of it.

    So what the answer may tell of that is bounded like what the LLM knows (DP-Fusion, arXiv 2507.04531).
    Private is what stands between `markers`, which neither model reads; messages of the roles that `private`
    names, and texts cited by the ids that it names; what detectors of `kinds` find; what matches `patterns`,
    regular expressions by the name of their kind; `words`, a list or a file with one a line; what a `tagger`
    finds, the directory of a token classifier, and what `libraries` find. The SLM reads `instead` in its
    place, where `{kind}` stands for its kind. Markers that do not pair, a private text that was cited and
    does not stand in the prompt, and a prompt that is private altogether are refused (key "redacted").
    """

    stage: ClassVar[str] = "redacted"

    instead: str = "[{kind}]"

    def __post_init__(self) -> None:
        super().__post_init__()
        self._require("instead", self.instead, isinstance(self.instead, str), "a text")

    @property
    def choices(self) -> int:
        return 1

    def answer(self, request: Request) -> Request:
        found = self.labels.read(request.prompt, request.sources)
        if not found.labelled:
            return request
        public = found.without(self.instead)
        if public is None:
            raise RefusedError("all of the prompt is private, so the SLM has nothing to read", key=self.stage)
        asked = replace(request.asking(public), cited=self.cited(request, found.private))
        if request.slm_only:
            return asked
        whole = found if request.shown is None else self.labels.read(request.shown, request.sources)
        return asked.showing(whole.whole)

    def remarks(self) -> Sequence[str]:
        if self.private or self.labels.finders:
            return super().remarks()
        return (f"redacted takes out what stands between {' and '.join(self.markers)}, and nothing else",)
