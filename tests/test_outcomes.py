"""What is wrong with one prompt costs no other its answer."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import Tensor

from purify_plugins import (
    Completion,
    ConfigError,
    FusionPolicy,
    Grammar,
    LogitSource,
    NumericError,
    PluginError,
    PromptError,
    Purifier,
    PurifyError,
    RefusedError,
    Sampling,
    SourceError,
    hookimpl,
)
from purify_plugins.certificates import verify
from purify_plugins.decode.loop import lockstep
from purify_plugins.plugin.manager import Plugins, load_plugins
from purify_plugins.protocols import Session
from purify_plugins.sources.wrapper import SessionWrapper, SourceWrapper
from purify_plugins.testing import ToySource, letters
from purify_plugins.types import Chunk, Failed, Prompt, Refused, Step
from tests.toys import BYTES, Failing, Watched, few, pair, toys

THREE = ["fine", "a secret", "good"]


def secret(prompts: Sequence[Prompt]) -> bool:
    return any("secret" in str(prompt) for prompt in prompts)


class Asked:
    """Refuses before any model has read a prompt."""

    @hookimpl
    def purify_request(self, prompts: Any) -> None:
        if secret(prompts):
            raise RefusedError("no secrets")


class Decoding:
    """Refuses where the decoder is asked for."""

    @hookimpl(wrapper=True)
    def purify_decode(self, prompts: Any) -> Any:
        if secret(prompts):
            raise RefusedError("no secrets")
        return (yield)


class Completed:
    """Refuses an answer to a prompt that is longer than the others'."""

    @hookimpl
    def purify_completed(self, completion: Completion) -> None:
        if len(completion.certificate.body["prompt"]) == len("a secret"):
            raise RefusedError("no secrets")


def plugged(*plugins: object, **options: Any) -> Purifier:
    return toys(plugins=registered(*plugins), **options)


def registered(*plugins: object) -> Plugins:
    loaded = load_plugins([])
    for plugin in plugins:
        loaded.register(plugin)
    return loaded


def shown(found: Sequence[Any]) -> list[str]:
    """Each outcome's tokens, or its error, as text."""
    return [
        str(each.tokens) if isinstance(each, Completion) else f"{type(each).__name__}: {each.error}"
        for each in found
    ]


def alone(prompts: Sequence[str], sampling: Sampling, **options: Any) -> list[str]:
    """The tokens that each prompt would have alone, at its number's seed."""
    assert sampling.seed is not None
    seeds = [Sampling(**{**vars(sampling), "seed": sampling.seed + row}) for row in range(len(prompts))]
    each = (toys(**options).generate(prompt, seed)[0] for prompt, seed in zip(prompts, seeds, strict=True))
    return [str(answer.tokens) for answer in each]


HOOKS = pytest.mark.parametrize("plugin", [Asked(), Decoding(), Completed()], ids=["asked", "decode", "done"])
WALKS = pytest.mark.parametrize("walk", ["lockstep", "speculative"])


@HOOKS
@WALKS
def test_a_refusal_of_one_prompt_costs_its_neighbours_nothing(plugin: object, walk: Any) -> None:
    """For one of three prompts a plugin's refusal lost the other two."""
    found = plugged(plugin, walk=walk).generate(THREE, few(seed=7))
    expected = alone(THREE, few(seed=7), walk=walk)
    assert shown(found) == [expected[0], "Refused: no secrets", expected[2]]
    for each in found[::2]:
        verify(each.certificate, load_plugins([]))


@HOOKS
@pytest.mark.anyio
async def test_so_it_is_without_blocking_the_event_loop(plugin: object) -> None:
    found = await plugged(plugin).agenerate(THREE, few())
    assert [type(each).__name__ for each in found] == ["Completion", "Refused", "Completion"]


@HOOKS
def test_a_prompt_alone_that_is_refused_raises(plugin: object) -> None:
    purifier = plugged(plugin)
    for ask in (
        lambda: purifier.generate("a secret", few()),
        lambda: purifier.chat([{"role": "user", "content": "a secret"}], few()),
        lambda: list(purifier.stream("a secret", few())),
        lambda: asyncio.run(purifier.agenerate("a secret", few())),
    ):
        with pytest.raises(RefusedError, match=r"^no secrets$"):
            ask()


@HOOKS
def test_prompts_that_are_all_refused_in_the_same_words_raise(plugin: object) -> None:
    with pytest.raises(RefusedError, match=r"^no secrets$"):
        plugged(plugin).generate(["a secret", "a secret"], few())


def test_an_error_is_raised_for_one_where_the_caller_asks_for_it() -> None:
    purifier = plugged(Completed())
    with pytest.raises(RefusedError, match=r"^no secrets$"):
        purifier.generate(THREE, few(), errors="raise")
    with pytest.raises(RefusedError, match=r"^no secrets$"):
        asyncio.run(purifier.agenerate(THREE, few(), errors="raise"))
    assert len(purifier.generate(THREE[::2], few(), errors="raise")) == 2


@pytest.mark.parametrize("name", ["text", "tokens", "finish_reason", "steps", "certificate"])
def test_a_refusal_is_not_taken_for_an_answer_by_accident(name: str) -> None:
    [_, refused, _] = plugged(Asked()).generate(THREE, few())
    assert isinstance(refused, Refused)
    with pytest.raises(RefusedError, match="no secrets"):
        getattr(refused, name)


def test_every_prompt_may_have_an_error_of_its_own() -> None:
    class Naming:
        @hookimpl
        def purify_request(self, prompts: Any) -> None:
            raise RefusedError(f"{', '.join(prompts)}: not answered")

    class Told:
        @hookimpl
        def purify_completed(self, completion: Completion) -> None:
            raise RefusedError(f"nothing of {len(completion.certificate.body['prompt'])} tokens")

    found = plugged(Naming()).generate(["x", "y"], few())
    assert shown(found) == ["Refused: x: not answered", "Refused: y: not answered"]
    found = plugged(Told()).generate(["x", "yz"], few())
    assert shown(found) == ["Refused: nothing of 1 tokens", "Refused: nothing of 2 tokens"]


def test_prompts_that_are_all_refused_have_each_their_own_error() -> None:
    class Choosy:
        @hookimpl
        def purify_request(self, prompts: Any) -> None:
            for prompt in prompts:
                raise RefusedError("refused x") if "x" in prompt else ConfigError("wrong y")

    found = plugged(Choosy()).generate(["x alice", "y bob"], few())
    assert shown(found) == ["Refused: refused x", "Failed: wrong y"]


def test_a_plugin_sees_each_prompt_alone() -> None:
    seen: list[list[str]] = []

    class Seeing:
        @hookimpl
        def purify_request(self, prompts: Any) -> None:
            seen.append([*prompts])

    plugged(Seeing()).generate(THREE, few())
    assert seen == [[prompt] for prompt in THREE]


def test_no_model_reads_a_prompt_that_is_refused() -> None:
    llm, slm = Watched(ToySource(BYTES, 1)), Watched(ToySource(BYTES, 2))
    pair(llm, slm, plugins=registered(Asked())).generate(THREE, few())
    for source in (llm, slm):
        read = [BYTES.spell(prompt.tokens) for session in source.sessions for prompt in session.prompts]
        assert read == [b"fine", b"good"]
        assert source.open_sessions == 0


def test_seeds_stay_with_their_prompts_whatever_is_refused() -> None:
    found = plugged(Asked(), batch_size=2).generate(["a secret", *THREE, "last"], few(seed=3))
    expected = alone(["a secret", *THREE, "last"], few(seed=3))
    assert shown(found) == [
        "Refused: no secrets",
        expected[1],
        "Refused: no secrets",
        expected[3],
        expected[4],
    ]


# Failures


def short(prompts: Sequence[str], **options: Any) -> list[Any]:
    """The outcomes of prompts where the LLM's context has seven tokens."""
    llm = ToySource(BYTES, 1, context_length=7)
    return pair(llm, ToySource(BYTES, 2), **options).generate(prompts, few())


@WALKS
def test_a_prompt_that_is_too_long_costs_its_neighbours_nothing(walk: Any) -> None:
    found = short(["fine", "much too long", "good"], walk=walk)
    assert [type(each).__name__ for each in found] == ["Completion", "Failed", "Completion"]
    assert isinstance(found[1].error, PromptError)
    assert [len(each.tokens) for each in found[::2]] == [3, 3]


def test_prompts_that_are_too_long_in_different_ways_are_told_apart() -> None:
    found = short(["much too long", "much, much too long"])
    assert "13 tokens" in str(found[0].error)
    assert "19 tokens" in str(found[1].error)


@WALKS
def test_what_is_whole_when_a_model_fails_is_an_answer(walk: Any) -> None:
    """A failure of the batch's longest answer lost those that had ended before it."""
    llm, slm = Failing(BYTES, 1, at=5), ToySource(BYTES, 2, context_length=14)
    found = pair(llm, slm, walk=walk).generate(["long prompt", "x"], few())
    assert [type(each).__name__ for each in found] == ["Completion", "Failed"]
    assert len(found[0].tokens) == 3
    assert isinstance(found[1].error, SourceError)


# A row that breaks while it is decoded


@dataclass(frozen=True)
class Breaking(ToySource):
    """A toy whose rows after `at` tokens of an answer to "bad" are `value`; its sessions may drop rows."""

    at: int = 3
    value: float = math.nan
    keeps: bool = True

    def logits(self, tokens: Sequence[int]) -> Tensor:
        broken = tuple(tokens[:3]) == tuple(b"bad") and len(tokens) - 3 >= self.at
        return torch.full((len(self.vocabulary),), self.value) if broken else super().logits(tokens)

    def open(self, prompts: Sequence[Prompt], scored: int = 0) -> Any:
        session, logits = super().open(prompts, scored)
        return (session if self.keeps else Whole(session)), logits


class Whole(SessionWrapper):
    """A session that drops no row."""

    keeps = False

    def __init__(self, session: Session) -> None:
        self.session = session


@dataclass(frozen=True)
class Choosy(FusionPolicy):
    """A policy that breaks in one of its methods, at the row of the shortest prompt, after `most` tokens."""

    method: str = "fuse"
    most: int = 3
    lookback = 8

    def start(self, context: Any) -> Any:
        return (torch.zeros(context.rows), context.lengths)

    def fuse(self, llm: Tensor, slm: Tensor, state: Any) -> Tensor:
        self._look("fuse", *state)
        return (llm + slm) / 2

    def advance(self, state: Any, tokens: Tensor, llm: Tensor, slm: Tensor, fused: Tensor) -> Any:
        self._look("advance", *state)
        return state[0] + 1, state[1]

    def _look(self, method: str, drawn: Tensor, lengths: Tensor) -> None:
        if method == self.method and bool(((lengths == 2) & (drawn >= self.most)).any()):
            raise ZeroDivisionError("a prompt of three bytes")


class Offering:
    @hookimpl
    def purify_policies(self) -> Any:
        return {"choosy": Choosy}


PROMPTS = ["fine", "bad", "good"]
ASKED = [
    few(),
    few(temperature=0),
    few(12, temperature=0.7, top_k=5, repetition_penalty=1.2, ignore_eos=False, stop=("q",)),
]
DRAWN = pytest.mark.parametrize("sampling", ASKED, ids=["sampled", "greedy", "narrowed"])
KEEPS = pytest.mark.parametrize("keeps", [True, False], ids=["dropped", "kept"])


def require_one_failure(found: list[Any], expected: list[Any], words: str) -> None:
    assert [type(each).__name__ for each in found] == ["Completion", "Failed", "Completion"]
    assert words in str(found[1].error)
    assert [found[0].tokens, found[2].tokens] == [expected[0].tokens, expected[2].tokens]
    for each in found[::2]:
        verify(each.certificate, load_plugins([]))


@DRAWN
@KEEPS
@pytest.mark.parametrize("side", ["llm", "slm"])
@pytest.mark.parametrize("at", [0, 3])
@WALKS
def test_a_row_that_a_model_breaks_fails_alone(
    walk: Any, side: str, keeps: bool, at: int, sampling: Sampling
) -> None:
    """NaN in one of three rows lost three answers."""

    def asked(where: int) -> list[Any]:
        llm = Breaking(BYTES, 1, at=where if side == "llm" else 99, keeps=keeps)
        slm = Breaking(BYTES, 2, at=where if side == "slm" else 99, keeps=keeps)
        return pair(llm, slm, "windowed", walk=walk).generate(PROMPTS, sampling)

    require_one_failure(asked(at), asked(99), "NaN, +inf or no possible token")


@DRAWN
@KEEPS
@pytest.mark.parametrize("method", ["fuse", "advance"])
@pytest.mark.parametrize("most", [0, 2])
@WALKS
def test_a_row_that_a_policy_breaks_at_fails_alone(
    walk: Any, method: str, most: int, keeps: bool, sampling: Sampling
) -> None:
    def asked(which: str) -> list[Any]:
        llm, slm = (Breaking(BYTES, seed, at=99, keeps=keeps) for seed in (1, 2))
        plugins = registered(Offering())
        policy = plugins.policy({"name": "choosy", "method": which, "most": most})
        return pair(llm, slm, policy, plugins=plugins, walk=walk).generate(PROMPTS, sampling)

    found, expected = asked(method), asked("never")
    assert [type(each).__name__ for each in found] == ["Completion", "Failed", "Completion"]
    assert f"the policy Choosy failed in {method}: ZeroDivisionError" in str(found[1].error)
    if sampling.greedy:  # otherwise its option, which is another, keys other draws
        assert [found[0].tokens, found[2].tokens] == [expected[0].tokens, expected[2].tokens]


@WALKS
def test_a_row_that_is_stuck_in_its_grammar_fails_alone(walk: Any) -> None:
    """The SLM rules out all that the grammar allows after "bad"; the other rows' answers were lost too."""

    def asked(at: int) -> list[Any]:
        slm = Ending(Breaking(BYTES, 2, at=at, value=-math.inf))
        sampling = Sampling(max_tokens=6, seed=0, grammar=Grammar("regex", "[a-d]{6}"))
        return pair(ToySource(BYTES, 1), slm, walk=walk).generate(PROMPTS, sampling)

    require_one_failure(asked(3), asked(99), "no probability to any token that the grammar")


class Ending(SourceWrapper):
    """Where the source gives nothing any mass, an end has all: fine as a row, and no word of a grammar."""

    def __init__(self, source: LogitSource) -> None:
        self.source = source

    def open(self, prompts: Sequence[Prompt], scored: int = 0) -> Any:
        session, logits = self.source.open(prompts, scored)
        return EndingSession(session), ended(logits)


class EndingSession(SessionWrapper):
    def __init__(self, session: Session) -> None:
        self.session = session

    def extend(self, tokens: Tensor) -> Tensor:
        return ended(self.session.extend(tokens))


def ended(logits: Tensor) -> Tensor:
    empty = torch.isneginf(logits).all(dim=-1)
    logits[..., -1] = torch.where(empty, 0.0, logits[..., -1])
    return logits


@WALKS
def test_rows_that_all_break_raise(walk: Any) -> None:
    llm = Breaking(BYTES, 1, at=2)
    with pytest.raises(NumericError, match="the LLM returned NaN"):
        pair(llm, ToySource(BYTES, 2), "windowed", walk=walk).generate(["bad", "bad"], few())


@dataclass(frozen=True)
class Late(ToySource):
    """A toy that breaks after as many tokens of an answer as the prompt's last digit says."""

    def logits(self, tokens: Sequence[int]) -> Tensor:
        number = tokens[3] - ord("0") if len(tokens) > 3 and tuple(tokens[:3]) == tuple(b"bad") else 99
        broken = len(tokens) - 4 >= number
        return torch.full((len(self.vocabulary),), math.nan) if broken else super().logits(tokens)


@WALKS
def test_rows_may_break_one_after_another(walk: Any) -> None:
    prompts = ["bad1", "fine", "bad2", "bad3"]
    found = pair(Late(BYTES, 1), ToySource(BYTES, 2), "windowed", walk=walk).generate(prompts, few())
    assert [type(each).__name__ for each in found] == ["Failed", "Completion", "Failed", "Failed"]
    expected = toys("windowed", walk=walk).generate(prompts, few())
    assert found[1].tokens == expected[1].tokens


@dataclass(frozen=True)
class Afterlife(ToySource):
    """A toy that says "bb" after two tokens and then ends; after an end, or six tokens, all is NaN."""

    def logits(self, tokens: Sequence[int]) -> Tensor:
        if self.seed == 1 and (self.vocabulary.eos & set(tokens) or len(tokens) > 5):
            return torch.full((3,), math.nan)
        return torch.full((3,), -30.0).index_fill(0, torch.tensor(1 if len(tokens) < 4 else 2), 0.0)


@WALKS
@pytest.mark.parametrize("sampling", [Sampling(temperature=0), Sampling(seed=3), Sampling()])
def test_what_lies_past_an_answer_s_end_cannot_fail_it(walk: Any, sampling: Sampling) -> None:
    toy = [Afterlife(letters("ab"), seed=seed) for seed in (1, 2)]
    found = pair(*toy, walk=walk).generate(["aa", "aa"], sampling)
    assert [(each.text, each.finish_reason) for each in found] == [("bb", "eos")] * 2


@dataclass(frozen=True)
class Never(ToySource):
    """A toy that never says "b", after which its grammar has a dead end."""

    def logits(self, tokens: Sequence[int]) -> Tensor:
        return torch.tensor([0.0, -60.0, 0.0, 0.0])


@WALKS
def test_a_draft_into_a_grammar_s_dead_end_fails_nothing(walk: Any) -> None:
    vocabulary = letters("abd")
    slm = ToySource(vocabulary, seed=2, sharpness=0.3)
    grammar = Grammar("regex", "[ad]((a|bc)[ad]){3}")
    sampling = Sampling(max_tokens=8, grammar=grammar)  # with a seed little is drafted
    for _ in range(10):
        found = pair(Never(vocabulary), slm, walk=walk).generate(["ab", "ba"], sampling)
        assert [type(each) for each in found] == [Completion, Completion]


@dataclass(frozen=True)
class Fussy(FusionPolicy):
    """A policy that breaks after whatever token."""

    def start(self, context: Any) -> Any:
        return (torch.zeros(context.rows),)

    def fuse(self, llm: Tensor, slm: Tensor, state: Any) -> Tensor:
        return llm

    def advance(self, state: Any, token: Tensor, llm: Tensor, slm: Tensor, fused: Tensor) -> Any:
        raise ValueError(f"not after {token.tolist()}")


@WALKS
def test_prompts_of_which_a_token_was_drawn_are_not_drawn_again(
    walk: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[int] = []
    source = ToySource.open

    def opening(self: ToySource, prompts: Sequence[Prompt], scored: int = 0) -> Any:
        opened.append(len(prompts))
        return source(self, prompts, scored)

    monkeypatch.setattr(ToySource, "open", opening)
    toys = [ToySource(BYTES, seed) for seed in (1, 2)]
    found = pair(*toys, Fussy(), walk=walk).generate(["x", "y"], Sampling(max_tokens=3, ignore_eos=True))
    assert [type(each) for each in found] == [Failed, Failed]
    assert opened == [2, 2]


# Plugins that break


def breaking(hook: str) -> object:
    class Breaking:
        @hookimpl
        def purify_request(self, prompts: Any) -> None:
            if hook == "purify_request" and secret(prompts):
                raise ZeroDivisionError("oops")

        @hookimpl(wrapper=True)
        def purify_decode(self, prompts: Any) -> Any:
            if hook == "purify_decode" and secret(prompts):
                raise ZeroDivisionError("oops")
            return (yield)

        @hookimpl
        def purify_completed(self, completion: Completion) -> None:
            if hook == "purify_completed" and len(completion.certificate.body["prompt"]) == 8:
                raise ZeroDivisionError("oops")

    return Breaking()


@pytest.mark.parametrize("hook", ["purify_request", "purify_decode", "purify_completed"])
def test_a_plugin_that_breaks_is_named_with_its_hook(hook: str) -> None:
    """Its user saw a bare ZeroDivisionError."""
    loaded = load_plugins([])
    loaded.register(breaking(hook), name="gate")
    [first, broken, last] = toys(plugins=loaded).generate(THREE, few())
    assert isinstance(broken, Failed)
    assert isinstance(broken.error, PluginError)
    assert str(broken.error) == f"plugin 'gate' failed in {hook}: ZeroDivisionError('oops')"
    assert isinstance(broken.error.__cause__, ZeroDivisionError)
    assert len(first.tokens) == len(last.tokens) == 8


def test_a_plugin_that_breaks_among_the_steps_is_named() -> None:
    class Halving:
        @hookimpl(wrapper=True)
        def purify_decode(self) -> Any:
            return self.halved((yield))

        def halved(self, steps: Any) -> Iterator[Step]:
            for number, step in enumerate(steps):
                assert 1 / (2 - number)
                yield step

    with pytest.raises(PluginError, match=r"Halving' failed in purify_decode: ZeroDivisionError"):
        plugged(Halving()).generate("x", few())


@dataclass(frozen=True)
class Odd(FusionPolicy):
    """A policy that breaks in the method it is told to."""

    method: str = "fuse"

    def start(self, context: Any) -> Any:
        return (self._of("start", context.lengths),)

    def fuse(self, llm: Tensor, slm: Tensor, state: Any) -> Tensor:
        return self._of("fuse", slm)

    def advance(self, state: Any, tokens: Tensor, llm: Tensor, slm: Tensor, fused: Tensor) -> Any:
        return (self._of("advance", state[0]),)

    def _of(self, method: str, found: Tensor) -> Tensor:
        if method == self.method:
            raise ZeroDivisionError("oops")
        return found


@pytest.mark.parametrize("method", ["start", "fuse", "advance"])
@WALKS
def test_a_policy_that_breaks_is_named_with_its_method(method: str, walk: Any) -> None:
    with pytest.raises(PluginError, match=rf"the policy Odd failed in {method}: ZeroDivisionError"):
        toys(Odd(method), walk=walk).generate("x", few())


# Prompts that plugins rewrite


class Returning:
    @hookimpl
    def purify_request(self, prompts: Any) -> Any:
        return [f"{prompt}!" for prompt in prompts]


class Writing:
    @hookimpl
    def purify_request(self, prompts: Any) -> None:
        prompts[:] = [f"{prompt}?" for prompt in prompts]


class Fixed:
    @hookimpl
    def purify_request(self) -> Any:
        return ["z"]


@pytest.mark.parametrize(
    ("plugins", "read"),
    [
        ([Returning()], [b"x!", b"y!"]),
        ([Writing()], [b"x?", b"y?"]),
        ([Writing(), Returning()], [b"x!?", b"y!?"]),
        ([Returning(), Writing()], [b"x?!", b"y?!"]),
        ([Fixed()], [b"z", b"z"]),
    ],
    ids=["returned", "written to", "returned, then written to", "written to, then returned", "all new"],
)
def test_a_prompt_that_a_plugin_rewrites_is_what_is_answered(
    plugins: list[object], read: list[bytes]
) -> None:
    """A list that `purify_request` returned was ignored; only one that was written to counted."""
    given = ["x", "y"]
    found = plugged(*plugins).generate(given, few())
    assert [BYTES.spell(each.certificate.body["prompt"]) for each in found] == read
    assert given == ["x", "y"]


@pytest.mark.parametrize(
    ("made", "error", "words"),
    [
        ([], PluginError, "purify_request made 0 prompts of 1"),
        ([""], PromptError, "the prompt is empty"),
        (3, PluginError, "failed in purify_request"),
    ],
)
def test_what_a_plugin_makes_of_prompts_is_looked_at(made: Any, error: type, words: str) -> None:
    class Making:
        @hookimpl
        def purify_request(self, prompts: Any) -> Any:
            return made if prompts == ["x"] else None

    failed, whole = plugged(Making()).generate(["x", "y"], few())
    with pytest.raises(error, match=words):
        failed.text  # noqa: B018  # which raises
    assert isinstance(whole, Completion)


# Steps are a plain iterator


Listing = Callable[[Iterator[Step]], Iterator[Step]]


def through_a_list(steps: Iterator[Step]) -> Iterator[Step]:
    yield from list(steps)


def one_by_one(steps: Iterator[Step]) -> Iterator[Step]:
    for number, step in enumerate(steps):
        assert number < 1000
        yield step


@pytest.mark.parametrize("wrap", [through_a_list, one_by_one])
@WALKS
def test_a_wrapper_may_read_the_steps_as_it_likes(wrap: Listing, walk: Any) -> None:
    """`yield from list(steps)` crashed: a list has no `send`, by which the walk learned what had ended."""

    class Wrapping:
        @hookimpl(wrapper=True)
        def purify_decode(self) -> Any:
            return wrap((yield))

    asked = few(24, stop=("e", "a"), seed=5)
    found = plugged(Wrapping(), walk=walk).generate(["x", "yz"], asked)
    plain = toys(walk=walk).generate(["x", "yz"], asked)
    assert [(each.text, each.finish_reason) for each in found] == [(p.text, p.finish_reason) for p in plain]
    assert [each.tokens for each in found] == [each.tokens for each in plain]


def test_rows_that_a_caller_has_seen_enough_of_get_no_more_tokens() -> None:
    finished: set[int] = set()
    lengths = [0, 0]
    for step in lockstep(toys(walk="lockstep"), ["x", "yz"], few(8), finished):
        lengths = [n + (token is not None) for n, token in zip(lengths, step.tokens, strict=True)]
        if lengths[0] == 3:
            finished.add(0)
    assert lengths == [3, 8]


def test_a_stream_is_chunks_and_then_the_completion() -> None:
    chunks = list(toys().stream("x", few()))
    assert all(isinstance(each, Chunk) for each in chunks)
    assert [each.completion is not None for each in chunks] == [False] * (len(chunks) - 1) + [True]


def test_every_error_that_a_prompt_can_have_is_one_of_ours() -> None:
    assert issubclass(RefusedError, PurifyError)
    assert {type(each) for each in plugged(Asked()).generate(THREE, few())} == {Completion, Refused}
