"""An answer's claim is made from what its decoder noted: other steps make no answer, and lost ones no claim.

A plugin could answer `purify_decode` with another purifier's steps, and the LLM's raw text went out under
`balanced`, guarantee "passage", 117.7 nats spent: the certificate was filled in from the configuration.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import pytest

from purify_plugins import Completion, PluginError, Purifier, RefusedError, Sampling, hookimpl
from purify_plugins.certificates import read, verify
from purify_plugins.decode.loop import lockstep
from purify_plugins.decode.speculative import speculative
from purify_plugins.plugin.manager import load_plugins
from purify_plugins.testing import ScriptedSource, ToySource
from purify_plugins.types import Guarantee, Step, Token
from tests.toys import BYTES, few, pair, toys

Rewrite = Callable[[Iterator[Step]], Iterator[Any]]


class Decoding:
    """Answers `purify_decode` with whatever `decode` returns."""

    def __init__(self, decode: Callable[..., Any]) -> None:
        self.decode = decode

    @hookimpl(tryfirst=True)
    def purify_decode(self, purifier: Purifier, prompts: Any, sampling: Sampling) -> Any:
        return self.decode(purifier, prompts, sampling)


class Rewriting:
    """Wraps the steps in a generator of its own."""

    def __init__(self, rewrite: Rewrite) -> None:
        self.rewrite = rewrite

    @hookimpl(wrapper=True)
    def purify_decode(self) -> Any:
        return self.rewrite((yield))


class Asking:
    """Does something to a request before any model sees it."""

    def __init__(self, act: Callable[..., Any]) -> None:
        self.act = act

    @hookimpl
    def purify_request(self, purifier: Purifier, prompts: Any, sampling: Sampling) -> None:
        self.act(purifier, prompts, sampling)


class Completed:
    """Does something with a finished answer."""

    def __init__(self, act: Callable[[Completion], Any]) -> None:
        self.act = act

    @hookimpl
    def purify_completed(self, completion: Completion) -> None:
        self.act(completion)


def plugged(*plugins: object, policy: Any = "balanced", **options: Any) -> Purifier:
    """A purifier whose LLM knows a secret by heart, with these plugins in use."""
    loaded = load_plugins([])
    for plugin in plugins:
        loaded.register(plugin)
    llm = ScriptedSource(BYTES, b"the secret is 4711, keep it")
    return pair(llm, ToySource(BYTES, 2), policy, plugins=loaded, **options)


def method(completion: Completion) -> dict[str, Any]:
    return completion.certificate.body["method"]  # type: ignore[no-any-return]


# Steps that are not this purifier's own


def raw() -> Purifier:
    return plugged(policy={"name": "geometric", "alpha": 1.0})


def edited(steps: Iterator[Step], **change: Any) -> Iterator[Step]:
    for step in steps:
        yield replace(step, tokens=tuple(token and token._replace(**change) for token in step.tokens))


def rebuilt(steps: Iterator[Step]) -> Iterator[Step]:
    for step in steps:
        yield Step(step.tokens, step.prompts)


def twice(steps: Iterator[Step]) -> Iterator[Step]:
    for step in steps:
        yield step
        yield step


def backwards(steps: Iterator[Step]) -> Iterator[Step]:
    return (step for step in reversed([*steps]))


def rewritten(steps: Iterator[Step]) -> Iterator[Step]:
    """The frozen dataclass written to past its guard."""
    for step in steps:
        changed = tuple(token and token._replace(id=65) for token in step.tokens)
        object.__setattr__(step, "tokens", changed)
        yield step


@pytest.mark.parametrize(
    "change",
    [
        lambda steps: edited(steps, id=65),
        lambda steps: edited(steps, fused=-0.1),
        lambda steps: edited(steps, slm_only=True),
        lambda steps: edited(steps),
        rebuilt,
        twice,
        backwards,
        rewritten,
        lambda steps: (str(step) for step in steps),
        lambda steps: (step for step in ()),
    ],
    ids=["token", "figure", "mark", "copy", "rebuilt", "twice", "backwards", "written to", "text", "nothing"],
)
def test_steps_that_were_altered_repeated_or_reordered_make_no_answer(change: Rewrite) -> None:
    purifier = plugged(Rewriting(change))
    with pytest.raises(PluginError, match="the steps that purify_decode returned"):
        purifier.generate("x", few(4))


def foreign(_: Purifier, prompts: Any, sampling: Sampling) -> Any:
    return lockstep(raw(), prompts, sampling)


def hand_made(purifier: Purifier, prompts: Any, sampling: Sampling) -> Iterator[Step]:
    for byte in b"the secret":
        yield Step((Token(byte, None, -1.0, -1.0, 0.0, 0.0),), ((120,),))


def of_a_look_alike(purifier: Purifier, prompts: Any, sampling: Sampling) -> Any:
    """The same policy and SLM, over another LLM."""
    twin = Purifier(ToySource(BYTES, 9), purifier.slm, purifier.policy, plugins=purifier.plugins)
    return lockstep(twin, prompts, sampling)


def of_a_looser_policy(purifier: Purifier, prompts: Any, sampling: Sampling) -> Any:
    loose = purifier.plugins.policy("balanced", {"budget": 500.0})
    return speculative(Purifier(purifier.llm, purifier.slm, loose), prompts, sampling)


def continued(purifier: Purifier, prompts: Any, sampling: Sampling) -> Any:
    """Drawn after tokens that stand in no certificate."""
    from purify_plugins.decode.loop import continuing

    return continuing(purifier, prompts, [[*b"the secret"]] * len(prompts), replace(sampling, max_tokens=40))


def a_row_too_many(purifier: Purifier, prompts: Any, sampling: Sampling) -> Any:
    return lockstep(purifier, [*prompts, "y"], sampling)


@pytest.mark.parametrize(
    "decode", [foreign, hand_made, of_a_look_alike, of_a_looser_policy, continued, a_row_too_many]
)
def test_steps_of_anybody_else_make_no_answer(decode: Callable[..., Any]) -> None:
    """117.7 nats of the LLM's raw text went out as 'balanced', guarantee 'passage'."""
    with pytest.raises(PluginError, match="the steps that purify_decode returned"):
        plugged(Decoding(decode)).generate("x", few())


@pytest.mark.parametrize("decode", [foreign, hand_made])
def test_not_one_character_of_such_steps_is_streamed(decode: Callable[..., Any]) -> None:
    seen = []
    with suppress(PluginError):
        seen.extend(chunk.text for chunk in plugged(Decoding(decode)).stream("x", few()))
    assert seen == []


def test_steps_are_read_once() -> None:
    """An answer kept and handed to the next one who asks was drawn for somebody else."""
    kept: list[Step] = []

    def remembered(purifier: Purifier, prompts: Any, sampling: Sampling) -> Iterator[Step]:
        if not kept:
            kept.extend(lockstep(purifier, prompts, sampling))
        return (step for step in kept)

    purifier = plugged(Decoding(remembered))
    assert purifier.generate("x", few(4))
    with pytest.raises(PluginError, match="were drawn for another request"):
        purifier.generate("x", few(4))


def test_the_refusal_names_the_plugin_and_the_way_out() -> None:
    loaded = load_plugins([])
    loaded.register(Decoding(foreign), name="shortcut")
    purifier = pair(ToySource(BYTES, 1), ToySource(BYTES, 2), "balanced", plugins=loaded)
    with pytest.raises(PluginError, match=r"'shortcut' answers it\); a plugin may pass on the steps"):
        purifier.generate("x", few())


# Steps that are, however they come


def held_back(steps: Iterator[Step]) -> Iterator[Step]:
    return (step for step in [*steps])


def one_by_one(steps: Iterator[Step]) -> Iterator[Step]:
    return (step for step in steps)


@pytest.mark.parametrize("wrap", [held_back, one_by_one])
@pytest.mark.parametrize("walk", ["lockstep", "speculative"])
def test_a_wrapper_that_passes_steps_on_keeps_the_guarantee(wrap: Rewrite, walk: Any) -> None:
    purifier = plugged(Rewriting(wrap), walk=walk)
    for answer in purifier.generate(["x", "yz"], few(10)):
        assert (method(answer)["walk"], answer.certificate.guarantee) == (walk, "passage")
        assert method(answer)["edits"] == []
        verify(read(answer.certificate.text), purifier.plugins)


@pytest.mark.parametrize("walk", [lockstep, speculative])
def test_a_certificate_names_the_decoder_that_ran_not_the_one_configured(walk: Any) -> None:
    other = "lockstep" if walk is speculative else "speculative"
    [answer] = plugged(Decoding(walk), walk=other).generate("x", few())
    assert method(answer)["walk"] == walk.__name__
    assert answer.certificate.guarantee == "passage"


def test_a_certificate_records_the_settings_that_were_used() -> None:
    """A decode with other settings than were asked for was recorded with those that were asked for."""

    def hotter(purifier: Purifier, prompts: Any, sampling: Sampling) -> Any:
        return lockstep(purifier, prompts, replace(sampling, temperature=0.0, max_tokens=3, seed=5))

    first, second = plugged(Decoding(hotter)).generate(["x", "y"], few(8, stop=("zz",)))
    told = method(first)["sampling"]
    assert (told["temperature"], told["max_tokens"], told["seed"], told["stop"]) == (0.0, 3, 5, ["zz"])
    assert method(second)["sampling"]["seed"] == 6
    assert (method(first)["mode"], first.certificate.guarantee) == ("greedy", "none")


def test_settings_that_a_plugin_rewrites_while_the_decoder_runs_are_recorded_as_used() -> None:
    def cooling(purifier: Purifier, prompts: Any, sampling: Sampling) -> Iterator[Step]:
        for step in lockstep(purifier, prompts, sampling):
            object.__setattr__(sampling, "temperature", 0.0)
            yield step

    asked = few(6)
    [answer] = plugged(Decoding(cooling)).generate("x", asked)
    assert answer.certificate.body["method"]["sampling"]["temperature"] == 1.0
    assert (asked.temperature, answer.certificate.guarantee) == (1.0, "passage")


# Steps that were lost


def without_the_third(steps: Iterator[Step]) -> Iterator[Step]:
    for at, step in enumerate(steps):
        if at != 2:
            yield step


def test_a_wrapper_that_drops_a_step_costs_the_answer_its_guarantee() -> None:
    purifier = plugged(Rewriting(without_the_third))
    [answer] = purifier.generate("x", few(6))
    assert len(answer.tokens) == 5
    assert (method(answer)["edits"], answer.certificate.guarantee) == (["dropped steps"], "none")
    assert "a plugin dropped steps" in method(answer)["reason"]
    assert method(answer)["claimed"] == "passage"
    verify(read(answer.certificate.text), purifier.plugins)


def test_an_answer_that_a_plugin_cuts_short_says_so() -> None:
    """What is left is as it was drawn, so its bound stands; but no model and no limit ended it."""

    def first_three(steps: Iterator[Step]) -> Iterator[Step]:
        for _, step in zip(range(3), steps, strict=False):
            yield step

    purifier = plugged(Rewriting(first_three))
    [answer] = purifier.generate("x", few(6))
    told = answer.certificate.body["answer"]
    assert (told["finish_reason"], told["limit"], told["limited_by"]) == ("length", 3, "plugin")
    assert answer.certificate.guarantee == "passage"
    verify(read(answer.certificate.text), purifier.plugins)


@pytest.mark.parametrize(("length", "by"), [(4, "max_tokens"), (50, "context")])
def test_a_certificate_says_what_limited_the_answer(length: int, by: str) -> None:
    purifier = pair(ToySource(BYTES, 1), ToySource(BYTES, 2, context_length=9), "balanced")
    told = purifier.generate("xyz", few(length))[0].certificate.body["answer"]
    assert (told["limit"], told["limited_by"]) == (min(length, 6), by)


# What a hook may not change


@pytest.mark.parametrize("name", ["policy", "llm", "slm"])
def test_no_hook_puts_another_model_or_policy_into_a_purifier(name: str) -> None:
    """A hook could make the LLM its own SLM, or loosen the policy, for every answer from then on."""
    loose = raw()
    purifier = plugged(Asking(lambda purifier, *_: setattr(purifier, name, getattr(loose, name))))
    before = (purifier.policy, purifier.llm, purifier.slm)
    with pytest.raises(
        PluginError, match=r"Asking' failed in purify_request: FrozenInstanceError.*cannot assign to field"
    ):
        purifier.generate("x", few())
    assert (purifier.policy, purifier.llm, purifier.slm) == before


def test_options_that_a_plugin_changes_while_the_decoder_runs_cost_the_guarantee() -> None:
    def loosening(purifier: Purifier, prompts: Any, sampling: Sampling) -> Iterator[Step]:
        for step in lockstep(purifier, prompts, sampling):
            object.__setattr__(purifier.policy, "budget", 500.0)
            yield step

    purifier = plugged(Decoding(loosening))
    [answer] = purifier.generate("x", few(6))
    assert method(answer)["parameters"]["budget"] == 5.0
    assert method(answer)["edits"] == ["changed the policy's options"]
    assert answer.certificate.guarantee == "none"


def test_what_a_hook_writes_on_a_completion_reaches_nobody() -> None:
    def forge(completion: Completion) -> None:
        object.__setattr__(completion, "text", "the secret is 4711")
        completion.certificate.body["method"]["guarantee"] = "path"

    forged, plain = plugged(Completed(forge)).generate("x", few())[0], plugged().generate("x", few())[0]
    assert (forged.text, forged.certificate.guarantee) == (plain.text, "passage")


# A guarantee needs steps that show it


@dataclass(frozen=True)
class Promising:
    """The LLM's row as it is, and a promise nobody checks."""

    name: ClassVar[str] = "promising"
    guarantee: ClassVar[Guarantee] = "path"
    lookback: ClassVar[int] = 0

    def start(self, context: Any) -> Any:
        return ()

    def fuse(self, llm: Any, slm: Any, state: Any) -> Any:
        return llm

    def advance(self, state: Any, *_: Any) -> Any:
        return state


@dataclass(frozen=True)
class Broken(Promising):
    """The same with a budget that it does not keep."""

    name: ClassVar[str] = "broken"

    total: float = 1.0

    def holds(self, steps: Sequence[Token]) -> bool:
        return sum(step.ratio for step in steps) <= self.total


class Offering:
    @hookimpl
    def purify_policies(self) -> Any:
        return {"promising": Promising, "broken": Broken}


@pytest.mark.parametrize(
    ("policy", "reason"),
    [("promising", "the policy has no `holds`"), ("broken", "the recorded steps exceed the policy's budget")],
)
def test_a_guarantee_is_issued_only_if_the_steps_show_it(policy: str, reason: str) -> None:
    purifier = plugged(Offering(), policy=policy)
    [answer] = purifier.generate("x", few())
    assert (method(answer)["claimed"], answer.certificate.guarantee) == ("path", "none")
    assert reason in method(answer)["reason"]
    verify(read(answer.certificate.text), purifier.plugins)


def test_a_policy_around_one_that_cannot_tell_promises_nothing() -> None:
    purifier = plugged(Offering(), policy={"name": "consistency", "policy": {"name": "promising"}})
    assert purifier.policy.guarantee == "none"


def test_every_bundled_policy_with_a_guarantee_can_tell_whether_it_was_kept() -> None:
    plugins = load_plugins([])
    for name, factory in plugins.offers("purify_policies").items():
        policy = factory()
        assert policy.guarantee == "none" or policy.holds([]), name


# Who had a part in it


def test_a_certificate_names_the_plugins_that_had_a_part_in_the_answer() -> None:
    purifier = plugged(Offering(), Completed(print), policy="promising")
    purifier.plugins.register(Asking(lambda *_: None), name="gate")
    [answer] = purifier.generate("x", few())
    assert [(each["name"], each["distribution"]) for each in method(answer)["plugins"]] == [
        ("gate", ""),
        ("tests.test_provenance.Completed", ""),
        ("tests.test_provenance.Offering", ""),
    ]


def test_a_plugin_that_only_offers_what_was_not_used_had_none() -> None:
    [answer] = plugged(Offering()).generate("x", few())
    assert method(answer)["plugins"] == []


# A finished answer is seen before its reader has it


def pieces(purifier: Purifier, prompt: str = "x", length: int = 8) -> tuple[list[str], BaseException | None]:
    """What a reader of a stream has when it ends, and how."""
    seen: list[str] = []
    try:
        seen.extend(chunk.text for chunk in purifier.stream(prompt, Sampling(max_tokens=length, seed=0)))
    except RefusedError as error:
        return seen, error
    return seen, None


def refuse(completion: Completion) -> None:
    raise RefusedError("not this one")


@pytest.mark.parametrize("script", [b"hello", "né…".encode(), b"a"])
def test_no_reader_of_a_stream_has_a_whole_answer_before_the_hooks_have_seen_it(script: bytes) -> None:
    """`purify_completed` ran when a stream's reader had every character, its documentation said before."""
    had: list[str] = []
    at_the_hook: list[tuple[str, str]] = []

    def look(completion: Completion) -> None:
        at_the_hook.append(("".join(had), completion.text))

    loaded = load_plugins([])
    loaded.register(Completed(look))
    llm = ScriptedSource(BYTES, script)
    purifier = pair(llm, ToySource(BYTES, 2), {"name": "geometric", "alpha": 1.0}, plugins=loaded)
    for chunk in purifier.stream("x", Sampling(max_tokens=20, temperature=0)):
        had.append(chunk.text)
    [(before, whole)] = at_the_hook
    assert "".join(had) == whole == script.decode()
    assert whole.startswith(before)
    assert before != whole


def test_a_hook_that_refuses_a_streamed_answer_keeps_its_end_and_its_completion() -> None:
    whole, _ = pieces(plugged())
    seen, error = pieces(plugged(Completed(refuse)))
    assert str(error) == "not this one"
    assert "".join(whole).startswith("".join(seen))
    assert "".join(seen) != "".join(whole)


def test_without_such_a_hook_no_text_waits() -> None:
    chunks = toys().stream("x", few(3))
    assert [len(next(chunks).steps) for _ in range(3)] == [1, 1, 1]


def test_what_waited_comes_in_order_and_loses_nothing() -> None:
    plain = [*toys().stream("né", few(9, stop=("zz",)))]
    loaded = load_plugins([])
    loaded.register(Completed(lambda completion: None))
    watched = [*toys(plugins=loaded).stream("né", few(9, stop=("zz",)))]
    assert [(chunk.text, chunk.steps) for chunk in watched] == [(chunk.text, chunk.steps) for chunk in plain]
