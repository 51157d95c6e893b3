"""Requests while replicas are killed: `python -m tests.adapters.chaos --requests 5000 --every 10`.

An LLM that is sure of a canary stands behind three workers of `purify serve`, or (`--ray`) three replicas of
Ray Serve; one is killed with SIGKILL every so many seconds. Clients ask for whole answers and for streams, in
TGI's dialect and OpenAI's; some leave in the middle, and one whose request failed waits a second, as
`Retry-After` says. Every answer is of one of the kinds in `GOOD` and `TYPED`, or it counts against us: cut
short without a sign, hung, or with the canary in it.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import re
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import IO, Any

import httpx

from tests.adapters.chaos_models import written
from tests.adapters.gateways import CANARY, events
from tests.ports import free_port

ROOT = Path(__file__).parent.parent.parent
GOOD = ("whole", "left")
TYPED = ("refused", "error event", "broken connection", "no connection")
HANGS = 60.0
"""Seconds after which a client counts as hung; an answer takes less than one."""


@dataclass
class Chaos:
    """How the answers ended, how many replicas were killed, and what came that never should."""

    ends: Counter[str] = field(default_factory=Counter)
    killed: int = 0
    canaries: int = 0
    seconds: float = 0.0
    odd: list[str] = field(default_factory=list)
    """What the first answers of no known kind said."""
    refusals: Counter[str] = field(default_factory=Counter)
    """How often each refusal came, by its status and words."""

    @property
    def untyped(self) -> int:
        """Answers that are neither good nor a typed failure."""
        return sum(number for end, number in self.ends.items() if end not in (*GOOD, *TYPED))

    def __str__(self) -> str:
        ends = ", ".join(f"{number} {end}" for end, number in self.ends.most_common())
        return (
            f"{sum(self.ends.values())} requests in {self.seconds:.0f} s, {self.killed} replicas killed: "
            f"{ends}; "
            f"{self.canaries} unpurified, {self.ends['hung']} hung, {self.untyped} untyped"
        )


@dataclass
class Served:
    """Replicas that serve at `url`."""

    url: str
    replicas: Callable[[], list[int]]
    """The process ids of those that run now."""
    process: subprocess.Popen[str]
    log: Path

    def tell(self, line: str) -> str:
        """Have the Ray driver deploy with other arguments; what it answers."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(f"{line}\n")
        self.process.stdin.flush()
        return answered(self.process.stdout)


def answered(stdout: IO[str]) -> str:
    """The driver's next word, past whatever Ray prints."""
    for line in stdout:
        if line.startswith(("serving", "deployed", "failed")):
            return line.strip()
    return "ended"


def processes(of: Callable[[int, str], bool]) -> list[int]:
    """The processes of this machine whose id and command line are as asked."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            command = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:
            continue
        if of(int(folder.name), command):
            found.append(int(folder.name))
    return sorted(found)


def parent(process: int) -> int:
    try:
        return int(Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[1])
    except OSError:
        return 0


def ancestors(process: int) -> Iterator[int]:
    while process := parent(process):
        yield process


@contextmanager
def workers(folder: Path, number: int, pause: float = 0.02, *options: str) -> Iterator[Served]:
    """`purify serve --workers`, on the canary's pair."""
    config = written(folder, pause)
    command = [sys.executable, "-m", "purify_plugins", "serve", "--config", str(config), "--port", "0"]
    log = folder / "log"
    with log.open("w") as said:
        process = subprocess.Popen(
            [*command, "--workers", str(number), *options],
            stderr=said, cwd=folder, env=environment(folder), text=True,
        )  # fmt: skip
        try:
            until(lambda: "try: curl" in log.read_text() or process.poll() is not None)
            found = re.search(r"try: curl (http://[\d.:]+)", log.read_text())
            assert found, log.read_text()[-2000:]

            def replicas() -> list[int]:
                return processes(lambda pid, said: "spawn_main" in said and parent(pid) == process.pid)

            until(lambda: len(replicas()) == number)
            yield Served(found[1], replicas, process, log)
        finally:
            process.terminate()
            process.wait(60)


@contextmanager
def ray_serve(folder: Path, *arguments: str, pause: float = 0.02) -> Iterator[Served]:
    """The same pair as a Ray Serve application, in a cluster of its own."""
    port = free_port()
    config = written(folder, pause)
    log = folder / "log"
    command = [sys.executable, "-m", "tests.adapters.ray_driver", str(port), f"config={config}", *arguments]
    with log.open("w") as said:
        process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=said,
            cwd=ROOT, env=environment(folder), text=True,
        )  # fmt: skip
        try:
            assert process.stdout is not None
            assert answered(process.stdout) == "serving", log.read_text()[-4000:]

            def replicas() -> list[int]:
                """Those of this driver's cluster, by their title."""
                titled = processes(lambda _, said: said.startswith("ray::ServeReplica"))
                return [each for each in titled if process.pid in ancestors(each)]

            yield Served(f"http://127.0.0.1:{port}", replicas, process, log)
        finally:
            process.communicate(timeout=120)  # closes its input, at whose end it ends


def environment(folder: Path) -> dict[str, str]:
    """The plugin's folder on the path, one thread a process, and a home of its own for Ray's token."""
    path = os.pathsep.join(map(str, (folder, ROOT, ROOT / "adapters", ROOT / "hooks")))
    secret = "s" * 64
    return {
        **os.environ,
        "PYTHONPATH": path,
        "HOME": str(folder),
        "OMP_NUM_THREADS": "1",
        "PURIFY_SECRET": secret,
    }


def until(condition: Callable[[], Any], seconds: float = 120.0) -> Any:
    end = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < end
        time.sleep(0.1)
    return found


# Requests


def asked(dice: random.Random, tokens: int) -> tuple[str, dict[str, Any]]:
    """A request: TGI's or OpenAI's, whole or streamed."""
    text, streamed = f"Once upon a time {dice.random()}", dice.random() < 0.5
    if dice.random() < 0.5:
        path = "/generate_stream" if streamed else "/generate"
        return path, {"inputs": text, "parameters": {"max_new_tokens": tokens, "do_sample": True}}
    if dice.random() < 0.5:
        body = {"messages": [{"role": "user", "content": text}], "max_tokens": tokens, "stream": streamed}
        return "/v1/chat/completions", body
    return "/v1/responses", {"input": text, "max_output_tokens": max(tokens, 16), "stream": streamed}


async def once(client: httpx.AsyncClient, dice: random.Random, tokens: int, found: Chaos) -> str:
    """One request, read to its end or left in the middle; how it ended."""
    path, body = asked(dice, tokens)
    leaves = dice.random() < 0.1
    said = b""
    try:
        async with asyncio.timeout(HANGS), client.stream("POST", path, json=body) as answer:
            async for part in answer.aiter_raw():
                said += part
                if leaves:
                    return "left"
        end = kind(path, answer, said)
        if end == "refused":
            found.refusals[f"{answer.status_code} {said.decode()}"] += 1
    except TimeoutError:
        end = "hung"
    except httpx.ConnectError:
        end = "no connection"
    except httpx.TransportError:
        end = "broken connection"
    finally:
        found.canaries += CANARY.encode() in said
    if end not in (*GOOD, *TYPED) and len(found.odd) < 5:
        found.odd.append(f"{end}: {path} {said[-300:]!r}")
    return end


def kind(path: str, answer: httpx.Response, said: bytes) -> str:
    """Which kind of end an answer has that its server ended as HTTP would have it."""
    streamed = answer.headers.get("content-type", "").startswith("text/event-stream")
    if answer.status_code != 200:
        try:
            return "refused" if "error" in json.loads(said) else f"status {answer.status_code} untyped"
        except ValueError:
            return f"status {answer.status_code} untyped"
    if not streamed:
        return (
            "whole"
            if json.loads(said) and "x-purify-certificate" in answer.headers
            else "whole, no certificate"
        )
    told = events(said.decode())
    if any(isinstance(each, dict) and "error" in each and each["error"] for each in told):
        return "error event"
    return "whole" if certified(path, told) else "cut short"


def certified(path: str, told: list[Any]) -> bool:
    """Whether a stream has its certificate and its end."""
    proved = any("purify" in each for each in told if isinstance(each, dict))
    ends = told[-1] == "[DONE]" if path == "/v1/chat/completions" else True
    return proved and ends


async def _requested(
    served: Served,
    number: int,
    readers: int,
    every: float,
    tokens: int,
    seed: int,
    spared: int,
    limit: float,
) -> Chaos:
    found, left = Chaos(), iter(range(number))
    dice = random.Random(seed)
    start = time.monotonic()
    # No connection is kept: each request may reach another worker.
    limits = httpx.Limits(max_connections=None, max_keepalive_connections=0)

    async def read(client: httpx.AsyncClient, seed: int) -> None:
        own = random.Random(seed)
        for _ in left:
            if time.monotonic() - start > limit:
                return
            end = await once(client, own, tokens, found)
            found.ends[end] += 1
            if end not in GOOD:
                await asyncio.sleep(1)

    async def kill() -> None:
        while every:
            await asyncio.sleep(every)
            alive = await asyncio.to_thread(served.replicas)
            if len(alive) > spared:
                os.kill(dice.choice(alive), signal.SIGKILL)
                found.killed += 1

    async with httpx.AsyncClient(base_url=served.url, limits=limits, timeout=None, trust_env=False) as client:
        killing = asyncio.create_task(kill())
        await asyncio.gather(*(read(client, seed + each) for each in range(readers)))
        killing.cancel()
    found.seconds = time.monotonic() - start
    return found


def requested(
    served: Served,
    number: int,
    *,
    readers: int = 24,
    every: float = 10.0,
    tokens: int = 16,
    seed: int = 0,
    spared: int = 0,
    limit: float = float("inf"),
) -> Chaos:
    """What becomes of so many requests, `readers` at a time; a replica is killed every so many seconds.

    The last `spared` replicas are not killed. `every` 0: none is. No request begins after `limit` seconds.
    """
    return asyncio.run(_requested(served, number, readers, every, tokens, seed, spared, limit))


def main() -> None:
    """Print the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--requests", type=int, default=5000)
    parser.add_argument("--replicas", type=int, default=3)
    parser.add_argument("--every", type=float, default=10.0)
    parser.add_argument("--readers", type=int, default=24)
    parser.add_argument("--tokens", type=int, default=16)
    parser.add_argument("--seconds", type=float, default=float("inf"), help="Begin no request after so many.")
    parser.add_argument("--ray", action="store_true")
    given = parser.parse_args()
    with TemporaryDirectory() as name:
        folder = Path(name)
        started = (
            ray_serve(folder, f"replicas={given.replicas}") if given.ray else workers(folder, given.replicas)
        )
        with started as served:
            found = requested(
                served,
                given.requests,
                readers=given.readers,
                every=given.every,
                tokens=given.tokens,
                limit=given.seconds,
            )
    print("Ray Serve:" if given.ray else "purify serve --workers:", found, *found.odd, sep="\n")
    print(*(f"{number} x {words}" for words, number in found.refusals.most_common(5)), sep="\n")


if __name__ == "__main__":
    main()
