"""Build a takedown list, add works to it and remove them; each is whole or not there."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from purify_hooks.ngram.build import (
    BuildOptions,
    Built,
    build,
    new_directory,
    put_back,
    read_tokenizer,
    save_tokenizer,
    texts_of,
    tokens_of,
    write_tables,
)
from purify_hooks.takedown.works import NEUTRAL, WORKS, find
from purify_plugins.errors import ConfigError, UnknownNameError
from purify_plugins.utils.locks import alone_in

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from purify_hooks.ngram.corpus import Document
    from purify_hooks.ngram.storage import Text
    from purify_hooks.progress import Progress

ORDER, COMMON = 8, 4
"""The longest n-grams of the works, which tell a recital from a style, and of common text."""


@dataclass(frozen=True)
class ListOptions:
    """A takedown list to build: `works` and `neutral` are files and directories."""

    works: Sequence[Path]
    neutral: Sequence[Path]
    tokenizer: str
    out: Path
    pattern: str = "*"
    force: bool = False

    def check(self) -> None:
        """Raise ConfigError for a place that cannot be written, before anything is read."""
        known = all((self.out / name).is_dir() for name in (WORKS, NEUTRAL))
        if self.out.exists() and not (self.force and known):
            advice = "replace it with --force, or change it by `purify takedown add`"
            raise ConfigError(
                f"there is {str(self.out)!r} already; {advice if known else 'name another directory'}"
            )
        if not self.out.absolute().parent.is_dir():
            raise ConfigError(f"there is no directory for {str(self.out)!r}; create it first")


def build_list(options: ListOptions, stage: Progress) -> tuple[Built, Built]:
    """Build both models of n-grams; what was built of the works and of common text. Raises PurifyError."""
    options.check()
    with alone(options.out), _new(options) as folder:
        works, common = (
            build(BuildOptions(places, options.tokenizer, folder / name, order, options.pattern), stage)
            for name, places, order in (
                (WORKS, options.works, ORDER),
                (NEUTRAL, options.neutral, COMMON),
            )
        )
    return works, common


def _new(options: ListOptions) -> AbstractContextManager[Path]:
    options.check()  # again: another command may have built it while this one waited
    return new_directory(options.out)


def add(place: Path, works: Sequence[Path], stage: Progress, pattern: str = "*") -> Built:
    """Add works to a list. Raises ConfigError for a name that is there already."""
    from purify_hooks.ngram.corpus import read_corpus

    documents = read_corpus(works, pattern)
    with alone(find(place)) as folder:
        return _added(folder, documents, stage)


def _added(folder: Path, documents: Sequence[Document], stage: Progress) -> Built:
    tokenizer, _, _ = read_tokenizer(str(folder / WORKS))
    texts, ids = contents(folder)
    known = {text.name for text in texts}
    if twice := next((each.name for each in documents if each.name in known), None):
        raise ConfigError(f"the list has a work {twice!r} already; remove that first, or rename the file")
    new = tokens_of(tokenizer, documents, stage)
    return _rewritten(folder, [*texts, *texts_of(documents, new)], [*ids, *new], stage)


def remove(place: Path, names: Sequence[str], stage: Progress) -> Built:
    """Remove works from a list, by name. Raises UnknownNameError, ConfigError for the last one."""
    with alone(find(place)) as folder:
        return _removed(folder, names, stage)


def _removed(folder: Path, names: Sequence[str], stage: Progress) -> Built:
    texts, ids = contents(folder)
    known = [text.name for text in texts]
    for name in names:
        if name not in known:
            raise UnknownNameError("work of the list", name, known)
    left = [at for at, text in enumerate(texts) if text.name not in names]
    if not left:
        raise ConfigError("no work would be left; delete the directory and its line in [llm] instead")
    return _rewritten(folder, [texts[at] for at in left], [ids[at] for at in left], stage)


@contextmanager
def alone(place: Path) -> Iterator[Path]:
    """Wait until no other command changes a list of the same directory, and remove what ended ones left.

    A command that was killed leaves a hidden directory beside the list, with the works in it.
    """
    parent = place.absolute().parent
    # Windows has no such lock: there two commands at once may lose one's change, but nothing stays half done.
    with alone_in(parent):
        put_back(place)
        left = re.compile(rf"\.{re.escape(place.name)}\.[a-z0-9_]{{8}}(\.old)?")
        for each in parent.iterdir():
            if (
                left.fullmatch(each.name)
                and each.is_dir()
                and {file.name for file in each.iterdir()} <= {WORKS, NEUTRAL}
            ):
                shutil.rmtree(each)
        yield place


def contents(folder: Path) -> tuple[list[Text], list[NDArray[Any]]]:
    """The works of a list, and the token ids (n,) of each."""
    from purify_hooks.ngram.storage import documents, load

    model, record = load(folder / WORKS)
    return list(record.texts), documents(model, record)


def _rewritten(folder: Path, texts: Sequence[Text], ids: Sequence[NDArray[Any]], stage: Progress) -> Built:
    """Count the works anew, sorted by name, and put the new model in the old one's place."""
    tokenizer, vocabulary, ends = read_tokenizer(str(folder / WORKS))
    order = sorted(range(len(texts)), key=lambda at: texts[at].name)
    with new_directory(folder) as made:
        shutil.copytree(folder / NEUTRAL, made / NEUTRAL)
        (made / WORKS).mkdir()
        save_tokenizer(tokenizer, made / WORKS, ends, vocabulary)
        known = tokenizer, vocabulary
        return write_tables(
            ORDER, known, [texts[at] for at in order], [ids[at] for at in order], made / WORKS, stage
        )
