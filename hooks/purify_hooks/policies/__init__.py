"""The bundled fusion policies, one file per family; names are those of `[policy] name` in purify.toml."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from purify_plugins.plugin.hookspecs import hookimpl

from .anchored import Anchored
from .balanced import Balanced
from .budgets import Capped, Windowed
from .consistency import Consistency
from .cp_fuse import CPFuse
from .mixtures import LearnedMix, Linear
from .pools import Geometric, Minimum
from .replacing import CleanGen, TokenSwap
from .steering import Contrastive, Offset, SafeDecoding
from .union import TopKUnion

POLICIES: dict[str, type[Any]] = {
    policy.name: policy
    for policy in (
        Geometric,
        Windowed,
        Balanced,
        Minimum,
        Anchored,
        Capped,
        CPFuse,
        TokenSwap,
        CleanGen,
        SafeDecoding,
        Linear,
        LearnedMix,
        Offset,
        Contrastive,
        Consistency,
        TopKUnion,
    )
}


@hookimpl
def purify_policies() -> Mapping[str, type[Any]]:
    return POLICIES
