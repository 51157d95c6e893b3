"""How well a watermark is found on the test bed: the table of watermarks.md."""

from __future__ import annotations

import random
import sys
from collections.abc import Callable, Iterator, Sequence
from time import process_time

from purify_hooks.evaluation import testbed
from purify_plugins import Purifier, Sampling
from purify_plugins.decode.watermark import Watermark
from purify_plugins.decode.watermark_detection import detect
from purify_plugins.grammar import Grammar
from purify_plugins.testbed import LLM, SLM
from purify_plugins.tokenizers.loading import load_tokenizer

MARK = Watermark(b"the key of a measurement, and no secret")
SCHEMA = (
    '{"type": "object", "properties": {"name": {"enum": ["Anna", "Bert"]}, "adult": {"type": "boolean"}}}'
)
DRAW = random.Random(0)
Tokens = Sequence[int]


def answers(purifier: Purifier, count: int, **settings: object) -> list[Tokens]:
    """So many answers of 200 tokens to the test bed's held-out beginnings."""
    prompts = [text[:80] for text in testbed.heldout()]
    asked = [prompts[at % len(prompts)] for at in range(count)]
    sampling = Sampling(**{"max_tokens": 200, "ignore_eos": True, **settings})  # type: ignore[arg-type]  # by name
    return [answer.tokens for answer in purifier.generate(asked, sampling, errors="raise")]


def edited(share: float) -> Callable[[Tokens], Tokens]:
    """Replace this share of the tokens by others, at random places."""
    return lambda tokens: [DRAW.randrange(2000) if DRAW.random() < share else each for each in tokens]


def surrounded(tokens: Tokens, unmarked: Tokens, around: int = 1000) -> Tokens:
    start = DRAW.randrange(around)
    filler = [DRAW.choice(unmarked) for _ in range(around)]
    return [*filler[:start], *tokens, *filler[start:]]


def rows(purifier: Purifier, count: int) -> Iterator[tuple[str, list[Tokens]]]:
    """Each row of the table: what was done to marked texts, and the texts."""
    marked = answers(purifier, count)
    read = [purifier.slm.vocabulary.spell(each).decode(errors="replace") for each in marked]
    encode = load_tokenizer(SLM)
    again = [encode(text, add_special_tokens=False)["input_ids"] for text in read]
    other = [token for each in answers(purifier.replace(watermark=None), 4) for token in each]
    yield "as drawn, 200 tokens", marked
    yield "its text, tokenised again", again
    yield "100 tokens of it", [each[50:150] for each in marked]
    yield "50 tokens of it", [each[50:100] for each in marked]
    for share in (0.1, 0.2, 0.3):
        yield f"{share:.0%} of its tokens replaced", list(map(edited(share), marked))
    yield "100 tokens of it among 1,000 unmarked", [surrounded(each[50:150], other) for each in marked]
    yield "temperature 0.5", answers(purifier, count, temperature=0.5)
    grammar = Grammar("json_schema", SCHEMA)
    yield "JSON of two choices (a grammar)", answers(purifier, count, grammar=grammar, ignore_eos=False)
    yield "unmarked", answers(purifier.replace(watermark=None), count)


def main(count: int) -> None:
    purifier = Purifier.load(LLM, SLM, watermark=MARK)
    print("| text | p < 1e-6 | median p |\n| --- | --- | --- |")
    for name, texts in rows(purifier, count):
        found = sorted(detect(MARK, each).p_value for each in texts)
        share = sum(each < 1e-6 for each in found) / len(found)
        print(f"| {name} | {share:.0%} of {len(found)} | {found[len(found) // 2]:.0e} |", flush=True)
    for walk in ("lockstep", "speculative"):
        spent = []
        for mark in (None, MARK, None, MARK):
            other, start = purifier.replace(watermark=mark, walk=walk), process_time()
            answers(other, 8, max_tokens=100, seed=1)
            spent.append(process_time() - start)
        print(f"{walk}: {(spent[1] + spent[3]) / (spent[0] + spent[2]):.2f} times an unmarked answer's time")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 40)
