"""The base of PurifiedLLM: its fields, its metadata, and loading off the event loop."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, cast

from anyio import to_thread
from llama_index.core.base.llms.types import LLMMetadata
from llama_index.core.bridge.pydantic import Field, PrivateAttr
from llama_index.core.constants import DEFAULT_CONTEXT_WINDOW
from llama_index.core.llms.function_calling import FunctionCallingLLM

from purify_adapters.framework_options import SAMPLING, require_named
from purify_adapters.llama_index.lazy import Lazy
from purify_adapters.tool_calls import ToolProtocol, template_of
from purify_plugins.errors import ConfigError, UnknownNameError
from purify_plugins.purifier import Purifier
from purify_plugins.sampling import Sampling


class PurifiedLLMBase(FunctionCallingLLM):
    """The options and metadata; LlamaIndex's async methods load the models on a worker thread."""

    drawn: dict[str, Any] = Field({}, description="Sampling options that differ from the purifier's own.")
    logprobs: bool = Field(False, description="Whether responses carry each token's log-probability.")
    certificate: bool = Field(
        False, description="Whether `raw` carries the certificate, not its digest alone."
    )
    chat_model: bool | None = Field(None, description="Whether to be asked in messages; None: found out.")
    tool_format: str = Field(
        "auto",
        description="How calls are written: an offered format; auto: as the templates say; none.",
    )

    _purifier: Lazy[Purifier] = PrivateAttr()
    _metadata: Lazy[LLMMetadata] = PrivateAttr()

    @property
    def purifier(self) -> Purifier:
        """The purifier, loaded if it is not yet."""
        return self._purifier()

    # Metadata

    @property
    def metadata(self) -> LLMMetadata:
        """The pair's metadata; the first access loads the models."""
        return self._metadata()

    def _found(self) -> LLMMetadata:
        llm, slm = self.purifier.llm, self.purifier.slm
        lengths = [length for length in (llm.context_length, slm.context_length) if length]
        return LLMMetadata(
            context_window=min(lengths, default=DEFAULT_CONTEXT_WINDOW),
            num_output=self._sampling().max_tokens,
            is_chat_model=all(map(template_of, (llm, slm))) if self.chat_model is None else self.chat_model,
            is_function_calling_model=self.tool_format != "none" and self._knows_tools(),
            model_name=f"{llm.identity()['name']} purified by {slm.identity()['name']}",
        )

    def _knows_tools(self) -> bool:
        """Whether the pair's format of tool calls is known. Raises UnknownNameError for an unknown format."""
        try:
            return bool(ToolProtocol.for_pair(self.purifier, self.tool_format))
        except UnknownNameError:
            raise
        except ConfigError:
            return False

    def to_payload(self) -> dict[str, Any]:
        """The description in events, without secrets and without loading a model."""
        known = self._metadata().model_dump() if self._metadata.made else {}
        return {"class_name": self.class_name(), **known}

    def tokenizer(self, text: str) -> list[int]:
        """A text's ids in the SLM's tokenizer; set `Settings.tokenizer = llm.tokenizer` to count right."""
        tokenizer = self.purifier.slm.inner.tokenizer
        if tokenizer is None:
            raise ConfigError("this SLM has no tokenizer to count with; give Settings.tokenizer another")
        return list(tokenizer(text)["input_ids"])

    def _sampling(self, options: dict[str, Any] | None = None) -> Sampling:
        """The purifier's sampling, overridden by the options of this object, then by those of the call.

        None changes nothing, save that a seed of None draws anew.
        """
        asked = {**self.drawn, **(options or {})}
        given = {name: asked[name] for name in SAMPLING if name in asked}
        return replace(
            self.purifier.sampling,
            **{name: value for name, value in given.items() if value is not None or name == "seed"},
        )

    async def _loaded(self) -> None:
        """Load the models on a worker thread."""
        if not self._metadata.made:
            await to_thread.run_sync(self._metadata)

    async def apredict(self, prompt: Any, **prompt_args: Any) -> str:
        """LlamaIndex's `apredict`."""
        await self._loaded()
        return await super().apredict(prompt, **prompt_args)

    async def astream(self, prompt: Any, **prompt_args: Any) -> Any:
        """LlamaIndex's `astream`."""
        await self._loaded()
        return await super().astream(prompt, **prompt_args)


def maker(
    purifier: Any, llm: Any, slm: Any, policy: Any, policy_options: Mapping[str, Any]
) -> Callable[[], Purifier]:
    """A function that makes the purifier. Raises ConfigError for missing or contradictory arguments."""
    if purifier is not None and llm is None and slm is None:
        return purifier if callable(purifier) else lambda: cast("Purifier", purifier)
    if purifier is not None or llm is None or slm is None:
        raise ConfigError("PurifiedLLM takes either a purifier, or an llm and an slm")
    require_named(llm, slm, policy, policy_options)
    return lambda: Purifier.load(llm, slm, policy, **policy_options)
