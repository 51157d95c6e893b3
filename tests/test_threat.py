"""Who may see what: no draft reaches an untrusted engine, failing tells nothing, certificates say so."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, get_args

import pytest
import torch
from torch import Tensor

from purify_adapters.sources.http.client import HttpClient
from purify_adapters.sources.http.event_loop import wait
from purify_adapters.sources.llama_cpp import LlamaCppSource
from purify_adapters.sources.llama_cpp_python import LlamaPythonSource
from purify_adapters.sources.tgi.source import TGISource
from purify_adapters.sources.vllm_server import VLLMSource
from purify_hooks.sources.contrast import Contrast
from purify_plugins import CertificateError, ConfigError, Sampling, SourceError
from purify_plugins.canonical_json import canonical, digest
from purify_plugins.certificates import verify
from purify_plugins.decode.draft_length import DraftLength, DraftLengths
from purify_plugins.decode.speculative import speculative
from purify_plugins.plugin.manager import load_plugins
from purify_plugins.protocols import Capabilities, LogitSource
from purify_plugins.sources.batching import BatchingSource
from purify_plugins.sources.wrapper import SourceWrapper
from purify_plugins.testing import ToySession, ToySource, letters
from purify_plugins.threat import Engine, Facts, claim, weakest
from purify_plugins.tokenizers.cross.first_token import FirstTokenSource
from purify_plugins.tokenizers.cross.source import SymbolSource
from purify_plugins.tokenizers.cross.symbols import byte_symbols
from purify_plugins.tokenizers.vocabulary_map import RemappedSource
from purify_plugins.types import Certificate, Prompt, Token
from tests.fake_tgi import serving
from tests.remote.fake_servers import FakeLlama
from tests.remote.toy_server import Script, ToyReader
from tests.toys import BYTES, few, pair

SEEN = Capabilities(True, True, len(BYTES), True, scores_draft=True, streams_rows=False)


@dataclass(frozen=True)
class Served(ToySource):
    """A toy behind a server that shows whole rows."""

    engine: Engine = "untrusted"
    capabilities: Capabilities = SEEN


# What may be claimed

HELD = Facts("passage", "sampled", "lockstep", "system", "untrusted", "in-process")


@pytest.mark.parametrize(
    ("change", "guarantee", "adversary"),
    [
        ({}, "passage", "engine"),
        ({"walk": "readahead"}, "passage", "engine"),
        ({"llm": "in-process"}, "passage", "engine"),
        ({"llm": "trusted", "walk": "speculative"}, "passage", "weights"),
        ({"llm": "in-process", "walk": "speculative"}, "passage", "weights"),
        ({"llm": "trusted", "draws": "keyed"}, "passage", "weights"),
        ({"llm": "in-process", "draws": "keyed"}, "passage", "weights"),
        ({"draws": "keyed"}, "none", "none"),
        ({"walk": "speculative"}, "none", "none"),
        ({"slm": "untrusted"}, "none", "none"),
        ({"slm": "trusted"}, "passage", "engine"),
        ({"mode": "greedy"}, "none", "none"),
        ({"mode": "slm-only"}, "none", "none"),
        ({"claimed": "none"}, "none", "none"),
        ({"edits": ("dropped steps",)}, "none", "none"),
        ({"kept": None}, "none", "none"),
        ({"kept": False}, "none", "none"),
    ],
    ids=str,
)
def test_a_claim_follows_from_what_happened(change: dict[str, Any], guarantee: str, adversary: str) -> None:
    found = claim(HELD._replace(**change))
    assert (found.guarantee, found.adversary) == (guarantee, adversary)
    assert found.reason


@pytest.mark.parametrize(
    ("llm", "sampling", "walk", "expected"),
    [
        (ToySource(BYTES, 1), few(4), "auto", ("speculative", "keyed", "window", "weights")),
        (ToySource(BYTES, 1), few(4, seed=None), "lockstep", ("lockstep", "system", "window", "engine")),
        (Served(BYTES, 1), few(4, seed=None), "auto", ("lockstep", "system", "window", "engine")),
        (Served(BYTES, 1), few(4), "auto", ("lockstep", "keyed", "none", "none")),
        (Served(BYTES, 1, engine="trusted"), few(4), "auto", ("speculative", "keyed", "window", "weights")),
        (ToySource(BYTES, 1), few(4, temperature=0), "auto", ("speculative", "keyed", "none", "none")),
    ],
)
def test_a_certificate_names_the_adversary(
    llm: Any, sampling: Sampling, walk: Any, expected: tuple[str, ...]
) -> None:
    purifier = pair(llm, ToySource(BYTES, 2), "windowed", walk=walk)
    certificate = purifier.generate("once", sampling)[0].certificate
    method = certificate.body["method"]
    assert tuple(method[key] for key in ("walk", "draws", "guarantee", "adversary")) == expected
    assert certificate.body["models"]["llm"]["engine"] == purifier.llm.engine
    verify(certificate, purifier.plugins)


@pytest.mark.parametrize(
    ("table", "key", "value"),
    [
        ("method", "adversary", "engine"),
        ("method", "draws", "keyed"),
        ("method", "walk", "lockstep"),
        ("llm", "engine", "untrusted"),
        ("llm", "engine", "anybody's"),
        ("slm", "engine", "untrusted"),
    ],
)
def test_a_certificate_that_names_another_adversary_is_refused(table: str, key: str, value: str) -> None:
    purifier = pair(ToySource(BYTES, 1), ToySource(BYTES, 2), "windowed")
    body = purifier.generate("once", few(4, seed=None))[0].certificate.body
    (body["models"].get(table) or body[table])[key] = value
    with pytest.raises(CertificateError):
        verify(Certificate(canonical({**body, "digest": digest(body)})), purifier.plugins)


# Engines

KINDS = {each.kind: each for each in (TGISource, VLLMSource, LlamaCppSource, LlamaPythonSource)}


@pytest.mark.parametrize("kind", KINDS)
def test_a_server_is_untrusted_unless_somebody_vouches_for_it(kind: str) -> None:
    made: Callable[..., Any] = KINDS[kind]
    asked = (HttpClient("http://127.0.0.1:9"), ToyReader(BYTES), 5)
    assert made(*asked).engine == "untrusted"
    assert made(*asked, engine="trusted").engine == "trusted"
    with pytest.raises(ConfigError, match="engine must be 'untrusted', or 'trusted' for a server you vouch"):
        made(*asked, engine="in-process")


def test_a_source_is_untrusted_unless_it_says_what_runs_it() -> None:
    assert ToySource(BYTES, 1).engine == "in-process"

    class Stranger(LogitSource):
        vocabulary, context_length = BYTES, None

        def open(self, prompts: Sequence[Prompt], scored: int = 0) -> Any: ...

        def identity(self) -> Mapping[str, Any]:
            return {}

    assert Stranger().engine == "untrusted"


@pytest.mark.parametrize("engine", get_args(Engine))
def test_what_wraps_a_source_is_no_more_trusted_than_it(engine: Engine) -> None:
    source = Served(BYTES, 1, engine=engine)
    for around in (
        RemappedSource(source, BYTES, tuple(range(len(BYTES)))),
        SymbolSource(source, byte_symbols()),
        FirstTokenSource(source, BYTES),
        BatchingSource(source),
        SourceWrapped(source),
    ):
        assert around.engine == engine
    local = replace(source, capabilities=None)  # type: ignore[arg-type]  # as a contrast wants it
    assert Contrast(local, ToySource(BYTES, 2)).engine == engine
    assert Contrast(ToySource(BYTES, 2), local).engine == engine
    assert weakest(engine, "in-process") == engine


@dataclass(frozen=True, eq=False)
class SourceWrapped(SourceWrapper):
    source: Any


@pytest.mark.parametrize("alignment", ["auto", "bytes"])
def test_an_untrusted_engine_gets_no_draft(alignment: Any) -> None:
    llm, slm = Served(BYTES, 1), ToySource(BYTES, 2)
    assert pair(llm, slm, alignment=alignment).walk == "lockstep"
    with pytest.raises(ConfigError, match='engine = "trusted"'):
        pair(llm, slm, walk="speculative", alignment=alignment)
    trusted = replace(llm, engine="trusted")
    assert pair(trusted, slm, alignment=alignment).walk == "speculative"


def test_no_plugin_can_ask_for_a_draft_to_be_shown_to_an_untrusted_engine() -> None:
    purifier = pair(Served(BYTES, 1), ToySource(BYTES, 2))
    with pytest.raises(ConfigError, match='engine = "trusted"'):
        next(speculative(purifier, ["once"], few(4)))


@dataclass(frozen=True)
class Spied(Served):
    """An untrusted toy that keeps every token it has been shown, prompts apart."""

    shown: list[list[int]] = field(default_factory=list, compare=False)

    def open(self, prompts: Sequence[Prompt], scored: int = 0) -> tuple[SpiedSession, Tensor]:
        session = SpiedSession(self, [self.encode(prompt) for prompt in prompts], scored)
        return session, torch.stack([self.logits(row) for row in session.rows])


class SpiedSession(ToySession):
    def extend(self, tokens: Tensor) -> Tensor:
        logits = super().extend(tokens)
        spied: Any = self.source
        spied.shown.append(self.rows[0][len(self.prompts[0].tokens) :])
        return logits


@pytest.mark.parametrize("policy", ["geometric", "balanced"])
@pytest.mark.parametrize("seed", [None, 0])
def test_an_untrusted_engine_sees_only_what_was_drawn(policy: str, seed: int | None) -> None:
    """Every question it is asked ends with the last token drawn, whatever the batch."""
    llm = Spied(BYTES, 1)
    purifier = pair(llm, ToySource(BYTES, 2), policy)
    answer: list[int] = []
    for chunk in purifier.stream("once", few(12, seed=seed)):
        assert all(seen == answer[: len(seen)] for seen in llm.shown)
        answer += [step.id for step in chunk.steps]
    assert len(llm.shown) == 11


# Failing


@dataclass(frozen=True)
class Spiteful(ToySource):
    """A model that breaks at the first even token it is shown: it raises, or from there on says NaN."""

    raises: bool = False

    def open(self, prompts: Sequence[Prompt], scored: int = 0) -> tuple[SpitefulSession, Tensor]:
        session = SpitefulSession(self, [self.encode(prompt) for prompt in prompts], scored)
        return session, torch.stack([self.logits(row) for row in session.rows])


class SpitefulSession(ToySession):
    def extend(self, tokens: Tensor) -> Tensor:
        logits = super().extend(tokens)
        source: Any = self.source
        for row, prompt, read in zip(self.rows, self.prompts, logits, strict=True):
            answer = row[len(prompt.tokens) :]
            at = next((at for at, token in enumerate(answer) if token % 2 == 0), len(answer))
            if at < len(answer) and source.raises:
                raise SourceError("it does not like this")
            read[max(at - len(answer) + len(read), 0) if at < len(answer) else len(read) :] = torch.nan
        return logits


def alone_from(steps: Sequence[Token]) -> int:
    """Where the SLM goes on alone."""
    return next((at for at, step in enumerate(steps) if step.slm_only), len(steps))


def expected(steps: Sequence[Token]) -> int:
    """Where it should: after the first even token that was kept."""
    return next((at + 1 for at, step in enumerate(steps) if step.id % 2 == 0), len(steps))


@pytest.mark.parametrize("raises", [False, True])
@pytest.mark.parametrize("walk", ["lockstep", "speculative"])
def test_a_model_fails_where_it_failed_and_not_before(
    walk: Any, raises: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A NaN anywhere in a drafted pass, or an exception, took the LLM from the rows before it as well.

    So a model that had seen the draft could make its tokens be the SLM's own, which are accepted for certain.
    """
    monkeypatch.setattr(DraftLengths, "of", lambda *_: DraftLength(3))
    llm = Spiteful(letters("abcdefgh"), 1, raises=raises)
    purifier = pair(llm, ToySource(letters("abcdefgh"), 2), walk=walk, on_llm_failure="slm")
    for seed in range(40):
        steps = purifier.generate("ab", few(8, seed=seed))[0].steps
        assert alone_from(steps) == min(expected(steps), len(steps))
        assert all(step.slm_only for step in steps[alone_from(steps) :])


@pytest.mark.parametrize("policy", ["balanced", "capped", "geometric"])
@pytest.mark.parametrize("walk", ["lockstep", "speculative"])
def test_where_the_llm_fails_in_one_row_the_others_keep_it(
    walk: Any, policy: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """One row of NaN gave the whole batch to the SLM, and nothing but the certificates said so."""
    monkeypatch.setattr(DraftLengths, "of", lambda *_: DraftLength(3))
    llm, slm = Spiteful(letters("abcdefgh"), 1), ToySource(letters("abcdefgh"), 2)
    purifier = pair(llm, slm, policy, walk=walk, on_llm_failure="slm")
    prompts, apart = ["ab", "ba", "cd", "ad"], 0
    for seed in range(12):
        answers = purifier.generate(prompts, few(8, seed=seed), errors="raise")
        for row, answer in enumerate(answers):
            [alone] = purifier.generate(prompts[row], few(8, seed=seed + row), errors="raise")
            assert answer.tokens == alone.tokens
            assert [step.slm_only for step in answer.steps] == [step.slm_only for step in alone.steps]
            assert alone_from(answer.steps) == min(expected(answer.steps), len(answer.steps))
        apart += len({alone_from(answer.steps) for answer in answers}) > 1
    assert apart
    assert "the LLM failed, and the SLM goes on alone in rows [" in caplog.text


def test_a_row_s_refused_draft_fails_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the LLM makes of a guess that was refused counts for no row, its own neither."""
    monkeypatch.setattr(DraftLengths, "of", lambda *_: DraftLength(3))
    vocabulary = letters("abcdefgh")
    llm, slm = Spiteful(vocabulary, 1), ToySource(vocabulary, 2)
    purifier = pair(llm, slm, walk="speculative", on_llm_failure="slm")
    for seed in range(20):
        tokens: list[Token] = []
        for step in speculative(purifier, ["ab", "ba", "cd"], few(8, seed=seed)):
            column = [token for token in step.tokens if token is not None]
            failed = any(token.id % 2 == 0 for token in tokens)
            assert failed or not any(token.slm_only for token in column)
            tokens += column


# A server that is out to recite

TARGET = b"a text that only the untrusted model has ever seen"[:16]


class Reciting(FakeLlama):
    """A `llama-server` that knows the SLM, and what it wants said.

    Shown a draft, it answers with the SLM's row, the mass of the drafted token moved to the one it wants: the
    draft is refused for certain, and what it wants is all there is to draw. Shown none, it says what it wants
    as far as a row like the SLM's may.
    """

    async def _complete(self, request: Any) -> Any:
        from starlette.responses import JSONResponse

        body = await self.read(request)
        several = isinstance(body["prompt"][0], list)
        prompts = body["prompt"] if several else [body["prompt"]]
        longest = max(prompts, key=len)
        return JSONResponse([self._said(index, ids, longest) for index, ids in enumerate(prompts)])

    def _said(self, index: int, ids: Sequence[int], longest: Sequence[int]) -> Mapping[str, Any]:
        row = torch.full((len(BYTES),), 1 / len(BYTES))
        at = len(ids) - len("once") - 1  # the first token is drawn before there is a draft
        if 0 <= at < len(TARGET):
            moved = longest[len(ids)] if len(longest) > len(ids) else int(row.argmin())
            row[TARGET[at]] += row[moved] if moved != TARGET[at] else 0
            row[moved] = row[moved] if moved == TARGET[at] else 1e-30
        top = [{"id": token, "logprob": value} for token, value in enumerate(row.log().tolist())]
        return {"index": index, "completion_probabilities": [{**top[0], "top_logprobs": top}]}


class Even(Script):
    """A model to which all tokens are alike."""

    def logits(self, tokens: Sequence[int]) -> Tensor:
        return torch.zeros(len(self.vocabulary))


@pytest.mark.parametrize("policy", ["balanced", "windowed", "capped"])
def test_a_server_that_is_shown_no_draft_cannot_recite(policy: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Over HTTP every answer said what it wanted: 16 tokens of ln q = -89, under certificates that verify.

    Drafts are three tokens long here; a patient server earns that by agreeing with some.
    """
    monkeypatch.setattr(DraftLengths, "of", lambda *_: DraftLength(3))
    slm = Even(BYTES, b"x")
    chosen = load_plugins().policy(policy, {"cap": 3.0, "total": 12.0} if policy == "capped" else {})
    with serving(Reciting(slm).app()) as url:
        recited = {}
        for engine in ("trusted", "untrusted"):
            llm = LlamaCppSource(HttpClient(url), ToyReader(BYTES), len(BYTES), ahead=0, engine=engine)  # type: ignore[arg-type]  # a toy's reader
            llm.capabilities = replace(SEEN, max_n=len(BYTES))
            purifier = pair(llm, slm, chosen, walk="speculative" if engine == "trusted" else "auto")
            answers = [
                purifier.generate("once", Sampling(max_tokens=17, ignore_eos=True))[0] for _ in range(4)
            ]
            recited[engine] = sum(answer.tokens[1:] == tuple(TARGET) for answer in answers)
            claims = {answer.certificate.body["method"]["adversary"] for answer in answers}
            assert claims == {"weights" if engine == "trusted" else "engine"}
    assert recited["trusted"] >= 3  # whom the operator vouched for, wrongly
    assert recited["untrusted"] == 0


# Two tokenizers


@dataclass(frozen=True)
class Shy(ToySource):
    """A model that raises whenever a pass shows it more than one token, once it is `told` to."""

    told: list[str] = field(default_factory=list, compare=False)

    def open(self, prompts: Sequence[Prompt], scored: int = 0) -> tuple[ShySession, Tensor]:
        session = ShySession(self, [self.encode(prompt) for prompt in prompts], scored)
        return session, torch.stack([self.logits(row) for row in session.rows])


class ShySession(ToySession):
    def extend(self, tokens: Tensor) -> Tensor:
        shy: Any = self.source
        logits = super().extend(tokens)
        if shy.told and tokens.shape[1] > 1:
            shy.told.append("raised")
            raise SourceError("too much at once")
        return logits


def test_in_smaller_symbols_too_a_failure_is_decided_without_the_guess(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The SLM's guess is read in one pass with what must be asked; a pass that fails is tried without it."""
    monkeypatch.setattr(DraftLengths, "of", lambda *_: DraftLength(3))
    llm = Shy(BYTES, 1)
    purifier = pair(llm, ToySource(BYTES, 2), walk="speculative", on_llm_failure="slm", alignment="bytes")
    steps: list[Token] = []
    for chunk in purifier.stream("A text to begin with.", few(12, temperature=0)):
        steps += chunk.steps
        llm.told.append("the prompt is read")
    assert "raised" in llm.told
    assert not any(step.slm_only for step in steps)
    lockstep = pair(ToySource(BYTES, 1), ToySource(BYTES, 2), walk="lockstep", alignment="bytes")
    [answer] = lockstep.generate("A text to begin with.", few(12, temperature=0))
    assert answer.tokens == tuple(step.id for step in steps)


class Somebodys:
    """A source of somebody else's class, which may ask any server it likes, and says nothing of it."""

    def __init__(self, source: ToySource) -> None:
        self._source = source
        self.vocabulary, self.context_length = source.vocabulary, source.context_length

    def open(self, prompts: Sequence[Prompt], scored: int = 0) -> Any:
        return self._source.open(prompts, scored)

    def identity(self) -> Mapping[str, Any]:
        return self._source.identity()


def test_who_does_not_say_what_runs_it_is_not_trusted_with_a_draft() -> None:
    """It used to be in-process, and drafted for: what asks a server by itself recited under a guarantee."""
    purifier = pair(Somebodys(ToySource(BYTES, 1)), ToySource(BYTES, 2), "capped")  # type: ignore[arg-type]  # that is the point
    assert (purifier.llm.engine, purifier.walk) == ("untrusted", "lockstep")
    around = pair(Somebodys(Served(BYTES)), ToySource(BYTES, 2), "capped")  # type: ignore[arg-type]  # likewise
    assert around.walk == "lockstep"
    with pytest.raises(ConfigError, match="speculative"):
        pair(Somebodys(ToySource(BYTES, 1)), ToySource(BYTES, 2), "capped", walk="speculative")  # type: ignore[arg-type]  # likewise


@pytest.mark.parametrize("word", ["Untrusted", "in process", "", None, object()])
def test_a_word_that_is_no_engine_is_no_trust(word: Any) -> None:
    class Mistyped(ToySource):
        engine = word

    with pytest.raises(ConfigError, match="the engine of the LLM must be one of 'in-process', 'trusted'"):
        pair(Mistyped(BYTES, 1), ToySource(BYTES, 2), "capped")
    assert weakest(word, "in-process") == "untrusted"


def test_a_url_is_shown_to_no_log_and_no_error(caplog: pytest.LogCaptureFixture) -> None:
    """`purify serve` logs at INFO, and httpx wrote the whole url of every request there."""
    caplog.set_level("INFO")
    with serving(FakeLlama(ToySource(BYTES, 1)).app()) as url:
        wire = HttpClient(f"http://me:hunter2@{url.removeprefix('http://')}/tok_S3CRET")
        with pytest.raises(SourceError) as refused:
            wait(wire.get("/props"))
    said = f"{caplog.text} {refused.value} {wire!r}"
    assert "hunter2" not in said
    assert "S3CRET" not in said
