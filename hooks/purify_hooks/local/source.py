"""Logits from a transformers model in this process."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from purify_hooks.copying.source import CopyingSource
from purify_hooks.copying.source import looked_at as looked_at_copying
from purify_hooks.gguf.source import GgufSource
from purify_hooks.gguf.source import looked_at as looked_at_gguf
from purify_hooks.local.gguf_header import forget_headers
from purify_hooks.local.loading import file_digests, file_states, find_model, model_ends
from purify_hooks.local.preflight import find_device, find_dtype, longest, looked_at, require_room
from purify_hooks.mixture.source import MixtureSource
from purify_hooks.mixture.source import looked_at as looked_at_mixture
from purify_hooks.ngram.source import NgramSource
from purify_hooks.ngram.source import looked_at as looked_at_ngram
from purify_hooks.sources.contrast import Contrast
from purify_hooks.takedown.source import TakedownSource
from purify_hooks.takedown.source import looked_at as looked_at_takedown
from purify_plugins.errors import ConfigError, ModelError
from purify_plugins.plugin.hookspecs import hookimpl
from purify_plugins.plugin.preview import Weighty
from purify_plugins.protocols import LogitSource, Reading, Slots
from purify_plugins.sources.read_scope import for_fusion
from purify_plugins.tokenizers.prompt_encoder import PromptEncoder
from purify_plugins.types import Prompt, Vocabulary
from purify_plugins.utils.freed_memory import give_back

if TYPE_CHECKING:
    from torch import Tensor

    from purify_hooks.local.model import LocalModel
    from purify_hooks.local.session import LocalSession


@hookimpl
def purify_sources() -> Mapping[str, Any]:
    return {
        "local": Weighty(LocalSource.load, looked_at),
        "gguf": Weighty(GgufSource.load, looked_at_gguf),
        "loaded": LoadedSource,
        "contrast": Contrast,
        "copying": Weighty(CopyingSource, looked_at_copying),
        "mixture": Weighty(MixtureSource, looked_at_mixture),
        "ngram": Weighty(NgramSource.load, looked_at_ngram),
        "takedown": Weighty(TakedownSource, looked_at_takedown),
    }


@hookimpl
def purify_commands() -> Mapping[str, str]:
    return {
        "slm": "purify_hooks.ngram.command:app",
        "takedown": "purify_hooks.takedown.command:app",
    }


class LocalSource(LogitSource):
    """A causal language model in this process, and its tokenizer.

    `model` and `tokenizer` are transformers objects; `folder` is their directory or GGUF file, if any.
    """

    engine = "in-process"
    compile = False
    """Whether torch compiles the model, which then is read with a static cache."""
    tokenizer: Any

    def __init__(self, model: Any, tokenizer: Any, name: str = "", folder: Path | None = None) -> None:
        self.model = model.eval()
        self.tokenizer = tokenizer
        self.name = name or model.config.name_or_path or model.config.model_type
        self.folder = folder
        self._states = file_states(folder) if folder else {}

    @classmethod
    def load(
        cls,
        model: str | Path,
        *,
        dtype: str = "auto",
        device: str = "auto",
        device_map: str | None = None,
        revision: str | None = None,
        compile: bool = False,
    ) -> Self:
        """Load a model, from safetensors or GGUF only, without running code of its repository.

        `model` is a directory, a GGUF file, or a hub id at `revision` (a branch, tag or commit; None: the
        newest). GGUF's weights are dequantised; `source = "gguf"` runs them as they are.
        `dtype` "auto" is the stored one on an accelerator and float32 on a CPU. `device` is "auto",
        "cpu", "cuda", "cuda:N" or "mps"; `device_map` "auto" spreads a model with accelerate instead.
        `compile` has torch compile the model, with CUDA graphs on a GPU: a single answer takes fewer
        milliseconds a token after a minute of compiling, and several are no longer read together.
        Raises ModelError, ConfigError.
        """
        from purify_hooks.local.packed import pack

        place = find_device(device)
        wanted = find_dtype(dtype, place)
        found = find_model(model, revision)
        states = file_states(found)
        loaded, tokenizer = read_model(found, wanted, device_map)
        if not device_map:
            loaded = loaded.to(place)
        packed = not (device_map or compile) and pack(loaded)
        source = cls(loaded, tokenizer, str(model), found)
        source.compile = compile
        if source._states != states:
            raise ModelError(f"{found} changed while the model was loaded; load it again")
        _ = source.session  # refuses now a model that cannot be read
        forget_headers()
        if packed:
            give_back()  # for a small model there is little, and looking for it takes a second
        return source

    @cached_property
    def vocabulary(self) -> Vocabulary:
        from purify_plugins.tokenizers.token_bytes import vocabulary

        ends = model_ends(self.folder) if self.folder else frozenset[int]()
        if beyond := [end for end in ends if end >= len(self.tokenizer)]:
            raise ModelError(
                f"{self.name!r} ends with the token {beyond[0]}, which its tokenizer does not have; correct "
                "eos_token_id"
            )
        eos = ends | {self.tokenizer.eos_token_id} - {None}
        return vocabulary(self.tokenizer, self.name, eos)

    @property
    def context_length(self) -> int | None:
        return longest(self.model.config)

    @cached_property
    def local_model(self) -> LocalModel:
        """The model with what its sessions need."""
        from purify_hooks.local.model import LocalModel

        return LocalModel(self.model, self.name, len(self.vocabulary), self.compile)

    @property
    def parameters(self) -> int:
        """The number of the model's weights."""
        return self.local_model.parameters

    @property
    def in_thread(self) -> bool:
        return bool(self.model.device.type == "cpu")

    def open(self, prompts: Sequence[Prompt], scored: int = 0) -> tuple[LocalSession, Tensor]:
        """Read the prompts, left-padded into one batch. Raises PromptError."""
        tokens = [self.encode(prompt) for prompt in prompts]
        opened = self.session(self.local_model, tokens, branches=self.branches)
        return opened, opened.prefill(scored)

    @cached_property
    def session(self) -> type[LocalSession]:
        """The class of session that reads this model correctly, found by trial once.

        Raises ModelError for a model that is not causal.
        """
        from purify_hooks.local.causality import require_causal
        from purify_hooks.local.trial import choose_session

        if self.compile:
            from purify_hooks.local.compiled import compiled_session

            return compiled_session(self.local_model)
        kind = choose_session(self.local_model)
        require_causal(self.local_model, kind)
        return kind

    @cached_property
    def reading(self) -> Reading:
        """How the model is read, for `purify check`."""
        # transformers' own record of what it chose, private in 4 and 5; models without attention have none
        attention = getattr(self.model.config, "_attn_implementation", None)
        return Reading(self.session.cache_state, "on" if self.branches else "off", attention or "none")

    @cached_property
    def branches(self) -> bool:
        """Whether one forward pass can read several continuations of a text."""
        from purify_hooks.local.tree_attention import can_branch

        return self.session.batches and can_branch(self.local_model, self.session)

    def extend_all(self, sessions: Sequence[LocalSession], tokens: Sequence[Tensor]) -> list[Tensor]:
        """Each session's `extend` for its tokens (rows, n), in one forward pass.

        An error leaves every session as it was.
        """
        from purify_hooks.local.batched_forward import extend_all

        if len(sessions) == 1 or not self.session.batches:
            return self._together(sessions, lambda: LogitSource.extend_all(self, sessions, tokens))
        return self._together(sessions, lambda: extend_all(sessions, tokens))

    def branch_all(
        self, sessions: Sequence[LocalSession], tokens: Sequence[Tensor], seen: Sequence[Tensor]
    ) -> list[Tensor]:
        """Each session's `branch`, in one forward pass; an error leaves all as they were."""
        from purify_hooks.local.batched_forward import branch_all

        if len(sessions) == 1:
            return self._together(sessions, lambda: LogitSource.branch_all(self, sessions, tokens, seen))
        return self._together(sessions, lambda: branch_all(sessions, tokens, seen))

    def slots(self) -> Slots | None:
        """A cache of many texts, for a model that takes a mask of columns (`branches`)."""
        from purify_hooks.local.slots import KVSlots

        return KVSlots(self.local_model) if self.branches else None

    def _together(self, sessions: Sequence[LocalSession], read: Callable[[], list[Tensor]]) -> list[Tensor]:
        import torch

        from purify_hooks.local.session import failures, to_vocabulary

        marks = [session.mark() for session in sessions]
        try:
            with torch.inference_mode(), failures(self.name), for_fusion():
                return [to_vocabulary(each, len(self.vocabulary)) for each in read()]
        except BaseException:
            for session, mark in zip(sessions, marks, strict=True):
                session.undo(mark)
            raise

    def encode(self, prompt: Prompt) -> tuple[int, ...]:
        """The prompt's token ids, a chat rendered with this model's own template."""
        tokens = PromptEncoder(self.tokenizer, Path(self.name).name, self.vocabulary).some_tokens(prompt)
        require_room(len(tokens), self.context_length, self.name)
        return tokens

    def identity(self) -> Mapping[str, Any]:
        dtype = str(self.model.dtype).removeprefix("torch.")
        return {"kind": "transformers", "name": Path(self.name).name, "dtype": dtype, "files": self.files}

    @cached_property
    def files(self) -> Mapping[str, str]:
        """SHA-256 of every file the model was loaded from, by name; hashed when they are first asked for."""
        return file_digests(self.folder, self._states) if self.folder else {}


def read_model(place: Path, dtype: Any, device_map: str | None = None) -> tuple[Any, Any]:
    """The model in a directory or GGUF file, and its tokenizer. Raises ModelError."""
    from purify_hooks.local.weights import load_model, refuse_another_vocabulary
    from purify_plugins.tokenizers.loading import load_tokenizer

    if place.is_file():
        from purify_hooks.local.gguf_model import load_gguf, unpacked

        with unpacked(place) as folder:
            model = load_gguf(place, folder, dtype, device_map)
            tokenizer = load_tokenizer(folder, model.config)
    else:
        model = load_model(place, dtype, device_map)
        tokenizer = load_tokenizer(place, model.config)
    refuse_another_vocabulary(model, tokenizer, place)
    return model, tokenizer


class LoadedSource(LocalSource):
    """A causal language model that Python has loaded already, for use from Python alone.

    `model` and `tokenizer` are transformers objects, `name` is the model's name in certificates. These
    have no file digests: weights in memory may differ from any file. Raises ModelError for a model
    that is being trained, or that reads and writes different texts.
    """

    def __init__(self, model: Any, tokenizer: Any, name: str = "") -> None:
        if isinstance(model, str | Path) or isinstance(tokenizer, str | Path):
            raise ConfigError(
                "source 'loaded' is for a model and a tokenizer that Python has loaded, and a file can only "
                "name them; write source = 'local'"
            )
        if model.training:
            raise ModelError("the model is in training mode, where dropout draws too; call its eval() first")
        if model.config.is_encoder_decoder:
            raise ModelError(f"{type(model).__name__} has an encoder; only causal models can be fused")
        super().__init__(model, tokenizer, name)

    @cached_property
    def vocabulary(self) -> Vocabulary:
        from purify_plugins.tokenizers.token_bytes import vocabulary

        ends = self.model.generation_config.eos_token_id
        eos = {self.tokenizer.eos_token_id, *(ends if isinstance(ends, list) else [ends])} - {None}
        return vocabulary(self.tokenizer, self.name, frozenset(eos))
