"""How copies are found, and how often clean text is taken for one: `python docs/copycheck.py`.

`text` measures the index and the check on the books of corpus/, `code` on the standard library against the
packages that are installed here, `models` lets a contaminated pair recite: the test bed's, or the one in
`--pair`, which `python -m purify_plugins.testbed --real` makes. Each writes its table into the page.
"""

from __future__ import annotations

import ast
import base64
import json
import random
import re
import shutil
import statistics
import sysconfig
import time
from collections.abc import Callable, Iterator, Sequence
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated, Any

import torch
import typer

from purify_hooks.evaluation.testbed.corpus import CORPUS
from purify_hooks.protected.build import IndexOptions, build
from purify_hooks.protected.check import CopyCheck
from purify_hooks.protected.folding import words_of
from purify_hooks.protected.index import PrintIndex, open_index
from purify_hooks.protected.lexing import RESERVED, Lexer
from purify_hooks.protected.mask import CopyMask
from purify_plugins.stages import Blocked

PAGE = Path(__file__).with_name("copycheck.md")
WORDS, TOKENS = 50, 40
FILLERS = ("well", "indeed", "rather", "then", "perhaps", "quite")
NUMBERS = {"one": "1", "two": "2", "three": "3", "four": "4", "five": "5", "six": "6", "ten": "10"}
LEET = str.maketrans("aeiost", "431057")
LOOK = str.maketrans("aeocpxyi", "аеосрхуі")
CYRILLIC = str.maketrans("abvgdeziklmnoprstufhc", "абвгдезиклмнопрстуфхц")
app = typer.Typer(add_completion=False)


def write(name: str, lines: Sequence[str]) -> None:
    """Put a table in its place in the page."""
    place = re.compile(rf"(<!-- measured: {name} -->\n).*?(<!-- end -->)", re.DOTALL)
    text = PAGE.read_text("utf-8")
    if not place.search(text):  # a table that the page does not show
        print("\n".join(lines))
    PAGE.write_text(
        place.sub(lambda found: f"{found[1]}\n{chr(10).join(lines)}\n\n{found[2]}", text), "utf-8"
    )


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    return [f"| {' | '.join(each)} |" for each in (head, ["---"] * len(head), *rows)]


def made(folder: Path, works: Sequence[Path], common: Sequence[Path], **how: Any) -> PrintIndex:
    out = folder / f"{len(list(folder.iterdir()))}.prints"
    build(IndexOptions(works, out, common, **how), lambda *_: None)
    return open_index(out)


def blocked(check: CopyCheck, text: str) -> bool:
    try:
        check.fresh().clear(text, last=True)
    except Blocked:
        return True
    return False


def share(check: CopyCheck, texts: Sequence[str]) -> float:
    return sum(blocked(check, each) for each in texts) / len(texts)


def spans(texts: Sequence[str], count: int, rng: random.Random, words: int = WORDS) -> list[str]:
    """Runs of words from random places."""
    cut = [text.split() for text in texts]
    chosen = rng.choices(cut, [len(each) for each in cut], k=count)
    starts = [(each, rng.randrange(len(each) - words)) for each in chosen]
    return [" ".join(each[at : at + words]) for each, at in starts]


@cache
def books(shelf: str) -> list[str]:
    return [path.read_text("utf-8") for path in sorted((CORPUS / shelf).glob("*.txt"))]


# How a copy may be disguised


def changed(each: int, rng: random.Random, words: Sequence[str]) -> Callable[[str], str]:
    def change(text: str) -> str:
        found = text.split()
        for at in range(rng.randrange(each), len(found), each):
            found[at] = rng.choice(words)
        return " ".join(found)

    return change


def filled(each: int, rng: random.Random) -> Callable[[str], str]:
    """With a filler word after so many."""
    return lambda text: " ".join(
        f"{word} {rng.choice(FILLERS)}" if at % each == each - 1 else word
        for at, word in enumerate(text.split())
    )


def woven(text: str) -> str:
    """The text's two halves, word by word in turn."""
    words = text.split()
    half = len(words) // 2
    return " ".join(word for pair in zip(words[:half], words[half:], strict=False) for word in pair)


def turned(text: str) -> str:
    """Every two neighbours in the other order."""
    words = text.split()
    return " ".join(word for at in range(0, len(words), 2) for word in reversed(words[at : at + 2]))


def disguises(rng: random.Random) -> dict[str, Callable[[str], str]]:
    other = [word for text in books("slm") for word in text.split()]
    counted = re.compile(rf"\b({'|'.join(NUMBERS)})\b")
    return {
        "verbatim": str,
        "one word in 8 replaced": changed(8, rng, other),
        "one word in 6 replaced": changed(6, rng, other),
        "one word in 5 replaced": changed(5, rng, other),
        "one word in 4 replaced": changed(4, rng, other),
        "capitals": str.upper,
        "no spaces": lambda text: text.replace(" ", ""),
        "spaces elsewhere, each 3 letters": lambda text: re.sub(r"(.{3})", r"\1 ", text.replace(" ", "")),
        "zero-width spaces": "\u200b".join,
        "look-alike letters": lambda text: text.translate(LOOK),
        "no punctuation": lambda text: re.sub(r"[^\w\s]", "", text),
        "hyphens inside words": lambda text: re.sub(r"(\w\w)(\w\w)", r"\1-\2", text),
        "number words as digits": lambda text: counted.sub(lambda found: NUMBERS[found[0]], text),
        "a filler word after each 6": filled(6, rng),
        "a filler word after each 4": filled(4, rng),
        "a filler word after each 3": filled(3, rng),
        "one word in 3 replaced": changed(3, rng, other),
        "two halves word by word in turn": woven,
        "neighbours in the other order": turned,
        "digits for letters (4 for a, …)": lambda text: text.translate(LEET),
        "transliterated (Cyrillic)": lambda text: text.lower().translate(CYRILLIC),
        "spelled backwards": lambda text: text[::-1],
    }


@app.command()
def text(count: int = 1000) -> None:
    """The index of a million words, what the check finds of them, and what it takes for a copy."""
    rng = random.Random(1)
    with TemporaryDirectory() as name:
        folder = Path(name)
        works, common = [CORPUS / "protected", CORPUS / "llm"], [CORPUS / "slm"]
        begun = time.process_time()
        index = made(folder, works, common)
        took = time.process_time() - begun
        size = (folder / "0.prints").stat().st_size
        checks = [CopyCheck(index), CopyCheck(made(folder, works, []))]
        clean = [
            " ".join(w[at : at + WORDS]) for t in books("heldout") for w in [t.split()] for at in _grid(w)
        ]
        copied = spans(books("protected") + books("llm"), count, rng)
        rows = [
            [f"{how}", *(f"{share(check, [*map(change, copied)]):.1%}" for check in checks)]
            for how, change in disguises(rng).items()
        ]
        alarms = [
            f"clean: {len(clean):,} held-out windows",
            *(f"{share(each, clean):.2%}" for each in checks),
        ]
        write("text", table(["what is written", "found", "without `--common`"], [alarms, *rows]))
        mask, check, letters = _pace(index)
        write(
            "size",
            table(
                ["", ""],
                [
                    ["words of 16 works", f"{sum(each.words for each in index.header.sources):,}"],
                    ["prints", f"{index.header.prints:,}"],
                    ["file, a print", f"{size / index.header.prints:.2f} bytes"],
                    ["building, CPU", f"{took:.1f} s"],
                    ["mask, a word of clean text", f"{mask:.0f} µs"],
                    ["check, a word of clean text", f"{check:.0f} µs"],
                    ["held back in clean text, mean", f"{letters:.0f} characters"],
                ],
            ),
        )


def _grid(words: Sequence[str]) -> range:
    return range(0, len(words) - WORDS, WORDS // 2)


def _pace(index: PrintIndex) -> tuple[float, float, float]:
    """CPU microseconds a word of the mask and of the check, token by token; and the characters held back."""
    from purify_hooks.local.source import LocalSource
    from purify_plugins.testbed import SLM

    slm = LocalSource.load(SLM, dtype="float32", device="cpu")
    clean = " ".join(books("heldout")[0].split()[:1500])
    ids = slm.tokenizer(clean)["input_ids"][1:]
    pieces = [slm.vocabulary.tokens[each].decode("utf-8", "ignore") for each in ids]
    ends = ["".join(pieces[:at]) for at in range(1, len(pieces) + 1)]
    times: dict[str, list[float]] = {"mask": [], "check": []}
    held: list[int] = []
    for _ in range(3):
        check, follower = CopyCheck(index).fresh(), CopyMask(index).follower(slm.vocabulary)
        begun = time.thread_time()
        held = [len(each) - check.clear(each, False) for each in ends]
        times["check"].append(time.thread_time() - begun)
        runs, at = follower.runs, follower.positions[0]
        begun = time.thread_time()
        for each in ids:
            at = runs.after(at, each)
            runs.mask(at)
        times["mask"].append(time.thread_time() - begun)
    words = len(clean.split())
    return min(times["mask"]) / words * 1e6, min(times["check"]) / words * 1e6, statistics.mean(held)


# Code


def renamed(source: str) -> str:
    """Every name replaced, but those that Python reserves."""
    rng, names = random.Random(source), dict[str, str]()
    parts = re.split(r"(\W+)", source)
    for part in parts:
        if re.fullmatch(r"[^\W\d]\w*", part) and part not in RESERVED:
            names.setdefault(part, f"{rng.choice('abcdefgh')}{rng.randrange(10**6)}")
    return "".join(names.get(part, part) for part in parts)


def reformatted(source: str) -> str:
    """Other line breaks, spaces, quotes and brackets, and no comments."""
    return ast.unparse(ast.parse(source))


def lines(change: Callable[[str, int], str]) -> Callable[[str], str]:
    """Each line changed, which is given with its number."""
    return lambda source: "\n".join(change(line, at) for at, line in enumerate(source.splitlines(), 1))


def commented(line: str, at: int) -> str:
    return f"{line}  # it's in line {at}" if line.strip()[-1:] in list(":)]") else line


def padded(each: int) -> Callable[[str], str]:
    """A statement without effect after each so many lines."""

    def change(line: str, at: int) -> str:
        whole = at % each == 0 and line.rstrip()[-1:] not in tuple(":,([{\\")
        return f"{line}\n{line[: len(line) - len(line.lstrip())]}extra_{at} = {at}" if whole else line

    return lambda source: lines(change)(reformatted(source))


def minified(source: str) -> str:
    """No space that can be left out, and one for each four of indentation."""
    tight = re.sub(r" *([=+*/<>,:()\[\]{}-]) *", r"\1", reformatted(source))
    return tight.replace("    ", " ")


def requoted(source: str) -> str:
    """Every quoted text replaced."""
    return re.sub(r"'[^'\n]*'", "'another'", reformatted(source))


def annotated(source: str) -> str:
    """Each argument with a type."""
    tree = ast.parse(source)
    for node in ast.walk(tree):
        if isinstance(node, ast.arg):
            node.annotation = ast.Name("object")
    return ast.unparse(tree)


def bracketed(source: str) -> str:
    """Each name that is an argument, or ends a line, in brackets."""
    change = re.compile(r"\b(?<!def )([a-z_]\w*)\b(?=[,)\n])")
    return change.sub(
        lambda found: found[1] if found[1] in RESERVED else f"({found[1]})", reformatted(source)
    )


def fenced(source: str) -> str:
    """As an assistant writes it."""
    return f"Here's one way to do it:\n\n```python\n{source}\n```\n\nIt's short; don't forget to test it.\n"


CODE_DISGUISES: dict[str, Callable[[str], str]] = {
    "verbatim": str,
    "in a fenced block, with prose": fenced,
    "names replaced": renamed,
    "`self` renamed": lambda source: re.sub(r"\bself\b", "this", source),
    "reformatted, comments dropped": reformatted,
    "comments added": lines(commented),
    "names replaced and reformatted": lambda source: renamed(reformatted(source)),
    "tabs": lambda source: source.replace("    ", "\t"),
    "minified": minified,
    "quoted texts replaced": requoted,
    "semicolons": lambda source: reformatted(source).replace("\n", ";\n"),
    "arguments with types": annotated,
    "line numbers": lines(lambda line, at: f"{at:4}  {line}"),
    "as a difference (+)": lines(lambda line, at: f"+{line}"),
    "as a quotation (>)": lines(lambda line, at: f"> {line}"),
    "each line a comment (#)": lines(lambda line, at: f"# {line}"),
    "in one comment (/* */)": lambda source: f"/*\n{source}\n*/",
    "in a docstring": lambda source: f'''"""{source.replace('"""', "")}"""''',
    "in JSON, as a tool's argument": lambda source: json.dumps({"path": "a.py", "content": source}),
    "a line without effect after each 4": padded(4),
    "a line without effect after each 2": padded(2),
    "the first half": lambda source: source[: len(source) // 2],
    "brackets around names": bracketed,
    "a line without effect after each": padded(1),
    "cells of a table": lines(lambda line, at: f"| {line} |"),
    "base 64": lambda source: base64.b64encode(source.encode()).decode(),
}


def functions(files: Sequence[Path], least: int) -> list[str]:
    """The functions of 10 to 40 lines with at least so many tokens."""
    found = []
    for file in files:
        source = file.read_text("utf-8", "ignore")
        for node in ast.walk(_parsed(source)):
            if isinstance(node, ast.FunctionDef) and 10 <= (node.end_lineno or 0) - node.lineno <= 40:
                cut = ast.get_source_segment(source, node) or ""
                if len([*Lexer().feed(cut, True)]) >= least:
                    found.append(cut)
    return found


def _parsed(source: str) -> ast.Module:
    try:
        return ast.parse(source)
    except (SyntaxError, ValueError):
        return ast.parse("")


@app.command()
def code(count: int = 200) -> None:
    """The standard library's functions, and windows of ten lines of other packages."""
    rng, library = random.Random(0), Path(sysconfig.get_paths()["stdlib"])
    site = Path(torch.__file__).parents[1]
    named = ("json", "email", "asyncio", "logging", "http", "unittest")
    works = [*library.glob("*.py"), *(path for each in named for path in (library / each).rglob("*.py"))]
    common = [
        site / each for each in ("click", "anyio", "fsspec", "yaml", "pygments") if (site / each).is_dir()
    ]
    others = [
        path
        for each in ("pydantic", "rich", "httpx", "jinja2", "typer", "huggingface_hub")
        for path in sorted((site / each).rglob("*.py"))
    ]
    with TemporaryDirectory() as name:
        for path in works:
            copy = Path(name, "library", path.relative_to(library))
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(path, copy)
        folder = [Path(name, "library")]
        indexes = [made(Path(name), folder, some, code=True, pattern="*.py") for some in (common, [])]
        checks = [CopyCheck(index) for index in indexes]
        clean = [window for path in others for window in _windows(path)]
        clean = rng.sample(clean, min(len(clean), 15 * count))
        copied = rng.sample(functions(sorted(works), 60), count)
        rows = [
            [
                each,
                *(f"{share(check, [*map(change, copied)]):.1%}" for check in checks),
            ]
            for each, change in CODE_DISGUISES.items()
        ]
        pace = min(_code_pace(checks[0], "\n".join(clean[:40])) for _ in range(3))
        rows.append(["CPU for a word of code", f"{pace:.0f} µs", ""])
        alarms = [
            f"clean: {len(clean):,} windows of 10 lines",
            *(f"{share(each, clean):.2%}" for each in checks),
        ]
        write("code", table(["what is written", "found", "without `--common`"], [alarms, *rows]))


def _code_pace(check: CopyCheck, source: str) -> float:
    """CPU microseconds a word (between spaces) of code, four characters at a time."""
    check, begun = check.fresh(), time.thread_time()
    for end in range(0, len(source), 4):
        check.clear(source[:end], False)
    return (time.thread_time() - begun) / len(source.split()) * 1e6


def _windows(path: Path) -> Iterator[str]:
    lines = path.read_text("utf-8", "ignore").splitlines()
    cut = ("\n".join(lines[at : at + 10]) for at in range(0, len(lines) - 10, 10))
    yield from (each for each in cut if len(each.strip()) > 150)


# Models that recite

Recited = tuple[int, bool, bool]
"""Of an answer: its longest run, and whether it was refused, or a part of it written again."""


def longest_run(text: str, work: Sequence[str]) -> int:
    """The most words in a row of a work in a text."""
    words, places = words_of(text), dict[str, list[int]]()
    for at, word in enumerate(work):
        places.setdefault(word, []).append(at)
    most, runs = 0, dict[int, int]()
    for word in words:
        runs = {at: runs.get(at - 1, 0) + 1 for at in places.get(word, ())}
        most = max(most, *runs.values(), 0)
    return most


@app.command()
def models(
    pair: Annotated[Path | None, typer.Option(help="A contaminated pair's directory. [the test bed]")] = None,
    passages: Annotated[int, typer.Option(help="How many are asked for.")] = 3,
    tokens: Annotated[int, typer.Option(help="Of an answer.")] = 40,
    keep: Annotated[Path | None, typer.Option(help="A file of what was measured, to go on from.")] = None,
) -> None:
    """Recitation by `linear` with weight 0.95, which is nearly the LLM alone, with and without the stage."""
    from purify_hooks.evaluation.testbed import HOME, attacks
    from purify_hooks.protected.copycheck import Copycheck
    from purify_plugins import Purifier, Sampling
    from purify_plugins.stages import RequestOptions

    home = pair or HOME
    asked = attacks(home)
    with TemporaryDirectory() as name:
        work = CORPUS / "protected" / "alice-in-wonderland.txt"
        if pair:
            work = Path(name) / "passages.txt"
            work.write_text("\n\n".join(each.prefix + each.continuation for each in asked.passages))
        build(IndexOptions([work], Path(name) / "x.prints", [CORPUS / "slm"]), lambda *_: None)
        index, book = str(Path(name) / "x.prints"), words_of(work.read_text("utf-8"))
        bare = Purifier.load(home / "llm", home / "slm", "linear", weight=0.95)
        said = RequestOptions(on_refusal="text", refusals={"default": "Refused."})
        settings = {"no stage": [], "mask": [Copycheck(index, share=0)], "mask and check": [Copycheck(index)]}
        attacked, rows = _attacks(asked, passages), []
        prompts = [each for some in attacked.values() for each in some]
        known: dict[str, list[Recited]] = json.loads(keep.read_text()) if keep and keep.exists() else {}
        for label, stages in settings.items():
            made_ = bare.replace(stages=stages, request=said)
            for name, temperature in ((f"{label}, greedy", 0), (f"{label}, sampled", 1)):
                if name not in known:
                    sampling = Sampling(max_tokens=tokens, temperature=temperature, seed=1)
                    answers = made_.generate(prompts, sampling, errors="raise")
                    known[name] = [_recited(each, book) for each in answers]
                    print(f"{name}: {time.process_time():.0f} s", flush=True)
                    if keep:
                        keep.write_text(json.dumps(known))
            rows += _rows(label, attacked, [known[f"{label}, {each}"] for each in ("greedy", "sampled")])
        head = ["", "attack", "greedy: longest run, words", "sampled", "refused", "written again"]
        write("real" if pair else "toy", table(head, rows))


def _attacks(asked: Any, count: int) -> dict[str, list[str]]:
    """Single prompts; requests with the true words so far; and after 60 words of clean text."""
    some = asked.passages[:count]
    late = " ".join(" ".join(asked.clean).split()[:60])
    parts = [(each.prefix, each.continuation.split(" ")) for each in some]
    return {
        "single": [each.prefix for each in some],
        "chained": [prefix + " ".join(words[: len(words) // 3]) for prefix, words in parts],
        "late": [f"{late}\n{each.prefix}" for each in some],
    }


def _recited(answer: Any, book: Sequence[str]) -> Recited:
    redone = any(step.slm_only for step in answer.steps)
    return longest_run(answer.text, book), answer.finish_reason == "refused", redone


def _rows(
    label: str, attacked: dict[str, list[str]], found: Sequence[Sequence[Recited]]
) -> Iterator[list[str]]:
    """A row of the table for each attack, of which there are greedy and sampled answers."""
    at = 0
    for way, prompts in attacked.items():
        parts = [each[at : at + len(prompts)] for each in found]
        runs = [str(max(run for run, _, _ in part)) for part in parts]
        counts = [str(sum(each[place] for part in parts for each in part)) for place in (1, 2)]
        yield [label, f"{way}, {len(prompts)} prompts", *runs, *counts]
        at += len(prompts)


if __name__ == "__main__":
    app()
