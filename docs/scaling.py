"""What a gateway's replica needs: `python docs/scaling.py --write`.

Runs the gateway in a process of its own for each size of SLM, with an LLM that takes no time and no core, and
has clients read so many streams at once. Processor time is the process's own, so another load on the machine
changes it little. Prints the table, and with `--write` puts it into docs/scaling.md; prices are the reader's.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import httpx
import torch
from torch import Tensor

from purify_hooks.evaluation.eval.page import fill_region, machine, today
from purify_hooks.local.source import LocalSource
from purify_plugins.protocols import LogitSource, Session
from purify_plugins.types import Prompt, ScoredPrompt, Vocabulary

PAGE = Path(__file__).parent / "scaling.md"
GB = 1e9
HOUR = 3600.0
PROMPT = "Once upon a time there was a lighthouse, and in it a keeper who "


@dataclass(frozen=True)
class Shape:
    """A Llama's shape; `layers` 0: the test bed's own SLM."""

    hidden: int
    inner: int
    layers: int
    heads: int
    shared: int
    """Key and value heads."""
    vocabulary: int = 49_152

    @property
    def weights(self) -> int:
        """Parameters, the embedding's tied to the head's."""
        size = self.hidden // self.heads
        attention = 2 * self.hidden * size * (self.heads + self.shared)
        each = attention + 3 * self.hidden * self.inner + 2 * self.hidden
        return self.vocabulary * self.hidden + self.layers * each + self.hidden

    @property
    def column(self) -> int:
        """Bytes of keys and values for a token, in float32."""
        return 2 * 4 * self.layers * self.shared * (self.hidden // self.heads)


SHAPES = {
    "toy": Shape(128, 352, 3, 4, 4, 2048),
    "30M": Shape(384, 1024, 8, 6, 2),
    "135M": Shape(576, 1536, 30, 9, 3),
    "360M": Shape(960, 2560, 32, 15, 5),
    "1B": Shape(2048, 8192, 16, 32, 8, 128_256),
}
"""The test bed's SLM, one between, those of SmolLM2-135M and -360M, and of Llama-3.2-1B."""
MEASURED = ("toy", "30M", "135M")
FARTHER = ("360M", "1B")


# The process that serves


class Absent(LogitSource):
    """An LLM without an opinion, in no time: what is measured is the gateway, the policy and the SLM.

    It counts as an untrusted server, which is asked token by token: the SLM makes one pass for each.
    """

    context_length = None

    def __init__(self, slm: LocalSource) -> None:
        self.slm = slm

    @property
    def vocabulary(self) -> Vocabulary:
        return self.slm.vocabulary

    def open(self, prompts: Sequence[Prompt], scored: int = 0) -> tuple[AbsentSession, Tensor]:
        read = [ScoredPrompt(tuple(self.slm.encode(prompt))) for prompt in prompts]
        size = len(self.vocabulary)
        return AbsentSession(read, size), torch.zeros(len(read), size)

    def identity(self) -> Mapping[str, Any]:
        return {"kind": "none", "name": "absent"}


class AbsentSession(Session):
    """Zeros for every token."""

    def __init__(self, prompts: Any, size: int) -> None:
        self.prompts, self._size = prompts, size

    def extend(self, tokens: Tensor) -> Tensor:
        return torch.zeros(*tokens.shape, self._size)

    def keep(self, rows: Sequence[int]) -> None:
        self.prompts = [self.prompts[row] for row in rows]

    def rewind(self, lengths: Tensor) -> None:
        """Nothing is kept."""

    def close(self) -> None:
        """Nothing is held."""


def slm(name: str) -> LocalSource:
    """The SLM of a size, with random weights where it is not the test bed's: speed is the shape's."""
    from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM

    from purify_plugins.testbed import SLM

    if name == "toy":
        return LocalSource.load(SLM, device="cpu")
    shape = SHAPES[name]
    config = LlamaConfig(
        vocab_size=shape.vocabulary,
        hidden_size=shape.hidden,
        intermediate_size=shape.inner,
        num_hidden_layers=shape.layers,
        num_attention_heads=shape.heads,
        num_key_value_heads=shape.shared,
        tie_word_embeddings=True,
        max_position_embeddings=2048,
    )
    torch.manual_seed(0)
    return LocalSource(LlamaForCausalLM(config).to(torch.float32), AutoTokenizer.from_pretrained(SLM), name)


def serve(name: str, threads: int) -> None:
    """Serve the size's gateway, and print its address."""
    import socket

    from purify_adapters.gateway import gateway
    from purify_plugins import Purifier

    torch.set_num_threads(threads)
    small = slm(name)
    app = gateway(Purifier.load(Absent(small), small), max_concurrent=256, queue=1024, drain=0.0)
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(1024)
        print(json.dumps({"port": listener.getsockname()[1]}), flush=True)
        app.serve(listener)


# Measuring it


@dataclass(frozen=True)
class Figures:
    """A size of SLM under so many streams."""

    slm: str
    weights: int
    streams: int
    seconds: float
    """Of processor time, for a token."""
    memory: float
    """Bytes at most."""
    extrapolated: bool = False

    @property
    def rate(self) -> float:
        """Tokens a second of all streams together, on one core."""
        return 1 / self.seconds

    def cores(self, pace: float) -> float:
        """Cores for all streams at `pace` tokens a second each."""
        return self.streams * pace * self.seconds

    def cost(self, core: float, memory: float, llm: float) -> float:
        """The price of a million tokens by those of a core and a GB for an hour, and of the LLM's million."""
        hours = 1e6 * self.seconds / HOUR  # of one core that is never idle
        return hours * (core + memory * self.memory / GB) + llm


@contextmanager
def serving(name: str, threads: int = 1) -> Iterator[tuple[str, int]]:
    """The URL and the process id of a size's gateway."""
    command = [sys.executable, str(Path(__file__)), "--serve", name, "--threads", str(threads)]
    environment = {**os.environ, "OMP_NUM_THREADS": str(threads)}
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as process:
        assert process.stdout is not None
        try:
            port = json.loads(process.stdout.readline())["port"]
            yield f"http://127.0.0.1:{port}", process.pid
        finally:
            process.kill()


def used(process: int) -> float:
    """Seconds of processor time that a process has used."""
    fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def most(process: int) -> float:
    """Bytes that a process has held at most."""
    lines = Path(f"/proc/{process}/status").read_text().splitlines()
    return next(1024.0 * int(line.split()[1]) for line in lines if line.startswith("VmHWM:"))


async def read(url: str, streams: int, tokens: int) -> int:
    """Read so many streams at once; how many tokens came."""
    body = {"inputs": PROMPT, "parameters": {"max_new_tokens": tokens, "do_sample": True}}
    limits = httpx.Limits(max_connections=None)
    async with httpx.AsyncClient(base_url=url, limits=limits, timeout=600, trust_env=False) as client:
        answers = await asyncio.gather(*(client.post("/generate_stream", json=body) for _ in range(streams)))
    return sum(answer.raise_for_status().text.count("data:") for answer in answers)


def measured(name: str, streams: Sequence[int], tokens: int) -> Iterator[Figures]:
    """A size under each number of streams, fewer first: memory only grows."""
    weights = SHAPES[name].weights
    with serving(name) as (url, process):
        asyncio.run(read(url, 1, 4))
        for number in sorted(streams):
            before = used(process)
            came = asyncio.run(read(url, number, tokens))
            yield Figures(name, weights, number, (used(process) - before) / came, most(process))


def extrapolated(found: Sequence[Figures], name: str, tokens: int = 512) -> Iterator[Figures]:
    """A larger size: seconds on the line through the two largest that were measured, memory by arithmetic."""
    shape = SHAPES[name]
    for number in sorted({each.streams for each in found}):
        rows = sorted((each for each in found if each.streams == number), key=lambda each: each.weights)
        low, high = rows[-2:]
        slope = (high.seconds - low.seconds) / (high.weights - low.weights)
        seconds = high.seconds + slope * (shape.weights - high.weights)
        rest = high.memory - 4 * high.weights
        memory = rest + 4 * shape.weights + number * tokens * shape.column
        yield Figures(name, shape.weights, number, seconds, memory, extrapolated=True)


# The page


def table(found: Sequence[Figures], pace: float, core: float, memory: float, llm: float) -> str:
    """The figures in Markdown."""
    head = (
        f"| SLM | weights | streams | cores at {pace:g} tokens/s each | memory | tokens/s of one core | "
        "ms of a core for a token | a million tokens |\n"
        "| --- | --- | --- | --- | --- | --- | --- | --- |\n"
    )
    return head + "".join(
        f"| {each.slm}{', extrapolated' * each.extrapolated} | {each.weights / 1e6:,.0f} M | "
        f"{each.streams} | {each.cores(pace):.1f} | {each.memory / GB:.1f} GB | {each.rate:,.0f} | "
        f"{1e3 * each.seconds:.1f} | {each.cost(core, memory, llm):.2f} |\n"
        for each in found
    )


def parsed(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--serve", choices=SHAPES, help=argparse.SUPPRESS)
    parser.add_argument("--threads", type=int, default=1, help=argparse.SUPPRESS)
    parser.add_argument("--slm", nargs="+", choices=SHAPES, default=MEASURED, help="Sizes to measure.")
    parser.add_argument("--streams", nargs="+", type=int, default=(1, 8, 32), help="Streams at once.")
    parser.add_argument("--tokens", type=int, default=24, help="Tokens of each stream.")
    parser.add_argument("--pace", type=float, default=20.0, help="Tokens a second a stream should have.")
    parser.add_argument("--core-price", type=float, default=0.04, help="Of a core for an hour.")
    parser.add_argument("--memory-price", type=float, default=0.005, help="Of a GB of memory for an hour.")
    parser.add_argument("--llm-price", type=float, default=0.0, help="Of a million tokens of the LLM.")
    parser.add_argument(
        "--figures", type=Path, help="A file of figures: kept, and read instead of measuring."
    )
    parser.add_argument("--write", action="store_true", help="Put the table into docs/scaling.md.")
    return parser.parse_args(arguments)


def figures(given: argparse.Namespace) -> list[Figures]:
    """The figures, measured or read."""
    if given.figures and given.figures.is_file():
        return [Figures(**each) for each in json.loads(given.figures.read_text())]
    found = [each for name in given.slm for each in measured(name, given.streams, given.tokens)]
    if len(given.slm) > 1:
        found += [each for name in FARTHER if name not in given.slm for each in extrapolated(found, name)]
    if given.figures:
        given.figures.write_text(json.dumps([asdict(each) for each in found]))
    return found


def main(arguments: Sequence[str] | None = None) -> None:
    given = parsed(arguments)
    if given.serve:
        serve(given.serve, given.threads)
    else:
        show(given)


def show(given: argparse.Namespace) -> None:
    """Print the table, and write it where that was asked."""
    start = time.monotonic()
    found = figures(given)
    told = table(found, given.pace, given.core_price, given.memory_price, given.llm_price)
    prices = f"A core's hour costs {given.core_price:g}, a GB's {given.memory_price:g}"
    note = (
        f"\n{today()}, {machine()}, load {os.getloadavg()[0]:.0f}, {given.tokens} tokens a stream; "
        f"{time.monotonic() - start:.0f} s. {prices}, a million of the LLM's tokens {given.llm_price:g}.\n"
    )
    if given.write:
        fill_region(PAGE, "scaling", told + note)
    print(told + note)


if __name__ == "__main__":
    main()
