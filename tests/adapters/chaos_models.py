"""A canary LLM that takes its time and an SLM that never says the canary, as sources of a `purify.toml`."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from purify_plugins.testing.toys import ScriptedSession
from purify_plugins.types import Prompt
from tests.adapters.gateways import FORBIDDEN, Poisoned
from tests.toys import BYTES, Forbidding

PLUGIN = """
from purify_plugins import hookimpl

@hookimpl
def purify_sources():
    from tests.adapters.chaos_models import canary, forbidding
    return {"slow-canary": canary, "never-canary": forbidding}
"""


@dataclass(frozen=True)
class SlowCanary(Poisoned):
    """A model that is sure of the canary, and sleeps `pause` seconds at each token, as a server's would."""

    pause: float = 0.0

    def open(self, prompts: Sequence[Prompt], scored: int = 0) -> tuple[ScriptedSession, Tensor]:
        time.sleep(self.pause)
        first, _ = super().open(prompts, scored)
        session = SlowSession(self, first.rows)
        return session, torch.stack([session.logits(row) for row in range(len(prompts))])


class SlowSession(ScriptedSession):
    def extend(self, tokens: Tensor) -> Tensor:
        script: Any = self.script
        time.sleep(script.pause)
        return super().extend(tokens)


def canary(pause: float = 0.0) -> SlowCanary:
    return SlowCanary(BYTES, pause=pause)


def forbidding() -> Forbidding:
    return Forbidding(BYTES, 2, forbidden=FORBIDDEN)


def written(folder: Path, pause: float, policy: str = "balanced") -> Path:
    """A `purify.toml` of the pair, and the distribution that offers both; `folder` must be on the path."""
    (folder / "chaos_models.py").write_text(PLUGIN)
    info = folder / "chaos_models-1.0.dist-info"
    info.mkdir(exist_ok=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: chaos-models\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[purify]\nchaos-models = chaos_models\n")
    file = folder / "purify.toml"
    file.write_text(
        f'plugins = ["chaos-models"]\n[llm]\nsource = "slow-canary"\npause = {pause}\n'
        f'[slm]\nsource = "never-canary"\n[policy]\nname = "{policy}"\n'
    )
    return file
