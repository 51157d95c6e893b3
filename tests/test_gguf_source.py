"""GGUF files run by llama.cpp in this process: rows, rewinding, drafts and bytes as any other source's."""

from __future__ import annotations

import gc
import sys
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from tempfile import mkdtemp
from threading import Thread

import pytest
import torch
from torch import Tensor

from purify_hooks.gguf import library as binding
from purify_hooks.gguf.context import LlamaContext, New
from purify_hooks.gguf.source import GgufSource, looked_at
from purify_hooks.local.source import LocalSource
from purify_plugins import ConfigError, ModelError, PromptError, Purifier, Sampling, SourceError
from purify_plugins.decode.loop import lockstep
from purify_plugins.decode.speculative import speculative
from purify_plugins.testbed import LLM, SLM
from purify_plugins.testing import SourceConformance
from tests.remote.real_servers import write_gguf

pytest.importorskip("xllamacpp", reason="xllamacpp has no wheel for this machine")
TEXT = "The king and the queen were walking in the garden when"


@cache
def files() -> Path:
    """The test bed's pair as GGUF, float32 and in 8 bits."""
    folder = Path(mkdtemp(prefix="purify-test-"))
    for name, model in (("llm", LLM), ("slm", SLM)):
        write_gguf(model, folder / f"{name}.gguf")
        write_gguf(model, folder / f"{name}-q8.gguf", "Q8_0")
    return folder


@cache
def loaded(name: str) -> GgufSource:
    return GgufSource.load(files() / f"{name}.gguf", threads=1)


class TestGgufSourceConformance(SourceConformance):
    def source(self) -> GgufSource:
        return loaded("llm")


class TestQuantisedConformance(SourceConformance):
    def source(self) -> GgufSource:
        return loaded("slm-q8")


def rows(source: LocalSource | GgufSource, text: str, answer: str) -> Tensor:
    """The log-probabilities (n + 1, V) after a text and each token of an answer."""
    session, first = source.open([text])
    tokens = source.tokenizer(answer, add_special_tokens=False)["input_ids"]
    with session:
        return torch.cat([first[:, None], session.extend(torch.tensor([tokens]))], dim=1)[0].log_softmax(-1)


@pytest.mark.parametrize(("name", "most"), [("llm", 1e-4), ("llm-q8", 3e-3)])
def test_its_rows_are_torchs_but_for_rounding(name: str, most: float) -> None:
    """Kullback-Leibler divergence in nats; the cache is float16 in llama.cpp."""
    ours, torchs = rows(loaded(name), TEXT, " a bird came"), rows(LocalSource.load(LLM), TEXT, " a bird came")
    assert (torchs.exp() * (torchs - ours)).sum(-1).max().item() < most


def test_a_long_prompt_is_scored_in_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """All its rows were held at once: 2.5 GB for 4,096 tokens of Qwen's vocabulary."""
    held: list[int] = []
    read = LlamaContext.read

    def counted(context: LlamaContext, new: Sequence[New]) -> Tensor:
        held.append(sum(each.wanted and not each.sequence for each in new))  # of the longest prompt
        return read(context, new)

    monkeypatch.setattr(LlamaContext, "read", counted)
    texts = [" ".join([TEXT] * 40)[:1900], TEXT, " ".join([TEXT] * 40)[:1200]]
    for scored in (10**6, 300, 3, 0):
        held.clear()
        with loaded("slm").open(texts, scored)[0] as session, plain().open(texts, scored)[0] as other:
            assert max(len(each.tokens) for each in session.prompts) > 256
            for ours, theirs in zip(session.prompts, other.prompts, strict=True):
                assert ours.logprobs == pytest.approx(theirs.logprobs, abs=0.02)
        assert max(held) <= 256


@cache
def plain() -> LocalSource:
    return LocalSource.load(SLM)


def test_the_same_reading_gives_the_same_bits() -> None:
    source = loaded("llm-q8")
    assert torch.equal(rows(source, TEXT, " a bird came"), rows(source, TEXT, " a bird came"))


def test_a_sequence_that_outgrows_its_cache_is_moved_bit_for_bit() -> None:
    source = loaded("slm")
    answer = " and then he said to her that" * 80
    tokens = torch.tensor([source.tokenizer(answer, add_special_tokens=False)["input_ids"][:400]])
    short, _ = source.open(["Once upon a time"])
    with short:
        for start in range(0, 400, 50):
            last = short.extend(tokens[:, start : start + 50])[:, -1]
    assert tokens.shape == (1, 400)
    long, _ = source.open(["Once upon a time"])
    with long:
        torch.testing.assert_close(long.extend(tokens)[:, -1], last, atol=1e-3, rtol=1e-3)


@pytest.mark.parametrize(("before", "now"), [(3, 1), (1, 3), (3, 2)])
def test_it_is_moved_whatever_batch_was_read_before(before: int, now: int) -> None:
    """Into a kept context for more rows llama.cpp moves nothing: a long answer failed after a batch."""
    source = GgufSource.load(files() / "slm.gguf", threads=1)
    kept, _ = source.open([" ".join([TEXT] * 40)[:1900]] * before)
    kept.close()
    for rows_ in (now, before):
        session, _ = source.open(["Once upon a time"] * rows_)
        with session:
            if rows_ == 3:
                session.keep([2])
            for _ in range(12):
                session.extend(torch.full((len(session.prompts), 50), 40))


def test_a_failed_pass_leaves_the_session_as_it_was() -> None:
    source = loaded("slm")
    session, _ = source.open([TEXT])
    with session:
        with pytest.raises(SourceError, match="failed while reading"):
            session.extend(torch.tensor([[5, 10**9]]))
        after = session.extend(torch.tensor([[5, 6]]))
    fresh, _ = source.open([TEXT])
    with fresh:
        assert torch.equal(fresh.extend(torch.tensor([[5, 6]])), after)


def test_contexts_are_used_again_and_remember_nothing() -> None:
    source = loaded("slm")
    one, first = source.open([TEXT])
    one.extend(torch.tensor([[1, 2, 3]]))
    one.close()
    other, again = source.open([TEXT])
    other.close()
    assert torch.equal(first, again)


def test_a_model_in_a_cycle_is_freed_after_the_contexts_on_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """llama.cpp looks at the model as it frees a context."""
    freed, call = list[str](), binding.Library.call

    def noting(library: binding.Library, name: str, *arguments: object) -> object:
        freed.extend([name] if name in ("free", "model_free") else [])
        return call(library, name, *arguments)

    gc.collect()
    monkeypatch.setattr(binding.Library, "call", noting)
    cycle: list[object] = [GgufSource.load(files() / "slm.gguf", threads=1)]  # it keeps one context
    cycle.append(cycle)
    del cycle
    gc.collect()
    assert freed == ["free", "model_free"]


def test_a_context_may_be_given_back_while_one_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    """The garbage collector closes an abandoned session anywhere, also where the lock is held."""
    contexts = loaded("slm").contexts
    one, other = contexts.take(1, 256), contexts.take(1, 256)
    contexts.give(one)
    clear = LlamaContext.clear

    def giving(context: LlamaContext) -> None:
        monkeypatch.setattr(LlamaContext, "clear", clear)
        contexts.give(other)
        clear(context)

    monkeypatch.setattr(LlamaContext, "clear", giving)
    found: list[LlamaContext] = []
    thread = Thread(target=lambda: found.extend(contexts.take(1, 256) for _ in range(2)), daemon=True)
    thread.start()
    thread.join(60)
    assert {*found} >= {other}
    for each in found:
        contexts.give(each)


def test_speculative_answers_are_lockstep_ones() -> None:
    """Greedy in both: drafts of several tokens are read in one pass."""
    slm = {"source": "gguf", "model": str(files() / "slm.gguf"), "threads": 1}
    purifier = Purifier.load(llm=str(LLM), slm=slm, policy="minimum")
    written = [
        [step.tokens[0].id for step in decoder(purifier, [TEXT], Sampling(max_tokens=24, temperature=0))]
        for decoder in (lockstep, speculative)
    ]
    assert written[0] == written[1]


def test_certificates_say_how_it_was_run() -> None:
    said = loaded("slm-q8").identity()
    assert (said["kind"], said["dtype"], list(said["files"])) == ("llama.cpp", "Q8_0", ["slm-q8.gguf"])


def test_a_prompt_beyond_the_context_is_refused() -> None:
    source = GgufSource.load(files() / "slm.gguf", context=8, threads=1)
    assert source.context_length == 8
    with pytest.raises(PromptError, match="8"):
        source.open(["a word and another and another and another and another"])


# What is refused


@pytest.mark.parametrize(
    ("keys", "error", "words"),
    [
        ({"model": "nowhere.gguf"}, ModelError, "there is no GGUF file 'nowhere.gguf'"),
        ({"model": LLM}, ModelError, "is or holds no GGUF file; leave source = 'gguf' out"),
        ({"model": " "}, ConfigError, "model must be a GGUF file or a directory with one"),
        ({"context": 0}, ConfigError, "context must be a number, at least 1, not 0"),
        ({"threads": True}, ConfigError, "threads must be a number, at least 1, not True"),
    ],
)
def test_what_cannot_be_run_is_refused_by_name(
    keys: dict[str, object], error: type[Exception], words: str
) -> None:
    for read in (GgufSource.load, looked_at):
        with pytest.raises(error, match=words):
            read(**{"model": files() / "slm.gguf", **keys})  # type: ignore[arg-type]  # wrong on purpose


def test_a_model_that_reads_both_ways_is_refused(tmp_path: Path) -> None:
    file = write_gguf(SLM, tmp_path / "slm.gguf", causal=False)
    with pytest.raises(ModelError, match="reads both ways; only causal models can be fused"):
        GgufSource.load(file)


def test_the_package_that_is_missing_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    binding.library.cache_clear()
    monkeypatch.setitem(sys.modules, "xllamacpp", None)
    with pytest.raises(ConfigError, match="source 'gguf' needs xllamacpp, which is not installed; run pip"):
        GgufSource.load(files() / "slm.gguf")


def test_another_layout_of_llama_cpps_parameters_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    """Read by the wrong layout, a parameter would be another one."""
    wrong = {**binding.DEFAULTS[binding.ContextParameters], "n_seq_max": 512}
    monkeypatch.setitem(binding.DEFAULTS, binding.ContextParameters, wrong)  # type: ignore[arg-type]
    binding.library.cache_clear()
    with pytest.raises(ConfigError, match="gives n_seq_max the default 1, where 512 is known here"):
        binding.library()
