"""The test bed's LLM at the cost of a hundred-million-parameter model, with unchanged logits.

Each hidden dimension, attention head and feed-forward unit is repeated, each matrix divided by the
number of copies it reads, and layers that add nothing are put between the trained ones. Speed is then
that of the large model, and what is drafted and accepted is what the trained one would have.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch
    from torch import Tensor

COPIES = 4
"""Of every hidden dimension and head: 192 -> 768."""
LAYERS = 2
"""Layers for each trained one, the others adding nothing: 6 -> 12."""
GROWN = ("hidden_size", "intermediate_size", "num_attention_heads", "num_key_value_heads")


def widen(
    model: Any,
    copies: int = COPIES,
    layers: int = LAYERS,
    *,
    head: tuple[Tensor, Tensor] | None = None,
    dtype: torch.dtype | None = None,
    device: str = "cpu",
) -> Any:
    """A Llama with the same logits as `model`, `copies` times as wide and `layers` times as deep.

    `head` is another input and output embedding (V, hidden) each, of more tokens; `dtype` None is float32.
    """
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    kind = dtype or torch.float32
    small = {**model.config.to_dict(), **({"vocab_size": len(head[0])} if head else {})}
    grown = {name: small[name] * copies for name in GROWN}
    deep = small["num_hidden_layers"] * layers
    config = LlamaConfig(
        **{**small, **grown, "num_hidden_layers": deep, "tie_word_embeddings": False, "dtype": kind}
    )
    with torch.device("meta"):
        wide: Any = LlamaForCausalLM(config)
    wide = wide.to(kind).to_empty(device=device)
    _fill(wide, _trained(model, head, device), copies, layers)
    for name, buffer in wide.named_buffers():
        buffer.copy_(model.get_buffer(name))
    return wide.eval()


def _trained(model: Any, head: tuple[Tensor, Tensor] | None, device: str) -> dict[str, Tensor]:
    """The trained weights in float32, with another head if one is given."""
    heads = dict(zip(("model.embed_tokens.weight", "lm_head.weight"), head, strict=True)) if head else {}
    return {name: each.float().to(device) for name, each in {**model.state_dict(), **heads}.items()}


def _fill(wide: Any, trained: dict[str, Tensor], copies: int, layers: int) -> None:
    """Write every parameter of the wide model, one at a time: twice a large model may be too much."""
    import torch

    with torch.no_grad():
        for name, target in wide.state_dict().items():
            target.copy_(_weight(name, target, trained, copies, layers))


def _weight(name: str, target: Tensor, small: dict[str, Tensor], copies: int, layers: int) -> Tensor:
    import torch

    if not name.startswith("model.layers."):
        return _repeat(small[name], target, name, copies)
    _, _, index, rest = name.split(".", 3)
    trained = small[f"model.layers.{int(index) // layers}.{rest}"]
    adds = rest in ("self_attn.o_proj.weight", "mlp.down_proj.weight")
    if int(index) % layers and adds:
        return torch.zeros_like(target)
    return _repeat(trained, target, name, copies)


def _repeat(weight: Tensor, target: Tensor, name: str, copies: int) -> Tensor:
    """Tile a trained weight to the target's shape; what reads copies is divided by their number."""
    tiles = [big // small for big, small in zip(target.shape, weight.shape, strict=True)]
    reads = weight.dim() == 2 and not name.endswith("embed_tokens.weight")
    return weight.tile(tiles) / (tiles[1] if reads else 1)
