"""Purifier: an untrusted LLM, a benign SLM and the policy that fuses them into one language model."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Generator, Mapping, Sequence
from copy import copy
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Self, overload

from purify_plugins.canonical_json import options
from purify_plugins.certificates.calibration_record import CalibrationRecord
from purify_plugins.certificates.citations import cited, sources
from purify_plugins.certificates.claims import claimed
from purify_plugins.configuration.build import build
from purify_plugins.configuration.config import read_config
from purify_plugins.configuration.pair import fitted, markable, together
from purify_plugins.decode.decoder import Decoder
from purify_plugins.decode.draft_length import DraftLengths
from purify_plugins.decode.draw_keys import secret
from purify_plugins.decode.strategies import Walk, choose
from purify_plugins.errors import UnknownNameError
from purify_plugins.foreign import adapted
from purify_plugins.plugin.manager import Plugins, load_plugins
from purify_plugins.requests.answer import AnswerOptions
from purify_plugins.requests.hooked import hooked
from purify_plugins.requests.inputs import check_options, conversation, drawn, one, several, texts
from purify_plugins.requests.pipeline import Pipeline, RowEvents, chunks, in_thread, outcomes
from purify_plugins.requests.staged import StagedPipeline
from purify_plugins.sampling import Sampling
from purify_plugins.stages.about import said_about
from purify_plugins.stages.adapted import chain_of
from purify_plugins.stages.options import RequestOptions
from purify_plugins.threat import Claim
from purify_plugins.types import Alignment, Chunk, Completion, Fallback, Fidelity, Outcome

if TYPE_CHECKING:
    from purify_plugins.decode.likelihood import Likelihood
    from purify_plugins.decode.watermark import Watermark
    from purify_plugins.foreign import BarePolicy, BareSource
    from purify_plugins.policy import FusionPolicy
    from purify_plugins.protocols import LogitSource
    from purify_plugins.signing.signer import Signer
    from purify_plugins.stages.adapted import BareStage
    from purify_plugins.stages.stage import Stage
    from purify_plugins.store.store import CertificateStore
    from purify_plugins.types import Prompt

Errors = Literal["return", "raise"]
OF_A_PAIR = ("alignment", "fidelity", "plugins")
AROUND = ("stages", "request", "signer", "store")
GIVEN = ("given_policy", "given_walk")
OWN = ("sampling", "batch_size", *OF_A_PAIR, "calibration", *AROUND, "configuration", *GIVEN)
DEFAULTS = RequestOptions()
CHECKED = ("sampling", "on_llm_failure", "batch_size", "explain", "top", "configuration")
OF_AN_ANSWER = (*CHECKED, *AROUND)
KEPT = (*OF_AN_ANSWER, *OF_A_PAIR, "watermark")
"""Options that `replace` changes without aligning the two models anew."""


@dataclass(frozen=True, eq=False, repr=False, init=False)
class Purifier(Decoder):
    """An untrusted LLM and a benign SLM, fused token by token; immutable, see `replace`.

    `vocabulary` is that of the fused model: the SLM's, since that side is trusted. `on_llm_failure` says what
    happens when the LLM fails: "refuse" raises, "slm" goes on with the SLM alone and says so in the
    certificate; no setting goes on with the LLM alone. `batch_size` bounds how many prompts of one call are
    decoded together. `walk` "lockstep" asks both models for every token; "speculative" (the SLM drafts, and
    the LLM sees the draft: not for an untrusted engine) and "readahead" (a server drafts) draw from the same
    distribution, and are faster; "auto" takes what the LLM can do. `explain` records the LLM's own
    log-probability of each token under every policy, `top` as many of the likeliest tokens of each fused row.
    `alignment` is the common vocabulary of two tokenizers ("auto" chooses), `fidelity` how closely a model in
    smaller symbols than its own is followed. `calibration` is what the policy's options were set by, for
    certificates, and so is `configuration`, the digest of the file and options that a service runs by;
    `signer` signs those, `store` records them. `watermark` keys the draws of answers. `given_policy`,
    `given_walk` and `given_models` are the constructor's arguments; `policy` is bound to the vocabulary,
    `walk` is the strategy in use. Raises VocabularyError, ConfigError.
    """

    sampling: Sampling
    batch_size: int
    alignment: Alignment
    fidelity: Fidelity
    plugins: Plugins
    calibration: CalibrationRecord | None
    configuration: str | None
    stages: tuple[Stage, ...]
    request: RequestOptions
    signer: Signer | None
    store: CertificateStore | None
    given_policy: FusionPolicy | BarePolicy
    given_walk: Walk
    given_models: tuple[LogitSource, LogitSource]

    def __init__(
        self,
        llm: LogitSource | BareSource,
        slm: LogitSource | BareSource,
        policy: FusionPolicy | BarePolicy,
        *,
        sampling: Sampling | None = None,
        on_llm_failure: Fallback = "refuse",
        batch_size: int = 32,
        walk: Walk = "auto",
        explain: bool = False,
        top: int = 0,
        alignment: Alignment = "auto",
        fidelity: Fidelity = "default",
        plugins: Plugins | None = None,
        calibration: CalibrationRecord | None = None,
        configuration: str | None = None,
        stages: Sequence[Stage | BareStage] = (),
        request: RequestOptions = DEFAULTS,
        signer: Signer | None = None,
        store: CertificateStore | None = None,
        watermark: Watermark | None = None,
    ) -> None:
        sampling, plugins = sampling or Sampling(), plugins or load_plugins()
        check_options(sampling, on_llm_failure, batch_size, explain, top, configuration)
        llm, slm = together(*(pair := (adapted(llm), adapted(slm))), alignment, fidelity)
        fused = fitted(policy, slm.vocabulary, alignment, plugins)
        super().__init__(
            *(llm, slm, fused),
            name_of=plugins.name_of,
            on_llm_failure=on_llm_failure,
            explain=explain,
            top=top,
            draft_lengths=DraftLengths.of_pair(llm, slm),
            walk=choose(walk, llm),
        )
        kept = alignment, fidelity, plugins, calibration, chain_of(stages, request, slm), request, signer
        own = zip(OWN, (sampling, batch_size, *kept, store, configuration, policy, walk), strict=True)
        vars(self).update(own, given_models=pair, watermark=markable(watermark, llm, slm, pair[1]))
        _ = options(fused, plugins.name_of), secret()  # raises now rather than after the first answer

    @classmethod
    def load(
        cls,
        llm: Any,
        slm: Any,
        policy: Any = "balanced",
        *,
        stages: Sequence[Stage | BareStage] = (),
        request: RequestOptions = DEFAULTS,
        watermark: Watermark | None = None,
        **parameters: Any,
    ) -> Self:
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
        models = plugins.source(llm), plugins.source(slm)
        own: dict[str, Any] = {"stages": stages, "request": request, "watermark": watermark}
        return cls(*models, chosen, plugins=plugins, **own)

    @classmethod
    def from_config(cls, path: str | Path | None = None) -> Self:
        """Build what `purify.toml` describes: `path`, else $PURIFY_CONFIG, else the working directory's."""
        return build(read_config(path), cls)

    def replace(self, **changes: Any) -> Self:
        """A copy with these options, by the names of the constructor's arguments; this one stays as it is.

        Both share models, policy and draft lengths, unless a model, the policy, `walk`, `plugins` or the
        alignment is replaced: then the models are aligned again as they were given, and the policy is fitted
        to them. Raises UnknownNameError, VocabularyError, ConfigError.

        >>> shown = purifier.replace(top=5)
        """
        llm, slm = self.given_models
        options: dict[str, Any] = {
            "llm": llm,
            "slm": slm,
            "policy": self.given_policy,
            "walk": self.given_walk,
        }
        options |= {name: vars(self)[name] for name in KEPT}
        options["calibration"] = None if "policy" in changes else self.calibration
        for name in changes:
            if name not in options:
                raise UnknownNameError("option", name, options)
        options |= changes
        if not changes.keys() <= set(OF_AN_ANSWER):
            return type(self)(**options)
        check_options(*(options[name] for name in CHECKED))
        if "stages" in changes or "request" in changes:
            changes["stages"] = chain_of(options["stages"], options["request"], self.slm)
        found = copy(self)
        vars(found).update(changes)
        return found

    def over(self, change: Callable[[LogitSource], LogitSource]) -> Self:
        """A copy that reads both models through `change`, a wrapper which keeps their vocabularies.

        Both share the policy and draft lengths; nothing is aligned again. See `LogitSource.over`.
        """
        found, given = copy(self), (change(self.given_models[0]), change(self.given_models[1]))
        vars(found).update(llm=change(self.llm), slm=change(self.slm), given_models=given)
        vars(found).update(stages=tuple(stage.bind(found.slm) for stage in self.stages))
        return found

    @classmethod
    def __get_pydantic_core_schema__(cls, *_: Any) -> Any:
        """Let a pydantic field hold an instance as it is, which for a dataclass is not the default."""
        from pydantic_core import core_schema

        return core_schema.is_instance_schema(cls)

    def claim(self, sampling: Sampling | None = None) -> Claim:
        """What an answer drawn with these settings may claim at most, against whom, and why."""
        engines, used, marked = (self.llm.engine, self.slm.engine), sampling or self.sampling, self.watermark
        return claimed(self.policy, used, self.walk, engines, (), marked=bool(marked and not used.greedy))

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
        """Each prompt's outcome, in order: Completion, Refused or Failed.

        An error of one prompt does not affect the others. Refused and Failed have an `error`, and raise it
        where they are read as an answer (`text`, `certificate`, …). Where all prompts failed with one class
        of error and the same message, as a single prompt does, that error is raised. With errors="raise" the
        first error is, after every answer has been decoded. `draws` are sampling options by name, which
        precede those of `sampling`.
        Raises PromptError, SourceError, PluginError, RefusedError.
        """
        return outcomes([*self._run(several(prompts), sampling, draws)], errors)

    def stream(
        self, prompt: Prompt, sampling: Sampling | None = None, **draws: Any
    ) -> Generator[Chunk, None, None]:
        """The answer in chunks, each as soon as it is certain; the last one carries the completion.

        Where a plugin has `purify_completed`, the last text comes after that hook, with the completion.
        Closing the generator frees both models' sessions at once. A failure raises: an answer without a
        completion is not complete.
        """
        return chunks(self._run([one(prompt)], sampling, draws), self.store)

    def chat(
        self, messages: Sequence[Mapping[str, Any]], sampling: Sampling | None = None, **draws: Any
    ) -> Completion:
        """The answer to a conversation; each model renders it with its own template."""
        return self.generate([conversation(messages)], sampling, errors="raise", **draws)[0]

    def loglikelihood(self, prompt: str, continuation: str) -> Likelihood:
        """How likely `continuation` is after `prompt` (nats), where answers are drawn from.

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
        events = in_thread(self._run(several(prompts), sampling, draws))
        return outcomes([event async for event in events], errors)

    def astream(
        self, prompt: Prompt, sampling: Sampling | None = None, **draws: Any
    ) -> AsyncGenerator[Chunk, None]:
        """`stream` without blocking the event loop."""
        return in_thread(self.stream(prompt, sampling, **draws))

    async def achat(
        self, messages: Sequence[Mapping[str, Any]], sampling: Sampling | None = None, **draws: Any
    ) -> Completion:
        """`chat` without blocking the event loop."""
        return (await self.agenerate([conversation(messages)], sampling, errors="raise", **draws))[0]

    def _run(
        self, prompts: Sequence[Prompt], sampling: Sampling | None, draws: Mapping[str, Any]
    ) -> RowEvents:
        """Every prompt's events; what `citing` and `about` name is recorded at the call.

        Raises StoreError where no answer can be recorded.
        """
        if self.store is not None:
            self.store.require_ready()
        used = copy(drawn(self.sampling, sampling, draws))  # which a hook can write to
        records = self.plugins.actors(self.policy), self.calibration, self.configuration
        how = AnswerOptions(used, cited(), *records, signer=self.signer, store=self.store)
        pipeline, hooks = Pipeline(self, self.plugins, self.batch_size), hooked(self, self.plugins)
        if not (self.stages or hooks):
            return pipeline.decoded(dict(enumerate(prompts)), how)
        staged = StagedPipeline(pipeline, self.stages, self.request, how, said_about(), sources(), hooks)
        return staged.answers(prompts)
