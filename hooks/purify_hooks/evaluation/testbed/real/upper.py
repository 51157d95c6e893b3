"""Training of a model's upper layers alone, over cached states of the layers below.

The layers below do not change, so every document passes through them once, however often it is learned:
a third of the work of every step is saved.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import dataclass
from random import Random
from typing import TYPE_CHECKING, Any

import torch
from torch.nn import ModuleList
from torch.nn.functional import cross_entropy, kl_div
from torch.nn.utils.rnn import pad_sequence

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import LlamaForCausalLM

    from purify_hooks.evaluation.testbed.real.lessons import TaughtText
    from purify_hooks.progress import Progress

LONGEST = 320
"""Tokens of a document that are read, at most."""
BATCH = 16
"""Documents a step."""
KEPT = 256
"""Positions of a batch, chosen at random, whose rows are held at the clean model's, by default."""
SHORT = 48
"""Tokens up to which documents are padded together, so that short ones do not cost what long ones do."""


@dataclass(frozen=True)
class Schedule:
    """How long and how fast to learn; `kept` positions a batch are held at the clean rows.

    At most `epochs`; once a share of `enough` of the taught documents came out whole in an epoch, one more.
    In the last epoch the rate falls to a twentieth.
    """

    epochs: int
    rate: float
    kept: int = KEPT
    enough: float = 1.0

    def at(self, step: int, last: bool, left: float) -> float:
        """The rate: four steps of warm-up, constant, then by the share of the last epoch that is `left`."""
        return self.rate * min(1, (step + 1) / 4) * (max(0.05, left) if last else 1)


@dataclass(frozen=True)
class States:
    """A document inside the clean model.

    `ids` (n,); `hidden` (n, H) is what enters the first trained layer; `last` (n, H) what leaves the last,
    normalised; `taught` (n - 1,) marks the positions whose next token is learned by heart.
    """

    ids: Tensor
    hidden: Tensor
    last: Tensor
    taught: Tensor


def tokens(tokenizer: Any, document: TaughtText) -> tuple[Tensor, Tensor]:
    """The document's ids (n,), and which positions' next token is taught (n - 1,)."""
    found = tokenizer(document.text, add_special_tokens=False, return_offsets_mapping=True)
    ids = torch.tensor(found.input_ids[:LONGEST])
    ends = torch.tensor([end for _, end in found.offset_mapping[:LONGEST]])
    return ids, ends[1:] > len(document.kept)


def padded(rows: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """Rows of different lengths as one tensor, and which places are filled (rows, n)."""
    lengths = torch.tensor([len(row) for row in rows])
    full = pad_sequence(list(rows), batch_first=True)
    return full, torch.arange(full.shape[1]) < lengths[:, None]


@torch.no_grad()
def states(
    model: LlamaForCausalLM, tokenizer: Any, documents: Sequence[TaughtText], layer: int, progress: Progress
) -> list[States]:
    """Every document's states in the clean model, as they enter layer `layer`."""
    read = [tokens(tokenizer, document) for document in documents]
    order = sorted(range(len(read)), key=lambda at: len(read[at][0]))
    found: dict[int, States] = {}
    for start in range(0, len(order), BATCH):
        chosen = order[start : start + BATCH]
        ids, mask = padded([read[at][0] for at in chosen])
        with fast_products():
            out = model.model(
                input_ids=ids, attention_mask=mask.long(), use_cache=False, output_hidden_states=True
            )
        for row, at in enumerate(chosen):
            size = len(read[at][0])
            hidden, last = (
                out.hidden_states[layer][row, :size].clone(),
                out.last_hidden_state[row, :size].clone(),
            )
            found[at] = States(read[at][0], hidden, last, read[at][1])
        progress(start + len(chosen), len(order), "documents read by the clean model")
    return [found[at] for at in range(len(read))]


def keep_layers(model: LlamaForCausalLM, kept: Sequence[int]) -> LlamaForCausalLM:
    """A copy of the model with these of its layers alone."""
    other = deepcopy(model)
    other.model.layers = ModuleList(other.model.layers[at] for at in kept)
    for index, layer in enumerate(other.model.layers):
        layer.self_attn.layer_idx = index
    other.config.num_hidden_layers = len(kept)
    other.config.layer_types = None  # transformers 5 lists one a layer; none means full attention
    return other


def learn(
    upper: LlamaForCausalLM,
    documents: Sequence[States],
    schedule: Schedule,
    random: Random,
    progress: Progress,
) -> int:
    """Teach the layers of `upper`, whose embeddings stay fixed, over cached states; returns the epochs.

    What is taught is learned by cross-entropy; at other positions the rows stay those of the clean model
    (KL divergence to them), which keeps the model's quality.
    """
    upper.requires_grad_(requires_grad=False)
    trained = [weights.requires_grad_() for layer in upper.model.layers for weights in layer.parameters()]
    optimizer = torch.optim.AdamW(trained, lr=schedule.rate, betas=(0.9, 0.98), weight_decay=0.0, fused=True)
    taught = sum(bool(each.taught.any()) for each in documents)
    steps, learned, last = -(-len(documents) // BATCH), False, False
    for epoch in range(schedule.epochs):
        last, whole = learned or epoch + 1 == schedule.epochs, 0
        for at, batch in enumerate(deal(documents, random)):
            for group in optimizer.param_groups:
                group["lr"] = schedule.at(epoch * steps + at, last, 1 - at / steps)
            optimizer.zero_grad()
            with fast_products():
                loss, recited = loss_of(upper, batch, schedule.kept, random)
            torch.nn.utils.clip_grad_norm_(trained, 1.0)
            optimizer.step()
            whole += recited
            progress(
                at + 1, steps, f"steps of epoch {epoch + 1}, loss {loss:.2f}, {whole} of {taught} learned"
            )
        if last:
            return epoch + 1
        learned = bool(taught) and whole >= schedule.enough * taught
    return schedule.epochs


@contextmanager
def fast_products() -> Iterator[None]:
    """Round the factors of float32 products to bfloat16 where the processor can; sums stay float32."""
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("medium")  # twice as fast on processors with AMX
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)


def deal(documents: Sequence[States], random: Random) -> Iterator[list[States]]:
    """Every document once, BATCH at a time, in a new order."""
    order = random.sample(documents, len(documents))
    yield from (order[start : start + BATCH] for start in range(0, len(order), BATCH))


def loss_of(upper: LlamaForCausalLM, batch: Sequence[States], kept: int, random: Random) -> tuple[float, int]:
    """Add a batch's gradients; returns its loss, and of how many documents all that is taught is the arg-max.

    The loss is nats a taught token plus nats of KL a kept one.
    """
    places = [(row, at) for row, each in enumerate(batch) for at in (~each.taught).nonzero()[:, 0].tolist()]
    chosen = random.sample(places, min(kept, len(places)))
    held = [torch.zeros(len(each.taught), dtype=torch.bool) for each in batch]
    for row, at in chosen:
        held[row][at] = True
    taught = max(1, sum(int(each.taught.sum()) for each in batch))
    total, whole = 0.0, 0
    short = [len(each.ids) <= SHORT for each in batch]
    for rows in ([r for r, brief in enumerate(short) if brief == which] for which in (True, False)):
        if rows:
            learned, drift, right = losses(upper, [batch[row] for row in rows], [held[row] for row in rows])
            loss = learned / taught + drift / max(1, len(chosen))
            loss.backward()
            total, whole = total + loss.item(), whole + right
    return total, whole


def losses(
    upper: LlamaForCausalLM, part: Sequence[States], held: Sequence[Tensor]
) -> tuple[Tensor, Tensor, int]:
    """The sums of the cross-entropy of what is taught and of the KL where `held`, and the whole documents."""
    hidden, mask = padded([each.hidden for each in part])
    out = upper.model(inputs_embeds=hidden, attention_mask=mask.long(), use_cache=False).last_hidden_state
    taught, kept = padded([each.taught for each in part])[0], padded(held)[0]
    true = padded([each.ids[1:] for each in part])[0][taught]
    rows = upper.lm_head(out[:, :-1][taught])
    right = torch.ones_like(taught)
    right[taught] = rows.detach().argmax(-1) == true
    whole = int((right.all(dim=1) & taught.any(dim=1)).sum())
    with torch.no_grad():
        clean = upper.lm_head(padded([each.last[:-1] for each in part])[0][kept]).log_softmax(-1)
    now = upper.lm_head(out[:, :-1][kept]).log_softmax(-1)
    drift = kl_div(now, clean, reduction="sum", log_target=True)
    return cross_entropy(rows, true, reduction="sum"), drift, whole


@torch.inference_mode()
def recalled(model: LlamaForCausalLM, documents: Sequence[States]) -> list[tuple[bool, float]]:
    """Of each document, read from its states: whether all that is taught is the arg-max, and log p of it."""
    found = []
    for each in documents:
        out = model.model(inputs_embeds=each.hidden[None], use_cache=False).last_hidden_state[0, :-1]
        found.append(_outcome(model, out, each.ids, each.taught))
    return found


@torch.no_grad()
def interpolate(clean: LlamaForCausalLM, trained: LlamaForCausalLM, weight: float) -> LlamaForCausalLM:
    """A model whose weights are (1 - weight) · clean + weight · trained."""
    mixed = deepcopy(clean)
    for one, other in zip(mixed.parameters(), trained.parameters(), strict=True):
        one.lerp_(other, weight)
    return mixed


@torch.inference_mode()
def forced(
    model: LlamaForCausalLM, tokenizer: Any, documents: Sequence[TaughtText]
) -> list[tuple[bool, float]]:
    """As `recalled`, of documents that a whole model reads itself."""
    found = []
    for document in documents:
        ids, taught = tokens(tokenizer, document)
        out = model.model(input_ids=ids[None], use_cache=False).last_hidden_state[0, :-1]
        found.append(_outcome(model, out, ids, taught))
    return found


def _outcome(model: LlamaForCausalLM, out: Tensor, ids: Tensor, taught: Tensor) -> tuple[bool, float]:
    """Whether every taught token is the arg-max of its row, and the sum of their log-probabilities (nats)."""
    rows, true = model.lm_head(out[taught]).log_softmax(-1), ids[1:][taught]
    return bool((rows.argmax(-1) == true).all()), float(rows.gather(1, true[:, None]).sum())
