"""`Unwritten`: private values that no answer holds."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from purify_plugins.decode.deny_list import DenyFollower, DenyIndex, DenyList

if TYPE_CHECKING:
    from purify_plugins.types import Vocabulary


@dataclass(frozen=True)
class Unwritten(DenyList):
    """A deny list of which certificates say how many texts it has, and not even their digest.

    What is known of a value but for a few figures is found by trying them all. Its index is kept with it, and
    so no longer than the request.
    """

    _indexes: dict[Vocabulary, DenyIndex] = field(default_factory=dict, init=False, repr=False, compare=False)

    def follower(self, vocabulary: Vocabulary) -> DenyFollower:
        if vocabulary not in self._indexes:
            self._indexes[vocabulary] = DenyIndex(self, vocabulary)
        return DenyFollower(self._indexes[vocabulary])

    def public(self) -> Mapping[str, Any]:
        return {"kind": "private_values", "count": len(self.texts)}
