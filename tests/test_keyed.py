"""The numbers that draw tokens: nobody can predict them, and a seed under one secret means one answer."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from itertools import islice, pairwise
from time import process_time
from typing import Any

import pytest

from purify_hooks.evaluation.eval.worker_pool import worker_pool
from purify_hooks.sources.contrast import Contrast
from purify_plugins import ConfigError, Purifier, Sampling
from purify_plugins.decode import draw_keys as module
from purify_plugins.decode.draw_keys import KeyedPlaces, keyed, request, secret, system
from purify_plugins.decode.random_streams import RandomStreams
from purify_plugins.plugin.manager import load_plugins
from purify_plugins.testing import ToySource
from purify_plugins.tokenizers.vocabulary_map import RemappedSource
from purify_plugins.types import Chat, Prompt
from tests.toys import BYTES, few, pair, toys

ONE, OTHER = "one secret that only tests know: 0123", "another secret that only tests know: 0"
ASKED = request([(1, 2, 3)], {})


def numbers(count: int, seed: int = 0, asked: bytes = ASKED) -> list[float]:
    return list(islice(keyed(seed, asked), count))


def tokens(purifier: Purifier, prompts: Any, sampling: Sampling) -> list[tuple[int, ...]]:
    return [answer.tokens for answer in purifier.generate(prompts, sampling)]


# The numbers are random


def chi_square(counts: Sequence[int]) -> float:
    expected = sum(counts) / len(counts)
    return sum((count - expected) ** 2 / expected for count in counts)


def test_keyed_numbers_are_spread_evenly() -> None:
    """Of 256 cells with 255 degrees of freedom, 331 is the 99.9 % quantile."""
    counts = [0] * 256
    for number in numbers(100_000):
        assert 0 <= number < 1
        counts[int(number * 256)] += 1
    assert chi_square(counts) < 331


@pytest.mark.parametrize("part", ["place", "seed", "request"])
def test_numbers_of_neighbours_have_nothing_to_do_with_each_other(part: str) -> None:
    """Pairs of numbers of neighbouring places, seeds and prompts fill the square: 99 degrees of freedom."""
    if part == "place":
        found = numbers(60_000)
        pairs = list(zip(found[::2], found[1::2], strict=True))
    elif part == "seed":
        firsts = [numbers(1, seed)[0] for seed in range(30_001)]
        pairs = list(pairwise(firsts))
    else:
        firsts = [numbers(1, 0, request([(1, at)], {}))[0] for at in range(30_001)]
        pairs = list(pairwise(firsts))
    counts = [0] * 100
    for one, other in pairs:
        counts[10 * int(one * 10) + int(other * 10)] += 1
    assert chi_square(counts) < 149


def test_every_one_of_53_bits_is_a_coin() -> None:
    found = [int(number * 2**53) for number in numbers(20_000)]
    for bit in range(53):
        heads = sum(number >> bit & 1 for number in found)
        assert abs(heads - 10_000) < 300  # over four standard deviations


@pytest.mark.slow
@pytest.mark.alone
def test_a_number_takes_two_microseconds_at_most() -> None:
    """Counted on this process alone; the least of five, for whatever else a machine does."""

    def seconds(source: Any) -> float:
        start = process_time()
        sum(islice(source, 20_000))
        return process_time() - start

    assert min(seconds(keyed(0, ASKED)) for _ in range(5)) < 20_000 * 2e-6


# They follow from all that was asked, and a secret


def test_the_same_secret_seed_and_request_give_the_same_numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PURIFY_SECRET", ONE)
    first = numbers(9)
    assert numbers(9) == first
    monkeypatch.setenv("PURIFY_SECRET", OTHER)
    assert not set(numbers(9)) & set(first)


@pytest.mark.parametrize("places", [range(9), (0, 1, 5, 6, 7, 2), (7, 7, 8), (3,)])
def test_a_position_s_number_is_the_same_whatever_was_asked_before(places: Sequence[int]) -> None:
    found = KeyedPlaces(0, ASKED)
    assert [found.at(place) for place in places] == [numbers(9)[place] for place in places]


def test_positions_in_order_cost_a_digest_for_every_four(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two for each was more than all the rest of the processor's time inside vLLM."""
    made: list[bytes] = []
    digest = module.hmac.digest
    monkeypatch.setattr(
        module.hmac, "digest", lambda key, said, kind: made.append(said) or digest(key, said, kind)
    )
    found = KeyedPlaces(0, ASKED)
    for place in range(4, 24):
        found.at(place)
    assert len(made) == 1 + 20 // 4


def test_no_two_numbers_of_one_stream_are_alike() -> None:
    assert len(set(numbers(5000))) == 5000


def test_a_request_is_told_from_another_that_reads_alike() -> None:
    """Lengths are counted: tokens of one prompt do not run over into the other's."""
    assert request([(1, 2), (3,)], {}) != request([(1,), (2, 3)], {})
    assert request([(1,)], {"a": 1}) != request([(1,)], {"a": 2})


@pytest.mark.parametrize(
    "change",
    [
        {"temperature": 0.99},
        {"top_k": 200},
        {"top_p": 0.999},
        {"min_p": 1e-9},
        {"repetition_penalty": 1.0001},
        {"frequency_penalty": 1e-6},
        {"ignore_eos": False},
        {"seed": 1},
    ],
    ids=str,
)
def test_another_setting_draws_other_numbers(change: dict[str, Any]) -> None:
    """A reader who asks for almost the same gets almost the same rows, but not the same numbers."""
    sampling = few(16)
    assert tokens(toys(), "once", sampling) != tokens(toys(), "once", replace(sampling, **change))


@pytest.mark.parametrize("change", [{"max_tokens": 9}, {"stop": ("never seen",)}], ids=str)
def test_what_only_ends_an_answer_does_not_change_it(change: dict[str, Any]) -> None:
    [whole] = tokens(toys(), "once", few(16))
    [other] = tokens(toys(), "once", replace(few(16), **change))
    assert whole[: len(other)] == other


def test_another_policy_or_option_draws_other_numbers() -> None:
    plugins = load_plugins()
    policies = [plugins.policy("geometric", {"alpha": alpha}) for alpha in (0.5, 0.5 + 1e-12)]
    policies.append(plugins.policy("minimum"))
    assert len({tuple(tokens(toys(policy), "once", few(16))) for policy in policies}) == 3


class Spy(ToySource):
    """A model that ignores the last letter of its prompt, so that only the draws can tell two apart."""

    def encode(self, prompt: Prompt) -> tuple[int, ...]:
        return super().encode(prompt)

    def logits(self, tokens: Sequence[int]) -> Any:
        return super().logits(tokens) * 0  # even: an answer is its random numbers


def test_a_prompt_s_numbers_are_of_no_use_in_another() -> None:
    """A reader of one answer knows its numbers; weights that read them in a second prompt knew the draws."""
    purifier = pair(Spy(BYTES, 1), Spy(BYTES, 2))
    first, second = (tokens(purifier, prompt, few(32))[0] for prompt in ("once", "once again"))
    assert sum(one == other for one, other in zip(first, second, strict=True)) < 4


class Blind(Spy):
    """A model whose template leaves out all messages but the first."""

    def encode(self, prompt: Prompt) -> tuple[int, ...]:
        return super().encode(str(prompt.messages[0]["content"]) if isinstance(prompt, Chat) else prompt)


def test_what_only_the_llm_reads_changes_the_numbers_too() -> None:
    """The SLM's template may leave out what the LLM's shows it: the numbers of the answer before."""
    purifier = pair(Spy(BYTES, 1), Blind(BYTES, 2))
    chats = [
        Chat(({"role": "user", "content": "once"}, {"role": "tool", "content": told})) for told in ("7", "8")
    ]
    one, other = (tokens(purifier, chat, few(32))[0] for chat in chats)
    assert one != other


def test_what_only_an_anti_expert_reads_changes_the_numbers_too() -> None:
    """A contrast told the expert's reading alone: the numbers of one answer, told to the anti-expert in a
    field that the expert's template leaves out, were the next one's too, and a seed wrote the LLM's text."""
    llm = Contrast(Blind(BYTES, 1), Spy(BYTES, 3))
    purifier = pair(llm, Blind(BYTES, 2), walk="lockstep")
    chats = [
        Chat(({"role": "user", "content": "once"}, {"role": "tool", "content": told})) for told in ("7", "8")
    ]
    sessions = [llm.open([chat])[0] for chat in chats]
    assert sessions[0].readings != sessions[1].readings
    one, other = (tokens(purifier, chat, few(32))[0] for chat in chats)
    assert one != other


def test_a_token_that_is_not_shared_changes_the_numbers_too() -> None:
    """Tokens that one model lacks were all one and the same to whoever keyed the draws by them."""
    letters = replace(BYTES, added=frozenset({256}))
    columns = tuple(-1 if index in (55, 56) else index for index in range(len(letters)))
    llm = RemappedSource(Spy(letters, 1), letters, columns)
    answers = [tokens(pair(llm, Blind(letters, 2)), chat, few(32))[0] for chat in map(_told, "78")]
    assert answers[0] != answers[1]


def _told(number: str) -> Chat:
    return Chat(({"role": "user", "content": "once"}, {"role": "tool", "content": number}))


def test_a_batch_is_its_rows_asked_alone() -> None:
    prompts = ["one", "two", "three"]
    together = tokens(toys(), prompts, few(12, seed=5))
    alone = [tokens(toys(), prompt, few(12, seed=5 + row))[0] for row, prompt in enumerate(prompts)]
    assert together == alone


def test_unseeded_numbers_are_never_the_same_twice() -> None:
    looked = [RandomStreams(Sampling(), [b""]).peek(8) for _ in range(50)]
    assert len({tuple(map(float, each[0])) for each in looked if each is not None}) == 50
    assert all(0 <= number < 1 for number in islice(system(), 1000))


def test_python_s_own_generator_has_no_part_in_a_draw(monkeypatch: pytest.MonkeyPatch) -> None:
    """Mersenne Twister gives away its state in 624 numbers, and weights can run `random.Random(0)`."""

    def used(*_: Any) -> float:
        raise AssertionError("Mersenne Twister was asked")

    for name in ("Random", "seed", "getrandbits", "random"):
        monkeypatch.setattr(f"random.{name}", used)
    for sampling in (few(4), few(4, seed=None)):
        assert len(toys().generate("once", sampling)[0].tokens) == 4


# The secret


def test_a_secret_too_short_is_refused_and_not_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    for short in ("", "hunter2"):
        monkeypatch.setenv("PURIFY_SECRET", short)
        with pytest.raises(ConfigError, match="openssl rand -hex 32") as caught:
            toys()
        assert "hunter2" not in str(caught.value)


def test_without_a_secret_the_process_makes_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PURIFY_SECRET")
    first = tokens(toys(), "once", few(16))
    assert tokens(toys(), "once", few(16)) == first
    assert len(secret()) == 32
    monkeypatch.setattr(module, "_made", os.urandom(32))  # another process
    assert tokens(toys(), "once", few(16)) != first


def test_an_answer_is_the_same_in_every_process_with_the_secret(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PURIFY_SECRET", ONE)
    script = "from tests.toys import *; print(toys().generate('once', few(16))[0].tokens)"
    assert _printed(script, dict(os.environ)).strip() == str(toys().generate("once", few(16))[0].tokens)


def test_a_forked_worker_has_its_parent_s_secret() -> None:
    """Even one that nobody set: `purify serve` may answer a seed from any of its workers."""
    script = (
        "import os; from itertools import islice; from purify_plugins.decode.draw_keys import keyed\n"
        "child = os.fork(); os.write(1, b'%r\\n' % list(islice(keyed(0, b''), 4)))\n"
        "if child: os.waitpid(child, 0)"
    )
    environment = {name: value for name, value in os.environ.items() if name != "PURIFY_SECRET"}
    lines = _printed(script, environment).splitlines()
    assert len(lines) == 2
    assert lines[0] == lines[1]


def test_workers_of_an_evaluation_have_their_parent_s_secret(monkeypatch: pytest.MonkeyPatch) -> None:
    """They are started afresh: each made a secret of its own, and a seed meant another answer in each."""
    monkeypatch.delenv("PURIFY_SECRET")
    with worker_pool(1) as pool:
        assert pool.submit(numbers, 4).result() == numbers(4)


def _printed(script: str, environment: dict[str, str]) -> str:
    """What a program prints; toys hash their context, which Python salts."""
    command = [sys.executable, "-c", script]
    environment = {**environment, "PYTHONHASHSEED": "0"}
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout
