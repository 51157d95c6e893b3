"""Logits from a transformers model in this process."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from purify_hooks.loading import eos_ids, file_digests, find_model
from purify_plugins.errors import ConfigError, ModelError, PromptError, SourceError
from purify_plugins.guard import for_fusion
from purify_plugins.hookspecs import hookimpl
from purify_plugins.reading import Reader
from purify_plugins.types import Prompt, ScoredPrompt, Vocabulary

if TYPE_CHECKING:
    import torch
    from torch import Tensor
    from torch.nn import Linear

BLOCK = 256
"""Prompt tokens read in one pass; bounds the scored logits in memory to rows x 256 x V."""
DTYPES = ("auto", "float32", "bfloat16", "float16")


@hookimpl
def purify_sources() -> Mapping[str, Any]:
    return {"local": LocalSource.load, "loaded": LoadedSource}


class LocalSource:
    """A causal language model on this machine and the tokenizer that belongs to it.

    `model` and `tokenizer` are transformers objects; `folder` is where they came from, if anywhere.
    """

    def __init__(self, model: Any, tokenizer: Any, name: str = "", folder: Path | None = None) -> None:
        self.model = model.eval()
        self.tokenizer = tokenizer
        self.name = name or model.config.name_or_path or model.config.model_type
        self.folder = folder

    @classmethod
    def load(
        cls,
        model: str | Path,
        *,
        dtype: str = "auto",
        device: str = "auto",
        device_map: str | None = None,
        revision: str | None = None,
    ) -> Self:
        """Load a model; safetensors only, never anyone's code.

        `model` is a directory, or a hub id at `revision` (a branch, tag or commit; None: the newest).
        `dtype` "auto" is the stored one on an accelerator and float32 on a CPU. `device` is "auto",
        "cpu", "cuda", "cuda:N" or "mps"; `device_map` "auto" spreads a model with accelerate instead.
        Raises ModelError, ConfigError.
        """
        folder = find_model(model, revision)
        place = _device(device)
        loaded = _load_model(folder, _dtype(dtype, place), device_map)
        return cls(loaded if device_map else loaded.to(place), _load_tokenizer(folder), str(model), folder)

    @cached_property
    def vocabulary(self) -> Vocabulary:
        from purify_plugins.token_bytes import vocabulary

        ends = eos_ids(self.folder) if self.folder else frozenset[int]()
        eos = ends | {self.tokenizer.eos_token_id} - {None}
        return vocabulary(self.tokenizer, self.name, eos)

    @property
    def context_length(self) -> int | None:
        length = getattr(self.model.config, "max_position_embeddings", None)
        return int(length) if length else None

    @cached_property
    def parameters(self) -> int:
        """How many numbers the model has."""
        return int(self.model.num_parameters())

    @cached_property
    def products(self) -> Sequence[Linear]:
        """The model's layers that only multiply."""
        from purify_hooks.thin import products

        return products(self.model)

    def open(self, prompts: Sequence[Prompt], scored: int = 0) -> tuple[LocalSession, Tensor]:
        """Read the prompts, left-padded into one batch. Raises PromptError."""
        encoded = [self.encode(prompt) for prompt in prompts]
        session = LocalSession if can_cache(self.model) else RecomputingSession
        opened = session(self, encoded)
        return opened, opened.prefill(scored)

    @cached_property
    def branches(self) -> bool:
        """Whether one pass may read several continuations of a text."""
        from purify_hooks.branching import can_branch

        return can_cache(self.model) and can_branch(self)

    def extend_all(self, sessions: Sequence[LocalSession], tokens: Sequence[Tensor]) -> list[Tensor]:
        """What every session's `extend` returns for its tokens (rows, n): one pass for all of them.

        A failure leaves every session as it was.
        """
        marks = [session.mark() for session in sessions]
        try:
            return self._extend_all(sessions, tokens)
        except BaseException:
            for session, mark in zip(sessions, marks, strict=True):
                session.undo(mark)
            raise

    def _extend_all(self, sessions: Sequence[LocalSession], tokens: Sequence[Tensor]) -> list[Tensor]:
        import torch

        from purify_hooks.joint import extend_all

        if len(sessions) == 1 or not can_cache(self.model):
            return [session.extend(new) for session, new in zip(sessions, tokens, strict=True)]
        with torch.inference_mode(), _failures(self.name), for_fusion():
            return [_fitted(each, len(self.vocabulary)) for each in extend_all(sessions, tokens)]

    def encode(self, prompt: Prompt) -> tuple[int, ...]:
        """The prompt's token ids, a chat rendered with this model's own template."""
        tokens = Reader(self.tokenizer, self.name, self.vocabulary).tokens(prompt)
        if not tokens:
            raise PromptError("the prompt is empty; give at least one token of text")
        if self.context_length is not None and len(tokens) >= self.context_length:
            raise PromptError(
                f"the prompt has {len(tokens)} tokens, but {self.name!r} reads {self.context_length} "
                "with the answer; shorten it"
            )
        return tokens

    def identity(self) -> Mapping[str, Any]:
        files = file_digests(self.folder) if self.folder else {}
        dtype = str(self.model.dtype).removeprefix("torch.")
        return {"kind": "transformers", "name": Path(self.name).name, "dtype": dtype, "files": files}


class LoadedSource(LocalSource):
    """A causal language model that Python has loaded already; no file can name it.

    `model` and `tokenizer` are transformers objects, `name` is what certificates call the model. They
    give no digests: what is in memory need not be what is in a file. Raises ModelError for a model
    that is being trained, or that reads and writes different texts.
    """

    def __init__(self, model: Any, tokenizer: Any, name: str = "") -> None:
        if model.training:
            raise ModelError("the model is in training mode, where dropout draws too; call its eval() first")
        if model.config.is_encoder_decoder:
            raise ModelError(f"{type(model).__name__} has an encoder; only causal models can be fused")
        super().__init__(model, tokenizer, name)

    @cached_property
    def vocabulary(self) -> Vocabulary:
        from purify_plugins.token_bytes import vocabulary

        ends = self.model.generation_config.eos_token_id
        eos = {self.tokenizer.eos_token_id, *(ends if isinstance(ends, list) else [ends])} - {None}
        return vocabulary(self.tokenizer, self.name, frozenset(eos))


class LocalSession:
    """An open batch: a KV cache, and a mask of which of its columns each row can see.

    Rows are padded on the left. A rewind only hides columns; those hidden from every row are dropped.
    The mask stays on the host, which has to know it, wherever the model is.
    """

    def __init__(self, source: LocalSource, prompts: Sequence[tuple[int, ...]]) -> None:
        import torch

        from purify_hooks.cache import growing_cache

        self.source = source
        self.prompts: Sequence[ScoredPrompt] = [ScoredPrompt(prompt) for prompt in prompts]
        self._width = max(map(len, prompts))
        device = source.model.device
        self._read = torch.empty((len(prompts), 0), dtype=torch.long, device=device)
        self._seen = torch.empty((len(prompts), 0), dtype=torch.bool)
        self._lengths = torch.tensor([len(prompt) for prompt in prompts])
        self._cache: Any = growing_cache()
        self._takes = set(inspect.signature(source.model.forward).parameters)

    def prefill(self, scored: int) -> Tensor:
        """Read the prompts in blocks and score their last `scored` tokens; the last logits (rows, V)."""
        import torch

        width = self._width
        padded = [[0] * (width - len(prompt.tokens)) + list(prompt.tokens) for prompt in self.prompts]
        ids = torch.tensor(padded, device=self._read.device)
        visible = torch.arange(width) >= width - self._lengths[:, None]
        first, scores = max(width - 1 - scored, 0), []
        for start in range(0, width, BLOCK):
            end = min(start + BLOCK, width)
            logits = self._append(
                ids[:, start:end], visible[:, start:end], min(end - start, max(end - first, 1))
            )
            if end > first and scored:
                scores.append(_scores(logits, ids[:, end - logits.shape[1] + 1 : end + 1]))
        if scored:
            self._keep(torch.cat(scores, dim=1))
        return logits[:, -1]

    def _keep(self, scores: Tensor) -> None:
        """Attach the scores (rows, n) of the prompts' last tokens; a row's first token has none."""
        self.prompts = [
            ScoredPrompt(prompt.tokens, tuple(row[max(len(row) - len(prompt.tokens) + 1, 0) :]))
            for prompt, row in zip(self.prompts, scores.tolist(), strict=True)
        ]

    def extend(self, tokens: Tensor) -> Tensor:
        """(rows, n) token ids -> (rows, n, V) logits of the token after each."""
        import torch

        tokens = tokens.to(self._read.device)
        return self._append(tokens, torch.ones(tokens.shape, dtype=torch.bool), tokens.shape[1])

    def _append(self, tokens: Tensor, visible: Tensor, wanted: int) -> Tensor:
        """Read new columns; the logits (rows, wanted, V) after the last `wanted` of them."""
        import torch

        with torch.inference_mode(), _failures(self.source.name), for_fusion():
            self._note(tokens, visible)
            return _fitted(self._logits(tokens.shape[1], wanted), len(self.source.vocabulary))

    def _note(self, tokens: Tensor, visible: Tensor) -> None:
        """Remember new columns, which the model reads next."""
        import torch

        self._read = torch.cat([self._read, tokens], dim=1)
        self._seen = torch.cat([self._seen, visible], dim=1)

    def _logits(self, columns: int, wanted: int) -> Tensor:
        return self._ask(self._read[:, -columns:], self._cache, self._seen, wanted)

    def _ask(self, new: Tensor, cache: Any, seen: Tensor, wanted: int) -> Tensor:
        """The logits after the last `wanted` of the columns `new`, the last of those that are `seen`."""
        mask = None if bool(seen.all()) else seen.long()
        return self._pass(new, cache, mask, self._positions(seen, new.shape[1]), wanted)

    def _pass(self, new: Tensor, cache: Any, mask: Tensor | None, places: Tensor, wanted: int) -> Tensor:
        from purify_hooks.thin import thin

        offered = {
            "past_key_values": cache,
            "use_cache": True,
            "attention_mask": None if mask is None else mask.to(new.device),
            "position_ids": places.to(new.device),
            "logits_to_keep": wanted,
        }
        taken = {name: value for name, value in offered.items() if name in self._takes}
        with thin(self.source):
            logits: Tensor = self.source.model(new, **taken).logits
        return logits[:, -wanted:]

    def _positions(self, seen: Tensor, columns: int) -> Tensor:
        """The last columns' places (rows, columns); a row that has ended waits at the last there is."""
        import torch

        length = self.source.context_length
        places = torch.cumsum(seen, dim=1)[:, -columns:] - 1
        return places.clamp(min=0, max=None if length is None else length - 1)

    @property
    def branches(self) -> bool:
        """Whether `branch` may be asked, in place of `extend` and `rewind`."""
        return self.source.branches

    def branch(self, tokens: Tensor, seen: Tensor) -> Tensor:
        """Append (rows, n) tokens, not all of one text; (rows, n, V) logits of the token after each.

        `seen` (rows, n, m + n) bool says what each follows: which of the m columns read since the
        prompt, and of the new ones, itself among them.
        """
        import torch

        from purify_hooks.branching import mask, places

        tokens, seen = tokens.to(self._read.device), seen.cpu()
        with torch.inference_mode(), _failures(self.source.name), for_fusion():
            self._note(tokens, torch.zeros(tokens.shape, dtype=torch.bool))
            logits = self._pass(tokens, self._cache, mask(self, seen), places(self, seen), tokens.shape[1])
            return _fitted(logits, len(self.source.vocabulary))

    def keep(self, columns: Tensor) -> None:
        """Keep only these columns (rows, n) of those that `branch` read, in this order."""
        from purify_hooks.branching import keep

        keep(self, columns.cpu())

    def rewind(self, lengths: Tensor) -> None:
        """Hide what follows the first `lengths` (rows,) tokens after each row's prompt."""
        import torch

        kept = lengths.cpu() + self._lengths
        self._seen = self._seen & (torch.cumsum(self._seen, dim=1) <= kept[:, None])
        if getattr(self.source.model.config.get_text_config(), "sliding_window", None):
            self._close_ranks()
        used = int(self._seen.any(dim=0).nonzero()[-1]) + 1
        self._drop(self._seen.shape[1] - used)
        self._seen, self._read = self._seen[:, :used], self._read[:, :used]

    def mark(self) -> tuple[Tensor, Tensor]:
        """What `undo` needs: the columns read so far, and which are seen."""
        return self._read, self._seen

    def undo(self, mark: tuple[Tensor, Tensor]) -> None:
        """Forget what was read after the mark, even by a pass that ended half way through the layers."""
        from purify_hooks.cache import shorten

        self._read, self._seen = mark
        shorten(self._cache, self._read.shape[1])

    def _close_ranks(self) -> None:
        """Move what each row sees to the right: a sliding window counts columns, the hidden ones too."""
        import torch

        from purify_hooks.cache import take

        width = int(self._seen.sum(dim=1).max())
        order = torch.sort(self._seen.byte(), dim=1, stable=True).indices[:, -width:]
        self._seen = self._seen.gather(1, order)
        self._read = self._read.gather(1, order.to(self._read.device))
        with torch.inference_mode():
            take(self._cache, order)

    def _drop(self, columns: int) -> None:
        from purify_hooks.cache import forget

        forget(self._cache, columns)

    def close(self) -> None:
        self._cache = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


class RecomputingSession(LocalSession):
    """For models without a rewindable cache (state-space, recurrent): every row is read anew."""

    def _logits(self, columns: int, wanted: int) -> Tensor:
        import torch

        rows = [self._row(row[seen], wanted) for row, seen in zip(self._read, self._seen, strict=True)]
        return torch.stack(rows)

    def _row(self, tokens: Tensor, wanted: int) -> Tensor:
        """One row's logits after its last `wanted` tokens; a short row repeats its first."""
        import torch

        tokens = tokens if len(tokens) else tokens.new_zeros(1)  # nothing yet but padding
        logits: Tensor = self.source.model(tokens[None], use_cache=False).logits[0]
        missing = max(wanted - len(logits), 0)
        return torch.cat([logits[:1].expand(missing, -1), logits[-wanted:]])

    def _drop(self, columns: int) -> None:
        """There is no cache to drop from."""


def can_cache(model: Any) -> bool:
    """Whether the model keeps keys and values that can be rewound."""
    stateful = getattr(model, "_is_stateful", False)
    return not stateful and "past_key_values" in inspect.signature(model.forward).parameters


def _fitted(logits: Tensor, size: int) -> Tensor:
    """(…, size) of a model padded past its tokenizer, or too narrow for tokens added to that later."""
    from torch.nn.functional import pad

    missing = size - logits.shape[-1]
    return pad(logits, (0, missing), value=float("-inf")) if missing > 0 else logits[..., :size]


def _scores(logits: Tensor, following: Tensor) -> Tensor:
    """Log-probabilities (rows, n) of the tokens that follow the first n of the logits."""
    import torch

    rows = torch.log_softmax(logits[:, : following.shape[1]].float(), dim=-1)
    return rows.gather(-1, following[..., None])[..., 0]


@contextmanager
def _failures(name: str) -> Iterator[None]:
    """Turn a model's failure into one sentence."""
    try:
        yield
    except (RuntimeError, IndexError, ValueError) as error:  # what torch raises: memory, shapes, ids
        raise SourceError(f"{name!r} failed while reading: {error}") from error


def _device(device: str) -> torch.device:
    import torch

    if device == "auto":
        accelerator = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else None
        return accelerator or torch.device("cpu")
    try:
        return torch.empty(0, device=device).device
    except (RuntimeError, AssertionError) as error:  # torch's two ways of not having a device
        raise ConfigError(f"there is no device {device!r} here; use 'auto' or 'cpu'") from error


def _dtype(dtype: str, device: torch.device) -> Any:
    import torch

    if dtype not in DTYPES:
        raise ConfigError(f"dtype must be one of {', '.join(DTYPES)}, not {dtype!r}")
    if dtype == "auto":
        return torch.float32 if device.type == "cpu" else "auto"
    return getattr(torch, dtype)


def _load_model(folder: Path, dtype: Any, device_map: str | None) -> Any:
    from transformers import AutoModelForCausalLM, GenerationConfig

    try:
        model = AutoModelForCausalLM.from_pretrained(
            folder,
            dtype=dtype,
            device_map=device_map,
            use_safetensors=True,
            trust_remote_code=False,
            local_files_only=True,
        )
    except Exception as error:  # transformers raises many kinds for one cause: not a model it can load
        raise ModelError(f"{folder} does not load as a causal language model: {error}") from error
    model.generation_config = GenerationConfig()  # the repository's settings are not ours
    return model


def _load_tokenizer(folder: Path) -> Any:
    from transformers import AutoTokenizer

    try:
        return AutoTokenizer.from_pretrained(folder, trust_remote_code=False, local_files_only=True)
    except Exception as error:  # as above
        raise ModelError(f"the tokenizer in {folder} does not load: {error}") from error
