"""Text Generation Inference: a source that asks its server, or the client that Python gives."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from purify_adapters.sources.tgi.hub import HubSource
from purify_adapters.sources.tgi.source import TGIOptions, TGISource


class TGI:
    """TGI by its `url`, or behind a huggingface_hub `client`."""

    Options, sign = TGIOptions, TGISource.sign

    @staticmethod
    def load(url: str = "", **keys: Any) -> TGISource:
        """The source; `keys` are those of TGIOptions. Raises as RemoteSource's `load`."""
        options = TGIOptions(url=url, **keys)
        if options.client is None:
            return TGISource.reached(options)
        return HubSource.reached(replace(options, ahead=0))
