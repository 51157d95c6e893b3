"""The certificates of the last answers, for `/certificates`."""

from __future__ import annotations

import threading
from collections import OrderedDict


class KeptCertificates(OrderedDict[tuple[str, str], str]):
    """The texts of the last `most` certificates, by tenant and digest: one holds the prompt's token ids."""

    def __init__(self, most: int) -> None:
        super().__init__()
        self.most = most
        self._lock = threading.Lock()

    def keep(self, owner: str, digest: str, text: str) -> None:
        """Keep a certificate, and drop the oldest beyond `most`. May be called from any thread.

        Whole answers are kept on their decoding threads: without the lock one in some thousands found its own
        dropped by another thread before it was moved to the end, and failed with a KeyError.
        """
        with self._lock:
            self[owner, digest] = text
            self.move_to_end((owner, digest))
            while len(self) > self.most:
                self.popitem(last=False)
