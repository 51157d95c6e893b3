"""Patches transformers: an untrusted model's `generate` is purified, and what bypasses it is refused."""

from __future__ import annotations

import os
import sys
import weakref
from collections.abc import Callable, Mapping
from contextlib import suppress
from contextvars import ContextVar
from functools import wraps
from inspect import BoundArguments, signature
from pathlib import Path
from types import FrameType, ModuleType
from typing import TYPE_CHECKING, Any
from weakref import WeakSet

from purify_plugins.errors import ConfigError, PurifyError, RefusedError
from purify_plugins.sources.read_scope import reading
from purify_plugins.utils.locks import ForkedLock

if TYPE_CHECKING:
    from purify_adapters.activation.gate import Gate
    from purify_adapters.activation.monkeypatch import Monkeypatch, Patch
    from purify_plugins.plugin.manager import Plugins
    from purify_plugins.protocols import LogitSource
    from purify_plugins.purifier import Purifier

CONTINUOUS = ("generate_batch", "init_continuous_batching")
OWN = "custom_generate/generate.py"
"""The file of a repository with its own `generate`."""
current_pipeline_tokenizer: ContextVar[Any] = ContextVar("current_pipeline_tokenizer", default=None)
"""The tokenizer of the pipeline that is running, if any."""


class LocalModels:
    """The patches of transformers, made on classes: objects built before are covered too.

    `purifier_for` makes the purifier of an LLM; `tokenizer` is the configured tokenizer's directory.
    """

    def __init__(
        self,
        gate: Gate,
        purifier_for: Callable[[LogitSource], Purifier],
        plugins: Plugins,
        tokenizer: str | None,
    ) -> None:
        self.recorder, self.rules = gate.recorder, gate.rules
        self.purifier_for, self.plugins, self.tokenizer = purifier_for, plugins, tokenizer
        self.mixins: list[Any] = []  # transformers' GenerationMixin, and that of one imported anew
        self.keepers: WeakSet[Any] = WeakSet()
        self.lock = ForkedLock(reentrant=True)

    @property
    def patches(self) -> dict[str, Patch]:
        """Module -> what is replaced in it."""
        return {
            "transformers.generation.utils": self.generation,
            "transformers.modeling_utils": self.calls,
            "transformers.pipelines.base": self.pipelines,
            "torch._dynamo.eval_frame": self.compiled,
        }

    def forget(self) -> None:
        """Delete the purifiers kept on models."""
        for model in list(self.keepers):
            vars(model).pop(KEPT, None)

    def generation(self, monkeypatch: Monkeypatch, module: ModuleType) -> None:
        mixin: Any = module.GenerationMixin
        self.mixins.append(mixin)
        monkeypatch.replace(mixin, "generate", self._generate)
        monkeypatch.replace(mixin, "load_custom_generate", self._load_custom)
        for kind in mixin.__mro__:
            for name in CONTINUOUS:
                if name in vars(kind):
                    monkeypatch.replace(kind, name, self._refused)

    def calls(self, monkeypatch: Monkeypatch, module: ModuleType) -> None:
        from torch.nn import Module

        monkeypatch.replace(module.PreTrainedModel, "__call__", self._call, Module.__call__)
        monkeypatch.replace(module.PreTrainedModel, "__init__", _noting_folder)

    def compiled(self, monkeypatch: Monkeypatch, module: ModuleType) -> None:
        """Check calls of compiled models; existing compiled code is dropped: it bypasses `__call__`."""
        if (reset := vars(sys.modules["torch._dynamo"]).get("reset")) is not None:
            reset()  # missing while torch._dynamo is being imported: then nothing is compiled

        def around(original: Any) -> Any:
            @wraps(original)
            def __call__(compiled: Any, *args: Any, **kwargs: Any) -> Any:
                model = compiled._orig_mod
                if not reading.get() and self._generates(model):
                    self._check_call(model)
                return original(compiled, *args, **kwargs)

            return __call__

        monkeypatch.replace(module.OptimizedModule, "__call__", around)

    def pipelines(self, monkeypatch: Monkeypatch, module: ModuleType) -> None:
        """Note the pipeline's tokenizer while its model runs."""

        def around(original: Any) -> Any:
            @wraps(original)
            def forward(pipeline: Any, *args: Any, **options: Any) -> Any:
                before = current_pipeline_tokenizer.set(pipeline.tokenizer)
                try:
                    return original(pipeline, *args, **options)
                finally:
                    current_pipeline_tokenizer.reset(before)

            return forward

        monkeypatch.replace(module.Pipeline, "forward", around)

    def _generate(self, original: Any) -> Any:
        from purify_adapters.transformers.streaming import failing_visibly

        taken = signature(original)

        @wraps(original)
        def generate(model: Any, *args: Any, **kwargs: Any) -> Any:
            name = name_of(model)
            options = _by_name(taken.bind(model, *args, **kwargs))
            with self.recorder.refusals(name):
                with failing_visibly(options.get("streamer")):
                    trusted = self.rules.trusts(place_of(model))
                    purified = None if trusted else self._purified(model, options)
                if purified is None:
                    self.recorder.count(name, "trusted")
                    return original(model, *args, **kwargs)
                answer = purified.generate(**options)
            self.recorder.count(name, "purified", *["guaranteed"] * purified.guaranteed)
            return answer

        return generate

    def _load_custom(self, original: Any) -> Any:
        from transformers.utils.hub import has_file

        taken = signature(original)

        @wraps(original)
        def load_custom_generate(*args: Any, **kwargs: Any) -> Any:
            given = taken.bind(*args, **kwargs).arguments
            repository: Any = given.get("pretrained_model_name_or_path")
            name = str(repository)
            with self.recorder.refusals(name):
                has_own = has_file(repository, OWN, **given.get("kwargs", {}))
                if has_own and not self.rules.trusts(name):
                    raise RefusedError(
                        f"{name!r} brings a generate of its own ({OWN}); refused, load it without"
                    )
            return original(*args, **kwargs)

        return load_custom_generate

    def _refused(self, original: Any) -> Any:
        """Refuse, unless trusted, a method that generates without `generate`."""

        @wraps(original)
        def refused(model: Any, *args: Any, **kwargs: Any) -> Any:
            name = name_of(model)
            with self.recorder.refusals(name):
                if not self.rules.trusts(place_of(model)):
                    raise RefusedError(f"{original.__name__} of {name!r} cannot be purified; call generate")
            self.recorder.count(name, "trusted")
            return original(model, *args, **kwargs)

        return refused

    def _call(self, original: Any) -> Any:
        """Check calls for logits, from a source of this package or from a program's own loop."""

        @wraps(original)
        def __call__(model: Any, *args: Any, **kwargs: Any) -> Any:
            if not reading.get():
                called = model if self._generates(model) else self._around(sys._getframe())
                if called is not None:
                    self._check_call(called)
            return original(model, *args, **kwargs)

        return __call__

    def _generates(self, model: Any) -> bool:
        """Whether a model generates text; embedders and classifiers do not."""
        return isinstance(model, tuple(self.mixins))

    def _around(self, frame: FrameType | None) -> Any:
        """The language model whose `forward` calls this inner model; None if there is none.

        This catches a `forward` that is called directly, or was bound before activation.
        """
        while frame is not None and frame.f_globals.get("__name__") == __name__:
            frame = frame.f_back  # several frames where torch has compiled this
        caller = frame and frame.f_locals.get("self")
        return caller if self._generates(caller) else None

    def _check_call(self, model: Any) -> None:
        from purify_adapters.transformers.streaming import failing_visibly, handed_streamer

        name = name_of(model)
        if self.rules.trusts(place_of(model)):
            return
        with self.recorder.refusals(name), failing_visibly(handed_streamer()):
            _refuse_overrides(model)
            raise RefusedError(
                f"{name!r} was called for its logits, which are not purified; call its generate, or trust it"
            )

    def _purified(self, model: Any, options: Mapping[str, Any]) -> Any:
        """The drop-in for a live model; the purifier is kept on the model and freed with it."""
        from purify_adapters.transformers.model import PurifiedModel

        _refuse_overrides(model)
        with self.lock:
            kept = vars(model).get(KEPT)
            if not isinstance(kept, KeptPurifier) or kept.model() is not model or kept.owner() is not self:
                kept = vars(model)[KEPT] = KeptPurifier(model, self, self._purifier(model, options))
                self.keepers.add(model)
        return PurifiedModel.around(model, kept.purifier)

    def _purifier(self, model: Any, options: Mapping[str, Any]) -> Purifier:
        tokenizer = _tokenizer(name_of(model), options, self.tokenizer)
        keys = {"model": model, "tokenizer": tokenizer, "name": name_of(model)}
        return self.purifier_for(self.plugins.make("purify_sources", "loaded", keys))


KEPT = "_purified_by"
MADE_IN = "_purify_made_in"
"""On a model: the working directory in which it was made, where a relative path led to it."""


class KeptPurifier:
    """A live model's purifier, left out of copies and pickles of the model."""

    def __init__(self, model: Any, owner: LocalModels, purifier: Purifier) -> None:
        self.model, self.owner, self.purifier = weakref.ref(model), weakref.ref(owner), purifier

    def __reduce__(self) -> Any:
        return dict, ()


def name_of(model: Any) -> str:
    """The directory or hub id a model was loaded from, else its class's name."""
    return str(getattr(model, "name_or_path", "") or type(model).__name__)


def place_of(model: Any) -> str:
    """What a model was loaded from, a relative directory as it was then; see `name_of`."""
    name = name_of(model)
    folder = Path(vars(model).get(MADE_IN, "."), name)
    return str(folder.resolve()) if folder.is_dir() else name


def _noting_folder(original: Any) -> Any:
    """Note where a model is made: a relative path is another model's after a change of directory."""

    @wraps(original)
    def __init__(model: Any, *args: Any, **kwargs: Any) -> None:
        original(model, *args, **kwargs)
        with suppress(OSError):  # the directory is gone
            vars(model)[MADE_IN] = os.getcwd()

    return __init__


def _refuse_overrides(model: Any) -> None:
    """Raise RefusedError for a model whose `generate` is not transformers' own."""
    from transformers.generation.utils import GenerationMixin

    if "generate" in vars(model):
        raise RefusedError(
            f"{name_of(model)!r} has a generate of its own (custom_generate), which cannot be purified; "
            "load it without"
        )
    if getattr(type(model), "generate", None) is not GenerationMixin.generate:
        raise RefusedError(
            f"{type(model).__name__} overrides generate, which cannot be purified; trust it, or use a plain "
            "causal language model"
        )


def _by_name(given: BoundArguments) -> dict[str, Any]:
    """A call's arguments, without the model itself."""
    named = dict(list(given.arguments.items())[1:])
    return {**named.pop("kwargs", {}), **named}


def _tokenizer(name: str, options: Mapping[str, Any], configured: str | None) -> Any:
    """The tokenizer in the model's directory, else the call's or its pipeline's, else the configured one."""
    from purify_plugins.tokenizers.loading import find_tokenizer, load_tokenizer

    def read(folder: str) -> Any:
        try:
            return load_tokenizer(find_tokenizer(folder, offline=True))
        except PurifyError:  # there is no tokenizer there, or none that can be read
            return None

    brought = options.get("tokenizer") or getattr(options.get("streamer"), "tokenizer", None)
    found = (
        read(name)
        or brought
        or current_pipeline_tokenizer.get()
        or (read(configured) if configured else None)
    )
    if found is None:
        raise ConfigError(
            f"{name!r} has no tokenizer that purify can find; name its directory in [activation]: "
            'tokenizer = "DIR"'
        )
    return found
