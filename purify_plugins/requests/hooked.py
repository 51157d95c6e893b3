"""The hooks `purify_request` and `purify_completed`, as a stage of their own around all others."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from purify_plugins.errors import PluginError
from purify_plugins.requests.inputs import one
from purify_plugins.stages.checks import Check
from purify_plugins.stages.stage import Stage
from purify_plugins.types import Certificate

if TYPE_CHECKING:
    from purify_plugins.plugin.manager import Plugins
    from purify_plugins.stages.request import Request
    from purify_plugins.types import Completion


def hooked(purifier: Any, plugins: Plugins) -> tuple[Stage, ...]:
    """The stage of the plugins that see requests, or finished answers; () where none does."""
    hooks = ("purify_request", "purify_completed")
    return (Hooked(purifier, plugins),) if any(map(plugins.implementing, hooks)) else ()


@dataclass(frozen=True)
class Hooked(Stage):
    """Shows plugins each request, which they may rewrite or refuse, and each finished answer."""

    purifier: Any
    plugins: Plugins

    def answer(self, request: Request) -> Request:
        prompts, hook = [request.prompt], self.plugins.hook.purify_request
        for rewritten in hook(purifier=self.purifier, prompts=prompts, sampling=request.sampling):
            prompts[:] = rewritten  # of a plugin that takes no `prompts`
        if len(prompts) != 1:
            raise PluginError(
                f"purify_request made {len(prompts)} prompts of 1; a plugin may rewrite each, and drop none"
            )
        asked = request if prompts[0] is request.prompt else request.asking(one(prompts[0]))
        return asked.checked(HookCheck(self)) if self.plugins.implementing("purify_completed") else asked


class HookCheck(Check):
    """Judges no text; shows plugins the whole answer before its last text is released."""

    name, window, withholds = "purify_completed", 0, True

    def __init__(self, stage: Hooked) -> None:
        self.stage = stage

    def clear(self, text: str, last: bool) -> int:
        return len(text)

    def released(self, completion: Completion) -> None:
        shown = completion.certificate
        seen = replace(completion, certificate=Certificate(shown.text, shown.envelope))  # a copy
        self.stage.plugins.hook.purify_completed(purifier=self.stage.purifier, completion=seen)
