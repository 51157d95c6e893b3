"""What a second worker of the gateway gives: `python docs/workers.py --write`.

Runs `purify serve --workers N` on the test bed's pair (a toy), one thread of torch to a worker, in processes
of their own, each number several times in turn, and has readers ask for answers until the time is over.
Prints tokens a second, medians over the rounds; with `--write` puts them into docs/scaling.md.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import time
from pathlib import Path
from statistics import median

import httpx

from purify_hooks.evaluation.eval.page import fill_region, machine, today
from tests.adapters.soak import gateway

PAGE = Path(__file__).parent / "scaling.md"
PROMPT = "Once upon a time there was a lighthouse, and in it a keeper who "


async def together(url: str, readers: int, tokens: int, seconds: float) -> float:
    """Tokens a second of all readers, each asking again on a connection of its own until the time is over."""
    body = {"inputs": PROMPT, "parameters": {"max_new_tokens": tokens, "do_sample": True}}
    limits = httpx.Limits(max_connections=None, max_keepalive_connections=0)
    async with httpx.AsyncClient(base_url=url, limits=limits, timeout=600, trust_env=False) as client:

        async def read(until: float) -> int:
            came = 0
            while time.monotonic() < until:
                answer = await client.post("/generate_stream", json=body)
                came += answer.raise_for_status().text.count("data:")
            return came

        await asyncio.gather(*(read(0.0) for _ in range(readers)))
        await asyncio.gather(*(read(time.monotonic() + 1.0) for _ in range(readers)))  # warms all workers
        start = time.monotonic()
        came = await asyncio.gather(*(read(start + seconds) for _ in range(readers)))
        return sum(came) / (time.monotonic() - start)


def speed(workers: int, readers: int, tokens: int, seconds: float) -> float:
    """Tokens a second of a gateway with so many workers."""
    with gateway("--workers", str(workers), "--max-concurrent", str(readers)) as (url, _):
        return asyncio.run(together(url, readers, tokens, seconds))


def table(found: dict[int, list[float]]) -> str:
    """Medians by number of workers, and over the first number's."""
    first = next(iter(found.values()))
    head = "| workers | tokens/s | over the first row |\n| --- | --- | --- |\n"
    return head + "".join(
        f"| {workers} | {median(rates):,.0f} ({min(rates):,.0f}-{max(rates):,.0f}) | "
        f"{median(now / then for now, then in zip(rates, first, strict=True)):.2f} |\n"
        for workers, rates in found.items()
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--workers", nargs="+", type=int, default=(1, 2), help="Numbers of workers.")
    parser.add_argument("--readers", type=int, default=32, help="Answers read at once.")
    parser.add_argument("--tokens", type=int, default=24, help="Tokens of each answer.")
    parser.add_argument("--seconds", type=float, default=15.0, help="How long each is measured.")
    parser.add_argument("--rounds", type=int, default=3, help="How often each is measured.")
    parser.add_argument("--write", action="store_true", help="Put the table into docs/scaling.md.")
    given = parser.parse_args()
    os.environ["OMP_NUM_THREADS"] = "1"
    found: dict[int, list[float]] = {each: [] for each in given.workers}
    for _ in range(given.rounds):
        for workers, rates in found.items():
            rates.append(speed(workers, given.readers, given.tokens, given.seconds))
            print(f"{workers} workers: {rates[-1]:,.0f} tokens/s", flush=True)
    note = (
        f"\n{today()}, {machine()}, load {os.getloadavg()[0]:.0f}; {given.readers} readers, "
        f"{given.tokens} tokens an answer, {given.rounds} rounds of {given.seconds:g} s.\n"
    )
    print(table(found) + note)
    if given.write:
        fill_region(PAGE, "workers", table(found) + note)


if __name__ == "__main__":
    main()
