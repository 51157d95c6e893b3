"""The stages plugin: programs around a decode, each a frozen dataclass in a file of its own."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from purify_plugins.plugin.hookspecs import hookimpl


@hookimpl
def purify_stages() -> Mapping[str, Callable[..., Any]]:
    from purify_hooks.private.gatekeeper import Gatekeeper
    from purify_hooks.private.redacted import Redacted
    from purify_hooks.private.sketch import Sketch
    from purify_hooks.protected.copycheck import Copycheck
    from purify_hooks.stages.allowance import Allowance
    from purify_hooks.stages.cascade import Cascade
    from purify_hooks.stages.decompose import Decompose
    from purify_hooks.stages.ensemble import Ensemble
    from purify_hooks.stages.forget import Forget
    from purify_hooks.stages.grounded import Grounded
    from purify_hooks.stages.guardian import Guardian
    from purify_hooks.stages.never import Never
    from purify_hooks.stages.rewrite import Rewrite
    from purify_hooks.stages.verify import Verify

    return {
        "allowance": Allowance,
        "cascade": Cascade,
        "copycheck": Copycheck,
        "decompose": Decompose,
        "ensemble": Ensemble,
        "forget": Forget,
        "gatekeeper": Gatekeeper,
        "grounded": Grounded,
        "guardian": Guardian,
        "never": Never,
        "redacted": Redacted,
        "rewrite": Rewrite,
        "sketch": Sketch,
        "verify": Verify,
    }
