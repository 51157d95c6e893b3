"""What a chat template writes into a prompt, which says nothing of how well a model knows the text."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import takewhile
from typing import TYPE_CHECKING, NamedTuple

from purify_plugins.types import ScoredPrompt

if TYPE_CHECKING:
    from purify_plugins.types import Vocabulary

ROLES = frozenset(
    b"assistant developer environment function ipython model observation system tool user".split()
)
"""The names of roles that templates write after a control token."""


class SaidPrompt(NamedTuple):
    """A prompt without the scores of what its template wrote.

    The last `turn` of its scored tokens, or symbols, come after that: of a chat that ends where an answer is
    to begin there are none.
    """

    prompt: ScoredPrompt
    turn: int


def without_template(prompt: ScoredPrompt, vocabulary: Vocabulary) -> SaidPrompt:
    """A prompt without its template's words: control tokens, and a role's name after one.

    Templates are left out where models learn from chats, so a model may find its own role's name next to
    impossible; beside another model's score that would say that it is the worse one, before it has said a
    word. `vocabulary` is of the prompt's ids, or of `spelled`.
    """
    if prompt.spelled:
        pieces = [vocabulary.spell(each) if each else None for each in prompt.spelled]
        theirs = written(pieces)
        spelled = tuple(() if out else each for each, out in zip(prompt.spelled, theirs, strict=True))
        turn = sum(map(len, spelled[len(spelled) - _turn(theirs) :]))
        return SaidPrompt(prompt._replace(spelled=spelled), turn)
    scored = prompt.tokens[len(prompt.tokens) - len(prompt.logprobs) :]
    theirs = written([_piece(token, vocabulary) for token in scored])
    kept = [at for at, out in enumerate(theirs) if not out]
    tokens, logprobs = tuple(scored[at] for at in kept), tuple(prompt.logprobs[at] for at in kept)
    return SaidPrompt(ScoredPrompt(tokens, logprobs), _turn(theirs))


def _piece(token: int, vocabulary: Vocabulary) -> bytes | None:
    """A token's text, None of a control token; no letter of an id that the pair does not share."""
    if token in vocabulary.control or token in vocabulary.eos:
        return None
    return vocabulary.tokens[token] if 0 <= token < len(vocabulary) else b"?"


def _turn(theirs: Sequence[bool]) -> int:
    """How many pieces come after the last that the template wrote."""
    return sum(1 for _ in takewhile(lambda out: not out, reversed(theirs)))


def written(pieces: Sequence[bytes | None]) -> list[bool]:
    """Which pieces of a prompt its template wrote; None is a control token.

    After each control token these are white space and one role's name, in one piece or several. A message
    that itself begins with a role's name, right after a control token, loses that word.
    """
    found: list[bool] = []
    header: bytes | None = None  # what stands between the last control token and here; None: a message
    begun = 0  # pieces of what may become a role's name
    for piece in pieces:
        header = b"" if piece is None else None if header is None else header + piece
        name = None if header is None else header.strip()
        if name is not None and (not name or name in ROLES):
            found[len(found) - begun :] = [True] * (begun + 1)
            begun = 0
            continue
        begun = begun + 1 if name and any(role.startswith(name) for role in ROLES) else 0
        header = header if begun else None
        found.append(False)
    return found
