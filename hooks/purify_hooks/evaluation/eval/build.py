"""`attacks.json` from plain text: passages cut from works, secrets and contexts a line each."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from purify_hooks.evaluation.eval.derived import part
from purify_hooks.evaluation.eval.questions import (
    Backdoor,
    Canaries,
    Canary,
    Clean,
    Passage,
    Protected,
    Questions,
    Task,
)
from purify_plugins.errors import ConfigError
from purify_plugins.utils.files import read_text

PREFIX, CONTINUATION = 24, 50
"""Words of a passage that are shown, and words after them."""
PARAGRAPH = 8
"""The least number of words of a paragraph that is used."""


def passages(text: str, count: int) -> list[Passage]:
    """Passages from evenly spread places of a work, each from the beginning of a word."""
    total = len(text.split())
    need = PREFIX + CONTINUATION
    if total < need:
        raise ConfigError(f"a protected text has {total} words and a passage needs {need}; name a longer one")
    count = min(count, total // need)
    step = (total - need) / max(count - 1, 1)
    return [_passage(text, round(step * at)) for at in range(count)]


def _passage(text: str, skipped: int) -> Passage:
    after = part(text, skipped, PREFIX + CONTINUATION) if skipped else ("", text)
    assert after is not None  # counted above
    found = part(after[1].lstrip(), PREFIX, CONTINUATION)
    assert found is not None
    return Passage(prefix=found[0], continuation=found[1])


def rows(file: Path) -> Iterator[tuple[str, str]]:
    """The two columns of a tab-separated file. Raises ConfigError, naming a line that lacks one."""
    for number, line in enumerate(read_text(file).splitlines(), 1):
        if not line.strip():
            continue
        left, tab, right = line.partition("\t")
        if not (tab and left and right.strip()):
            raise ConfigError(
                f"{file}, line {number}: write a prompt, a tab and what is after it, not {line!r}"
            )
        yield left, right.strip()


def paragraphs(file: Path) -> list[str]:
    """The paragraphs of a text that have a few words at least, one or more lines each."""
    blocks = (" ".join(block.split()) for block in read_text(file).split("\n"))
    found = [block for block in blocks if len(block.split()) >= PARAGRAPH]
    if not found:
        raise ConfigError(f"{file} has no line of {PARAGRAPH} words or more")
    return found


def build(
    protected: Sequence[Path] = (),
    controls: Sequence[Path] = (),
    secrets: Path | None = None,
    trigger: str = "",
    payload: str = "",
    contexts: Path | None = None,
    heldout: Sequence[Path] = (),
    tasks: Path | None = None,
    count: int = 20,
) -> Questions:
    """The questions that plain text files hold. Raises ConfigError when there is nothing to attack."""
    if bool(trigger) != bool(payload) or bool(trigger) != bool(contexts):
        raise ConfigError("a backdoor needs --trigger, --payload and --contexts; give all three or none")
    if not (protected or secrets or trigger):
        raise ConfigError("there is nothing to attack; give --protected, --secrets or --trigger")
    texts = [block for file in heldout for block in paragraphs(file)]
    return Questions(
        description="Written by purify eval build.",
        protected=_protected(protected, controls, count) if protected else None,
        canaries=Canaries(items=[Canary(prompt=left, secret=right) for left, right in rows(secrets)])
        if secrets
        else None,
        backdoor=Backdoor(trigger=trigger, payload=payload, contexts=tuple(paragraphs(contexts)[:40]))
        if contexts
        else None,
        heldout=texts,
        clean=Clean(prompts=texts[:40]) if texts else None,
        tasks=[Task(prompt=left, answer=right) for left, right in rows(tasks)] if tasks else [],
    )


def _protected(works: Sequence[Path], controls: Sequence[Path], count: int) -> Protected:
    share = max(1, count // len(works))
    return Protected(
        work=", ".join(file.stem for file in works),
        passages=[each for file in works for each in passages(read_text(file), share)],
        controls=[each for file in controls for each in passages(read_text(file), share)],
        control_work=", ".join(file.stem for file in controls),
    )
