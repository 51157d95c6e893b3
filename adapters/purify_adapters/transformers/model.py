"""A transformers model without weights: `generate` calls the purifier, `forward` raises."""

from __future__ import annotations

import copy
import logging
from collections.abc import Generator, Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self, cast

import torch
from torch import Tensor
from transformers import GenerationConfig, PreTrainedModel
from transformers.generation.utils import GenerateDecoderOnlyOutput

from purify_adapters.transformers.own_ids import DrawnIds, ReleasedIds, own_ids
from purify_adapters.transformers.settings import GenerateSettings, sanitised, settings
from purify_adapters.transformers.streaming import failing_visibly
from purify_plugins.errors import ConfigError, PromptError, PurifyError
from purify_plugins.purifier import Purifier  # transformers reads the annotations of its models
from purify_plugins.types import Certificate, Failed, Refused, Unanswered
from purify_plugins.utils.logs import warn_of_greedy

if TYPE_CHECKING:
    from purify_plugins.sampling import Sampling
    from purify_plugins.types import Completion, Prompt


log = logging.getLogger("purify.transformers")


@dataclass
class PurifiedOutput(GenerateDecoderOnlyOutput):
    """What `generate` returns with `return_dict_in_generate`: the sequences and each answer's certificate.

    None for an answer that a stopping criterion cut short, and for a prompt that was refused or failed.
    """

    certificates: list[Certificate | None] | None = None


@dataclass(frozen=True)
class Generated:
    """One answer in the model's own ids."""

    tokens: list[int]
    certificate: Certificate | None


class PurifiedModel(PreTrainedModel):
    """A drop-in for a causal language model, without weights: only `generate` gives tokens."""

    purifier: Purifier
    generation_config: GenerationConfig
    guaranteed = False
    """Whether every answer of the last `generate` carries a guarantee."""
    _place: Any
    _ids: Any  # OwnIds; transformers reads the annotations of its models

    @classmethod
    def around(cls, model: Any, purifier: Purifier) -> Self:
        """The drop-in for `model`, with the same class name, which pipelines check."""
        kind = type(type(model).__name__, (cls,), {"__module__": cls.__module__, "__doc__": cls.__doc__})
        drop_in: Any = object.__new__(kind)
        torch.nn.Module.__init__(drop_in)  # PreTrainedModel's would initialise weights
        drop_in.config = copy.deepcopy(model.config)
        drop_in.name_or_path = model.name_or_path
        drop_in.generation_config = sanitised(getattr(model, "generation_config", None))
        drop_in.purifier = purifier
        drop_in._ids = own_ids(purifier)
        drop_in._place = (model.device, model.dtype)
        drop_in.train(False)
        return cast("Self", drop_in)

    @property
    def device(self) -> torch.device:
        return self._place[0]  # type: ignore[no-any-return]  # of the original

    @property
    def dtype(self) -> torch.dtype:
        return self._place[1]  # type: ignore[no-any-return]  # of the original

    @classmethod
    def can_generate(cls) -> bool:
        return True

    def to(self, *args: Any, **kwargs: Any) -> Self:  # type: ignore[override]  # whose own is decorated
        """Return the model itself: there are no weights to move. Move the original before it is purified."""
        return self

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        raise ConfigError("a purified model has no logits to show, only answers; call generate")

    def save_pretrained(self, *args: Any, **kwargs: Any) -> Any:
        raise ConfigError("a purified model has no weights to save; save the original and the SLM")

    def generate(
        self,
        inputs: Tensor | None = None,
        generation_config: GenerationConfig | None = None,
        *,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        stopping_criteria: Any = None,
        streamer: Any = None,
        **options: Any,
    ) -> Tensor | PurifiedOutput:
        """The prompts (rows, n) and their answers after them, padded: (rows, n + m), as transformers has it.

        Options are transformers'; those that would choose tokens by other means than the fused row are
        refused by name. Raises ConfigError, PromptError, SourceError, RefusedError.
        """
        with failing_visibly(streamer):
            ids = _one_of(inputs, input_ids)
            own, eos = self.generation_config, self._ids.ends
            asked = settings(own, generation_config, options, ids.shape[1], eos)
            rows = [row for row in self._rows(ids, attention_mask, asked) for _ in range(asked.copies)]
            prompts = [self._ids.prompt(row) for row in rows]
            if stopping_criteria or streamer is not None or asked.ends:
                pairs = [*zip(rows, prompts, strict=True)]
                written = self._one_by_one(pairs, asked, ids, stopping_criteria or (), streamer)
            else:
                found = self.purifier.generate(prompts, asked.sampling)
                written = _settled([e if isinstance(e, Unanswered) else self._written(e) for e in found])
            if asked.sampling.greedy:
                warn_of_greedy()
            self.guaranteed = all(map(_is_guaranteed, written))
        return _output(ids.repeat_interleave(asked.copies, dim=0), written, asked)

    # Ids: the caller's are the model's own, the purifier's may be others

    def _rows(self, ids: Tensor, mask: Tensor | None, asked: GenerateSettings) -> list[tuple[int, ...]]:
        """Each row's ids without its padding."""
        visible = _padding(ids, asked.pad, self._ids.ends) if mask is None else mask.bool()
        if visible.shape != ids.shape:
            raise PromptError(f"the prompts are {tuple(ids.shape)}, their mask is {tuple(visible.shape)}")
        if (visible[:, :-1] & ~visible[:, 1:]).any():
            raise PromptError("the prompts are padded on the right; set tokenizer.padding_side = 'left'")
        return [tuple(row[seen].tolist()) for row, seen in zip(ids, visible, strict=True)]

    def _written(self, completion: Completion) -> Generated:
        staged = completion.certificate.staged
        ids = ReleasedIds(self._ids).take(completion.chunk) if staged else self._ids.answer(completion.tokens)
        return Generated(ids, completion.certificate)

    # Answers with a streamer or stopping criteria, token by token

    def _one_by_one(
        self,
        prompts: Sequence[tuple[tuple[int, ...], Prompt]],
        asked: GenerateSettings,
        ids: Tensor,
        criteria: Any,
        streamer: Any,
    ) -> list[Generated]:
        """Generate one by one, of ids and the prompts they are; criteria may end an answer early.

        Raises ConfigError to stream several.
        """
        if streamer is not None:
            if len(prompts) != 1:
                raise ConfigError(f"a streamer takes one answer, not {len(prompts)}; call generate for each")
            streamer.put(ids.cpu())
        found: list[Generated | Failed] = []
        for row, (before, prompt) in enumerate(prompts):
            written = self._written_on(prompt, asked.sampling.of_row(row), streamer)
            try:
                with closing(written):
                    found.append(_watched(written, before, asked.ends, criteria))
            except PurifyError as error:
                found.append(Failed(error))
        answers = _settled(found)
        if streamer is not None:
            streamer.end()
        return answers

    def _written_on(
        self, prompt: Prompt, sampling: Sampling, streamer: Any
    ) -> Generator[list[int], None, Generated]:
        """The answer's tokens, several at a time, as each is certain; returns the whole answer."""
        released = ReleasedIds(self._ids) if self.purifier.stages else DrawnIds(self._ids)
        with closing(self.purifier.stream(prompt, sampling)) as chunks:
            for chunk in chunks:
                tokens = released.take(chunk)
                for token in tokens if streamer is not None else ():
                    streamer.put(torch.tensor([token]))
                if chunk.completion is not None:
                    return self._written(chunk.completion)
                yield tokens
        raise AssertionError("a stream ends with a completion or an error")


def _watched(
    written: Generator[list[int], None, Generated],
    before: Sequence[int],
    ends: frozenset[int],
    criteria: Any,
) -> Generated:
    """The answer, or as far as it came when a criterion was met or one of the `ends` was written."""
    tokens: list[int] = []
    while True:
        try:
            new = next(written)
        except StopIteration as ended:
            return cast("Generated", ended.value)
        tokens += new
        if end := next((at for at, token in enumerate(tokens, 1) if token in ends), 0):
            return Generated(tokens[:end], None)
        if new and _met(criteria, [*before, *tokens]):
            return Generated(tokens, None)


def _is_guaranteed(written: Generated) -> bool:
    return written.certificate is not None and written.certificate.guarantee != "none"


def _settled(found: Sequence[Generated | Refused | Failed]) -> list[Generated]:
    """The answers; a prompt without one has no tokens, and its error is logged.

    A tensor has no place for an error. Raises the first error if no prompt has an answer.
    """
    errors = {row: each.error for row, each in enumerate(found) if isinstance(each, Unanswered)}
    if len(errors) == len(found):
        raise errors[0]
    for row, error in errors.items():
        log.warning("prompt %d of %d has no answer: %s", row + 1, len(found), error)
    return [Generated([], None) if isinstance(each, Unanswered) else each for each in found]


def _met(criteria: Any, ids: list[int]) -> bool:
    """Whether any stopping criterion is met; they get no scores."""
    if not criteria:
        return False
    sequence = torch.tensor([ids])
    return any(bool(torch.as_tensor(each(sequence, None)).any()) for each in criteria)


def _one_of(inputs: Tensor | None, input_ids: Tensor | None) -> Tensor:
    ids = inputs if input_ids is None else input_ids
    if ids is None or ids.ndim != 2 or ids.shape[1] == 0:
        raise PromptError("the prompt is empty; give generate input_ids of shape (rows, tokens)")
    if ids.is_floating_point():
        raise PromptError("generate reads token ids; give the tokenizer's input_ids")
    return ids


def _padding(ids: Tensor, pad: int, ends: frozenset[int]) -> Tensor:
    """The visible tokens of unmasked prompts: all but padding, unless that token is an end too."""
    if pad in ends:
        return torch.ones_like(ids, dtype=torch.bool)
    return torch.cumsum(ids != pad, dim=1) > 0


def _output(
    prompts: Tensor, written: Sequence[Generated], asked: GenerateSettings
) -> Tensor | PurifiedOutput:
    """(rows, n) prompts and answers as transformers returns them."""
    longest = max(len(each.tokens) for each in written)
    padded = [each.tokens + [asked.pad] * (longest - len(each.tokens)) for each in written]
    sequences = torch.cat([prompts, torch.tensor(padded, dtype=prompts.dtype, device=prompts.device)], dim=1)
    if not asked.as_dict:
        return sequences
    certificates = [each.certificate for each in written]
    return PurifiedOutput(sequences=cast("torch.LongTensor", sequences), certificates=certificates)
