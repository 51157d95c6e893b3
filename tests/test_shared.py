"""Many threads, one model: passes asked for together are one pass, and say what they would alone."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor

from purify_adapters.gateway import Gateway
from purify_hooks.local.source import LocalSource
from purify_plugins import Purifier, Sampling, SourceError
from purify_plugins.sources.batching import BatchingSource, PendingPass, batching
from purify_plugins.sources.wrapper import SourceWrapper
from purify_plugins.testbed import SLM_1024
from purify_plugins.testing import SourceConformance, ToySource
from purify_plugins.tokenizers.vocabulary_map import RemappedSource
from tests.toys import BYTES, both, few, pair, real

PROMPTS = ("The king", "Once upon a time there was", "A", "In the forest, far from the sea, stood")


class TestSharedConformance(SourceConformance):
    prompts = PROMPTS[:2]

    def source(self) -> Any:
        return BatchingSource(both()[1])


def together(functions: Sequence[Callable[[], Any]]) -> list[Any]:
    """What the functions return, each called on a thread of its own, all at once."""
    found: list[Any] = [None] * len(functions)
    gate = threading.Barrier(len(functions))

    def call(at: int) -> None:
        gate.wait()
        found[at] = functions[at]()

    threads = [threading.Thread(target=call, args=(at,)) for at in range(len(functions))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    return found


def close(one: Tensor, other: Tensor) -> None:
    torch.testing.assert_close(one.log_softmax(-1), other.log_softmax(-1), atol=1e-3, rtol=1e-3)


def opened(source: LocalSource) -> list[Any]:
    return [source.open([prompt])[0] for prompt in PROMPTS]


def tokens(length: int, seed: int) -> Tensor:
    return torch.randint(0, 2000, (1, length), generator=torch.Generator().manual_seed(seed))


def test_sessions_read_together_are_as_alone_whatever_their_lengths() -> None:
    source = both()[1]
    alone, joint = opened(source), opened(source)
    for turn, lengths in enumerate([(1, 1, 1, 1), (3, 1, 5, 2), (1, 4, 1, 1)]):
        new = [tokens(length, 10 * turn + at) for at, length in enumerate(lengths)]
        read = source.extend_all(joint, new)
        for at, session in enumerate(alone):
            close(read[at], session.extend(new[at]))
        for sessions in (alone, joint):  # what was hidden is forgotten in both
            sessions[2].rewind(torch.tensor([1]))


def test_sessions_of_several_rows_read_together_too() -> None:
    source = both()[1]
    groups = [PROMPTS[:2], PROMPTS[2:], PROMPTS[1:2]]
    alone, joint = ([source.open(group)[0] for group in groups] for _ in range(2))
    for turn in range(3):
        new = [tokens(1, turn).expand(len(group), -1) for group in groups]
        for one, other in zip(
            source.extend_all(joint, new), (s.extend(n) for s, n in zip(alone, new, strict=True)), strict=True
        ):
            close(one, other)
        for sessions in (alone, joint):
            sessions[0].rewind(torch.tensor([turn + 1, max(turn, 1)]))


def test_passes_asked_for_at_once_become_fewer() -> None:
    source = both()[1]
    passes: list[int] = []

    class Counting(SourceWrapper):
        def __init__(self) -> None:
            self.source = source

        def extend_all(self, sessions: Any, tokens: Any) -> Any:
            passes.append(len(sessions))
            return source.extend_all(sessions, tokens)

    shared = BatchingSource(Counting(), patience=0.5)
    sessions = [shared.open([prompt])[0] for prompt in PROMPTS]

    def decode(session: Any) -> Callable[[], None]:
        return lambda: [session.extend(tokens(1, step)) for step in range(5)] and None

    together([decode(session) for session in sessions])
    assert sum(passes) == 20
    assert len(passes) <= 10


def test_answers_written_on_many_threads_are_those_written_alone() -> None:
    """Greedy, so that a draw cannot hide a difference; the walk's drafts differ from run to run."""
    purifier = real("geometric")
    shared = purifier.over(batching)
    sampling = Sampling(max_tokens=12, temperature=0)
    expected = [purifier.generate(prompt, sampling)[0].text for prompt in PROMPTS]
    found = together([lambda prompt=prompt: shared.generate(prompt, sampling)[0].text for prompt in PROMPTS])  # type: ignore[misc]  # a default holds the loop's value
    assert found == expected


def test_a_seed_draws_the_same_answer_in_company() -> None:
    """Reliability C7: alone and under load, the same tokens on a CPU in float32."""
    purifier = real()
    purifier = purifier.over(batching)
    alone = purifier.generate(PROMPTS[0], few(12))[0].tokens
    found = together([lambda: purifier.generate(PROMPTS[0], few(12))[0].tokens] * 6)
    assert found == [alone] * 6


class Broken(ToySource):
    def extend_all(self, sessions: Any, tokens: Any) -> Any:
        raise RuntimeError("the device is gone")


class Picky(ToySource):
    """Fails a pass in which anybody reads token 1."""

    def extend_all(self, sessions: Any, tokens: Any) -> Any:
        if any(bool((each == 1).any()) for each in tokens):
            raise RuntimeError("what is this")
        return [session.extend(each) for session, each in zip(sessions, tokens, strict=True)]


def test_a_pass_that_fails_fails_only_who_broke_it() -> None:
    shared = BatchingSource(Picky(BYTES), patience=0.5)
    sessions = [shared.open(["a"])[0] for _ in range(4)]
    warm = torch.tensor([[2]])
    together([lambda session=session: session.extend(warm) for session in sessions])  # type: ignore[misc]  # a default holds the loop's value

    def ask(at: int) -> str:
        try:
            logits = sessions[at].extend(torch.tensor([[1 if at == 2 else 3]]))
        except SourceError as error:
            return str(error)
        torch.testing.assert_close(logits[0, 0], ToySource(BYTES).logits([*b"a", 2, 3]))
        return "read"

    said = together([lambda at=at: ask(at) for at in range(4)])  # type: ignore[misc]  # as above
    assert said == ["read", "read", "a shared pass failed: what is this", "read"]


def test_a_shared_pass_that_ends_half_way_leaves_no_trace() -> None:
    """The first layers have read, the last one fails; one by one, everybody hears what they would alone."""
    source = both()[1]
    alone, joint = opened(source), opened(source)
    passes: list[int] = []

    def fail(_: Any, given: Any) -> None:
        passes.append(len(given[0]))
        if len(given[0]) > 1:
            raise RuntimeError("out of memory")

    new = [tokens(length, 7 + length) for length in (1, 3, 1, 2)]
    shared = BatchingSource(source)
    calls = [PendingPass(session, each) for session, each in zip(joint, new, strict=True)]
    hook = source.model.lm_head.register_forward_pre_hook(fail)
    try:
        shared._read(calls)
    finally:
        hook.remove()
    assert passes == [4, 1, 1, 1, 1]
    for turn in range(2):
        for call, session, each in zip(calls, alone, new, strict=True):
            read = call.logits if turn == 0 else call.session.extend(each)
            assert read is not None
            close(read, session.extend(each))


class Interrupted(ToySource):
    """Ctrl-C comes while a pass for all is read."""

    def extend_all(self, sessions: Any, tokens: Any) -> Any:
        raise KeyboardInterrupt


def test_an_interrupt_of_the_thread_that_reads_for_all_is_an_error_of_the_others() -> None:
    shared = BatchingSource(Interrupted(BYTES, 1), patience=60)
    shared._company.append({1, 2})  # so that the pass waits for both
    sessions = [shared.open(["a"])[0] for _ in range(2)]

    def ended(session: Any) -> BaseException | None:
        try:
            session.extend(torch.tensor([[1]]))
        except BaseException as error:
            return error
        return None

    found = together([partial(ended, each) for each in sessions])
    assert sorted(type(each).__name__ for each in found) == ["KeyboardInterrupt", "SourceError"]
    assert (shared._waiting, shared._leader) == ([], False)


def test_an_interrupt_of_a_thread_that_waits_takes_its_pass_with_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its closed session was read by the next pass."""
    shared = BatchingSource(ToySource(BYTES, 1))
    session, _ = shared.open(["a"])

    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(shared._arrived, "wait_for", interrupted)
    with pytest.raises(KeyboardInterrupt):
        session.extend(torch.tensor([[1]]))
    assert (shared._waiting, shared._leader) == ([], False)


def test_a_pass_that_nobody_can_have_fails_for_all_who_wait() -> None:
    shared = BatchingSource(Broken(BYTES), patience=0.2)

    def ask() -> str:
        session, _ = shared.open(["a"])
        with pytest.raises(SourceError, match="the device is gone"):
            session.extend(torch.zeros(1, 1, dtype=torch.long))
        return "refused"

    assert together([ask] * 3) == ["refused"] * 3


def test_a_remote_source_is_left_to_its_server_and_a_wrapped_one_is_found() -> None:
    toy = ToySource(BYTES)
    assert batching(toy) is toy
    slm = both()[1]
    wrapped = RemappedSource(slm, slm.vocabulary, tuple(range(len(slm.vocabulary))))
    found: Any = batching(wrapped)
    assert isinstance(found, RemappedSource)
    assert isinstance(found.source, BatchingSource)


def test_a_shared_source_tells_what_its_own_does() -> None:
    slm = both()[1]
    shared = BatchingSource(slm)
    assert (shared.parameters, shared.tokenizer) == (slm.parameters, slm.tokenizer)
    assert isinstance(pair(batching(both()[0]), shared), Purifier)


def two_runs(count: int, before: int, seed: int) -> tuple[Tensor, Tensor]:
    """Tokens (1, count) after `before` others, every second one of the same run, and what each sees."""
    columns = torch.arange(before + count)
    apart = columns[before:, None] - columns
    return tokens(count, seed), ((apart >= 0) & (apart % 2 == 0))[None]


def test_trees_read_together_are_as_alone_whatever_their_sizes() -> None:
    source = both()[1]
    alone, joint = opened(source), opened(source)
    read = [0, 0, 0, 0]
    for turn, counts in enumerate([(3, 1, 2, 4), (1, 5, 2, 1), (2, 2, 2, 2)]):
        asked = [two_runs(count, read[at], 10 * turn + at) for at, count in enumerate(counts)]
        found = source.branch_all(joint, [each for each, _ in asked], [seen for _, seen in asked])
        for logits, session, each in zip(found, alone, asked, strict=True):
            close(logits, session.branch(*each))
        read = [one + more for one, more in zip(read, counts, strict=True)]
    for session in (*alone, *joint):
        session.select(torch.tensor([[0, 2, 4]]))
    asked = [two_runs(2, 3, 99) for _ in joint]
    found = source.branch_all(joint, [each for each, _ in asked], [seen for _, seen in asked])
    for logits, session, each in zip(found, alone, asked, strict=True):
        close(logits, session.branch(*each))


def test_trees_asked_for_from_many_threads_are_each_its_own() -> None:
    """As safe as `extend`: no two passes of one model at a time, no answer to somebody else."""
    source = both()[1]
    shared = BatchingSource(source, patience=0.05)
    alone, sessions = opened(source), [shared.open([prompt])[0] for prompt in PROMPTS]

    def grow(session: Any, seed: int) -> list[Tensor]:
        return [session.branch(*two_runs(2, 2 * turn, seed + turn)) for turn in range(6)]

    found = together([lambda at=at: grow(sessions[at], 10 * at) for at in range(4)])  # type: ignore[misc]  # a default holds the loop's value
    for at, session in enumerate(alone):
        for one, other in zip(found[at], grow(session, 10 * at), strict=True):
            close(one, other)


class Fussy(ToySource):
    """Fails a pass in which anybody's tree holds token 1."""

    def extend_all(self, sessions: Any, tokens: Any) -> Any:
        raise AssertionError("nobody extends")

    def branch_all(self, sessions: Any, tokens: Any, seen: Any) -> Any:
        if any(bool((each == 1).any()) for each in tokens):
            raise RuntimeError("what is this")
        return [each + 0.0 for each in tokens]


def test_a_tree_that_fails_fails_only_who_broke_it() -> None:
    shared = BatchingSource(Fussy(BYTES), patience=0.5)

    def ask(at: int) -> Any:
        session = shared.open(["a"])[0]
        try:
            return float(session.branch(torch.tensor([[at]]), torch.ones(1, 1, 1).bool()))
        except SourceError as error:
            return str(error)

    said = together([lambda at=at: ask(at) for at in range(4)])  # type: ignore[misc]  # as above
    assert said == [0.0, "a shared pass failed: what is this", 2.0, 3.0]


def passes(purifier: Purifier, sampling: Sampling) -> tuple[int, tuple[int, ...]]:
    """How often the LLM's weights were read for an answer, and the answer."""
    model, read = both()[0].model, [0]
    hook = model.register_forward_pre_hook(lambda *_: read.__setitem__(0, read[0] + 1))
    try:
        tokens = purifier.generate("The king said", sampling)[0].tokens
        return read[0], tokens
    finally:
        hook.remove()


@pytest.mark.parametrize("seed", [0, 1])
def test_behind_the_gateway_a_model_is_read_as_often_as_alone(seed: int) -> None:
    """The gateway lost tree attention across tokenizers: 13 passes of the LLM where 9 are enough.

    Seeded: the length of drafts that are not is learned from the clock, and the passes with it.
    """
    slm = LocalSource.load(SLM_1024, dtype="float32", device="cpu")
    alone, other = (pair(both()[0], slm, "balanced") for _ in range(2))
    shared = other.over(batching)
    assert both()[0].branches  # tried once, which reads too
    sampling = Sampling(max_tokens=10, seed=seed)
    found = passes(shared, sampling)
    assert found == passes(alone, sampling)
    assert 0 < found[0] < len(found[1])


@pytest.mark.parametrize("alignment", ["bytes", "common_tokens"])
def test_behind_the_gateway_a_pair_keeps_the_alignment_that_was_asked_for(alignment: Any) -> None:
    """Aligned once more, models in bytes could not be read, and those in common tokens had other prompts."""
    slm = LocalSource.load(SLM_1024, dtype="float32", device="cpu")
    alone = pair(both()[0], slm, "balanced", alignment=alignment)
    shared = Gateway(alone).service.picker.purifier
    assert isinstance(shared.llm.source, BatchingSource)  # type: ignore[attr-defined]  # a wrapper's
    found, expected = (each.generate("The king", few(6))[0].certificate.text for each in (shared, alone))
    assert found == expected
