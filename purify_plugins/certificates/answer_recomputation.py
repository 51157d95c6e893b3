"""Recompute the figures of one decode with the models that its certificate names."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from purify_plugins.certificates.answer_checks import policy_of, sampling_of
from purify_plugins.certificates.figures import text_facts, tokens_of
from purify_plugins.certificates.pinning import WEIGHTS, hashed
from purify_plugins.decode.draw_record import CUT
from purify_plugins.errors import CertificateError, ForgedError, MismatchError, OtherModelError, PromptError
from purify_plugins.types import Certificate

if TYPE_CHECKING:
    from purify_plugins.decode.decoder import Decoder
    from purify_plugins.plugin.manager import Plugins
    from purify_plugins.protocols import Constraint, LogitSource
    from purify_plugins.sampling import Sampling
    from purify_plugins.types import Piece, Prompt, Token, Vocabulary

NOTES = ("name", "engine", "trusted", "card", "signature")
"""Fields of a model that its files do not determine: the operator's name for it, its engine, who vouches."""
JUDGED = ("slm", "fused", "kl", "peak", "revealed", "hidden")


def require_slm(body: Mapping[str, Any], slm: LogitSource) -> LogitSource:
    """The SLM, read as it was for this answer. Raises OtherModelError, ForgedError, CertificateError.

    The recorded tokens must spell the answer and end it for the recorded reason.
    """
    from purify_plugins.tokenizers.cross.source import as_recorded

    slm = as_recorded(slm, body["models"]["slm"])
    _same_model(body, "slm", slm)
    _check_ids(body, [row[0] for row in body["steps"]], slm.vocabulary)
    _check_text(body["answer"], tokens_of(body["steps"]), sampling_of(body), slm.vocabulary)
    return slm


def replayed(
    body: Mapping[str, Any], slm: LogitSource, tolerance: float, constraints: Sequence[Constraint]
) -> float:
    """Replay the benign model (`require_slm`); the largest difference (nats). Raises ForgedError."""
    from purify_plugins.decode.replay import score

    sampling, steps = sampling_of(body), tokens_of(body["steps"])
    try:
        logprobs = score(slm, tuple(body["prompt"]), [step.id for step in steps], sampling, constraints)
    except PromptError as error:
        raise ForgedError(f"the SLM cannot read the recorded prompt: {error}") from error
    recorded = (step.slm for step in steps)
    return _within(tolerance, sampling, _gaps(logprobs, recorded), "the SLM gives other probabilities")


def replayed_with_both(
    body: Mapping[str, Any],
    decoder: Decoder,
    tolerance: float,
    shown: Prompt | None = None,
) -> float:
    """Replay both models and the policy; the largest difference (nats) of any figure. Raises ForgedError.

    `shown` is what the LLM read instead of the recorded prompt.
    """
    from purify_plugins.decode.replay import replay
    from purify_plugins.decode.row import Row

    sampling = sampling_of(body)
    answer = [row[0] for row in body["steps"]]
    [steps] = replay(decoder, [Row(tuple(body["prompt"]), shown)], [answer], sampling)
    recorded = tokens_of(body["steps"])
    slm_only = [step.slm_only for step in recorded]
    if [step.slm_only for step in steps] != slm_only:
        _require_no_failure(slm_only)
        raise ForgedError("other tokens were the SLM's own than is recorded")
    gaps = (
        gap for name in JUDGED for gap in _gaps(*([getattr(x, name) for x in xs] for xs in (steps, recorded)))
    )
    return _within(tolerance, sampling, gaps, "the two models give other figures")


def decoder_of(
    body: Mapping[str, Any],
    llm: LogitSource,
    slm: LogitSource,
    plugins: Plugins,
    constraints: Sequence[Constraint],
) -> Decoder:
    """The decoder that drew an answer. Raises OtherModelError, CertificateError, UncheckableError."""
    from purify_plugins.decode.decoder import Decoder

    if any("alphabet" in body["models"][side] for side in ("llm", "slm")):
        raise CertificateError("two tokenizers met in this answer; its LLM's figures are not recomputed")
    _same_model(body, "llm", llm)
    policy, alone = policy_of(body, plugins).bind(slm.vocabulary), not body["method"].get("llm_asked", True)
    return Decoder(llm, slm, policy, alone=alone, constraints=tuple(constraints))


def _require_no_failure(alone: Sequence[bool]) -> None:
    """Raise CertificateError where the last tokens are the SLM's alone, as after a failure of the LLM."""
    failed = len(alone)
    while failed and alone[failed - 1]:
        failed -= 1
    if failed < len(alone):
        raise CertificateError(
            f"from token {failed} on the SLM is said to have gone on alone; that an LLM failed cannot be "
            "shown again, so only a signature covers what follows"
        )


def _gaps(found: Iterable[float], recorded: Iterable[float]) -> list[float]:
    return [0.0 if a == b else abs(a - b) for a, b in zip(found, recorded, strict=True)]


def _within(tolerance: float, sampling: Sampling, gaps: Iterable[float], who: str) -> float:
    """The largest gap. Raises ForgedError for one beyond rounding errors at this temperature."""
    largest = max(gaps, default=0.0)
    if not largest <= tolerance * max(1.0, 1.0 / (sampling.temperature or 1.0)):
        raise ForgedError(f"{who} than recorded: off by {largest:.3g} nats")
    return largest


def require_like(certificate: Certificate, side: str, place: Path) -> None:
    """Raise OtherModelError for a directory whose settings or tokenizer are not the named model's.

    Nothing is loaded, and no weights are read, such as a GGUF file; `recompute` compares those.
    """
    recorded = certificate.decoded["models"].get(side, {})
    files = recorded.get("files", {})
    small = {name: each for name, each in files.items() if not name.endswith(WEIGHTS)}
    if hashed(place, small, weights=False) != small:
        raise _other(recorded, side)


def _other(recorded: Mapping[str, Any], side: str) -> OtherModelError:
    return OtherModelError(
        f"this is not the {side.upper()} the certificate names: the files' digests differ from those of "
        f"{recorded.get('name')!r}; give that model's directory"
    )


def _same_model(body: Mapping[str, Any], side: str, source: LogitSource) -> None:
    """Raise OtherModelError unless `source` is the model that a certificate names on this side."""
    recorded, found = body["models"][side], source.identity()
    if recorded.get("files", {}) != found.get("files", {}):
        raise _other(recorded, side)
    if body["vocabulary"] != source.vocabulary.fingerprint:
        raise OtherModelError(
            "the answer was written in an alphabet the two models shared, not the SLM's own, and cannot be "
            "recomputed"
        )
    notes = NOTES if recorded.get("files") else NOTES[1:]
    facts = ({key: value for key, value in each.items() if key not in notes} for each in (recorded, found))
    for key, (said, is_) in _differing(*facts):
        raise OtherModelError(
            f"this is not the {side.upper()} the certificate names: its {key} is {is_!r}, not {said!r}"
        )


def _differing(
    recorded: Mapping[str, Any], found: Mapping[str, Any]
) -> Iterable[tuple[str, tuple[Any, Any]]]:
    for key in sorted({*recorded, *found}):
        if recorded.get(key) != found.get(key):
            yield key, (recorded.get(key), found.get(key))


def _check_ids(body: Mapping[str, Any], answer: Sequence[int], vocabulary: Vocabulary) -> None:
    ids = [*answer, *body["prompt"]]
    if max(ids, default=0) >= len(vocabulary):
        raise ForgedError(f"the SLM has no token {max(ids)}")


def check_prompt(bodies: Iterable[Mapping[str, Any]], prompt: str, slm: LogitSource) -> None:
    """Raise MismatchError unless one of these answers is to this prompt."""
    from purify_plugins.tokenizers.cross.source import own_tokens

    ways = {prompt, prompt.removesuffix("\n")} - {""}  # a file's last line break is its editor's
    if {tuple(body["prompt"]) for body in bodies}.isdisjoint(own_tokens(slm, each) for each in ways):
        raise MismatchError(
            "the certificate is not for this prompt, as the SLM reads it; give the whole text that was sent "
            "(of a chat, that is its messages as the model's template writes them, with every earlier turn)"
        )


def _check_text(
    recorded: Mapping[str, Any], steps: Sequence[Token], sampling: Sampling, vocabulary: Vocabulary
) -> None:
    """Raise ForgedError unless these tokens spell a text of this digest and end it for this reason."""
    from purify_plugins.decode.detokenizer import Detokenizer

    detokenizer = Detokenizer(vocabulary, sampling.stop)
    pieces: list[Piece] = []
    for step in steps:
        if detokenizer.ended:
            raise ForgedError("its steps go on after its end")
        pieces += detokenizer.feed(step)[1]
    text = "".join(text for _, text in [*pieces, *detokenizer.close()])
    spelled = [text_facts(each) for each in (text, text.removesuffix("\N{REPLACEMENT CHARACTER}"))]
    if recorded["limited_by"] not in CUT:
        del spelled[1:]  # what is cut off may end within a character, which is then no part of the text
    if {key: recorded[key] for key in ("sha256", "bytes")} not in spelled:
        raise ForgedError("its steps do not spell the answer whose digest it has")
    reason = detokenizer.ended or "length"
    if reason != recorded["finish_reason"]:
        raise ForgedError(f"its steps end by {reason!r}, not by {recorded['finish_reason']!r}")
