"""The test bed's public name; its models and what to ask them are in `purify_hooks.evaluation.testbed`."""

from purify_hooks.evaluation.testbed import (
    HOME,
    LLM,
    SLM,
    SLM_1024,
    Attacks,
    Backdoor,
    Canary,
    Passage,
    attacks,
    heldout,
)

__all__ = [
    "HOME",
    "LLM",
    "SLM",
    "SLM_1024",
    "Attacks",
    "Backdoor",
    "Canary",
    "Passage",
    "attacks",
    "heldout",
]
