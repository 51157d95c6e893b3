"""What is wrong with one prompt costs no other its answer."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest

from purify_plugins import (
    Completion,
    FusionPolicy,
    PluginError,
    PromptError,
    Purifier,
    PurifyError,
    RefusedError,
    Sampling,
    SourceError,
    hookimpl,
)
from purify_plugins.certificate import verify
from purify_plugins.decode.lockstep import lockstep
from purify_plugins.plugins import Plugins, load_plugins
from purify_plugins.testing import ToySource
from purify_plugins.types import Chunk, Failed, Prompt, Refused, Step
from tests.toys import BYTES, Failing, Watched, few, pair, toys

if TYPE_CHECKING:
    from torch import Tensor

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

    with pytest.raises(RefusedError, match="x, y: not answered"):
        plugged(Naming()).generate(["x", "y"], few())
    found = plugged(Told()).generate(["x", "yz"], few())
    assert shown(found) == ["Refused: nothing of 1 tokens", "Refused: nothing of 2 tokens"]


def test_a_limit_on_how_many_prompts_there_are_is_no_limit_on_each() -> None:
    class Few:
        @hookimpl
        def purify_request(self, prompts: Any) -> None:
            if len(prompts) > 2:
                raise RefusedError("two prompts at most")

    with pytest.raises(RefusedError, match="two prompts at most"):
        plugged(Few()).generate(THREE, few())
    with pytest.raises(RefusedError, match=r"two prompts at most|no secrets"):
        plugged(Few(), Asked()).generate([*THREE, "more"], few(), errors="raise")


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
        return ["z", "zz"]


@pytest.mark.parametrize(
    ("plugins", "read"),
    [
        ([Returning()], [b"x!", b"y!"]),
        ([Writing()], [b"x?", b"y?"]),
        ([Writing(), Returning()], [b"x!?", b"y!?"]),
        ([Returning(), Writing()], [b"x?!", b"y?!"]),
        ([Fixed()], [b"z", b"zz"]),
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
        (["x"], PluginError, "purify_request made 1 prompts of 2"),
        (["x", ""], PromptError, "the prompt is empty"),
        (3, PluginError, "failed in purify_request"),
    ],
)
def test_what_a_plugin_makes_of_prompts_is_looked_at(made: Any, error: type, words: str) -> None:
    class Making:
        @hookimpl
        def purify_request(self, prompts: Any) -> Any:
            return made if len(prompts) == 2 else [made]

    with pytest.raises(error, match=words):
        plugged(Making()).generate(["x", "y"], few())


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
