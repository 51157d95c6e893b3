"""Every error raised on purpose.

PurifyError
├── ConfigError            an option, a prompt or purify.toml is wrong; nothing has run
│   ├── UnknownNameError   an unknown name, with the nearest known one
│   └── PromptError        the prompt is empty, or nothing that the models can read
│       └── TooLongError   it is longer than a model can read
├── PluginError            a plugin is missing, broken, duplicated or offers a taken name
├── ModelError             a model directory is missing, unsafe or not a causal LM
│   └── VocabularyError    the two models cannot be brought into one vocabulary
├── SourceError            a model failed while an answer was being written
│   └── NumericError       a model or a policy returned NaN, +inf or nothing at all
├── RefusedError           a plugin, or the operator's policy, refused this request
├── StoreError             the store of certificates cannot be written or read
│   └── StoreAlteredError  its records are not as they were written
└── CertificateError       a certificate cannot be relied on
    ├── UnreadableError    there is no such file, or it cannot be read
    ├── NoCertificateError what was read is no certificate, or one of another format
    ├── AlteredError       it is not as it was written: its digest or its spelling is another
    ├── ForgedError        its parts contradict each other
    ├── BudgetError        its steps exceed the budget it claims
    ├── OtherModelError    it names another model than the one it is checked with
    ├── MismatchError      it is not about the answer, prompt or settings that the reader knows
    ├── UncheckableError   it cannot be checked here: its policy is in no plugin in use, or a key is missing
    ├── SignatureError     a key that its reader gave has not signed it
    └── ChainError         it is not in the chain of its issuer, or that chain has gaps
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from difflib import get_close_matches
from typing import ClassVar


class PurifyError(Exception):
    """Anything this package refuses on purpose; the message is one sentence of advice.

    The command line ends with `exit_code`.
    """

    exit_code: ClassVar[int] = 1


@contextmanager
def ours(made_of: Callable[[Exception], PurifyError]) -> Iterator[None]:
    """Raise `made_of(error)` in place of an error of foreign code, which is not a PurifyError."""
    try:
        yield
    except PurifyError:
        raise
    except Exception as error:
        raise made_of(error) from error


class ConfigError(PurifyError):
    """An option, a prompt or `purify.toml` is wrong; nothing has run yet."""

    exit_code = 2


class UnknownNameError(ConfigError):
    """An unknown name. The message quotes the nearest known name.

    `what` names the kind in words ("policy"); `known` are the names there are.
    """

    def __init__(self, what: str, name: str, known: Iterable[str]) -> None:
        names = sorted(known)
        near = get_close_matches(name, names, n=1)
        advice = f"did you mean {near[0]!r}?" if near else f"there is {', '.join(map(repr, names))}"
        super().__init__(f"unknown {what} {name!r}; {advice}" if names else f"unknown {what} {name!r}")


class PromptError(ConfigError):
    """The prompt is empty, or nothing that the models can read."""


class TooLongError(PromptError):
    """The prompt has `length` tokens, and a model reads `most` with the answer."""

    def __init__(self, model: str, length: int, most: int) -> None:
        super().__init__(
            f"the prompt has {length} tokens, but {model} reads {most} with the answer; shorten it"
        )
        self.length, self.most = length, most


class PluginError(PurifyError):
    """A plugin is missing, broken, duplicated, or offers a name already taken."""


class ModelError(PurifyError):
    """A model directory is missing, unsafe, or does not hold a causal language model."""


class VocabularyError(ModelError):
    """The two models cannot be brought into one vocabulary, or the request needs one tokenizer."""


class SourceError(PurifyError):
    """A model failed while an answer was being written."""


class NumericError(SourceError):
    """A model or a policy returned NaN, +inf, or a row without a single possible token."""


class RefusedError(PurifyError):
    """A plugin, a stage or the operator's policy refused this request.

    `key` names the operator's text for such a refusal (`[request] refusals`).
    """

    def __init__(self, *message: object, key: str = "default") -> None:
        super().__init__(*message)
        self.key = key


class StoreError(PurifyError):
    """The store of certificates cannot be written or read; by default the answer is refused."""


class StoreAlteredError(StoreError):
    """The records of a store are not as they were written: one was edited, removed or dropped untold."""


DISTRUST = "; do not rely on it, and ask its issuer for the original file"
"""Advice about a certificate that is false or was altered."""


class CertificateError(PurifyError):
    """A certificate cannot be relied on.

    `purify verify` ends with 1: it does not hold; 2: that is not known; 3: it cannot be read.
    """

    advice: ClassVar[str] = ""

    def __str__(self) -> str:
        return super().__str__() + self.advice


class UnreadableError(CertificateError):
    """There is no such file, or it cannot be read."""

    exit_code = 3


class NoCertificateError(CertificateError):
    """The text is no certificate, or one of another format than this version's."""

    exit_code = 3


class AlteredError(CertificateError):
    """A certificate is not as it was written: its digest does not match, or it was reformatted."""

    exit_code = 1
    advice = DISTRUST


class ForgedError(CertificateError):
    """A certificate contradicts itself, or the models it names, whatever its digest."""

    exit_code = 1
    advice = DISTRUST


class BudgetError(CertificateError):
    """A certificate's steps exceed the budget that it claims they keep."""

    exit_code = 1
    advice = DISTRUST


class OtherModelError(CertificateError):
    """A certificate names another model than the one it was checked with."""

    exit_code = 1


class MismatchError(CertificateError):
    """A certificate is sound, but not about the answer, prompt or settings that its reader knows."""

    exit_code = 1


class UncheckableError(CertificateError):
    """A certificate cannot be checked here: no plugin in use offers its policy, or it has no date."""

    exit_code = 2


class SignatureError(CertificateError):
    """A certificate has no valid signature of a key that its reader gave."""

    exit_code = 1
    advice = DISTRUST


class ChainError(CertificateError):
    """A certificate is not in its issuer's chain, or the chain or its roots were altered."""

    exit_code = 1
    advice = DISTRUST
