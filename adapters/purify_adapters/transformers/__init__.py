"""transformers: models, and what is built on them, whose `generate` goes through the purifier."""

from purify_adapters.transformers.drop_in import drop_in
from purify_adapters.transformers.model import PurifiedModel, PurifiedOutput

__all__ = ["PurifiedModel", "PurifiedOutput", "drop_in"]
