"""Purifier: two models and a policy that together write one answer."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Generator, Mapping, Sequence
from contextlib import closing
from copy import copy
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Self, TypeVar, get_args, overload

from purify_plugins.canonical_json import options
from purify_plugins.decode.draw_keys import secret
from purify_plugins.errors import ConfigError
from purify_plugins.foreign import adapted, adapted_policy
from purify_plugins.plugin.manager import Plugins, load_plugins
from purify_plugins.requests.inputs import conversation, drawn, one, several, texts
from purify_plugins.requests.pipeline import Pieces, in_vain, outcomes, run
from purify_plugins.sampling import Sampling
from purify_plugins.threat import VOUCHED, require_draftable, require_known
from purify_plugins.tokenizers.vocabulary_map import align
from purify_plugins.types import Chunk, Completion, Outcome, Unanswered

if TYPE_CHECKING:
    from purify_plugins.decode.draft_length import Pace
    from purify_plugins.decode.likelihood import Likelihood
    from purify_plugins.foreign import BarePolicy, BareSource
    from purify_plugins.policy import FusionPolicy
    from purify_plugins.protocols import LogitSource
    from purify_plugins.tokenizers.cross.choose import Alignment, Fidelity
    from purify_plugins.types import Prompt, Vocabulary

Model = "LogitSource | str | Path | Mapping[str, Any]"
Fallback = Literal["refuse", "slm"]
Errors = Literal["return", "raise"]
Pick = Literal["auto", "speculative", "readahead", "lockstep"]
T = TypeVar("T")


class Purifier:
    """An untrusted LLM and a benign SLM, fused token by token.

    `vocabulary` is the alphabet of the fused model: the SLM's, since that side is trusted.
    `on_llm_failure` says what happens when the LLM fails: "refuse" raises, "slm" goes on with the SLM
    alone and says so in the certificate; no setting goes on with the LLM alone. `batch_size` bounds
    how many prompts of one call are decoded together. `walk` "lockstep" asks both models for every
    token; "speculative" (the SLM drafts, and the LLM sees the draft: not for an untrusted engine) and
    "readahead" (a server drafts) write by the same law, and faster; "auto" takes what the LLM can do.
    `explain` records the LLM's own log-probability of each token under every policy. `alignment` says
    which alphabet two tokenizers meet in ("auto" chooses), `fidelity` how closely a model in smaller
    symbols than its own is followed. `given_policy` and `given_walk` are as they were given; `policy` and
    `walk` suit this pair, and need not suit another. `llm`, `slm` and `policy` cannot be set: what an
    answer claims is about these three.
    Raises VocabularyError, ConfigError.
    """

    def __init__(
        self,
        llm: LogitSource | BareSource,
        slm: LogitSource | BareSource,
        policy: FusionPolicy | BarePolicy,
        *,
        sampling: Sampling | None = None,
        on_llm_failure: Fallback = "refuse",
        batch_size: int = 32,
        walk: Pick = "auto",
        explain: bool = False,
        alignment: Alignment = "auto",
        fidelity: Fidelity = "default",
        plugins: Plugins | None = None,
    ) -> None:
        if on_llm_failure not in ("refuse", "slm"):
            raise ConfigError(f"on_llm_failure must be 'refuse' or 'slm', not {on_llm_failure!r}")
        if walk not in get_args(Pick):
            raise ConfigError(f"walk must be one of {', '.join(map(repr, get_args(Pick)))}, not {walk!r}")
        if batch_size < 1:
            raise ConfigError(f"batch_size must be at least 1, not {batch_size}")
        if alignment not in ("auto", "bytes", "common_tokens", "top_k_union"):
            known = "'auto', 'bytes', 'common_tokens' or 'top_k_union'"
            raise ConfigError(f"alignment must be {known}, not {alignment!r}")
        if fidelity not in ("exact", "default", "fast"):
            raise ConfigError(f"fidelity must be 'exact', 'default' or 'fast', not {fidelity!r}")
        llm, slm = adapted(llm), adapted(slm)
        require_known("the LLM", llm.engine)
        require_known("the SLM", slm.engine)
        _require_whole(slm)
        self._llm, self._slm = align(llm, slm, alignment, fidelity)
        self.alignment, self.fidelity = alignment, fidelity
        self.given_policy, self.given_walk = policy, walk
        self.plugins = plugins or load_plugins()
        policy = adapted_policy(policy)
        if alignment == "top_k_union":
            policy = self._of_the_union(policy)
        policy, per_token = policy.bind(self.vocabulary), self.vocabulary.per_token
        self._policy = policy.in_symbols(per_token) if per_token > 1 else policy
        self.sampling = sampling or Sampling()
        self.on_llm_failure = on_llm_failure
        self.batch_size = batch_size
        self.walk = self._pick(walk)
        self.explain = explain
        self.top = 0
        self._paces: dict[tuple[bool, int], Pace] = {}
        options(self.policy, self.plugins.name_of)  # refused now rather than after the first answer
        secret()  # likewise

    def _of_the_union(self, policy: FusionPolicy) -> FusionPolicy:
        """The policy on what either model finds likely: it then guarantees nothing."""
        chosen: FusionPolicy = self.plugins.policy("top_k_union", {"policy": policy})
        return policy if type(policy) is type(chosen) else chosen

    def _pick(self, walk: Pick) -> Pick:
        """The walk that was asked for, else what the LLM can do best. Raises ConfigError."""
        served = self.llm.capabilities
        streams = served is not None and served.streams_rows
        if walk == "readahead" and not streams:
            raise ConfigError("walk 'readahead' needs an LLM whose server streams rows; leave it at 'auto'")
        if walk == "speculative":
            require_draftable(self.llm.engine)
        if walk != "auto":
            return walk
        if streams:
            return "readahead"
        drafts = self.llm.engine in VOUCHED and (served is None or served.scores_draft)
        return "speculative" if drafts else "lockstep"

    @classmethod
    def load(cls, llm: Any, slm: Any, policy: Any = "balanced", **parameters: Any) -> Self:
        """Load both models and name a policy; `parameters` are the policy's fields.

        A model is a directory, a hub id, a LogitSource, or a mapping such as
        `{"source": "local", "model": DIR, "dtype": "float32"}`.

        >>> purifier = Purifier.load("big-llm", "small-slm", "geometric", alpha=0.3)
        """
        from purify_plugins.configuration.preflight import foreseen

        plugins = load_plugins()
        chosen = plugins.policy(policy, parameters)
        for preview in [foreseen(plugins, model) for model in (llm, slm)]:
            preview.settle()  # what is wrong with the second model is raised before the first is loaded
        return cls(plugins.source(llm), plugins.source(slm), chosen, plugins=plugins)

    @classmethod
    def from_config(cls, path: str | Path | None = None) -> Self:
        """Build what `purify.toml` describes: `path`, else $PURIFY_CONFIG, else the working directory's."""
        from purify_plugins.configuration.build import build, read_config

        return build(read_config(path), cls)

    def showing(self, top: int) -> Self:
        """The same purifier, whose answers record the `top` likeliest tokens of each fused row."""
        shown = copy(self)
        shown.top = top
        return shown

    def through(self, llm: LogitSource, slm: LogitSource) -> Self:
        """The same purifier, which reaches its two models through these sources."""
        found = copy(self)
        found._llm, found._slm = llm, slm
        return found

    @property
    def llm(self) -> LogitSource:
        return self._llm

    @property
    def slm(self) -> LogitSource:
        return self._slm

    @property
    def policy(self) -> FusionPolicy:
        return self._policy

    @property
    def vocabulary(self) -> Vocabulary:
        return self.slm.vocabulary

    def pace(self, sampling: Sampling, rows: int) -> Pace:
        """What this pair has learned of how long its drafts should be, for batches of about this size."""
        from purify_plugins.decode.draft_length import SEEDED, Pace

        unit = max(round(self.vocabulary.per_token), 1)
        if sampling.seed is not None and not sampling.greedy:
            return Pace(SEEDED if self._much_smaller() else 0, unit)
        return self._paces.setdefault((sampling.greedy, rows.bit_length()), Pace(unit=unit))

    def _much_smaller(self) -> bool:
        """Whether drafting surely pays: known without measuring, so that a seed means one answer."""
        llm, slm = self.llm.parameters, self.slm.parameters
        return bool(llm and slm and llm >= 8 * slm)

    @overload
    def generate(
        self,
        prompts: Prompt | Sequence[Prompt],
        sampling: Sampling | None = None,
        *,
        errors: Literal["return"] = "return",
        **draws: Any,
    ) -> list[Outcome]: ...

    @overload
    def generate(
        self,
        prompts: Prompt | Sequence[Prompt],
        sampling: Sampling | None = None,
        *,
        errors: Literal["raise"],
        **draws: Any,
    ) -> list[Completion]: ...

    def generate(
        self,
        prompts: Prompt | Sequence[Prompt],
        sampling: Sampling | None = None,
        *,
        errors: Errors = "return",
        **draws: Any,
    ) -> list[Any]:
        """What became of each prompt, in order: its Completion, or that it was Refused or has Failed.

        What is wrong with one prompt costs no other its answer. Refused and Failed have an `error`, and raise
        it where they are read as an answer (`text`, `certificate`, …). Where all prompts failed in the same
        way, by one class of error in the same words, as a lone prompt does, that error is raised. With
        errors="raise" the first error is, once every answer has been written. `draws` are sampling options by
        name, before those of `sampling`.
        Raises PromptError, SourceError, PluginError, RefusedError.
        """
        return _settled(outcomes([*self._run(several(prompts), sampling, draws)]), errors)

    def stream(
        self, prompt: Prompt, sampling: Sampling | None = None, **draws: Any
    ) -> Generator[Chunk, None, None]:
        """The answer in pieces, each as soon as it is certain; the last one carries the completion.

        Where a plugin has `purify_completed`, the last text comes when that has run, with the completion.
        Closing the generator frees both models' sessions at once. A failure raises: an answer that
        ends without a completion is not a whole answer.
        """
        return _chunks(self._run([one(prompt)], sampling, draws))

    def chat(
        self, messages: Sequence[Mapping[str, Any]], sampling: Sampling | None = None, **draws: Any
    ) -> Completion:
        """The answer to a conversation; each model renders it with its own template."""
        return self.generate([conversation(messages)], sampling, errors="raise", **draws)[0]

    def loglikelihood(self, prompt: str, continuation: str) -> Likelihood:
        """How likely the law that draws answers finds `continuation` (nats), the policy's memory included.

        `purify_plugins.decode.likelihood.loglikelihoods` takes many at once. Raises PromptError, SourceError.
        """
        from purify_plugins.decode.likelihood import loglikelihoods

        texts(prompt=prompt, continuation=continuation)
        return loglikelihoods(self, [(prompt, continuation)])[0]

    @overload
    async def agenerate(
        self,
        prompts: Prompt | Sequence[Prompt],
        sampling: Sampling | None = None,
        *,
        errors: Literal["return"] = "return",
        **draws: Any,
    ) -> list[Outcome]: ...

    @overload
    async def agenerate(
        self,
        prompts: Prompt | Sequence[Prompt],
        sampling: Sampling | None = None,
        *,
        errors: Literal["raise"],
        **draws: Any,
    ) -> list[Completion]: ...

    async def agenerate(
        self,
        prompts: Prompt | Sequence[Prompt],
        sampling: Sampling | None = None,
        *,
        errors: Errors = "return",
        **draws: Any,
    ) -> list[Any]:
        """`generate` without blocking the event loop; cancelling stops at the next token."""
        pieces = _in_thread(self._run(several(prompts), sampling, draws))
        return _settled(outcomes([piece async for piece in pieces]), errors)

    def astream(
        self, prompt: Prompt, sampling: Sampling | None = None, **draws: Any
    ) -> AsyncGenerator[Chunk, None]:
        """`stream` without blocking the event loop."""
        return _in_thread(_chunks(self._run([one(prompt)], sampling, draws)))

    async def achat(
        self, messages: Sequence[Mapping[str, Any]], sampling: Sampling | None = None, **draws: Any
    ) -> Completion:
        """`chat` without blocking the event loop."""
        return (await self.agenerate([conversation(messages)], sampling, errors="raise", **draws))[0]

    def _run(self, prompts: Sequence[Prompt], sampling: Sampling | None, draws: Mapping[str, Any]) -> Pieces:
        """Every prompt's pieces as they come."""
        return run(self, prompts, drawn(self.sampling, sampling, draws))


def _require_whole(slm: LogitSource) -> None:
    """Refuse an SLM whose server shows the top of its rows only: there is nobody to complete them."""
    capabilities = slm.capabilities
    if capabilities is not None and capabilities.max_n < len(slm.vocabulary):
        raise ConfigError(
            f"the SLM's server shows the likeliest {capabilities.max_n} of {len(slm.vocabulary)} tokens; "
            "let it show all (vLLM: --max-logprobs -1, TGI: --max-top-n-tokens), or run the SLM here"
        )


def _settled(found: list[Outcome], errors: Errors) -> list[Outcome]:
    """The outcomes, unless all are one error, or any error is to be raised."""
    if error := in_vain(found):
        raise error
    for each in found if errors == "raise" else ():
        if isinstance(each, Unanswered):
            raise each.error
    return found


def _chunks(pieces: Pieces) -> Generator[Chunk, None, None]:
    """One answer's chunks; raises what it has in place of an answer."""
    with closing(pieces):
        for _, piece in pieces:
            if isinstance(piece, Unanswered):
                raise piece.error
            yield piece


async def _in_thread(chunks: Generator[T, None, None]) -> AsyncGenerator[T, None]:
    """Pull a blocking generator on a worker thread; close it, whatever happens, when left."""
    from anyio import CancelScope, to_thread

    try:
        while (chunk := await to_thread.run_sync(next, chunks, None)) is not None:
            yield chunk
    finally:
        with CancelScope(shield=True):
            await to_thread.run_sync(chunks.close)
