"""Load a model with a card or a signature, and name both beside its identity."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from purify_plugins.errors import ConfigError, ModelError
from purify_plugins.protocols import LogitSource, Slots
from purify_plugins.sources.wrapper import SourceWrapper
from purify_plugins.vouching.options import Vouchers
from purify_plugins.vouching.signed import require_loaded, require_signed, signed_place, states


class VouchedSource(SourceWrapper):
    """A model whose card and signature were checked: its identity names both."""

    def __init__(self, source: LogitSource, told: Mapping[str, Any]) -> None:
        self.source, self.told = source, told

    def identity(self) -> Mapping[str, Any]:
        return {**self.source.identity(), **self.told}

    def slots(self) -> Slots | None:
        return self.source.slots()  # its rows are what is returned here


def require_files(place: Path | None, where: str) -> Path:
    """The place of a model's files. Raises ConfigError where there are none here."""
    if place is None:
        raise ConfigError(
            f"{where} has no files here, so there is nothing that a card or a signature could be compared "
            "with; leave card, signature and signature_key out, or give them to the model inside it"
        )
    return place


def vouched(folder: Path, vouchers: Vouchers, load: Callable[[], LogitSource]) -> LogitSource:
    """Check the signature of a model's directory or file, load it, and check that this was loaded.

    Raises ModelError for files that are not as signed, before `load`, and for a card of another model.
    """
    if vouchers.bundle is None or vouchers.key is None:
        source = load()
    else:
        signed = signed_place(folder, vouchers.bundle)
        before = states(signed)
        require_signed(signed, vouchers.bundle, vouchers.key)
        source = load()
        require_loaded(source.identity().get("files") or {}, folder, vouchers.bundle)
        if states(signed) != before:
            raise ModelError(f"{signed} changed since its signature was checked; load it again")
    if vouchers.card is not None:
        vouchers.card.require_model(source, vouchers.where)
    return VouchedSource(source, vouchers.told())
