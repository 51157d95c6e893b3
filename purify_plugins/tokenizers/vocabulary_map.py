"""Two models whose vocabularies differ in ids alone, presented in the SLM's ids."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, NamedTuple

from purify_plugins.errors import PromptError
from purify_plugins.protocols import LogitSource, Session
from purify_plugins.sources.wrapper import SessionWrapper, TranslatedSource, closed_on_error
from purify_plugins.types import Alignment, Fidelity, Prompt, ScoredPrompt, Vocabulary

if TYPE_CHECKING:
    import torch
    from torch import Tensor


Name = tuple[str | bytes, int]
"""A token's identity across vocabularies: its control name or its bytes, and its rank among equal ones."""


def align(
    llm: LogitSource, slm: LogitSource, alignment: Alignment = "auto", fidelity: Fidelity = "default"
) -> tuple[LogitSource, LogitSource]:
    """Both models in one vocabulary: the SLM's ids, control tokens and ends, without what the LLM lacks.

    Either model may lack only added and control tokens of the other; their mass is left out of its rows.
    The LLM's end tokens are mapped to the SLM's. If ordinary tokens differ, or `alignment` is not "auto",
    both are presented in symbols that they share (`purify_plugins.tokenizers.cross`). With "top_k_union" the
    SLM's rows are approximated in the LLM's vocabulary. Raises VocabularyError when they share too few.
    """
    theirs, ours = llm.vocabulary, slm.vocabulary
    same = theirs.fingerprint == ours.fingerprint
    if same and (alignment in ("auto", "top_k_union") or (llm.symbolic and slm.symbolic)):
        return llm, slm  # a pair in symbols is aligned already: it is one that was, with its models wrapped
    if alignment == "top_k_union":
        from purify_plugins.tokenizers.cross.choose import by_first_token

        return llm, by_first_token(llm, slm)
    found = _counterparts(theirs, ours)
    if alignment != "auto" or not _one_language(theirs, ours, found):
        from purify_plugins.tokenizers.cross.choose import in_shared_symbols

        return in_shared_symbols(llm, slm, alignment, fidelity)
    kept = tuple(index for index, own in enumerate(found) if own >= 0 or index in ours.eos)
    shared = ours if len(kept) == len(ours) else _restrict(ours, kept)
    columns = tuple(found[index] for index in kept)
    remapped = RemappedSource(llm, shared, columns, _merge_ends(theirs, shared, columns))
    return remapped, slm if shared is ours else RemappedSource(slm, shared, kept)


def _counterparts(theirs: Vocabulary, ours: Vocabulary) -> list[int]:
    """For each of the SLM's ids, the LLM's of the same name; -1 where there is none."""
    known = {name: index for index, name in _names(theirs)}
    found = [-1] * len(ours)
    for index, name in _names(ours):
        found[index] = known.get(name, -1)
    return found


def _names(vocabulary: Vocabulary) -> Iterator[tuple[int, Name]]:
    """Every id and its name; equal tokens are numbered in id order, added ones last."""
    seen: dict[str | bytes, int] = {}
    for index in sorted(range(len(vocabulary)), key=vocabulary.added.__contains__):
        name = vocabulary.control.get(index, vocabulary.tokens[index])
        yield index, (name, seen.get(name, 0))
        seen[name] = seen.get(name, 0) + 1


def _one_language(theirs: Vocabulary, ours: Vocabulary, found: Sequence[int]) -> bool:
    """Whether each vocabulary has every ordinary token of the other."""
    missing = {index for index, own in enumerate(found) if own < 0}
    return not (_ordinary(ours) & missing or _ordinary(theirs) - set(found))


def _ordinary(vocabulary: Vocabulary) -> set[int]:
    """The ordinary tokens: neither added, nor control or end tokens."""
    return set(range(len(vocabulary))) - vocabulary.added - vocabulary.control.keys() - vocabulary.eos


def _restrict(vocabulary: Vocabulary, kept: Sequence[int]) -> Vocabulary:
    """The same vocabulary without the tokens that are not `kept`, renumbered."""
    new = {old: index for index, old in enumerate(kept)}
    return Vocabulary(
        tuple(vocabulary.tokens[old] for old in kept),
        frozenset(new[old] for old in vocabulary.eos),
        {new[old]: name for old, name in vocabulary.control.items() if old in new},
        frozenset(new[old] for old in vocabulary.added if old in new),
        vocabulary.name,
    )


def _merge_ends(theirs: Vocabulary, shared: Vocabulary, columns: Sequence[int]) -> dict[int, tuple[int, ...]]:
    """The LLM's end tokens that have no counterpart; their mass is added to the first shared end token."""
    leftover = sorted(theirs.eos - {columns[end] for end in shared.eos})
    if not leftover or not shared.eos:
        return {}
    first = min(shared.eos)
    return {first: tuple(own for own in (columns[first], *leftover) if own >= 0)}


class Tables(NamedTuple):
    """A remapping as tensors.

    `input_ids` (V,) is the own id to read for each shared token, `columns` (V,) the own column of its logit;
    `silent` are the shared tokens without one, `ends` those that sum several columns.
    """

    input_ids: Tensor
    columns: Tensor
    silent: Tensor
    ends: tuple[tuple[int, Tensor], ...]

    def to(self, device: torch.device) -> Tables:
        ends = tuple((index, ids.to(device)) for index, ids in self.ends)
        return Tables(self.input_ids.to(device), self.columns.to(device), self.silent.to(device), ends)


@dataclass(frozen=True, eq=False)
class RemappedSource(TranslatedSource):
    """A source in another vocabulary of the same tokens: a source itself.

    `columns[i]` is the source's own id of shared token `i`; -1: it has none, and the token has no mass. A
    shared token in `ends` gets the summed mass of several own ids, which are not counted elsewhere.
    """

    source: LogitSource
    vocabulary: Vocabulary
    columns: tuple[int, ...]
    ends: Mapping[int, tuple[int, ...]] = field(default_factory=dict)

    def open(self, prompts: Sequence[Prompt], scored: int = 0) -> tuple[Session, Tensor]:
        """Read the prompts, token ids being shared ones; the first token's logits, (rows, V)."""
        session, logits = self.source.open([self._translate(prompt) for prompt in prompts], scored)
        with closed_on_error(session):
            wrapped = RemappedSession(session, self)
            return wrapped, wrapped.gather(logits)

    def encode(self, prompt: Prompt) -> tuple[int, ...]:
        """The prompt in shared ids; -2 - i for an own token i that the models do not share."""
        return self.to_shared(self.source.encode(self._translate(prompt)))

    def to_shared(self, tokens: Sequence[int]) -> tuple[int, ...]:
        """Own ids in shared ones; -2 - i for an own id i that the models do not share."""
        return tuple(self.shared.get(token, -2 - token) for token in tokens)

    def to_own(self, tokens: Sequence[int]) -> tuple[int, ...]:
        return self.source.to_own([self.input_ids[token] for token in tokens])

    def from_own(self, tokens: Sequence[int]) -> tuple[int, ...]:
        return self.to_shared(self.source.from_own(tokens))

    def _translate(self, prompt: Prompt) -> Prompt:
        """A prompt of shared ids in the source's own; text and chats unchanged."""
        if not isinstance(prompt, tuple):
            return prompt
        if unknown_ids := sorted(set(prompt) - set(range(len(self.columns)))):
            raise PromptError(
                f"the prompt holds token {unknown_ids[0]}, which the models do not share; give it as text"
            )
        return tuple(self.input_ids[token] for token in prompt)

    @cached_property
    def input_ids(self) -> tuple[int, ...]:
        """The own id to read for each shared token, (V,): its own end token for an end that it lacks."""
        end = min(self.source.vocabulary.eos, default=0)
        return tuple(own if own >= 0 else end for own in self.columns)

    @cached_property
    def shared(self) -> Mapping[int, int]:
        """Own id -> shared id."""
        return {own: index for index, own in enumerate(self.columns) if own >= 0}

    @cached_property
    def tables(self) -> Tables:
        import torch

        merged = {own for ids in self.ends.values() for own in ids} | {-1}
        silent = [i for i, own in enumerate(self.columns) if own in merged and i not in self.ends]
        return Tables(
            torch.tensor(self.input_ids),
            torch.tensor(self.columns).clamp(min=0),
            torch.tensor(silent, dtype=torch.long),
            tuple((index, torch.tensor(ids)) for index, ids in self.ends.items()),
        )


class RemappedSession(SessionWrapper):
    """An open batch whose ids and rows are remapped."""

    def __init__(self, session: Session, source: RemappedSource) -> None:
        self.session = session
        self._source = source
        self._read = self._gathered = source.tables  # on the device of the tokens, and of the logits

    @property
    def prompts(self) -> Sequence[ScoredPrompt]:
        """Each row's prompt in shared ids; -2 - i for an own token i that the models do not share."""
        to_shared = self._source.to_shared
        return [prompt._replace(tokens=to_shared(prompt.tokens)) for prompt in self.session.prompts]

    def extend(self, tokens: Tensor) -> Tensor:
        """Append (rows, n) shared ids; (rows, n, V) logits of the token after each."""
        return self.gather(self.session.extend(self._own(tokens)))

    def branch(self, tokens: Tensor, seen: Tensor) -> Tensor:
        return self.gather(self.session.branch(self._own(tokens), seen))

    def each(self, tokens: Tensor) -> Iterator[Tensor] | None:
        rows = self.session.each(self._own(tokens))
        return None if rows is None else map(self.gather, rows)

    def _own(self, tokens: Tensor) -> Tensor:
        """The source's own id of each shared one."""
        if tokens.device != self._read.input_ids.device:
            self._read = self._read.to(tokens.device)
        return self._read.input_ids[tokens]

    def gather(self, logits: Tensor) -> Tensor:
        """Logits (..., own tokens) -> (..., V), each at its shared token."""
        if logits.device != self._gathered.input_ids.device:
            self._gathered = self._gathered.to(logits.device)
        _, columns, silent, ends = self._gathered
        rows = logits.index_select(-1, columns).index_fill_(-1, silent, float("-inf"))
        for index, ids in ends:
            rows[..., index] = logits.index_select(-1, ids).float().logsumexp(-1)
        return _with_rest(rows, logits[..., len(self._source.source.vocabulary) :])

    def read_ahead(self, limit: int, live: Collection[int]) -> list[list[int]]:
        """The server's draft in shared ids, up to the first token that the models do not share."""
        shared = [[*self._source.to_shared(draft)] for draft in self.session.read_ahead(limit, live)]
        length = min(next((at for at, token in enumerate(each) if token < 0), len(each)) for each in shared)
        return [draft[:length] for draft in shared]


def _with_rest(rows: Tensor, rest: Tensor) -> Tensor:
    """Rows (..., V) with the last column of partial rows, (..., 0 or 1), appended."""
    import torch

    return torch.cat([rows, rest], dim=-1) if rest.shape[-1] else rows
