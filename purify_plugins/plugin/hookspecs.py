"""Every hook, one sentence and one example each.

Hooks choose the objects; objects do the work. No hook runs per token, and none can say "skip
purification". An implementation may leave out the arguments it does not need.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import pluggy

if TYPE_CHECKING:
    from purify_plugins.decode.row import Row
    from purify_plugins.policy import FusionPolicy
    from purify_plugins.protocols import LogitSource
    from purify_plugins.sampling import Sampling
    from purify_plugins.types import Completion, Prompt, Remarks, Steps, ToolFormat

hookspec = pluggy.HookspecMarker("purify")
hookimpl = pluggy.HookimplMarker("purify")
Purifier = Any
"""`purify_plugins.Purifier`, which imports this module."""


@hookspec
def purify_policies() -> Mapping[str, Callable[..., FusionPolicy]]:  # type: ignore[empty-body]  # pluggy never calls a specification
    """Offer fusion policies: a name and the frozen dataclass it stands for.

    >>> @hookimpl
    ... def purify_policies():
    ...     return {"half": Half}
    """


@hookspec
def purify_sources() -> Mapping[str, Callable[..., LogitSource]]:  # type: ignore[empty-body]  # pluggy never calls a specification
    """Offer ways to reach a model: a name and what opens it; its arguments are the configuration keys.

    What it opens is a `LogitSource`: a base class whose optional members have defaults. An object of another
    class that has its four required members works too.

    >>> @hookimpl
    ... def purify_sources():
    ...     return {"toy": lambda seed=0: ToySource(byte_vocabulary(), seed)}
    """


@hookspec
def purify_adapters() -> Mapping[str, Callable[..., Any]]:  # type: ignore[empty-body]  # pluggy never calls a specification
    """Offer bridges to other frameworks: a name and what builds one around a purifier.

    >>> @hookimpl
    ... def purify_adapters():
    ...     return {"callable": lambda purifier: lambda prompt: purifier.generate([prompt])[0].text}
    """


@hookspec
def purify_tool_formats() -> Mapping[str, Callable[..., ToolFormat]]:  # type: ignore[empty-body]  # pluggy never calls a specification
    """Offer ways of writing tool calls: a name and what returns the ToolFormat.

    >>> @hookimpl
    ... def purify_tool_formats():
    ...     return {"angled": lambda: ToolFormat("<call>", "</call>", sign="<call>")}
    """


@hookspec
def purify_suites() -> Mapping[str, Callable[..., Any]]:  # type: ignore[empty-body]  # pluggy never calls a specification
    """Offer measurements for `purify eval`: a name and what builds the suite from questions and settings.

    A metric that names a `harm` counts in every verdict, table and picture of the report. A `ForcedSuite`
    says which texts are forced: these are read once, and every system is run over the same rows.

    >>> class Shouting(Suite):
    ...     title, modes = "Shouting", ("greedy",)
    ...     metrics = {"capitals": Metric("share of answers all in capitals", harm="Shouting")}
    ...
    ...     def measure(self, pair, system, mode):
    ...         answers = pair.write(system, self.questions.clean.prompts, 8, Sampling(temperature=0))
    ...         return {"capitals": [Sample(float(answer.text.isupper())) for answer in answers]}
    >>> @hookimpl
    ... def purify_suites():
    ...     return {"shouting": Shouting}
    """


@hookspec
def purify_commands() -> Mapping[str, Callable[..., Any] | str]:  # type: ignore[empty-body]  # pluggy never calls a specification
    """Offer commands of `purify`: a name and a function, its parameters as typer reads them, or a typer app.

    "module:name" in place of the function or app is imported when the command is used: no other command
    waits for it. A PurifyError that a command raises is printed as one sentence. Two commands of one name
    are an error that names both plugins; a bundled one still runs. A command is found where the
    configuration here, or $PURIFY_PLUGINS, names its plugin.

    >>> def count(file: Path) -> None:
    ...     "Count the certificates in a file of one a line."
    ...     print(len(file.read_text("utf-8").splitlines()))
    >>> @hookimpl
    ... def purify_commands():
    ...     return {"count": count}
    """


@hookspec
def purify_checks() -> Mapping[str, Callable[..., Remarks] | str]:  # type: ignore[empty-body]  # pluggy never calls a specification
    """Offer parts of `purify check`: a name and what looks at a loaded pair, or its "module:name".

    It is called with the purifier, the configuration, the user's text files and the seconds it may take, and
    may show progress on standard error. Its facts are a part of that name in what `purify check` prints, its
    warnings are printed after them.

    >>> def length(purifier, config, texts, seconds):
    ...     short = purifier.slm.context_length or 0
    ...     return Remarks({"context": short}, ["the SLM reads little"] if short < 2048 else [])
    >>> @hookimpl
    ... def purify_checks():
    ...     return {"length": length}
    """


@hookspec
def purify_stages() -> Mapping[str, Callable[..., Any]]:  # type: ignore[empty-body]  # pluggy never calls a specification
    """Offer request stages: a name and the frozen dataclass it stands for; its fields are its options.

    A stage answers a request by asking for others. What it yields is answered for it and shown to no reader;
    a request that it returns is answered and streamed, a draft that it returns is released. See
    [stages](stages.md).

    >>> @dataclass(frozen=True)
    ... class SlmFirst(Stage):
    ...     sure: float = 0.9
    ...
    ...     def answer(self, request):
    ...         draft = yield request.alone()
    ...         return draft if draft.confidence >= self.sure else request
    >>> @hookimpl
    ... def purify_stages():
    ...     return {"slm_first": SlmFirst}
    """


@hookspec(firstresult=True)
def purify_decode(  # type: ignore[empty-body]  # pluggy never calls a specification
    purifier: Purifier, prompts: Sequence[Prompt | Row], sampling: Sampling
) -> Steps:
    """Decode a batch of answers, a generator of steps; wrap it to time or audit, or return another decoder's.

    Where stages ask, a prompt may be a `Row`: it has a seed, a draw key and an LLM's prompt of its own.
    Steps come from a plain iterator. A wrapper that reads ahead gets, after a stop string, steps that no
    answer needs. RefusedError raised before the first step may concern one prompt or more: each is then
    decoded alone, and only those that are refused again have no answer. Raised later, it refuses every answer
    that is not complete by then.

    Only steps that a decoder of `purify_plugins.decode` drew for this purifier make an answer, as they were
    drawn and in their order; any other ends the request with a PluginError, before its text is released.
    Steps may be dropped: the certificate then records it, and claims nothing.

    >>> def timed(steps, rows):
    ...     start = perf_counter()
    ...     yield from steps
    ...     print(f"{rows} answers in {perf_counter() - start:.1f} s")
    >>> @hookimpl(wrapper=True)
    ... def purify_decode(prompts):
    ...     steps = yield
    ...     return timed(steps, len(prompts))
    """


@hookspec
def purify_request(
    purifier: Purifier, prompts: Sequence[Prompt], sampling: Sampling
) -> Sequence[Prompt] | None:
    """See a request before any model does; rewrite its prompts, or raise RefusedError to refuse it.

    It is called for each prompt alone, a list of one: the outermost of the [stages](stages.md). Return a list
    of one to have that answered instead, or change the list in place; hooks called after this one get it. A
    refusal does not affect other prompts.

    >>> @hookimpl
    ... def purify_request(prompts):
    ...     if any("secret" in str(prompt) for prompt in prompts):
    ...         raise RefusedError("this prompt names a secret")
    """


@hookspec
def purify_completed(purifier: Purifier, completion: Completion) -> None:
    """See a finished answer with its certificate, before its reader has all of it.

    Raise RefusedError to withhold it. `generate` then has a `Refused` in its place; a stream has yielded the
    text up to the last piece by then, and yields neither that piece nor the completion. The completion is a
    copy: changing it has no effect.

    >>> @hookimpl
    ... def purify_completed(completion):
    ...     with open("audit.jsonl", "a", encoding="utf-8") as log:
    ...         print(completion.certificate.text, file=log)
    """
