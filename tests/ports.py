"""A port of this machine that a server may take."""

from __future__ import annotations

import socket
from random import SystemRandom

OURS = range(20_000, 32_000)
"""Below the ports that the kernel gives away, to the servers and connections of tests beside this one too."""


def free_port() -> int:
    """A port that nobody listens on now, and that nobody is given before it is taken."""
    for port in SystemRandom().sample(OURS, 100):
        with socket.socket() as free:
            try:
                free.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
    raise OSError(f"no port of {OURS} is free")
