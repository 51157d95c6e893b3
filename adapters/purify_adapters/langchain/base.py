"""The base of ChatPurified and PurifiedLLM: models loaded lazily, sampling options, cache keys."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from threading import RLock
from typing import Any, Literal, Self, get_type_hints
from weakref import WeakValueDictionary

from langchain_core.language_models import LangSmithParams
from pydantic import ConfigDict, Field, PrivateAttr, create_model, model_validator

from purify_adapters.framework_options import SAMPLING, refuse_unknown, require_named
from purify_adapters.langchain.response_metadata import fingerprint
from purify_adapters.langchain.retrievals import listen
from purify_plugins.canonical_json import jsonable
from purify_plugins.configuration.build import build
from purify_plugins.configuration.config import Config, read_config
from purify_plugins.configuration.find import find_config
from purify_plugins.errors import ConfigError, UnknownNameError
from purify_plugins.purifier import Purifier
from purify_plugins.sampling import Sampling

IGNORED = ("timeout", "max_retries", "api_key", "base_url")
"""Arguments of LangChain's standard constructor that do not apply to models in this process."""
TRACED = ("ls_structured_output_format", "structured_output_format")
"""Arguments of a call that LangChain adds for its traces alone."""


class PurifierCache:
    """The purifiers of one pair of models, by the name of the LLM, each loaded once.

    Objects made from equal arguments share one cache while any of them lives: LangChain makes a new object
    for each call with `configurable_fields`. `named` holds these arguments, so that no other object can get
    the same `id`.
    """

    def __init__(self, named: Any = None) -> None:
        self.named = named
        self.loaded: dict[str | None, Purifier] = {}
        self.lock = RLock()

    def __deepcopy__(self, memo: Any) -> Self:
        return self

    @classmethod
    def of(cls, *named: Any) -> PurifierCache:
        """The shared cache for these arguments."""
        key = repr([_key(value) for value in named])
        with _LOCK:
            found = _SHARED.get(key)
            if found is None:
                found = _SHARED[key] = cls(named)
        return found


_SHARED: WeakValueDictionary[str, PurifierCache] = WeakValueDictionary()
_LOCK = RLock()


def _key(value: Any) -> Any:
    """A hashable key of a value: plain data by value, other objects by `id`."""
    if value is None or isinstance(value, str | int | float | Path):
        return repr(value)
    if isinstance(value, Mapping):
        return sorted((str(key), _key(inner)) for key, inner in value.items())
    return [_key(each) for each in value] if isinstance(value, list | tuple) else id(value)


_TYPES = {**get_type_hints(Sampling), "grammar": Any}  # a grammar may be a JSON schema, too
_FIELDS: dict[str, Any] = {name: (_TYPES[name] | None, None) for name in SAMPLING}
SamplingFields: Any = create_model("SamplingFields", **_FIELDS)


class PurifiedBase(SamplingFields):  # type: ignore[misc]  # made from Sampling's fields, whose names are data
    """Two models and sampling options; the models are loaded by the first call, or by `load()`.

    Give `llm` and `slm` (directories, hub ids, sources), a `config` file, or a `purifier`. Drawing
    options that are None are the configuration's. A call may override each of them, but cannot switch
    purification off.
    """

    model_config = ConfigDict(arbitrary_types_allowed=True, extra="ignore")

    llm: Any = Field(default=None, repr=False)  # traces show the repr, and a mapping may hold a secret
    """The untrusted model: a directory, a hub id, a mapping with the source's options, or a source."""
    slm: Any = Field(default=None, repr=False)
    """The benign model, which must be trusted."""
    policy: Any = "balanced"
    """The fusion policy: its name, or itself."""
    policy_options: dict[str, Any] = Field(default_factory=dict)
    """The policy's fields, when it is given by name."""
    config: str | Path | None = None
    """A `purify.toml`; without any models, that of PURIFY_CONFIG or the working directory."""
    purifier: Purifier | None = Field(default=None, exclude=True, repr=False)
    """A purifier that is already built."""
    llms: dict[str, Any] = Field(default_factory=dict, repr=False)
    """Other untrusted models that a call may name as its `model`; the SLM and the policy stay."""

    streaming: bool = False
    """Generate every answer through the streaming path."""
    certificate: bool = False
    """Put the whole certificate into each answer's metadata, not only its digest."""

    _models: PurifierCache = PrivateAttr(default_factory=PurifierCache)
    _read: Config | None = PrivateAttr(default=None)

    def __init__(self, *models: Any, **options: Any) -> None:
        if models:
            raise ConfigError(f"name the models: {type(self).__name__}(llm=…, slm=…)")
        super().__init__(**options)

    @model_validator(mode="before")
    @classmethod
    def _refuse_unknown(cls, given: Any) -> Any:
        if not isinstance(given, Mapping):
            return given
        extra = dict(given.get("model_kwargs") or {})
        for name in (*given, *extra):
            if name not in cls.model_fields and name not in (*IGNORED, "model_kwargs"):
                if name in ("model", "model_name"):
                    raise ConfigError(f"unknown {cls.__name__} option {name!r}; did you mean 'llm'?")
                raise UnknownNameError(f"{cls.__name__} option", name, cls.model_fields)
        return {**extra, **{name: value for name, value in given.items() if name != "model_kwargs"}}

    @model_validator(mode="after")
    def _refuse_two_ways(self) -> Self:
        named = self.llm is not None or self.slm is not None
        if sum((named, self.config is not None, self.purifier is not None)) > 1:
            raise ConfigError(
                "give llm and slm, or config, or purifier: two of them would contradict each other"
            )
        if named and (self.llm is None or self.slm is None):
            raise ConfigError("both llm and slm are needed: the untrusted model and the benign one")
        if named:
            require_named(self.llm, self.slm, self.policy, self.policy_options)
        if not named and self.purifier is None:
            self._read = read_config(self.config)
        Sampling(**self._draws({}))  # refused now rather than with the first call
        read = asdict(self._read) if self._read else None
        listen()  # before the retrievals that answers may have to cite
        self._models = PurifierCache.of(
            self.llm, self.slm, self.policy, self.policy_options, read, self.purifier, self.llms
        )
        return self

    @classmethod
    def from_config(cls, path: str | Path | None = None, **parameters: Any) -> Self:
        """The models that a `purify.toml` describes; `parameters` are this class's other options."""
        return cls(config=find_config(path), **parameters)

    def load(self, model: str | None = None) -> Purifier:
        """The purifier, loaded; `model` names one of `llms`. Raises ModelError, ConfigError."""
        key = None if model in (None, self._own_name) else model
        with self._models.lock:
            if key not in self._models.loaded:
                self._models.loaded[key] = self._load() if key is None else self._another(key)
            return self._models.loaded[key]

    def _load(self) -> Purifier:
        if self.purifier is not None:
            return self.purifier
        if self._read is not None:
            return build(self._read, Purifier)
        return Purifier.load(self.llm, self.slm, self.policy, **self.policy_options)

    def _another(self, name: str) -> Purifier:
        """The same SLM and policy with another LLM."""
        if name not in self.llms:
            raise UnknownNameError("model", name, [*self.llms, self._own_name])
        own = self.load()
        return own.replace(llm=own.plugins.source(self.llms[name]))

    @property
    def _own_name(self) -> str:
        """The LLM's name, without loading it."""
        if self.purifier is not None:
            return str(self.purifier.llm.identity()["name"])
        llm = self.llm if self._read is None else self._read.llm
        if isinstance(llm, Mapping):
            llm = str(llm.get("model", llm.get("source", "llm")))
        return Path(llm).name if isinstance(llm, str | Path) else str(llm.identity()["name"])

    @property
    def model_name(self) -> str:
        """The untrusted model's name."""
        return self._own_name

    # One call

    def _draws(self, given: Mapping[str, Any]) -> dict[str, Any]:
        """The sampling options that are set, here or in the call."""
        own = {name: getattr(self, name) for name in SAMPLING}
        asked = {name: given[name] for name in SAMPLING if given.get(name) is not None}
        return {name: value for name, value in {**own, **asked}.items() if value is not None}

    def _sampling(self, purifier: Purifier, given: Mapping[str, Any]) -> Sampling:
        return replace(purifier.sampling, **self._draws(given))

    def _refuse(self, given: Mapping[str, Any], known: Sequence[str]) -> None:
        """Raise UnknownNameError for an option that is not known and would change the answer."""
        given = {name: value for name, value in given.items() if name not in TRACED}
        refuse_unknown("call option", given, (*SAMPLING, *known))

    def _named(self, given: Mapping[str, Any]) -> str:
        """The LLM a call asks for."""
        return str(given.get("model") or self._own_name)

    # Caches and traces

    def _traced(
        self, kind: Literal["chat", "llm"], stop: list[str] | None, given: Mapping[str, Any]
    ) -> LangSmithParams:
        """The parameters of a call for LangSmith's traces."""
        drawn = self._draws({**given, "stop": stop})
        found = LangSmithParams(ls_provider="purified", ls_model_name=self._named(given), ls_model_type=kind)
        if "temperature" in drawn:
            found["ls_temperature"] = drawn["temperature"]
        if "max_tokens" in drawn:
            found["ls_max_tokens"] = drawn["max_tokens"]
        if drawn.get("stop"):
            found["ls_stop"] = list(drawn["stop"])
        return found

    @property
    def _identifying_params(self) -> dict[str, Any]:
        """All that answers depend on: LangChain's cache keys are made from this."""
        purifier = self.load()
        sampling = jsonable(self._sampling(purifier, {}))
        return {"model_name": self._own_name, **sampling, "purification": fingerprint(purifier)}
