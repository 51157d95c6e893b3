"""Wrappers forward every member, and somebody else's classes come in through one door."""

from __future__ import annotations

import ast
import importlib
import inspect
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import purify_plugins
from purify_hooks.copying.session import CopyingSession
from purify_hooks.copying.source import CopyingSource
from purify_hooks.policies.consistency import Consistency
from purify_hooks.sources.contrast import Contrast, _Contrasted
from purify_hooks.takedown.source import TakedownSource
from purify_plugins import ConfigError, Purifier, Sampling, SourceError
from purify_plugins.foreign import AdaptedSession, AdaptedSource, adapted, adapted_policy
from purify_plugins.plugin.manager import load_plugins
from purify_plugins.protocols import LogitSource, Session
from purify_plugins.sources.wrapper import SessionWrapper, SourceWrapper
from purify_plugins.testing import SourceConformance, ToySession, ToySource, byte_vocabulary
from purify_plugins.tokenizers.cross.first_token import FirstTokenSession, FirstTokenSource
from purify_plugins.tokenizers.cross.source import SymbolSession
from purify_plugins.tokenizers.vocabulary_map import RemappedSession, RemappedSource
from purify_plugins.types import Prompt, ScoredPrompt, Vocabulary
from tests.toys import BYTES, Watched, both, pair

ROOT = Path(__file__).parent.parent
SOURCES = [path for top in ("purify_plugins", "hooks", "adapters") for path in (ROOT / top).rglob("*.py")]

IN_SYMBOLS = {
    "keeps": "not offered yet: rows that have ended are read to the end of their batch",
    "keep": "as above",
    "branches": "nobody reads symbols in a tree; the model's own tokens are, inside",
    "branch": "as above",
    "select": "as above",
    "read_ahead": "a server drafts its own tokens, and not symbols",
    "mark": "passes are joined inside, where the model's own session is marked",
    "undo": "as above",
}
"""Why a session in symbols leaves these members at their defaults."""
LEFT: Mapping[type, Mapping[str, str]] = {
    SymbolSession: IN_SYMBOLS,
    FirstTokenSession: {
        **IN_SYMBOLS,
        "each": "its rows are read one context at a time anyway",
        "asks": "its ids are the LLM's tokens, and each takes a pass",
    },
    _Contrasted: {
        "each": "both models read a block in one pass",
        "read_ahead": "models behind servers are refused",
    },
    Contrast: {
        "capabilities": "models behind servers are refused",
        "joins": "each of its two models is shared by itself",
        "slots": "likewise",
        "extend_all": "as above",
        "branch_all": "as above",
        "inner": "there are two",
        "symbolic": "its rows are in its models' own tokens",
        "rough": "its rows are exactly what they say: a difference",
        "to_own": "its ids are its models' own",
        "from_own": "as above",
    },
}


def members(kind: type) -> list[str]:
    return [name for name in vars(kind) if not name.startswith("_")]


def offers(kind: type) -> list[str]:
    return [name for name in members(kind) if name not in ("close", "prompts", "extend", "rewind", "open")]


def every(kind: type) -> Iterator[type]:
    """The class and those of ours derived from it."""
    for path in SOURCES:
        if re.search(r"^class \w+\(.*(Wrapper|TranslatedSource)\b", path.read_text("utf-8"), re.MULTILINE):
            importlib.import_module(module_of(path))
    yield from _derived(kind)


def module_of(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[1:] if parts[0] in ("hooks", "adapters") else parts)


def _derived(kind: type) -> Iterator[type]:
    if kind.__module__.startswith("purify_"):
        yield kind
    for each in kind.__subclasses__():
        yield from _derived(each)


def probe(kind: type, said: dict[str, Any]) -> Any:
    """An object of the kind whose members each say something of their own."""

    def answer(name: str) -> Any:
        said[name] = object()
        if isinstance(vars(kind)[name], property) or not inspect.isfunction(vars(kind)[name]):
            return property(lambda self: said[name])
        return lambda self, *given: said.update(called=(name, *given))

    made = type("Probe", (kind,), {name: answer(name) for name in members(kind)})
    return made()


def around(wrapper: type, inside: str, thing: Any) -> Any:
    """The wrapper around a thing, its constructor left out."""
    made = object.__new__(wrapper)
    object.__setattr__(made, "model" if wrapper is TakedownSource else inside, thing)
    return made


def own(wrapper: type, base: type, name: str) -> bool:
    """Whether a class decides about a member itself, in place of what `base` does."""
    before = wrapper.__mro__[: wrapper.__mro__.index(base)]
    return any(name in vars(kind) for kind in before)


def forwarded(found: Any, base: type, name: str, said: Mapping[str, Any]) -> bool:
    value = getattr(found, name)
    if not callable(value):
        return bool(value is said[name])
    given = [object() for _ in list(inspect.signature(vars(base)[name]).parameters)[1:]]
    value(*given)
    return bool(said.get("called") == (name, *given))


@pytest.mark.parametrize(
    ("base", "wrapper", "inside"),
    [(LogitSource, SourceWrapper, "source"), (Session, SessionWrapper, "session")],
)
def test_every_wrapper_forwards_every_member_it_does_not_decide_about(
    base: type, wrapper: type, inside: str
) -> None:
    """The gateway lost tree attention: its wrapper forwarded `keep`, and nobody had told it of `branch`.

    13 passes of the LLM for 39 bytes, where the same pair alone needed 9. A member that a base class
    gains fails here until its wrapper forwards it.
    """
    kinds = list(every(wrapper))
    assert len(kinds) >= 3
    for kind in kinds:
        said: dict[str, Any] = {}
        found = around(kind, inside, probe(base, said))
        lost = [
            name
            for name in members(base)
            # A cache of slots would return the inner source's rows, unchanged by the wrapper.
            if name not in ("over", "slots")
            and not own(kind, wrapper, name)
            and not forwarded(found, base, name, said)
        ]
        assert not lost, f"{kind.__name__} loses {lost}"


def test_what_combines_or_rereads_models_decides_about_every_member() -> None:
    """Members that such a class leaves at their defaults are listed above, each with its reason."""
    for kind, left in LEFT.items():
        base = LogitSource if issubclass(kind, LogitSource) else Session
        unsaid = [name for name in offers(base) if name not in vars(kind) and name not in left]
        assert not unsaid, f"{kind.__name__} says nothing of {unsaid}"
        assert not [name for name in left if name in vars(kind)]


def test_every_source_of_ours_has_a_base_class() -> None:
    """A duck-typed one would lose whatever member it was not told of."""
    classes = [
        each
        for path in SOURCES
        for each in ast.parse(path.read_text("utf-8")).body
        if isinstance(each, ast.ClassDef) and "Protocol" not in map(ast.unparse, each.bases)
    ]
    methods = {each: {n.name for n in each.body if isinstance(n, ast.FunctionDef)} for each in classes}
    found = [
        each
        for each in classes
        if {"open", "identity"} <= methods[each] or {"extend", "rewind"} <= methods[each]
    ]
    assert len(found) >= 10
    assert [each.name for each in found if not each.bases] == ["SessionPair"], "which holds two sessions"


@pytest.mark.parametrize("base", [LogitSource, Session])
def test_somebody_else_s_object_keeps_every_member_it_has(base: type) -> None:
    said: dict[str, Any] = {}
    kind = type("Foreign", (), {})
    for name, value in vars(type(probe(base, said))).items():
        if not name.startswith("_"):
            setattr(kind, name, value)
    found: Any = AdaptedSource(kind()) if base is LogitSource else AdaptedSession(kind())
    unlike = {"open", "over", "inner", "identity", "extend", "rewind", "extend_all", "branch_all"}
    unlike |= {"keeps", "joins", "encodes"}  # made bool
    assert not [n for n in members(base) if n not in unlike and not forwarded(found, base, n, said)]


class Plain:
    """A third party's source from before there was a base class: four members, and `encode`.

    It says what runs it, since then: who does not is shown no draft.
    """

    context_length = None
    engine = "in-process"

    def __init__(self, seed: int) -> None:
        self.toy = ToySource(BYTES, seed)

    @property
    def vocabulary(self) -> Vocabulary:
        return BYTES

    def encode(self, prompt: Prompt) -> tuple[int, ...]:
        return self.toy.encode(prompt)

    def open(self, prompts: Sequence[Prompt], scored: int = 0) -> Any:
        session, logits = self.toy.open(prompts, scored)
        return PlainSession(session), logits

    def identity(self) -> Mapping[str, Any]:
        return self.toy.identity()


class PlainSession:
    """Its session: what the protocol asked for, and `keep`."""

    def __init__(self, session: ToySession) -> None:
        self._inside = session
        self.kept: list[Sequence[int]] = []

    @property
    def prompts(self) -> Sequence[ScoredPrompt]:
        return self._inside.prompts

    def extend(self, tokens: Tensor) -> Tensor:
        return self._inside.extend(tokens)

    def rewind(self, lengths: Tensor) -> None:
        self._inside.rewind(lengths)

    def keep(self, rows: Sequence[int]) -> None:
        self.kept.append(rows)
        self._inside.keep(rows)

    def close(self) -> None:
        self._inside.close()

    def __enter__(self) -> PlainSession:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


class TestSomebodyElse(SourceConformance):
    def source(self) -> Any:
        return adapted(Plain(1))


class TestAWrapper(SourceConformance):
    def source(self) -> LogitSource:
        class Around(SourceWrapper):
            def __init__(self) -> None:
                self.source = ToySource(BYTES, 1)

        return Around()


@pytest.mark.parametrize("walk", ["lockstep", "speculative"])
def test_a_source_without_the_base_class_answers_as_it_did(walk: Any) -> None:
    asked = Sampling(max_tokens=12, seed=3)
    plugins = load_plugins(())
    bare = Purifier(Plain(1), Plain(2), plugins.policy("geometric"), walk=walk, plugins=plugins)
    own = pair(ToySource(BYTES, 1), ToySource(BYTES, 2), walk=walk)
    found, expected = (each.generate(["hello", "you there"], asked) for each in (bare, own))
    assert [answer.tokens for answer in found] == [answer.tokens for answer in expected]


def test_a_source_without_the_base_class_still_drops_rows_and_encodes() -> None:
    """`keep` and `encode` were optional and found by name; they are found in such a class as before."""
    source = adapted(Plain(1))
    assert source.encodes
    assert source.encode("ab") == (97, 98)
    session, _ = source.open(["a", "b"])
    assert session.keeps
    session.keep([1])
    assert session.extend(torch.tensor([[1]])).shape == (1, 1, len(BYTES))


def test_what_is_no_source_is_refused_by_what_it_lacks() -> None:
    class Half:
        vocabulary = byte_vocabulary()

        def open(self, prompts: Sequence[Prompt], scored: int = 0) -> None: ...

    with pytest.raises(ConfigError, match="a Half is none: it has no 'context_length', 'identity'"):
        Purifier(Half(), ToySource(BYTES), load_plugins(()).policy("minimum"))  # type: ignore[arg-type]  # what is refused


def test_a_member_that_is_not_offered_says_so() -> None:
    session, _ = ToySource(BYTES).open(["a"])
    with pytest.raises(purify_plugins.SourceError, match="ToySession offers no `branch`"):
        session.branch(torch.zeros(1, 1), torch.zeros(1, 1, 1))


def test_a_remapped_session_reads_a_tree_as_its_own_model_does() -> None:
    """Wrapped, it had no `branch` at all."""
    llm = both()[0]
    size = len(llm.vocabulary)
    turned = RemappedSource(llm, llm.vocabulary, tuple(reversed(range(size))))
    tokens, seen = torch.tensor([[5, 6, 7]]), torch.tensor([[[1, 0, 0], [0, 1, 0], [1, 0, 1]]]).bool()
    ours, theirs = turned.open(["A"])[0], llm.open(["A"])[0]
    assert ours.branches
    read = ours.branch(tokens, seen)
    torch.testing.assert_close(read, theirs.branch(size - 1 - tokens, seen).flip(-1))


# Policies


@dataclass(frozen=True)
class Halfway:
    """A policy of somebody else's class, as the README writes one: five members."""

    guarantee = "none"
    lookback = 0
    alpha: float = 0.5

    def start(self, context: Any) -> Any:
        return ()

    def fuse(self, llm: Tensor, slm: Tensor, state: Any) -> Tensor:
        return self.alpha * llm + (1 - self.alpha) * slm

    def advance(self, state: Any, tokens: Tensor, llm: Tensor, slm: Tensor, fused: Tensor) -> Any:
        return state


@dataclass(frozen=True)
class Knowing(Halfway):
    """The same with optional members, found by their names as before there was a base class."""

    words: int = 0

    def bind(self, vocabulary: Vocabulary) -> Knowing:
        return replace(self, words=len(vocabulary))

    def in_symbols(self, per_token: float) -> Knowing:
        return replace(self, alpha=self.alpha / per_token)

    def holds(self, steps: Sequence[Any]) -> bool:
        return len(steps) < 5

    def allowance(self, tokens: int, surprisal: float) -> float:
        return tokens + surprisal


@pytest.mark.parametrize("walk", ["lockstep", "speculative"])
def test_a_policy_without_the_base_class_answers_as_one_that_has_it(walk: Any) -> None:
    own = pair(ToySource(BYTES, 1), ToySource(BYTES, 2), {"name": "geometric", "alpha": 0.5}, walk=walk)
    bare = pair(ToySource(BYTES, 1), ToySource(BYTES, 2), Halfway(), walk=walk)
    assert bare.given_policy == bare.policy == adapted_policy(Halfway())
    # Draws are keyed by the policy's name, so it is arg-maxes that are the same.
    answers = [
        each.generate(["hello", "you"], Sampling(max_tokens=12, temperature=0)) for each in (bare, own)
    ]
    assert [answer.tokens for answer in answers[0]] == [answer.tokens for answer in answers[1]]
    method = answers[0][0].certificate.body["method"]
    assert (method["policy"], method["parameters"]) == ("Halfway", {"alpha": 0.5})


def test_a_policy_without_the_base_class_keeps_the_optional_members_it_has() -> None:
    policy = adapted_policy(Knowing())
    assert policy.binds
    assert policy.bind(BYTES) == adapted_policy(Knowing(words=257))
    assert policy.in_symbols(2.0) == adapted_policy(Knowing(alpha=0.25))
    assert (policy.holds([]), policy.holds([1] * 5), policy.allowance(2, 1.5)) == (True, False, 3.5)  # type: ignore[list-item]  # counted only
    assert not policy.shift_invariant
    assert pair(ToySource(BYTES, 1), ToySource(BYTES, 2), Knowing()).policy.original == Knowing(words=257)


def test_a_policy_without_the_base_class_lacks_nothing() -> None:
    policy = adapted_policy(Halfway())
    assert (policy.binds, policy.shift_invariant) == (False, False)
    assert policy.bind(BYTES) == policy.in_symbols(3.0) == policy
    assert (policy.holds([]), policy.allowance(3, 2.0)) == (None, None)


def test_a_policy_around_one_without_the_base_class_is_a_policy_around_any() -> None:
    purifier = pair(ToySource(BYTES, 1), ToySource(BYTES, 2), Consistency(Halfway()))
    [answer] = purifier.generate("hello", Sampling(max_tokens=5, seed=1))
    inner = answer.certificate.body["method"]["parameters"]["policy"]
    assert inner == {"name": "Halfway", "alpha": 0.5}
    assert purifier.policy.guarantee == "none"


@pytest.mark.parametrize("wrong", [Halfway, object(), 3.0])
def test_what_is_no_policy_is_refused(wrong: Any) -> None:
    with pytest.raises(ConfigError, match="is no fusion policy; name one of `purify policies`, or subclass"):
        Purifier(ToySource(BYTES, 1), ToySource(BYTES, 2), wrong)


WRAPPED = [
    (FirstTokenSession, "rows", lambda source: FirstTokenSource(source, BYTES)),
    (CopyingSession, "first", CopyingSource),
    (RemappedSession, "gather", lambda source: RemappedSource(source, BYTES, tuple(range(len(BYTES))))),
]


@pytest.mark.parametrize(
    ("kind", "first", "wrapped"), WRAPPED, ids=lambda each: getattr(each, "__name__", "")
)
def test_a_batch_whose_first_row_fails_leaves_no_session_open(
    kind: type, first: str, wrapped: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its caller has none to close yet; on a server it went on until it was collected."""

    def fail(*_: object) -> None:
        raise SourceError("no row")

    monkeypatch.setattr(kind, first, fail)
    source = Watched(ToySource(BYTES, 1))
    with pytest.raises(SourceError, match="no row"):
        wrapped(adapted(source)).open(["hello"])
    assert (len(source.sessions), source.open_sessions) == (1, 0)
