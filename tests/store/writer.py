"""A process that records so many certificates, and says so after each: `python writer.py PLACE COUNT`."""

from __future__ import annotations

import json
import sys
from hashlib import sha256

from purify_plugins.store.places import records_at
from purify_plugins.store.store import CertificateStore
from purify_plugins.types import Certificate


def certificate(name: str) -> Certificate:
    """What a store reads of a certificate."""
    digest = sha256(name.encode()).hexdigest()
    claim = {"policy": "balanced", "guarantee": "passage", "adversary": "weights"}
    body = {
        "answer": {"sha256": digest},
        "digest": sha256(digest.encode()).hexdigest(),
        "models": {"llm": {"files": {"a": digest}}, "slm": {"files": {"b": digest}}},
        "method": claim,
        "totals": {"log_ratio": "1.500000000", "tokens": 8},
    }
    return Certificate(json.dumps(body))


if __name__ == "__main__":
    store = CertificateStore(records_at(sys.argv[1]))
    for number in range(int(sys.argv[2])):
        store.add(certificate(f"{sys.argv[3]} {number}"))
        print(number, flush=True)
