"""Run the processor in a real vLLM on a GPU: tokens a second alone and purified, and a canary for raw rows.

    python docs/vllm_gpu.py                    # the toy pair, in a Python that has vLLM and this package
    python docs/vllm_gpu.py --llm DIR --slm DIR --requests 64 --tokens 128 --speculate

It installs nothing and needs no network. Not run by us yet: no machine with vLLM's GPU build was at hand.
"""

from __future__ import annotations

import argparse
import os
import tempfile
from collections.abc import Sequence
from pathlib import Path
from time import perf_counter
from typing import Any

from purify_plugins.testbed import LLM, SLM

PROCESSOR = "purify_adapters.vllm_engine:PurifyLogitsProcessor"
PROMPTS = ("The old house stood", "She said that", "In the morning the captain", "Nobody had", "It was")


def asked() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--llm", default=str(LLM))
    parser.add_argument("--slm", default=str(SLM))
    parser.add_argument("--policy", default="balanced")
    parser.add_argument("--requests", type=int, default=32)
    parser.add_argument("--tokens", type=int, default=128)
    parser.add_argument("--length", type=int, default=256, help="vLLM's --max-model-len")
    parser.add_argument("--memory", type=float, default=0.5, help="the share of the GPU that vLLM takes")
    parser.add_argument("--speculate", action="store_true", help="with n-gram drafts of four tokens")
    return parser.parse_args()


def answers(options: argparse.Namespace, processors: Sequence[str], temperature: float) -> tuple[Any, float]:
    """The engine's answers, token ids, and tokens a second; the engine is freed before it returns."""
    import torch
    from vllm import LLM as Engine
    from vllm import SamplingParams

    drafts = {"method": "ngram", "num_speculative_tokens": 4, "prompt_lookup_max": 3}
    engine = Engine(
        options.llm,
        max_model_len=options.length,
        gpu_memory_utilization=options.memory,
        generation_config="vllm",
        logits_processors=list(processors) or None,
        speculative_config=drafts if options.speculate else None,
    )
    params = SamplingParams(max_tokens=options.tokens, temperature=temperature, ignore_eos=True)
    prompts = [PROMPTS[at % len(PROMPTS)] for at in range(options.requests)]
    engine.generate(prompts[:2], params)  # what is compiled or captured on the way is not timed
    start = perf_counter()
    found = [list(each.outputs[0].token_ids) for each in engine.generate(prompts, params)]
    spent = perf_counter() - start
    prompts_read = [each.prompt_token_ids for each in engine.generate(prompts, SamplingParams(max_tokens=1))]
    del engine
    torch.cuda.empty_cache()
    return list(zip(prompts_read, found, strict=True)), sum(map(len, found)) / spent


def canary(options: argparse.Namespace, drawn: Any) -> int:
    """How many greedy tokens are not the local purifier's; near ties, of 0.05 nats, are left out."""
    import torch

    from purify_plugins import Purifier, Sampling
    from purify_plugins.decode.replay import forced

    purifier, wrong, greedy = (
        Purifier.load(options.llm, options.slm, policy="minimum"),
        0,
        Sampling(temperature=0),
    )
    with torch.inference_mode():
        for prompt, answer in drawn:
            for tokens, rows in forced(purifier, [tuple(prompt)], [tuple(answer)], greedy):
                gap = rows.fused.amax(dim=-1) - rows.fused.gather(-1, tokens[:, None])[:, 0]
                wrong += int((gap > 0.05).sum())
    return wrong


def configure(options: argparse.Namespace, policy: str) -> None:
    """Name the SLM and the policy in a configuration of its own."""
    file = Path(tempfile.mkdtemp()) / "purify.toml"
    file.write_text(
        f'[llm]\nmodel = "{options.llm}"\n[slm]\nmodel = "{options.slm}"\n[policy]\nname = "{policy}"\n'
    )
    os.environ["PURIFY_CONFIG"] = str(file)


def main() -> None:
    options = asked()
    _, alone = answers(options, (), 1.0)
    configure(options, options.policy)
    _, purified = answers(options, (PROCESSOR,), 1.0)
    configure(options, "minimum")
    drawn, _ = answers(options, (PROCESSOR,), 0.0)
    raw = canary(options, drawn)
    print(f"alone {alone:.0f} tokens a second, purified {purified:.0f} ({purified / alone:.2f} of it)")
    print(f"greedy tokens that are not the purifier's: {raw} of {sum(len(each) for _, each in drawn)}")


if __name__ == "__main__":
    main()
