"""The summary that `purify serve` prints before it serves: models, guarantee, a request to try."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from purify_plugins.certificates.explain import AGAINST
from purify_plugins.configuration.consent import shown_url
from purify_plugins.protocols import LogitSource

if TYPE_CHECKING:
    from purify_plugins.purifier import Purifier

EVERYWHERE = ("0.0.0.0", "::")
BODY = '{"messages": [{"role": "user", "content": "Once upon a time"}], "max_tokens": 40}'


@dataclass(frozen=True)
class Address:
    """The gateway's address, and the environment variable with the key that clients must send."""

    host: str
    port: int
    key: str | None = None

    @property
    def url(self) -> str:
        """The URL on this machine."""
        host = "127.0.0.1" if self.host in EVERYWHERE else f"[{self.host}]" if ":" in self.host else self.host
        return f"http://{host}:{self.port}"

    def __str__(self) -> str:
        return f"{self.url}, and at every address of this machine" if self.host in EVERYWHERE else self.url


def named(table: Mapping[str, Any]) -> str:
    """A model's name in the configuration; a URL without credentials."""
    return shown_url(table["url"]) if "url" in table else str(table.get("model") or table.get("source"))


def summary(purifier: Purifier, llm: Mapping[str, Any], address: Address, workers: int = 1) -> str:
    """The summary's text; `llm` is the LLM's configuration."""
    lines = {
        "LLM": _llm(purifier.llm, llm),
        "SLM": f"{purifier.slm.identity().get('name')} (trusted)",
        "policy": purifier.plugins.name_of(purifier.policy),
        "guarantee": _guarantee(purifier),
        "decoder": purifier.walk,
        "context": _context(purifier),
        "config": purifier.configuration or "none recorded",
        "key": f"asked for (${address.key})" if address.key else "none: everyone may ask",
        "address": str(address),
        **({"workers": _memory(workers)} if workers > 1 else {}),
    }
    shown = "\n".join(f"  {name:<10} {value}" for name, value in lines.items())
    key = f' -H "authorization: Bearer ${address.key}"' if address.key else ""
    return (
        f"purify serve\n{shown}\n\ntry: curl {address.url}/v1/chat/completions{key} "
        f"-H 'content-type: application/json' -d '{BODY}'\n"
    )


def _llm(source: LogitSource, table: Mapping[str, Any]) -> str:
    """The LLM and its engine; of a server also the kind, and how much of a row it reveals."""
    identity, size = source.identity(), len(source.vocabulary)
    if source.engine == "in-process":
        return f"{identity.get('name')} (untrusted, run in this process)"
    server = "a server you vouch for" if source.engine == "trusted" else "an untrusted server"
    if (top := identity.get("top_n")) is None:
        return f"{named(table)} ({server})"
    rows = "whole rows" if top >= size else f"the likeliest {top} of {size} tokens"
    return f"{named(table)} ({server}, {identity.get('kind')}, shows {rows})"


def _guarantee(purifier: Purifier) -> str:
    from purify_plugins.sampling import Sampling

    claim = purifier.claim(Sampling())
    if claim.guarantee == "none":
        return f"none: {claim.reason}"
    return (
        f"{claim.guarantee}, of sampled answers, against {AGAINST[claim.adversary]}; greedy answers have none"
    )


def _memory(workers: int) -> str:
    """The number of workers, and the peak memory of each, estimated by this one's."""
    import resource  # which Windows lacks

    each = 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    return f"{workers}, about {each:.0f} MB each, {workers * each:.0f} MB in all"


def _context(purifier: Purifier) -> str:
    """The context limit in tokens, and the model that sets it."""
    both = {"LLM": purifier.llm.context_length, "SLM": purifier.slm.context_length}
    known = {who: length for who, length in both.items() if length}
    if not known:
        return "neither model says how much it reads"
    who = min(known, key=lambda each: known[each])
    return f"{known[who]} tokens, prompt and answer together (the {who}'s)"
