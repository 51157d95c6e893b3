"""Memory under ten minutes of mixed load: `python -m tests.adapters.soak --minutes 10`.

`purify serve` runs in a process of its own, on the test bed's pair; with `--stubs` the gateway on models that
cost nothing, so that two cores do for a thousand `--readers`. Its clients ask for whole answers and for
streams, leave in the middle, and send what is refused. Memory is taken at every tenth of the time; the first
fifth, in which everything is asked for the first time, does not count.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import random
import re
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import httpx

from purify_adapters.gateway.settings import Settings
from purify_plugins.testbed import LLM, SLM
from tests.adapters.gateways import serving, stubs

READERS = 12
CHAT = "/v1/chat/completions"
STEPS = 10


class Soaked(NamedTuple):
    """Resident bytes at every tenth of the time, and how many requests ended in each way."""

    resident: list[int]
    ends: Mapping[str, int]
    threads: Sequence[int] = ()
    """The gateway's threads at the same times."""
    lag: float = 0.0
    """The longest in seconds that this process, which reads the answers, came late to anything."""
    odd: Sequence[str] = ()
    """The first connections that broke: how, and after how long."""

    @property
    def grown(self) -> float:
        """By how much of its level after a fifth of the time memory has grown at the end."""
        return self.resident[-1] / self.resident[STEPS // 5 - 1] - 1


@contextmanager
def gateway(*options: str) -> Iterator[tuple[str, int]]:
    """A gateway's URL and process id."""
    pair = ["--llm", str(LLM), "--slm", str(SLM), "--port", "0"]
    with TemporaryDirectory() as folder, (Path(folder) / "log").open("w+") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "purify_plugins", "serve", *pair, *options], stderr=log, cwd=folder
        )
        try:
            yield _address(process, Path(log.name)), process.pid
        finally:
            process.terminate()
            process.wait(60)


@contextmanager
def stub_gateway(readers: int, patience: float) -> Iterator[tuple[str, int]]:
    """The same of a gateway on stub models."""
    command = [sys.executable, "-m", "tests.adapters.soak", "--serve", "--readers", str(readers)]
    command += ["--patience", str(patience)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
        assert process.stdout is not None
        try:
            yield process.stdout.readline().strip(), process.pid
        finally:
            process.kill()


def serve_stubs(readers: int, patience: float) -> None:
    """Serve stub models until killed; print the address."""
    with serving(stubs(), max_concurrent=readers, deadline=600.0, patience=patience) as served:
        print(served.url, flush=True)
        time.sleep(1e6)


def _address(process: subprocess.Popen[bytes], log: Path) -> str:
    """What it says to try, once it answers there."""
    while process.poll() is None:
        if found := re.search(r"try: curl (http://[\d.:]+)", log.read_text()):
            transport = httpx.HTTPTransport(retries=5)
            with httpx.Client(transport=transport, trust_env=False) as client:
                client.get(f"{found[1]}/health").raise_for_status()
            return found[1]
        time.sleep(0.1)
    raise AssertionError(log.read_text()[-2000:])


def resident(pid: int) -> int:
    """Bytes of memory that a process holds."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def asked(dice: random.Random) -> tuple[str, dict[str, Any]]:
    """A request: TGI's or OpenAI's, of a text that nobody has asked before, one in ten refused."""
    text = f"Once upon a time number {dice.random()}, " + "and then " * dice.randint(0, 30)
    tokens = dice.randint(1, 32) if dice.random() < 0.9 else -7
    if dice.random() < 0.5:
        return "/generate", {"inputs": text, "parameters": {"max_new_tokens": tokens, "do_sample": True}}
    return CHAT, {"messages": [{"role": "user", "content": text}], "max_tokens": tokens or 1}


async def once(client: httpx.AsyncClient, dice: random.Random) -> str:
    """One request, read to its end or left in the middle; how it ended."""
    path, body = asked(dice)
    if dice.random() < 0.5:
        return f"{(await client.post(path, json=body)).status_code}"
    body = {**body, "stream": True} if path == CHAT else body
    path = path if path == CHAT else "/generate_stream"
    leaves = dice.random() < 0.3
    async with client.stream("POST", path, json=body) as answer:
        async for _ in answer.aiter_lines():
            if leaves:
                return "left"
    return f"{answer.status_code} streamed"


def threads(pid: int) -> int:
    """How many threads a process has."""
    return len(os.listdir(f"/proc/{pid}/task"))


async def _latest(until: float) -> float:
    """The most seconds by which this process's event loop is late, until then."""
    late = 0.0
    while (start := time.monotonic()) < until:
        await asyncio.sleep(0.1)
        late = max(late, time.monotonic() - start - 0.1)
    return late


async def _soak(url: str, pid: int, seconds: float, readers: int) -> Soaked:
    ends: Counter[str] = Counter()
    odd: list[str] = []
    until = time.monotonic() + seconds
    limits = httpx.Limits(max_connections=None)

    async def read(client: httpx.AsyncClient, seed: int) -> None:
        dice = random.Random(seed)
        await asyncio.sleep(dice.random() * seconds / 50)  # a thousand connections at once are another test
        while (start := time.monotonic()) < until:
            try:
                ends[await once(client, dice)] += 1
            except httpx.TransportError as error:
                ends[type(error).__name__] += 1
                odd.append(f"{type(error).__name__} after {time.monotonic() - start:.1f} s: {error}")

    async def watch() -> list[tuple[int, int]]:
        found = []
        for step in range(1, STEPS + 1):
            await asyncio.sleep(max(until - seconds * (1 - step / STEPS) - time.monotonic(), 0))
            found.append((resident(pid), threads(pid)))
        return found

    async with httpx.AsyncClient(base_url=url, limits=limits, timeout=600, trust_env=False) as client:
        readings = asyncio.gather(*(read(client, seed) for seed in range(readers)))
        found, lag, _ = await asyncio.gather(watch(), _latest(until), readings)
    return Soaked([held for held, _ in found], ends, [number for _, number in found], lag, odd[:5])


def soaked(seconds: float, *options: str, readers: int = READERS) -> Soaked:
    """What becomes of a gateway's memory in so many seconds."""
    with gateway("--certificates", "50", *options) as (url, pid):
        return asyncio.run(_soak(url, pid, seconds, readers))


def stubs_soaked(seconds: float, readers: int, patience: float) -> Soaked:
    """The same with stub models."""
    with stub_gateway(readers, patience) as (url, pid):
        return asyncio.run(_soak(url, pid, seconds, readers))


def main() -> None:
    """Print the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--readers", type=int, default=READERS, help="Requests at once.")
    parser.add_argument("--stubs", action="store_true", help="Models that cost nothing.")
    parser.add_argument(
        "--patience", type=float, default=Settings.patience, help="The gateway's own, seconds."
    )
    parser.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.serve:
        serve_stubs(given.readers, given.patience)
    elif given.stubs:
        show(stubs_soaked(60 * given.minutes, given.readers, given.patience))
    else:
        places = ("--max-concurrent", str(given.readers), "--patience", str(given.patience))
        show(soaked(60 * given.minutes, *places, readers=given.readers))


def show(found: Soaked) -> None:
    print("MB at every tenth:", *(round(each / 1e6) for each in found.resident))
    print("threads at every tenth:", *found.threads)
    print(f"grown by {100 * found.grown:.1f} % since the first fifth;", dict(found.ends))
    print(f"the readers were late by {found.lag:.1f} s at most;", *found.odd, sep="\n")


if __name__ == "__main__":
    main()
