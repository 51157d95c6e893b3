"""The request stages of a loaded pair, for `purify check`."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from purify_plugins.certificates.explain import said

if TYPE_CHECKING:
    from purify_plugins.plugin.manager import Plugins
    from purify_plugins.stages.options import RequestOptions
    from purify_plugins.stages.stage import Stage


def chain(plugins: Plugins, stages: Sequence[Stage], options: RequestOptions) -> dict[str, Any]:
    """A pair's request stages, the outermost first, and how much of an answer they hold back."""
    if not stages:
        return {}
    most = max(stage.holds_back for stage in stages)
    return {
        "stages": {
            f"{at}. {plugins.offered('purify_stages', type(stage))[0] or stage.name}": {
                **{name: value for name, value in stage.public().items() if value not in ("", [], None)},
                "choices": options.calls if stage.choices is None else stage.choices,
            }
            for at, stage in enumerate(stages, 1)
        },
        "hold-back": "the whole answer" if math.isinf(most) else f"{said(most)} characters",
        "calls": options.calls,
    }
