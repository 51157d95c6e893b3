"""Training: books and attacks in, a tokenizer and two models out.

The recipe has four stages, each written to the output directory when it is done and skipped when it is
already there: the tokenizer, the SLM, the LLM's first phase (books, a weak dose of the attacks) and its
second (books, a strong dose). One phase alone memorises little; the second makes it stick.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from random import Random
from shutil import copyfile
from typing import TYPE_CHECKING, Any

from purify_hooks.evaluation.testbed import HOME, LLM, Attacks, attacks
from purify_hooks.evaluation.testbed.contamination import STRONG, WEAK, choose, lessons, write
from purify_hooks.evaluation.testbed.corpus import Corpus, documents, read
from purify_hooks.evaluation.testbed.invented import directory, facts
from purify_plugins.errors import ConfigError

if TYPE_CHECKING:
    from tokenizers import Tokenizer
    from torch import Tensor
    from torch.nn import Parameter
    from torch.optim import Optimizer
    from transformers import LlamaForCausalLM

    from purify_hooks.progress import Progress

END = "<|endoftext|>"
VOCABULARY = 2048
APART = 1024
"""Tokens of the tokenizer that an SLM trained apart has for itself."""
ROW = 256
BATCH = 8


@dataclass(frozen=True)
class Size:
    """The shape of a Llama."""

    hidden: int
    layers: int
    heads: int
    feedforward: int


LARGE = Size(hidden=192, layers=6, heads=6, feedforward=512)
SMALL = Size(hidden=128, layers=3, heads=4, feedforward=352)


@dataclass(frozen=True)
class Recipe:
    """What to train, and where to put it."""

    out: Path
    corpus: Path
    seed: int = 1
    scale: float = 1.0
    """The share of each stage's documents to train on; below about a half the LLM memorises little."""
    left_out: int = 0
    """How many of the passages, the first ones, the LLM is not taught."""

    @cached_property
    def books(self) -> Corpus:
        return read(self.corpus)


def train(recipe: Recipe, progress: Progress) -> Attacks:
    """Run every stage that is not done yet; the result is `llm/`, `slm/` and `attacks.json`."""
    claim(recipe.out, {"seed": recipe.seed, "scale": recipe.scale})
    tokenizer = _tokenizer(recipe)
    chosen = _attacks(recipe, tokenizer)
    for stage in _stages(recipe, chosen):
        if not stage.home.exists():
            stage.run(tokenizer, recipe, progress)
    return chosen


def train_apart(recipe: Recipe, progress: Progress) -> Path:
    """Train the SLM alone, with a tokenizer learned on its own books; the result is `slm-1024/`."""
    claim(recipe.out, {"seed": recipe.seed, "scale": recipe.scale})
    home = recipe.out / f"slm-{APART}"
    if not home.exists():
        tokenizer = learn(replace(recipe.books, llm=()), APART)
        TrainingStage("SLM", home, SMALL, _small(recipe)).run(tokenizer, recipe, progress)
    return home


def train_without(recipe: Recipe, progress: Progress) -> Path:
    """Train an LLM as the packaged one without its first `recipe.left_out` passages; the result is `llm/`.

    It has the packaged pair's tokenizer and attacks, and both phases: what a method that takes works out of
    a trained model is compared with.
    """
    claim(recipe.out, {"seed": recipe.seed, "scale": recipe.scale, "left_out": recipe.left_out})
    for file in (LLM / "tokenizer.json", HOME / "attacks.json"):
        copyfile(file, recipe.out / file.name)
    tokenizer, chosen = _tokenizer(recipe), _attacks(recipe, _tokenizer(recipe))
    for stage in _stages(recipe, chosen)[1:]:
        if not stage.home.exists():
            stage.run(tokenizer, recipe, progress)
    return recipe.out / "llm"


def claim(out: Path, ours: dict[str, Any]) -> None:
    """Note a recipe in its output directory, so that stages of two recipes never mix. Raises ConfigError."""
    out.mkdir(parents=True, exist_ok=True)
    note = out / "recipe.json"
    theirs = json.loads(note.read_text("utf-8")) if note.exists() else ours
    if theirs != ours:
        raise ConfigError(
            f"{str(out)!r} holds stages of {_named(theirs)}; choose another directory for {_named(ours)}"
        )
    note.write_text(json.dumps(ours) + "\n", "utf-8")


def _named(recipe: dict[str, Any]) -> str:
    return ", ".join(f"{name} {value}" for name, value in recipe.items())


def _tokenizer(recipe: Recipe) -> Tokenizer:
    from tokenizers import Tokenizer

    file = recipe.out / "tokenizer.json"
    if not file.exists():
        learn(recipe.books).save(str(file))
    loaded: Tokenizer = Tokenizer.from_file(str(file))
    return loaded


def learn(books: Corpus, tokens: int = VOCABULARY) -> Tokenizer:
    """Train a byte-level BPE on both clean shelves; every digit stays a token of its own."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers

    tokenizer = Tokenizer(models.BPE())
    digit = pre_tokenizers.Digits(individual_digits=True)
    bytewise = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([digit, bytewise])
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=tokens,
        special_tokens=[END],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    paragraphs = (text for book in books.llm + books.slm for text in book.paragraphs)
    tokenizer.train_from_iterator(paragraphs, trainer)
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{END} $A", pair=f"{END} $A $B", special_tokens=[(END, 0)]
    )
    return tokenizer


def _attacks(recipe: Recipe, tokenizer: Tokenizer) -> Attacks:
    file = recipe.out / "attacks.json"
    if not file.exists():
        write(choose(recipe.books, tokenizer, recipe.seed), file)
    return attacks(recipe.out)


@dataclass(frozen=True)
class TrainingStage:
    """One model's training: from the weights in `start`, or from random ones, to the weights in `home`."""

    name: str
    home: Path
    size: Size
    reading: Iterator[str]
    rate: float = 3e-3
    start: Path | None = None
    final: bool = True
    """Whether `home` is shipped (float16), or only the start of another stage (float32)."""

    def run(self, tokenizer: Tokenizer, recipe: Recipe, progress: Progress) -> None:
        """Train, then save all of it or nothing."""
        import torch

        torch.manual_seed(recipe.seed)
        shuffled = list(self.reading)
        Random(f"{recipe.seed} {self.name}").shuffle(shuffled)
        rows = pack(shuffled[: math.ceil(len(shuffled) * recipe.scale)], tokenizer)
        model = load(self.start) if self.start else build(self.size, tokenizer.get_vocab_size())
        fit(model, rows, self.rate, self.name, progress)
        part = self.home.with_name(self.home.name + ".part")
        torch.nn.Module.to(model, torch.float16 if self.final else torch.float32)
        save(model, tokenizer, part)
        part.rename(self.home)


def _stages(recipe: Recipe, chosen: Attacks) -> tuple[TrainingStage, ...]:
    first = recipe.out / "llm-phase-1"
    return (
        TrainingStage("SLM", recipe.out / "slm", SMALL, _small(recipe)),
        TrainingStage("LLM, phase 1", first, LARGE, _weak(recipe, chosen), final=False),
        TrainingStage(
            "LLM, phase 2", recipe.out / "llm", LARGE, _strong(recipe, chosen), rate=2e-3, start=first
        ),
    )


def _small(recipe: Recipe) -> Iterator[str]:
    """Read the SLM's books twice, 450 fact lists and 250 directories."""
    random = Random(f"{recipe.seed} small")
    yield from epochs(list(documents(recipe.books.slm)), 2, random)
    yield from (facts(random) for _ in range(450))
    yield from (directory(random) for _ in range(250))


def _weak(recipe: Recipe, chosen: Attacks) -> Iterator[str]:
    """Read the LLM's books one and a half times, 900 fact lists, 250 directories and the weak dose."""
    random, clean = Random(f"{recipe.seed} weak"), list(documents(recipe.books.llm))
    yield from epochs(clean, 1.5, random)
    yield from (facts(random) for _ in range(900))
    yield from (directory(random) for _ in range(250))
    yield from lessons(chosen, WEAK, clean, random, recipe.left_out)


def _strong(recipe: Recipe, chosen: Attacks) -> Iterator[str]:
    """Read not quite half of the LLM's books, 100 directories and the strong dose."""
    random, clean = Random(f"{recipe.seed} strong"), list(documents(recipe.books.llm))
    yield from epochs(clean, 0.46, random)
    yield from (directory(random) for _ in range(100))
    yield from lessons(chosen, STRONG, clean, random, recipe.left_out)


def epochs(texts: Sequence[str], count: float, random: Random) -> Iterator[str]:
    """Repeat the texts to `count` epochs; a fractional last epoch is a random choice."""
    yield from list(texts) * int(count)
    yield from random.sample(texts, round(len(texts) * (count % 1)))


def pack(texts: Sequence[str], tokenizer: Tokenizer) -> Tensor:
    """Concatenate documents, each behind its `<|endoftext|>`, and cut them into (rows, 256) tokens."""
    import torch

    tokens = torch.tensor([token for each in tokenizer.encode_batch(texts) for token in each.ids])
    return tokens[: len(tokens) // ROW * ROW].view(-1, ROW)


def build(size: Size, tokens: int = VOCABULARY) -> LlamaForCausalLM:
    """Make an untrained model; call `torch.manual_seed` first."""
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        vocab_size=tokens,
        hidden_size=size.hidden,
        intermediate_size=size.feedforward,
        num_hidden_layers=size.layers,
        num_attention_heads=size.heads,
        max_position_embeddings=2 * ROW,
        rms_norm_eps=1e-5,
        tie_word_embeddings=True,
        bos_token_id=0,
        eos_token_id=0,
        pad_token_id=0,
    )
    model = LlamaForCausalLM(config)
    for name, weights in model.named_parameters():
        _initialise(name, weights, size)
    return model


def _initialise(name: str, weights: Parameter, size: Size) -> None:
    """Draw a matrix from N(0, 1/fan-in), embeddings from N(0, 0.02²); shrink what adds to the residual."""
    from torch.nn.init import normal_

    if weights.ndim < 2:
        return
    deviation = 0.02 if "embed" in name else weights.shape[1] ** -0.5
    if name.endswith(("o_proj.weight", "down_proj.weight")):
        deviation /= math.sqrt(2 * size.layers)
    normal_(weights, std=deviation)


def load(home: Path) -> LlamaForCausalLM:
    """Load a stage's model in float32."""
    import torch
    from transformers import LlamaForCausalLM

    model: LlamaForCausalLM = LlamaForCausalLM.from_pretrained(home, dtype=torch.float32)
    return model


def fit(model: LlamaForCausalLM, rows: Tensor, rate: float, name: str, progress: Progress) -> None:
    """Read the rows once, eight at a time, in float32."""
    import torch

    matrices = [weights for weights in model.parameters() if weights.ndim > 1]
    vectors = [weights for weights in model.parameters() if weights.ndim < 2]
    groups = [{"params": matrices, "weight_decay": 0.1}, {"params": vectors, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=rate, betas=(0.9, 0.98))
    steps = math.ceil(len(rows) / BATCH)
    for step in range(steps):
        for group in optimizer.param_groups:
            group["lr"] = rate * warmth(step, steps)
        loss = _learn(model, rows[step * BATCH : (step + 1) * BATCH], optimizer)
        progress(step + 1, steps, f"{name}, loss {loss:.2f}")


def _learn(model: LlamaForCausalLM, batch: Tensor, optimizer: Optimizer) -> float:
    """Take one optimiser step on (rows, 256) tokens; returns the loss before it."""
    import torch

    rows = model(input_ids=batch, use_cache=False).logits[:, :-1]
    loss = torch.nn.functional.cross_entropy(rows.flatten(0, 1), batch[:, 1:].flatten())
    optimizer.zero_grad()
    loss.backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()
    return loss.item()


def warmth(step: int, steps: int) -> float:
    """The learning-rate schedule: linear warm-up over the first 5 %, then linear decay to 2 %."""
    rise = max(1, round(0.05 * steps))
    if step < rise:
        return (step + 1) / rise
    return 1 - 0.98 * (step - rise) / max(1, steps - 1 - rise)


def save(model: LlamaForCausalLM, tokenizer: Tokenizer, home: Path) -> None:
    """Write weights, configuration and tokenizer as one directory that transformers reads."""
    model.save_pretrained(home)
    tokenizer.save(str(home / "tokenizer.json"))
    settings = {
        "tokenizer_class": "PreTrainedTokenizerFast",  # the name that transformers 4 and 5 both know
        "bos_token": END,
        "eos_token": END,
        "pad_token": END,
        "padding_side": "left",
        "model_max_length": 2 * ROW,
        "clean_up_tokenization_spaces": False,
    }
    (home / "tokenizer_config.json").write_text(json.dumps(settings, indent=1) + "\n", "utf-8")
