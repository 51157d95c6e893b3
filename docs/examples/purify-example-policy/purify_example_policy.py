"""A plugin in one file: a policy to fuse with, and an audit log of every answer."""

from __future__ import annotations

import logging
import math
from dataclasses import dataclass

from purify_plugins import ConfigError, hookimpl

audit = logging.getLogger("purify.audit")


@dataclass(frozen=True)
class SecondOpinion:
    """Let the LLM give a token at most `times` what the SLM gives it; the SLM hands out the rest.

    r = min(p_llm, times p_slm) + rest p_slm, where rest is what the minimum leaves of 1.
    """

    guarantee = "none"
    lookback = 0

    times: float = 4.0

    def __post_init__(self):
        if not 1 <= self.times < math.inf:
            raise ConfigError(f"second_opinion: times must be 1 or more, not {self.times!r}")

    def start(self, context):
        return ()

    def fuse(self, llm, slm, state):
        llm, slm = llm.float(), slm.float()
        agreed = llm.minimum(slm + math.log(self.times))
        rest = 1 - agreed.exp().sum(dim=-1, keepdim=True)
        return agreed.logaddexp(slm + rest.clamp(min=0).log())

    def advance(self, state, tokens, llm, slm, fused):
        return state


@hookimpl
def purify_policies():
    return {"second_opinion": SecondOpinion}


@hookimpl
def purify_completed(completion):
    proof = completion.certificate
    audit.info("%s: %.1f nats, guarantee %r", proof.digest[:12], proof.log_ratio, proof.guarantee)
