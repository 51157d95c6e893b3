"""`veiled`: a request in which every private value is a surrogate, and whose answer has the values again."""

from __future__ import annotations

import json
from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from hashlib import sha256
from operator import itemgetter
from typing import TYPE_CHECKING, Self

from purify_hooks.private.finders.finder import Finder, Span
from purify_hooks.private.finders.plain import Plain, plain
from purify_hooks.private.forms import Lookup, folded
from purify_hooks.private.held import HeldText
from purify_hooks.private.parts import joined
from purify_hooks.private.surrogates import AskedTexts, Surrogate, Surrogates
from purify_hooks.private.values import PrivateValue
from purify_hooks.private.vault import SurrogateVault
from purify_plugins.certificates.figures import private_digest
from purify_plugins.errors import ConfigError, RefusedError
from purify_plugins.grammar import Grammar
from purify_plugins.stages.texts import rewritten
from purify_plugins.types import Chat, Prompt

if TYPE_CHECKING:
    from collections.abc import Callable

    from purify_plugins.sampling import Sampling
    from purify_plugins.stages.request import Request

ROUNDS = 8
"""How often spellings are taken out of a text, since what is left may spell another one."""


def veiled(request: Request, finder: Finder, key: bytes, patterns: Mapping[str, str]) -> Request:
    """The request with surrogates in all that is asked; see `Gatekeeper`.

    Raises PromptError for token ids, RefusedError where a value cannot be kept from the LLM's host.
    """
    prompts = [joined(each, finder) for each in (request.prompt, request.shown) if each is not None]
    sampling = request.sampling
    found: dict[str, Sequence[Span]] = {}

    def read(text: str) -> str:
        if text not in found:
            found[text] = finder.find(text)
        return text

    for prompt in prompts:
        rewritten(prompt, read)
    if sampling.grammar:
        in_grammar(sampling.grammar, read)
    for text in (*sampling.stop, *(part for source in request.sources for part in source)):
        read(text)
    values = FoundValues.of(found, patterns)
    pairs = Surrogates(key, AskedTexts([*found], sampling.stop), patterns).pairs(values.values.values())
    if not pairs:
        return request
    veil = Veil(pairs, values.paired(pairs), found)
    asked = request.asking(rewritten(prompts[0], veil.text))
    if request.shown is not None:
        asked = asked.showing(rewritten(prompts[1], veil.text))
    if sampling.stop or sampling.grammar:
        asked = replace(asked, sampling=veil.sampling(sampling))
    asked = replace(asked, sources=veil.sources(request), cited=veil.cited(request))
    in_json = sampling.grammar is not None and sampling.grammar.kind == "json_schema"
    asked = asked.veiled(SurrogateVault(Lookup(form for pair in pairs for form in pair.restoring()), in_json))
    from purify_hooks.private.unwritten import Unwritten

    denied = dict.fromkeys(each for pair in pairs for each in pair.value.spellings)
    return asked.forbidding(Unwritten(tuple(denied))) if denied else asked


@dataclass(frozen=True, repr=False)
class FoundValues:
    """The values of a request by kind and what spellings share, and which one is meant by what is written."""

    values: dict[tuple[str, str], PrivateValue] = field(default_factory=dict)
    meant: dict[tuple[str, str], tuple[str, str]] = field(default_factory=dict)

    @classmethod
    def of(cls, found: Mapping[str, Iterable[Span]], shaped: Container[str] = ()) -> Self:
        """Of spellings of one value the first counts that is not in capitals.

        Values of kinds `shaped` are no names.
        """
        values = cls()
        for text, spans in found.items():
            for start, end, kind in spans:
                if (text[start:end], kind) not in values.meant:
                    values.add(text[start:end], PrivateValue.of(text[start:end], kind, shaped))
        return values

    def add(self, written: str, value: PrivateValue) -> None:
        self.meant[written, value.kind] = key = value.kind, value.normal
        known = self.values.setdefault(key, value)
        if known.text.isupper() and not value.text.isupper():
            self.values[key] = value

    def paired(self, pairs: Iterable[Surrogate]) -> Mapping[tuple[str, str], Surrogate]:
        """The surrogates, which are in the order of the values, by what is written and its kind."""
        known = dict(zip(self.values, pairs, strict=True))
        return {written: known[key] for written, key in self.meant.items()}


@dataclass(frozen=True, repr=False)
class Veil:
    """Puts surrogates in texts, of which `found` are the private spans.

    `written` are the pairs by what is written and its kind.
    """

    pairs: Sequence[Surrogate]
    written: Mapping[tuple[str, str], Surrogate]
    found: Mapping[str, Sequence[Span]]
    _texts: dict[str, str] = field(default_factory=dict)

    @cached_property
    def lookup(self) -> Lookup:
        return Lookup(form for pair in self.pairs for form in pair.veiling())

    @cached_property
    def _spellings(self) -> Sequence[tuple[str, str]]:
        """Spellings that are no part of other words, the longest first, and what stands for each."""
        found = {folded(each): pair.surrogate for pair in self.pairs for each in pair.value.spellings}
        return sorted(found.items(), key=lambda each: -len(each[0]))

    def text(self, text: str) -> str:
        """The text with surrogates: of what was found in it, and of what was found in another text too."""
        left = self._left if text in self.found else self._spellings
        return self._without(self._veiled(text), left) if left else self._veiled(text)

    def _veiled(self, text: str) -> str:
        """The text with surrogates for what stands there by itself."""
        if text not in self._texts:
            self._texts[text] = self._written(text)
        return self._texts[text]

    def _written(self, text: str) -> str:
        parts, at = [], 0
        for start, end, kind in self.found.get(text, ()):
            parts.append(self._known(text, at, start))
            parts.append(self._found(text[start:end], kind))
            at = end
        parts.append(self._known(text, at, len(text)))
        return "".join(parts)

    @cached_property
    def _left(self) -> Sequence[tuple[str, str]]:
        """The spellings that still stand in a veiled text."""
        whole = HeldText(folded("\n".join(plain(self._veiled(text)) for text in self.found)))
        return [each for each in self._spellings if whole.holds(each[0])]

    def _found(self, written: str, kind: str) -> str:
        spelled = plain(written)
        pair = self.written[written, kind]
        form = next(iter(pair.veiling()))
        core = spelled.strip()
        marks = pair.value.text.removesuffix(form.text) if pair.value.way != "number" else ""
        return spelled.replace(core, marks + form.replacing(core.removeprefix(marks)))

    def _known(self, text: str, start: int, end: int) -> str:
        parts, at = [], start
        for match in self.lookup.find(text, start, end):
            parts += [text[at : match.start], match.form.replacing(text[match.start : match.end])]
            at = match.end
        return "".join((*parts, text[at:end]))

    @cached_property
    def _surrogates(self) -> HeldText:
        return HeldText(folded("\n".join(pair.surrogate for pair in self.pairs)))

    def _standing(self, low: str, spelling: str, surrogate: str) -> Iterator[tuple[int, int, str]]:
        """Where a spelling stands in a folded text outside of surrogates, and what is to stand there."""
        around = self._surrogates.text.split("\n") if self._surrogates.holds(spelling) else ()
        around = [each for each in around if spelling in each]
        at = low.find(spelling)
        while at >= 0:
            end = at + len(spelling)
            if not any(low.find(each, max(0, end - len(each)), at + len(each)) >= 0 for each in around):
                yield at, end, surrogate
            at = low.find(spelling, end)

    def _without(self, text: str, spellings: Sequence[tuple[str, str]]) -> str:
        """The text without any of the spellings, also inside of words, and however they are escaped.

        Raises RefusedError where surrogates spell one again and again.
        """
        for _ in range(ROUNDS):
            meant = Plain.of(text)
            low = folded(meant.text)
            spans = [span for each in spellings for span in self._standing(low, *each)]
            if not spans:
                return text
            parts, at, done = [], 0, 0
            for start, end, surrogate in sorted(spans, key=itemgetter(0)):
                if start >= at:
                    begins, ends = meant.place(start, end)
                    parts += [text[done:begins], surrogate]
                    at, done = end, max(done, ends)
            text = "".join((*parts, text[done:]))
        raise RefusedError("a private value of the request cannot be taken out of its texts")

    def sources(self, request: Request) -> tuple[tuple[str, str], ...]:
        """The cited texts as the models read them."""
        return tuple((self.text(name), self.text(text)) for name, text in request.sources)

    def cited(self, request: Request) -> tuple[tuple[str, str], ...]:
        """The cited texts as certificates have them: of one with a private value a keyed digest."""
        digests = {
            sha256(text.encode()).hexdigest(): private_digest(text)
            for _, text in request.sources
            if self.text(text) != text
        }
        return tuple((self.text(name), digests.get(digest, digest)) for name, digest in request.cited)

    def sampling(self, sampling: Sampling) -> Sampling:
        """The sampling options with surrogates in the stop strings and the grammar. Raises RefusedError."""
        grammar = sampling.grammar
        if grammar is not None:
            try:
                grammar = in_grammar(grammar, self.text)
            except ConfigError:
                raise RefusedError(
                    "a private value in the request's grammar cannot be replaced there"
                ) from None
        return replace(sampling, stop=tuple(map(self.text, sampling.stop)), grammar=grammar)


def in_grammar(grammar: Grammar, change: Callable[[str], str]) -> Grammar:
    """The grammar with `change` made in each of its texts."""
    if grammar.kind != "json_schema":
        return replace(grammar, text=change(grammar.text))
    [changed] = _chat(rewritten(Chat((), ({"schema": json.loads(grammar.text)},)), change)).tools
    return grammar.json_schema(changed["schema"])


def _chat(prompt: Prompt) -> Chat:
    assert isinstance(prompt, Chat)  # as it was
    return prompt
