"""SmolLM2-135M in four bits, in torch and in llama.cpp: the same model, at a fraction of the cost."""

from __future__ import annotations

import subprocess
import sys
from functools import cache
from pathlib import Path
from time import process_time

import pytest
import torch
from torch import Tensor

from purify_hooks.evaluation.testbed.real.original import gguf_file
from purify_hooks.gguf.source import GgufSource
from purify_hooks.local.source import LocalSource
from purify_plugins import ConfigError

pytestmark = pytest.mark.slow
pytest.importorskip("xllamacpp", reason="xllamacpp has no wheel for this machine")
TEXT = "The history of the city began when traders from the coast built a harbour there, and its council"
CODE = "def total(numbers):\n    result = 0\n    for number in numbers:\n        result += number\n"
TOKENS = 12


@pytest.fixture(scope="module")
def file() -> Path:
    try:
        return gguf_file()
    except ConfigError as error:
        pytest.skip(str(error))


@cache
def pair(file: Path) -> tuple[LocalSource, GgufSource]:
    return LocalSource.load(file), GgufSource.load(file, threads=1)


def rows(source: LocalSource | GgufSource, text: str) -> Tensor:
    """The log-probabilities (n, V) after each token of a text."""
    first, *rest = source.tokenizer(text, add_special_tokens=False)["input_ids"]
    session, row = source.open([(first,)])
    with session:
        return torch.cat([row[:, None], session.extend(torch.tensor([rest]))], dim=1)[0].log_softmax(-1)


def pace(source: LocalSource | GgufSource) -> float:
    """Tokens in a second of CPU time, greedy."""
    session, row = source.open([TEXT])
    with session:
        session.extend(row.argmax(-1)[:, None])  # the first pass makes buffers
        start = process_time()
        for _ in range(TOKENS):
            row = session.extend(row.argmax(-1)[:, None])[:, -1]
        return TOKENS / (process_time() - start)


@pytest.mark.parametrize("text", [TEXT, CODE])
def test_llama_cpps_rows_are_those_of_the_dequantised_weights(file: Path, text: str) -> None:
    torchs, ours = (rows(source, text) for source in pair(file))
    assert (torchs.exp() * (torchs - ours)).sum(-1).mean().item() < 0.01  # nats
    assert (torchs.argmax(-1) == ours.argmax(-1)).double().mean().item() > 0.9


def test_a_row_does_not_depend_on_what_is_read_beside_it(file: Path) -> None:
    _, source = pair(file)
    tokens = torch.tensor([[500, 600, 700], [800, 900, 1000]])
    alone, _ = source.open([(1, 2)])
    beside, _ = source.open([(1, 2), (3, 4)])
    with alone, beside:
        each = torch.cat([alone.extend(tokens[:1, at : at + 1]) for at in range(3)], dim=1)
        assert torch.equal(each[0], beside.extend(tokens)[0])


@pytest.mark.parametrize("text", [TEXT, CODE, "1234  café — 你好 🙂\t<|x|>\r\n"])
def test_texts_come_back_and_bytes_are_exact(file: Path, text: str) -> None:
    for source in pair(file):
        ids = source.tokenizer(text, add_special_tokens=False)["input_ids"]
        assert source.tokenizer.decode(ids) == text
        assert b"".join(source.vocabulary.tokens[each] for each in ids) == text.encode()


def test_four_bits_are_twice_as_fast_as_float32(file: Path) -> None:
    torchs, ours = (pace(source) for source in pair(file))
    assert ours >= 2 * torchs, f"{ours:.1f} tokens per CPU second against {torchs:.1f}"


GROWTH = """
import sys
import torch, transformers
from transformers import LlamaForCausalLM, PreTrainedTokenizerFast
from purify_hooks.gguf.library import library
from purify_hooks.gguf.source import GgufSource
from purify_hooks.local.source import LocalSource

def resident():
    return int(open("/proc/self/statm").read().split()[1])

library()
before = resident()
source = {"torch": LocalSource, "llama.cpp": GgufSource}[sys.argv[1]].load(sys.argv[2])
session, row = source.open(["The history of the city began when"])
for _ in range(8):
    row = session.extend(row.argmax(-1)[:, None])[:, -1]
print(resident() - before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="reads Linux's /proc")
def test_four_bits_take_a_third_of_the_memory_at_most(file: Path) -> None:
    """Tokenizer and cache included, of what a fresh process grows by once the libraries are loaded.

    Printed too: the bar is three tenths, and machines differ by some megabytes.
    """
    grown = {
        name: int(subprocess.check_output([sys.executable, "-c", GROWTH, name, str(file)], text=True))
        for name in ("torch", "llama.cpp")
    }
    print(f"pages grown by: {grown}, {grown['llama.cpp'] / grown['torch']:.3f}")
    assert grown["llama.cpp"] <= grown["torch"] / 3, grown
