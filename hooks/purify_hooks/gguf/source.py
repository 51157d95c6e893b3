"""Logits from a GGUF file that llama.cpp runs in this process, quantised as it is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from purify_hooks.local.gguf_header import GgufHeader, forget_headers, read_header
from purify_hooks.local.loading import file_digests, file_states, find_gguf
from purify_hooks.local.preflight import gguf_preview, require_room
from purify_plugins.errors import ConfigError, ModelError
from purify_plugins.plugin.preview import Preview
from purify_plugins.protocols import LogitSource, Reading
from purify_plugins.tokenizers.prompt_encoder import PromptEncoder
from purify_plugins.types import Prompt, Vocabulary

if TYPE_CHECKING:
    from torch import Tensor

    from purify_hooks.gguf.context import LlamaModel
    from purify_hooks.gguf.session import GgufSession

ROUGH = 0.2
"""The largest change (nats) of a log-probability that counts as rounding, as of torch's 16-bit types."""


def looked_at(model: str | Path, *, context: int | None = None, threads: int | None = None) -> Preview:
    """The preview of a GGUF file. Raises ModelError, ConfigError, as loading it would."""
    file = _find(model)
    _require_number("context", context)
    _require_number("threads", threads)

    def settle() -> None:
        from purify_hooks.gguf.library import library

        library()

    return gguf_preview(file, settle)


def _find(model: str | Path) -> Path:
    """The GGUF file of that name, or the one in that directory. Raises ModelError, ConfigError."""
    if not isinstance(model, str | Path) or not str(model).strip():
        raise ConfigError(f"source 'gguf': model must be a GGUF file or a directory with one, not {model!r}")
    place = Path(model).expanduser()
    if found := find_gguf(place):
        return found
    if not place.exists():
        raise ModelError(f"there is no GGUF file {str(model)!r}; give a file, or a directory with one")
    raise ModelError(f"{str(model)!r} is or holds no GGUF file; leave source = 'gguf' out to run it in torch")


def _require_number(name: str, value: int | None) -> None:
    if value is not None and (type(value) is not int or value < 1):
        raise ConfigError(f"source 'gguf': {name} must be a number, at least 1, not {value!r}")


class GgufSource(LogitSource):
    """A GGUF file run by llama.cpp; `context` is the longest sequence in tokens, None: the model's own."""

    engine = "in-process"
    tokenizer: Any

    def __init__(
        self, model: LlamaModel, tokenizer: Any, name: str, context: int | None = None, threads: int = 1
    ) -> None:
        from purify_hooks.gguf.context import Contexts

        self.model, self.tokenizer, self.name = model, tokenizer, name
        self.contexts = Contexts(model, threads)
        self._context = context
        self._states = file_states(model.file)
        header = read_header(model.file)  # not kept: it holds the vocabulary again
        self._ends, self._longest = header.ends, header.context_length
        self._parameters, self._quantisation = header.parameters, header.quantisation

    @classmethod
    def load(cls, model: str | Path, *, context: int | None = None, threads: int | None = None) -> Self:
        """Run a GGUF file by llama.cpp in this process, its weights quantised as they are.

        `model` is the file, or a directory with one. `context` is the longest sequence in tokens, at most
        the model's; `threads` how many compute, None: as many as torch's. Raises ModelError, ConfigError.
        """
        import torch

        from purify_hooks.gguf.context import LlamaModel
        from purify_hooks.gguf.library import library
        from purify_hooks.local.gguf_model import unpacked_tokenizer

        _require_number("context", context)
        _require_number("threads", threads)
        file = _find(model)
        states = file_states(file)
        header = read_header(file)
        _refuse_both_ways(header)
        tokenizer = unpacked_tokenizer(file)
        loaded = LlamaModel(library(), file)
        source = cls(loaded, tokenizer, str(model), context, threads or torch.get_num_threads())
        source._require_bytes()
        source._require_causal()
        forget_headers()
        if file_states(file) != states:
            raise ModelError(f"{file} changed while the model was loaded; load it again")
        return source

    @cached_property
    def vocabulary(self) -> Vocabulary:
        from purify_plugins.tokenizers.token_bytes import vocabulary

        return vocabulary(self.tokenizer, self.name, self._ends)

    def _require_bytes(self) -> None:
        """Raise ModelError unless llama.cpp spells every token as our vocabulary does."""
        if len(self.vocabulary) > self.model.tokens:
            raise ModelError(
                f"{self.name!r} has {self.model.tokens:,} rows and a tokenizer of {len(self.vocabulary):,} "
                "tokens; they are of two models, fetch it again"
            )
        for token, ours in enumerate(self.vocabulary.tokens):
            theirs = self.model.piece(token)
            if token not in self.vocabulary.control and theirs != ours:
                raise ModelError(
                    f"{self.name!r}: llama.cpp spells token {token} as {theirs!r} and its tokenizer as "
                    f"{ours!r}; leave source = 'gguf' out to run it in torch"
                )

    def _require_causal(self) -> None:
        """Raise ModelError if a row changes with the tokens after it."""
        import torch

        size = len(self.vocabulary)
        session, _ = self.open([(1 % size, 2 % size)])
        with session:
            first = session.extend(torch.tensor([[5 % size, 7 % size, 11 % size]]))[0, 0]
            session.rewind(torch.zeros(1, dtype=torch.long))
            second = session.extend(torch.tensor([[5 % size, 13 % size, 3 % size]]))[0, 0]
        moved = float((first.log_softmax(-1) - second.log_softmax(-1)).abs().nan_to_num(0.0).max())
        if moved > ROUGH:
            raise ModelError(
                f"{self.name!r} reads both ways: a row moved by {moved:.2g} nats when the tokens after it "
                "changed; only causal models can be fused"
            )

    @property
    def context_length(self) -> int | None:
        known = [n for n in (self._context, self._longest) if n is not None]
        return min(known, default=None)

    @property
    def in_thread(self) -> bool:
        """True: llama.cpp computes in the caller's thread too, which spins until the others are done."""
        return True

    @property
    def parameters(self) -> int:
        """The number of the model's weights."""
        return self._parameters

    @property
    def reading(self) -> Reading:
        """How the model is read, for `purify check`."""
        return Reading("on", attention="llama.cpp")

    def open(self, prompts: Sequence[Prompt], scored: int = 0) -> tuple[GgufSession, Tensor]:
        """Read the prompts into one context, a sequence each. Raises PromptError, SourceError."""
        from purify_hooks.gguf.session import GgufSession

        opened = GgufSession(self.contexts, [self.encode(prompt) for prompt in prompts], len(self.vocabulary))
        try:
            return opened, opened.prefill(scored)
        except BaseException:
            opened.close()
            raise

    def encode(self, prompt: Prompt) -> tuple[int, ...]:
        """The prompt's token ids, a chat rendered with this model's own template."""
        tokens = PromptEncoder(self.tokenizer, Path(self.name).name, self.vocabulary).some_tokens(prompt)
        require_room(len(tokens), self.context_length, self.name)
        return tokens

    def identity(self) -> Mapping[str, Any]:
        return {
            "kind": "llama.cpp",
            "name": Path(self.name).name,
            "dtype": self._quantisation,
            "files": self.files,
        }

    @cached_property
    def files(self) -> Mapping[str, str]:
        """SHA-256 of the file, by name; hashed when it is first asked for."""
        return file_digests(self.model.file, self._states)


def _refuse_both_ways(header: GgufHeader) -> None:
    if header.settings.get(f"{header.architecture}.attention.causal", True) is not True:
        raise ModelError(f"{header.file} reads both ways; only causal models can be fused")
